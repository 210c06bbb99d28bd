"""Writing TOML for people to read and edit: short lists on one line, and a comment behind a key."""

from collections.abc import Mapping
from typing import Any

import tomli_w

COMMENT_COLUMN = 44
"""Comments of a table are aligned behind its longest line, but never further to the right than this."""


def toml_text(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """`values` as TOML. `comments` maps dotted keys to the comments behind them.

    A key without a value (None) is written as a comment if it has one itself, so that a reader sees that it exists,
    and is left out otherwise.
    """
    return "\n".join(_table(values, "", "", comments or {})).strip("\n") + "\n"


def _table(values: Mapping[str, Any], title: str, where: str, comments: Mapping[str, str]) -> list[str]:
    """The lines of a table. `title` begins its header, quoted as TOML wants it; `where` begins its dotted keys."""
    # The plain keys, with their comments in one column.
    pairs = [_line(key, values[key], where, comments) for key in _ordered(values)]
    width = min(max((len(code) for code, _ in pairs), default=0), COMMENT_COLUMN)
    lines = [f"{code:<{width}}  # {comment}" if comment else code for code, comment in pairs if code]

    # The tables within; one that only holds tables needs no header.
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = f"{title}{_key(key)}"
            only_tables = bool(value) and all(isinstance(item, Mapping) for item in value.values())
            lines += ["", *([] if only_tables else [f"[{name}]"])]
            lines += _table(value, f"{name}.", f"{where}{key}.", comments)
    return lines


def _ordered(values: Mapping[str, Any]) -> list[str]:
    """The plain keys of a table, with `name` first: it says which of several kinds the table is."""
    keys = [key for key, value in values.items() if not isinstance(value, Mapping)]
    at_top = "seed" in values
    return keys if at_top else sorted(keys, key=lambda key: key != "name")


def _line(key: str, value: Any, where: str, comments: Mapping[str, str]) -> tuple[str, str]:
    """(code, comment) of a plain key; both are empty where the key is left out."""
    # A comment ends with its line: one that quotes a name with a line break must not end earlier.
    comment = "".join(c if c.isprintable() else " " for c in comments.get(f"{where}{key}", ""))
    if value is None:
        return (f"# {_key(key)} =", comment) if comment else ("", "")
    return f"{_key(key)} = {_value(value)}", comment


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
