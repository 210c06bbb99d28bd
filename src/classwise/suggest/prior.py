"""For which class shares `init` makes a config: those of the rows, unless a labeled test table shows others."""

import contextlib
from collections.abc import Iterator, Mapping

import polars as pl

from classwise.data.image_paths import find_images
from classwise.data.sources import folder_table
from classwise.data.table import SUFFIXES, read_table
from classwise.errors import DataError
from classwise.suggest.guess import Guess

TEST_NAMES = ("test", "valid", "val", "validation", "eval", "evaluation", "holdout", "dev")
"""Names of tables and folders beside the source that may show how frequent the classes will be."""
EVEN = 1.25
"""Classes are equally frequent if the largest has at most this many times the rows of the smallest."""
UNEVEN = 1.5
"""From here on the classes of the source are not."""
DIFFERENT = 0.1
"""From this share of rows that would have to change their class, two tables have different class shares."""


def choose_prior(guess: Guess) -> tuple[str | None, str]:
    """selection.prior, and why; (None, "") without a class target. Of several, the first one decides.

    `balanced` if a test table beside the source has every class equally often and the source has not; else
    `as_validation`, since validation rows are drawn with the shares of the source.
    """
    class_columns = {
        name: str(keys["column"])
        for name, keys in guess.targets.items()
        if keys.get("type", "class") == "class" and "column" in keys
    }
    if not class_columns:
        one_hot = any("columns" in keys and keys.get("type") == "class" for keys in guess.targets.values())
        return ("as_validation", "those of the rows here") if one_hot else (None, "")
    target, column = next(iter(class_columns.items()))
    counts = _counts(guess.table, column)
    # Equal shares of one target say nothing about those of the joint classes.
    for name, table in [] if guess.joint else _test_tables(guess):
        test_counts = _counts(table, column) if column in table.columns else {}
        if len(counts) < 2 or set(test_counts) != set(counts):
            continue  # no labels, or placeholders
        if not _belongs(guess, table):
            continue
        if _ratio(test_counts) <= EVEN and _ratio(counts) >= UNEVEN:
            few, many = min(counts.values()), max(counts.values())
            return "balanced", (
                f"balanced, since {name} has its classes equally often, {target} from {few} to {many} rows here"
            )
        if _distance(test_counts, counts) > DIFFERENT:
            return "as_validation", (
                f"those of {target} here; {name} has others, which a table of shares can give"
            )
    return "as_validation", (
        "those of the rows here; if classes will be equally frequent where the model is used: balanced"
    )


def _test_tables(guess: Guess) -> Iterator[tuple[str, pl.DataFrame]]:
    """(name, table) of what lies beside the source: tables beside a table; folders beside class folders, and beside
    shards, which get the same config as the files that they were made of."""
    own = (guess.source or guess.root).resolve()
    is_table = guess.source is not None and guess.image_names is None
    try:
        beside = [path for path in sorted(own.parent.iterdir()) if path != own]
    except OSError:
        return  # a folder whose parent may not be listed
    for name in TEST_NAMES:
        for path in (path for path in beside if path.stem.lower() == name):
            try:
                if is_table and path.suffix.lower() in SUFFIXES:
                    yield path.name, read_table(path)
                elif not is_table and path.is_dir():
                    yield path.name, folder_table(path)[0]
            except (DataError, OSError):
                continue  # no table, or no images in folders of classes: it shows nothing


def _belongs(guess: Guess, table: pl.DataFrame) -> bool:
    """Whether a table beside the source is about the same images: if the source is a table, the other one names its
    images in the same column, and they lie in the source's folders or beside the tables. A table of other images with
    the same classes says nothing of the source."""
    if guess.source is None or guess.image_names is not None:
        return True
    column = guess.data["path"]
    if column not in table.columns:
        return False
    cells = table[column].cast(pl.String).fill_null("").to_list()
    for folders in (guess.folders, [guess.source.resolve().parent]):
        with contextlib.suppress(DataError):  # two files fit a cell
            if not find_images(cells, folders, "", follow_links=True).missing:
                return True
    return False


def _counts(table: pl.DataFrame, column: str) -> dict[str, int]:
    """Rows of each label; a blank cell is none."""
    cells = table[column].cast(pl.String).str.strip_chars().replace("", None).drop_nulls()
    return {str(label): int(count) for label, count in cells.value_counts().rows()}


def _ratio(counts: Mapping[str, int]) -> float:
    return max(counts.values()) / min(counts.values())


def _distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """The total variation distance of the shares."""
    rows, other_rows = sum(one.values()), sum(other.values())
    return sum(abs(one[label] / rows - other[label] / other_rows) for label in one) / 2
