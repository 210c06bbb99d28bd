"""The parts of a split that a variant's own table gives, by data.split or data.fold: read before anything trains, since
they decide which rows are scored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from classwise.compose.given_split import given_parts
from classwise.config.schema import Config
from classwise.data.shard_source import is_sharded, read_shards
from classwise.data.table import column as table_column
from classwise.data.table import is_empty, read_table


@dataclass(frozen=True)
class GivenRows:
    """cells: the part (train, valid, test or skip) by the text of the column's cells. parts: those that have a labeled
    row. Both are empty without such a column."""

    cells: Mapping[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()


def given_rows(config: Config) -> GivenRows:
    """What data.split or data.fold gives. Raises DataError for a table, a column or a cell that is not allowed."""
    column = config.data.split or config.data.fold
    source = Path(config.data.source)
    if column is None or (source.is_dir() and not is_sharded(source)):  # `train` refuses a column of a folder
        return GivenRows()
    frame = read_shards(source, config.data.path).frame if is_sharded(source) else read_table(source)
    parts = given_parts(frame, str(source), config) or []
    key = "data.split" if config.data.split else "data.fold"
    texts = [(cell or "").strip() for cell in table_column(frame, column, str(source), key)]

    # A test without labels, as competitions have it, cannot be scored.
    names = [name for target in config.targets.values() for name in (target.column, *(target.columns or ()))]
    labels = [frame[name].to_list() for name in names if name in frame.columns]
    is_labeled = [any(not is_empty(cell) for cell in cells) for cells in zip(*labels, strict=True)]
    return GivenRows(
        dict(zip(texts, parts, strict=True)),
        frozenset(part for part, labeled in zip(parts, is_labeled, strict=bool(labels)) if labeled),
    )


def as_test_rows(config: Config, given: GivenRows, share: float) -> Config:
    """The config with the column's validation rows as its test, and another share of the training rows in their
    place."""
    part_of = {"valid": "test", "test": "skip"}
    data = {
        "split": config.data.split or config.data.fold,
        "split_values": {cell: part_of.get(part, part) for cell, part in given.cells.items()},
        "fold": None,
        "valid_fold": None,
        "valid": share,
    }
    return config.model_copy(update={"data": config.data.model_copy(update=data)})
