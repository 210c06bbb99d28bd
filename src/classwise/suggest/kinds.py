"""What one column of labels holds: classes, several labels in a cell, or numbers; decided by its cells."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from classwise.data.table import has_decimal_comma
from classwise.suggest.names import NUMBER_NAMES, normal

MANY_NUMBERS = 10
"""More different whole numbers than these may be a quantity, if the column is named like one."""
MANY_CODES = 200
"""More different whole numbers than these are only codes of classes if they count 0, 1, 2, ..."""
SEPARATORS = {
    "|": "bars", ";": "semicolons", ",": "commas", "+": "plus signs", "&": "ampersands", "/": "slashes", " ": "spaces",
}  # fmt: skip
"""Characters that may stand between the labels of a cell, in the order in which they are tried."""
IN_NAMES = "+&/"
"""Separators that names have, too: there are several cells with several of them, if they stand between labels."""
UNKNOWN_WORDS = ("nan", "null", "na", "n/a", "#n/a", "<na>", "?", "unlabeled", "unlabelled", "not labeled")
"""Cells, in lower case, that programs and people write for an unknown label."""
LABEL_WORDS = ("none", "unknown", "other", "nothing", "no finding", "background")
"""Cells that could mean no label, an unknown one, or a class of their own, as which they are taken."""
MOST_UNKNOWN = 0.2
"""Of the rows that -1 may be unknown in beside 0 and 1: of three sides, it is one."""
TAKEN_FOR_A_CLASS = "taken for a class"


@dataclass(frozen=True)
class Kind:
    """The keys of a target with such a column. decisions: (choice, reason, what to write instead) of what could be
    meant otherwise. is_good: whether every class has several rows, so that a column beside others is likely a target.
    """

    keys: dict[str, Any]
    labels: int = 0
    is_good: bool = True
    decisions: tuple[tuple[str, str, str], ...] = field(default=())

    @property
    def type(self) -> str:
        return str(self.keys.get("type", "class"))


def kind_of(column: str, cells: list[str | None], is_named: bool, is_list: bool = False) -> Kind | str:
    """What a column holds, or why it cannot be a target. `is_named`: its name is that of a label. `is_list`: its cells
    were lists, and have bars between their items. Empty cells are unknown labels."""
    counts = Counter(cell.strip() for cell in cells if cell is not None and cell.strip())
    missing, decisions = _unknown_cells(column, counts)
    known = {label: count for label, count in counts.items() if label not in missing}
    if len(known) < 2:
        return "it holds one value only" if known else "it is empty"
    keys: dict[str, Any] = {"missing": missing} if missing else {}

    numbers = _numbers(known)
    if numbers is not None:
        return _kind_of_numbers(column, known, numbers, is_named, keys, decisions)
    separator, why = ("|", "the cells are lists") if is_list else separator_of(known)
    if separator is not None:
        labels = {part for cell in known for part in _parts(cell, separator)}
        choice = (
            f"{column}: several labels in a cell, separated by {SEPARATORS[separator]} ({len(labels)} labels)"
        )
        alternative = 'type "class" takes each cell for one name'
        return Kind(
            keys | {"type": "multilabel", "separator": separator},
            labels=len(labels),
            decisions=(*map(_of_several, decisions), (choice, why, alternative)),
        )

    # Names: classes if they recur.
    rows = sum(known.values())
    if len(known) == rows:
        return "every value occurs once"
    if len(known) > rows / 2 and not is_named:
        return f"{len(known)} different values in {rows} rows"
    if why:
        decisions = (*decisions, (f"{column}: one name in a cell ({len(known)} classes)", why[0], why[1]))
    return Kind(keys, len(known), is_good=min(known.values()) >= 2, decisions=decisions)


def _kind_of_numbers(
    column: str,
    known: Mapping[str, int],
    numbers: list[float],
    is_named: bool,
    keys: dict[str, Any],
    decisions: tuple[tuple[str, str, str], ...],
) -> Kind | str:
    """Classes with numbers as names, or a quantity."""
    rows, count = sum(known.values()), len(known)
    quantity = {"type": "regression"}
    if not all(number.is_integer() for number in numbers):
        listed = ", ".join(list(known)[:3])
        choice = (
            f"{column}: a number to predict",
            f"it holds numbers with fractions ({listed}{', ...' if count > 3 else ''})",
            'type "class" takes them for names of classes, or `edges` cut it into classes',
        )
        return Kind(keys | quantity, decisions=(*decisions, choice))
    is_quantity = normal(column) in NUMBER_NAMES or any(
        normal(column).endswith(f"_{name}") for name in NUMBER_NAMES
    )
    counts_up = min(numbers) in (0, 1) and max(numbers) - min(numbers) < 1.1 * count + 1
    if is_named and not (is_quantity and count > MANY_NUMBERS) and count < rows:
        if count > min(MANY_CODES, rows / 2) and not counts_up:
            reason = f"it holds {count} different whole numbers in {rows} rows"
            choice = (
                f"{column}: a number to predict",
                reason,
                'type "class" takes them for names of classes',
            )
            return Kind(keys | quantity, decisions=(*decisions, choice))
        reason = f"column {column!r} is named as labels are, and its {count} whole numbers recur"
    elif count > rows / 2:
        choice = (
            f"{column}: a number to predict",
            f"{count} different whole numbers in {rows} rows do not recur as classes do",
            'type "class" takes them for names of classes',
        )
        return Kind(keys | quantity, decisions=(*decisions, choice))
    elif is_quantity and count > MANY_NUMBERS:
        reason = f"it is named as a quantity is, and holds {count} different whole numbers"
        choice = (
            f"{column}: a number to predict",
            reason,
            'type "class", or `edges` that cut it into classes',
        )
        return Kind(keys | quantity, decisions=(*decisions, choice))
    elif count > MANY_CODES and not counts_up:
        choice = (
            f"{column}: a number to predict",
            f"it holds {count} different whole numbers",
            'type "class" takes them for names of classes',
        )
        return Kind(keys | quantity, decisions=(*decisions, choice))
    else:
        reason = f"its {count} whole numbers recur"
    if count > 2:
        choice = (
            f"{column}: {count} classes with numbers as names",
            reason,
            'type "regression" predicts a number',
        )
        decisions = (*decisions, choice)
    return Kind(keys, count, is_good=min(known.values()) >= 2, decisions=decisions)


def _unknown_cells(
    column: str, counts: Mapping[str, int]
) -> tuple[list[str], tuple[tuple[str, str, str], ...]]:
    """The cells that mean an unknown label, and what the user should know of cells that may or may not."""
    decisions = []
    missing = [cell for cell in counts if cell.casefold() in UNKNOWN_WORDS]
    if len(counts) - len(missing) < 2:
        missing = []
    if missing:
        found = listed_counts({cell: counts[cell] for cell in missing})
        reason = "such cells usually mean that the label is unknown"
        decisions.append(
            (f"{column}: {found} taken for unknown", reason, "without `missing` they are a class")
        )

    # -1 is no class where the others count from 0.
    others = _numbers({cell: count for cell, count in counts.items() if cell not in (*missing, "-1", "-1.0")})
    minus = [cell for cell in counts if cell in ("-1", "-1.0")]
    are_codes = others is not None and all(number.is_integer() and number >= 0 for number in others)
    rows, unknown = sum(counts.values()), sum(counts[cell] for cell in minus)
    is_a_side = others is not None and set(others) == {0.0, 1.0} and unknown > MOST_UNKNOWN * rows
    if minus and others and are_codes and (0.0 in others or len(others) > 2) and not is_a_side:
        missing += minus
        reason = "the other labels are whole numbers from 0"
        found = listed_counts({cell: counts[cell] for cell in minus})
        decisions.append((f"{column}: {found} taken for unknown", reason, "without `missing` it is a class"))

    words = {cell: counts[cell] for cell in counts if cell.casefold() in LABEL_WORDS}
    if words:
        alternative = f"missing = [{', '.join(map(_quoted, words))}] makes such labels unknown"
        reason = "its name can be one"
        decisions.append((f"{column}: {listed_counts(words)} {TAKEN_FOR_A_CLASS}", reason, alternative))
    return missing, tuple(decisions)


def _of_several(decision: tuple[str, str, str]) -> tuple[str, str, str]:
    """The decision for a word such as `none` where a cell has several labels: it is one of them, or means none."""
    choice, reason, instead = decision
    if not choice.endswith(TAKEN_FOR_A_CLASS):
        return decision
    makes = instead.replace("missing = ", "none = ").replace(
        "makes such labels unknown", "means none of the labels"
    )
    return choice.replace(TAKEN_FOR_A_CLASS, "taken for a label"), reason, makes


def separator_of(counts: Mapping[str, int]) -> tuple[str | None, Any]:
    """The separator of cells with several labels, and why; or None and, if cells hold one of SEPARATORS though they are
    names, (the reason, what to write instead), else ().

    Labels recur alone and with others; the words of a name do not.
    """
    no_list: Any = ()
    for separator, what in SEPARATORS.items():
        cells = [cell for cell in counts if cell != separator]
        parts = [_parts(cell, separator) for cell in cells]
        several = [row for row in parts if len(row) > 1]
        if not several:
            continue
        evidence = _Evidence.of(parts)
        if evidence is not None and _is_list(separator, evidence):
            return separator, (
                f"{evidence.labels} labels recur in {len(cells)} different cells,"
                f" {round(100 * evidence.alone)} % of them also alone"
            )
        is_said = separator not in IN_NAMES or (evidence is not None and evidence.alone >= 0.5)
        if separator != " " and is_said and not no_list:
            no_list = (
                f"what stands between {what} does not recur in other combinations",
                f'type "multilabel" with separator "{separator}"',
            )
    return None, no_list


@dataclass(frozen=True)
class _Evidence:
    """How the parts of cells recur. labels: how many different ones there are; cells: different cells. alone: the share
    of them that also are a whole cell. recurring: of those beside others, the share in several cells. moving: that
    stand at several places. is_sorted: whether every cell has them in alphabetical order. are_codes: whole numbers all.
    """

    labels: int
    cells: int
    several: int
    alone: float
    recurring: float
    moving: float
    is_sorted: bool
    are_codes: bool

    @classmethod
    def of(cls, cells: list[list[str]]) -> "_Evidence | None":
        """None if a cell has an empty part, or one twice: it is no list then."""
        if any(not part or row.count(part) > 1 for row in cells for part in row):
            return None
        found = Counter(part for row in cells for part in row)
        places: dict[str, set[int]] = {}
        for row in cells:
            for place, part in enumerate(row):
                places.setdefault(part, set()).add(place)
        whole = {row[0] for row in cells if len(row) == 1}
        several = [row for row in cells if len(row) > 1]
        beside = {part for row in several for part in row}
        count = len(found)
        return cls(
            labels=count,
            cells=len(cells),
            several=len(several),
            alone=len(whole & set(found)) / count,
            recurring=sum(found[part] > 1 for part in beside) / max(1, len(beside)),
            moving=sum(len(at) > 1 for at in places.values()) / count,
            is_sorted=all(row == sorted(row) for row in several),
            are_codes=all(re.fullmatch(r"\d+", part) for part in found),
        )


def _is_list(separator: str, evidence: _Evidence) -> bool:
    """Whether the parts are labels of their own. Bars and semicolons are rare in names, spaces are usual."""
    labels, cells = evidence.labels, evidence.cells
    if evidence.recurring < 0.5:
        return False
    if separator in "|;":
        return True
    mixed = evidence.alone >= 0.5 or (evidence.are_codes and labels <= cells)
    if separator in IN_NAMES:
        return evidence.alone >= 0.5 and evidence.several > 1 and labels < cells
    if separator == ",":
        return mixed or (labels < cells and evidence.moving >= 0.5)
    in_order = evidence.is_sorted and evidence.several >= 8 and 2 * labels <= cells
    return (mixed and labels < cells) or (evidence.are_codes and labels <= cells) or in_order


def _parts(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator)]


def _numbers(cells: Mapping[str, int]) -> list[float] | None:
    """The values of all cells, None if any is no finite number."""
    with_comma = has_decimal_comma(list(cells))
    try:
        values = [float(cell.replace(",", ".") if with_comma else cell) for cell in cells]
    except ValueError:
        return None
    return values if values and all(abs(value) < float("inf") for value in values) else None


def listed_counts(counts: Mapping[str, int]) -> str:
    """'nan' (3 rows), 'none' (1 row)."""
    return ", ".join(f"{cell!r} ({count} row{'' if count == 1 else 's'})" for cell, count in counts.items())


def _quoted(text: str) -> str:
    return f'"{text}"'
