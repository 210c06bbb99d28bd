"""The config explained: a comment behind every key of a file, and the list of all keys."""

import re
import textwrap
from collections.abc import Collection, Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from classwise.config.base import Section, sections_by_name, sections_in
from classwise.config.losses import LOSS_NAMES, OwnLoss
from classwise.config.schedules import Schedule
from classwise.config.schema import Config
from classwise.config.targets import Target
from classwise.config.toml import toml_text
from classwise.own_parts.reference import FORM

NAME_COMMENTS = {
    "loss": LOSS_NAMES,
    "schedule": " | ".join(sections_by_name(Schedule)) + ", each with its own keys",
}
"""The comment behind `name` in the tables that are one of several sections."""


def commented_toml(config: Config, notes: dict[str, str] | None = None) -> str:
    """The whole config with a comment behind every key; `notes` (by dotted key) replace the general ones."""
    return toml_text(config.to_dict(), dict(_comments(config, "")) | (notes or {}))


def key_table(width: int | None = None, keys: Collection[str] | None = None) -> str:
    """Every key, or those of `keys` (dotted), with its description and default, table by table; lines are wrapped to
    `width` characters, if given."""
    lines: list[str] = []
    for title, section in _sections():
        fields = {
            name: info
            for name, info in section.model_fields.items()
            if info.description and (keys is None or _dotted(title, name) in keys)
        }
        if keys is not None and not fields:
            continue
        column = max(map(len, fields), default=0)
        lines.append(title)
        for name, info in fields.items():
            line = f"  {name:<{column}}  {info.description} {_default(info)}".rstrip()
            lines += _wrapped(line, width, indent=column + 4) if width else [line]
        lines.append("")
    return "\n".join(lines).rstrip()


def _dotted(title: str, name: str) -> str:
    """`training.epochs` for `epochs` below the title of its table."""
    table = re.match(r"\[([\w.]+)\]", title)
    return f"{table[1]}.{name}" if table else name


def _wrapped(line: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        line,
        width=width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _comments(section: BaseModel, where: str) -> Iterator[tuple[str, str]]:
    """(dotted key, comment) of every key of a section, which is at `where` in the file."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name == "name" and _only_name(type(section)) and not isinstance(section, OwnLoss):
            table = where.split(".")[-2]
            yield f"{where}name", NAME_COMMENTS[table]
        elif info.description and (not isinstance(section, Target) or section.applies(name)):
            yield f"{where}{name}", info.description

        # The tables within: a section, or the targets by name.
        if isinstance(value, BaseModel):
            yield from _comments(value, f"{where}{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, BaseModel):
                    yield from _comments(item, f"{where}{name}.{key}.")


def _sections() -> Iterator[tuple[str, type[Section]]]:
    """(title, section) of every table that the file can have."""
    yield "(top of the file)", Config
    for name, info in Config.model_fields.items():
        for section in sections_in(info.annotation):
            title = "[targets.NAME]" if name == "targets" else f"[{name}]"
            only_name = _only_name(section)
            if only_name:
                title += f' name = "{only_name}"'
            if only_name and only_name == getattr(info.default, "name", None):
                title += " (the default)"
            yield title, section
            if "augment" in section.model_fields:
                for augment in sections_in(section.model_fields["augment"].annotation):
                    yield "[data.augment]", augment


def _only_name(section: type[BaseModel]) -> str:
    """`focal` for the section whose `name` can only be that, FILE.py:NAME for that of the user's own losses; empty for
    other sections."""
    if section is OwnLoss:
        return FORM
    info = section.model_fields.get("name")
    options = get_args(info.annotation) if info else ()
    return str(options[0]) if len(options) == 1 and isinstance(options[0], str) else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "(required)"
    if info.default is None or isinstance(info.default, BaseModel):
        return ""
    return f"(default: {_as_in_the_file(info.default)})"


def _as_in_the_file(value: Any) -> Any:
    """Truth values and lists as TOML writes them; text without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    return list(value) if isinstance(value, tuple) else value
