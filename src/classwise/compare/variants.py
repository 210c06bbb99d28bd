"""The variants of a comparison: their names, their overrides, and their folders' names."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from classwise.errors import ConfigError

Overrides = tuple[tuple[str, str], ...]  # (dotted key, value as text) pairs


@dataclass(frozen=True)
class Variant:
    """One thing to compare: a name, and the overrides that it lays over the config."""

    name: str
    overrides: Overrides


def grid(vary: Sequence[str]) -> list[Variant]:
    """All combinations of `KEY=VALUE,VALUE,...`, the first key slowest; without any, the config as it stands.

    Commas inside `[...]`, `{...}` and quotes do not separate. Raises ConfigError for anything else.
    """
    axes = [_axis(text) for text in vary]
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"--vary {key}: given twice; give all its values at once: {key}=A,B")
    choices = itertools.product(*([(key, value) for value in values] for key, values in axes))
    return [Variant(",".join(f"{k}={v}" for k, v in pairs) or "config", tuple(pairs)) for pairs in choices]


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError where there is no name, one is given twice, or one is not printable text."""
    if not names:
        raise ConfigError("compare: there is no variant; name one or more")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"compare: two variants are named {name!r}")
        if not name.strip() or "\0" in name or name != name.encode("utf-8", "replace").decode():
            raise ConfigError(f"compare: found the variant name {name!r}, must be readable text")


def slug(name: str) -> str:
    """A folder name for the variant `name`, different for different names.

    Where characters are replaced, or where two names may differ in capitals alone (which some file systems do not
    tell apart), a piece of the name's hash follows.
    """
    plain = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", name).strip(".-")[:80]
    reserved = plain.startswith("compare.") or plain == "summary.csv"
    if plain == name and plain == plain.lower() and not reserved:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def _axis(text: str) -> tuple[str, list[str]]:
    """The key and the values of one `--vary`."""
    key, equals, rest = text.partition("=")
    key = key.strip().removeprefix("--")
    if not key or not equals:
        raise ConfigError(
            f"--vary: found {text!r}, must be KEY=VALUE,VALUE such as loss.name=cross_entropy,focal"
        )
    if key in ("seed", "name"):
        raise ConfigError(
            f"--vary {key}: every variant is trained with the same seeds; say how many: --seeds 5"
        )
    values = [part.strip() for part in _split_at_commas(rest)]
    if not all(values):
        raise ConfigError(f'--vary {text!r}: a value is empty; write "" for an empty text')
    if len(set(values)) < len(values):
        raise ConfigError(f"--vary {text!r}: a value is given twice")
    return key, values


def _split_at_commas(text: str) -> list[str]:
    """`text` split at the commas outside of brackets and quotes."""
    parts = [""]
    depth = 0
    quote = ""
    for char in text:
        # Within quotes only the closing quote counts; elsewhere brackets nest.
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            # An apostrophe within a word is no quote: it's.
            quote = char if not parts[-1].strip() or depth else ""
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    if depth or quote:
        raise ConfigError(f"--vary: found {text!r}, where a bracket or quote is not closed")
    return parts
