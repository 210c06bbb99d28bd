"""Writing TOML that people like to read: short lists on one line, and a comment behind a key."""

from collections.abc import Mapping
from typing import Any

import tomli_w


def toml_text(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """`values` as TOML. `comments` maps a dotted key to what stands behind it.

    Keys without a value (None) stand as a comment when they have one, so that a reader sees that they exist,
    and are left out otherwise.
    """
    return "\n".join(_table(values, "", "", comments or {})).strip("\n") + "\n"


def _table(values: Mapping[str, Any], title: str, where: str, comments: Mapping[str, str]) -> list[str]:
    """`title` is the table's name as TOML spells it, quotes and all; `where` is the same name plain."""
    lines = [_line(key, values[key], where, comments) for key in _ordered(values)]
    width = min(max((len(line[0]) for line in lines), default=0), 44)
    text = [f"{code:<{width}}  # {comment}" if comment else code for code, comment in lines if code]
    for key, value in values.items():
        if _is_table(value):
            name = f"{title}{_key(key)}"
            inner = _table(value, f"{name}.", f"{where}{key}.", comments)
            only_tables = bool(value) and all(_is_table(item) for item in value.values())
            text += ["", *([] if only_tables else [f"[{name}]"]), *inner]
    return text


def _ordered(values: Mapping[str, Any]) -> list[str]:
    """`name` says which of several kinds a table is, so it comes first."""
    keys = [key for key, value in values.items() if not _is_table(value)]
    return sorted(keys, key=lambda key: key != "name") if "seed" not in values else keys


def _line(key: str, value: Any, where: str, comments: Mapping[str, str]) -> tuple[str, str]:
    # A comment ends with its line, so a note that quotes a strange name must not end it early.
    comment = "".join(c if c.isprintable() else " " for c in comments.get(f"{where}{key}", ""))
    if value is None:
        return (f"# {_key(key)} =", comment) if comment else ("", "")
    return f"{_key(key)} = {_value(value)}", comment


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
