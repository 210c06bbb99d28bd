"""The config explained: a comment behind every key of a file, and the list of all keys."""

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from classwise.config.base import sections_by_name, sections_in
from classwise.config.losses import LOSS_NAMES
from classwise.config.schema import Config, Schedule, Target
from classwise.config.toml import toml_text


def commented_toml(config: Config, notes: dict[str, str] | None = None) -> str:
    """The whole config with a comment behind every key; `notes` (by dotted key) replace the general ones."""
    return toml_text(config.to_dict(), dict(_comments(config, "")) | (notes or {}))


def key_table() -> str:
    """Every key with its default and meaning, table by table."""
    lines: list[str] = []
    for title, model in _sections():
        lines += [title]
        rows = [(name, _default(info), info.description) for name, info in model.model_fields.items()]
        shown = [row for row in rows if row[2]]
        width = max(len(name) for name, _, _ in shown) if shown else 0
        lines += [f"  {name:<{width}}  {text} {default}".rstrip() for name, default, text in shown] + [""]
    return "\n".join(lines).rstrip()


_CHOICES = {
    "loss": LOSS_NAMES,
    "schedule": " | ".join(sections_by_name(Schedule)) + ", each with its own keys",
}
"""The comment behind the name of a table that is one of several."""


def _comments(section: BaseModel, where: str) -> Iterator[tuple[str, str]]:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name == "name" and _literal(type(section)):
            yield f"{where}name", _CHOICES[where.split(".")[-2]]
        if info.description and not (isinstance(section, Target) and not section.has_use_for(name)):
            yield f"{where}{name}", info.description
        if isinstance(value, BaseModel):
            yield from _comments(value, f"{where}{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from _comments(item, f"{where}{name}.{key}.")


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    yield "(top of the file)", Config
    for name, info in Config.model_fields.items():
        for model in sections_in(info.annotation):
            kind = _literal(model)
            title = "[targets.NAME]" if name == "targets" else f"[{name}]"
            default = getattr(info.default, "name", "") == kind
            yield title + (f' name = "{kind}"' + " (the default)" * default if kind else ""), model
            if "augment" in model.model_fields:
                yield from (
                    ("data.augment", part) for part in sections_in(model.model_fields["augment"].annotation)
                )


def _literal(model: type[BaseModel]) -> str:
    """`focal` for the section whose `name` can only be that."""
    info = model.model_fields.get("name")
    options = get_args(info.annotation) if info else ()
    return str(options[0]) if len(options) == 1 and isinstance(options[0], str) else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "(required)"
    if info.default is None:
        return ""
    return f"(default: {info.default})" if not isinstance(info.default, BaseModel) else ""
