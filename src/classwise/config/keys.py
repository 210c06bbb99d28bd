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


def keys_like(text: str) -> list[str]:
    """The keys that a user may mean by `text`, a table or a key or a part of its name: all that have it, or else up to
    five whose full name or last part is similar."""
    wanted = text.strip("[]").removeprefix("--").casefold()
    parts = [(key, key.casefold()) for key in dotted_keys()]
    exact = [
        key
        for key, low in parts
        if low == wanted or low.endswith(f".{wanted}") or low.startswith(f"{wanted}.")
    ]
    if exact:
        return exact
    within = [key for key, low in parts if wanted in low.rpartition(".")[2]]
    if within:
        return within
    by_last = {key.rpartition(".")[2]: key for key in reversed(dotted_keys())}
    names = difflib.get_close_matches(text, [*dotted_keys(), *by_last], n=5, cutoff=0.6)
    return list(dict.fromkeys(by_last.get(name, name) for name in names))
