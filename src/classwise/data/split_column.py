"""A split that the table gives: a column that says of each row whether it trains, validates or tests; or its fold."""

from collections.abc import Mapping, Sequence

from classwise.data.cells import sorted_labels
from classwise.data.table import rows_text
from classwise.errors import DataError

PARTS = ("train", "valid", "test", "skip")
"""What a row of such a table can be for; `skip`: for nothing."""
WORDS = {
    "train": ("train", "training", "trn", "tr"),
    "valid": (
        "valid", "val", "validation", "validate", "validating", "dev", "development", "eval", "evaluation", "va",
        "public test", "publictest",
    ),
    "test": (
        "test", "testing", "tst", "te", "ts", "holdout", "hold out", "held out", "private test", "privatetest",
    ),
}  # fmt: skip
"""The words for a part that are understood without `data.split_values`. Facial-expression tables call the validation
rows PublicTest and those of the test PrivateTest, as leaderboards do."""


def part_of_word(text: str) -> str | None:
    """The part that a word stands for, in any case; None for any other word."""
    word = " ".join(text.casefold().replace("_", " ").replace("-", " ").split())
    return next((part for part, words in WORDS.items() if word in words), None)


def parts_of_column(
    cells: Sequence[str | None], values: Mapping[str, str] | None, where: str, column: str
) -> list[str]:
    """The part (one of PARTS) of each row. `values`: the part by cell (`data.split_values`); without it the cells are
    words. Raises DataError for a cell that is neither, with its rows."""
    parts = []
    unknown: dict[str, list[int]] = {}
    for row, cell in enumerate(cells, start=1):
        text = "" if cell is None else cell.strip()
        part = part_of_word(text) if values is None else values.get(text)
        if part is None:
            unknown.setdefault(text, []).append(row)
        parts.append(part or "")
    if unknown:
        found = "; ".join(f"{cell!r} in {rows_text(rows)}" for cell, rows in list(unknown.items())[:5])
        example = ", ".join(f'"{cell}" = "train"' for cell in list(unknown)[:3])
        known = "train, valid, val, test, ..." if values is None else ", ".join(map(repr, values))
        raise DataError(
            f"{where}: column {column!r} (data.split): found {found}; allowed: {known}, or what"
            f" data.split_values = {{ {example} }} says (train, valid, test or skip)"
        )
    return parts


def parts_of_folds(cells: Sequence[str], valid_fold: str | None, where: str, column: str) -> list[str]:
    """`valid` for the rows of one fold, `train` for all others. `valid_fold`: the fold (default: the first, by number
    or by name). Raises DataError if there is no such fold, or only one."""
    folds = sorted_labels({cell.strip() for cell in cells})
    chosen = folds[0] if valid_fold is None else valid_fold
    if chosen not in folds:
        raise DataError(
            f"{where}: column {column!r} (data.fold): no row is of fold {chosen!r} (data.valid_fold); allowed:"
            f" {', '.join(map(repr, folds[:20]))}"
        )
    if len(folds) < 2:
        raise DataError(
            f"{where}: column {column!r} (data.fold): all rows are of fold {chosen!r}, so none is left to train on"
        )
    return ["valid" if cell.strip() == chosen else "train" for cell in cells]
