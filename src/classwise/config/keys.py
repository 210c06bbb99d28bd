"""Every key that a config can have, by its dotted name, and which of them a wrong one may mean."""

import difflib
import functools
from collections.abc import Iterator
from typing import get_origin

from classwise.config.base import Section, sections_in
from classwise.config.schema import Config


@functools.cache
def dotted_keys() -> tuple[str, ...]:
    """All tables and keys: `training`, `training.epochs`, `targets.NAME.loss.gamma`; those of the items of a list are
    left out, since they have no dotted name."""
    return tuple(dict.fromkeys(_keys_of(Config, "")))


def _keys_of(section: type[Section], prefix: str) -> Iterator[str]:
    for name, info in section.model_fields.items():
        key = prefix + name
        yield key
        if get_origin(info.annotation) is tuple:
            continue
        for inner in sections_in(info.annotation):
            yield from _keys_of(inner, f"{key}.NAME." if key == "targets" else f"{key}.")


def keys_elsewhere(key: str, count: int = 3, within: bool = False) -> list[str]:
    """Keys of other tables, or of its own as well (`within`), whose last part is that of `key`, or else similar to it;
    the most similar ones first."""
    table, _, last = key.rpartition(".")
    others = [
        other
        for other in dotted_keys()
        if "." in other and not other.startswith("targets.") and (within or other.rpartition(".")[0] != table)
    ]
    last_parts = {other.rpartition(".")[2] for other in others}
    wanted = [last] if last in last_parts else difflib.get_close_matches(last, last_parts, n=1, cutoff=0.8)
    found = [other for other in others if other.rpartition(".")[2] in wanted]
    return difflib.get_close_matches(key, found, n=count, cutoff=0.0)


def keys_named(text: str) -> list[str]:
    """The keys with this name, those of the table with this name and, where there are neither, those with it in the
    last part of their name."""
    wanted = text.strip("[]").removeprefix("--").casefold()
    by_text = {key: key.casefold() for key in dotted_keys()}
    named = [
        key
        for key, low in by_text.items()
        if low == wanted or low.endswith(f".{wanted}") or low.startswith(f"{wanted}.")
    ]
    return named or [key for key, low in by_text.items() if wanted in low.rpartition(".")[2]]


def keys_like(text: str, count: int = 5) -> list[str]:
    """The keys whose full name or last part is similar to this, the most similar ones first."""
    by_last: dict[str, str] = {}
    for key in dotted_keys():
        by_last.setdefault(key.rpartition(".")[2], key)
    names = difflib.get_close_matches(text, [*dotted_keys(), *by_last], n=count, cutoff=0.6)
    return list(dict.fromkeys(by_last.get(name, name) for name in names))
