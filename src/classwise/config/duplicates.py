"""Names that may stand in a list once only. Apart from the sections of the config, which take pydantic to import."""

from collections.abc import Iterable


def find_duplicate(names: Iterable[str]) -> str | None:
    """The first name that has been there before; None if all are different."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
