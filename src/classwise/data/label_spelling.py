"""Labels that are probably the same, or none at all: spelled differently, or written as missing values are.

Two labels are alike if they differ only in white space, in case, in their Unicode form (é as one character or as two,
full-width letters) or in how a number is written (1 and 1.0). They stay different classes unless the config unifies
them, since a table may mean it: letters are an example.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from classwise.data.table import is_empty

MISSING = {
    "nan", "na", "n/a", "<na>", "#n/a", "nat", "null", "none", "nil", "-", "--", "?", "missing", "unknown", "undefined",
}  # fmt: skip
"""What programs and people write for a value that they do not have."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_LISTED = 5  # pairs or labels in a warning; more are only counted


def spelling_key(label: str) -> str:
    """The same text for labels that are alike."""
    visible = (c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", "".join("".join(visible).split()).casefold())
    return repr(float(text)) if _NUMBER.fullmatch(text) else text


def unified_labels(counts: Mapping[str, int]) -> set[str]:
    """One label for each set of labels that are alike, of which `counts` has the number of rows: the most frequent
    spelling, without white space around it; of several the first by its characters."""
    by_key: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        by_key.setdefault(spelling_key(label), unicodedata.normalize("NFC", label).strip())
    return set(by_key.values())


def label_counts(cells: Iterable[str | None]) -> Counter[str]:
    """Rows of each label; empty cells are not counted. `cells`: of a table, perhaps still as its column."""
    if isinstance(cells, pl.Series):
        pairs = zip(cells.unique(maintain_order=True).to_list(), cells.unique_counts().to_list(), strict=True)
        return Counter({cell: count for cell, count in pairs if not is_empty(cell)})
    return Counter(cell for cell in cells if cell is not None and not is_empty(cell))


def spelling_warnings(name: str, counts: Mapping[str, int], unified: bool, what: str = "labels") -> list[str]:
    """Warnings, with counts, of labels that are alike unless they are `unified`, and of those that look like a missing
    value. `name`: of the target; `what` they are."""
    by_key: dict[str, list[str]] = {}
    for label in sorted(counts):
        by_key.setdefault(spelling_key(label), []).append(label)
    warnings = []
    alike = [labels for labels in by_key.values() if len(labels) > 1]
    if alike and not unified:
        listed = "; ".join(_with_counts(labels, counts) for labels in alike[:_LISTED])
        warnings.append(
            f"{name}: {what} that differ only in white space, case, Unicode form or the way a number is written:"
            f" {listed}{_more(alike)}; {_advice(what)}"
        )
    missing = [label for key, labels in by_key.items() if key in MISSING for label in labels]
    if missing and what == "labels":
        warnings.append(
            f"{name}: taken as {'a class' if len(missing) == 1 else 'classes'}, though it looks like a missing value:"
            f" {_with_counts(missing[:_LISTED], counts)}{_more(missing)}; leave the cell empty where the"
            " label is unknown"
        )
    return warnings


def _advice(what: str) -> str:
    if what == "labels":
        return "each spelling is a class of its own; data.unify_labels = true makes them one"
    return "each spelling is a group of its own, so rows of one group may be on both sides of the split"


def _with_counts(labels: Sequence[str], counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{label!r} ({counts[label]} row{'' if counts[label] == 1 else 's'})" for label in labels
    )


def _more(found: Sequence[object]) -> str:
    return f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""


def column_warnings(
    name: str, cells: Iterable[str | None], separator: str | None, unified: bool = False
) -> list[str]:
    """`spelling_warnings` of the cells of a target's column, which hold several labels if there is a `separator`."""
    labels = label_counts(cells)
    if separator is not None:
        parts = ((part.strip(), count) for cell, count in labels.items() for part in cell.split(separator))
        labels = Counter()
        for part, count in parts:
            labels[part] += count if part else 0
    return spelling_warnings(name, +labels, unified)
