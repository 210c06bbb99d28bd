"""What shards seem to be: a table as any other, whose images lie in the shards themselves."""

from pathlib import Path

from classwise.data.parquet_shards import PATH
from classwise.data.shard_source import is_sharded, parts_of, read_shards
from classwise.errors import DataError
from classwise.suggest.columns import guess_columns
from classwise.suggest.guess import Guess
from classwise.suggest.images_of_table import ImageColumn


def shards_of(source: Path) -> Path | None:
    """The shards that a source is, or those in its folder `data`, as repositories of `datasets` have it; None if it
    has none."""
    places = [source, source / "data"] if source.is_dir() else [source]
    return next((place for place in places if is_sharded(place)), None)


def guess_shards(source: Path) -> Guess:
    """The targets of shards, from their columns. Of several parts of a split, those for training are the source,
    those for validation data.valid, and a test is kept out. Raises DataError for shards that cannot be read, and
    without labels."""
    parts = parts_of(source)
    if parts and "train" not in parts:
        raise DataError(f"{source}: found shards of {', '.join(sorted(parts))}, and none to train on")
    train = parts.get("train", source)
    rows = read_shards(train)
    if rows.frame.width == 1:
        raise DataError(
            f"{source}: its images have no labels; allowed: columns beside them, or class folders"
        )
    guess = guess_columns(rows.frame, train, ImageColumn(PATH, [rows.root], rows.names, missing=()))
    guess.source = train
    guess.image_names = rows.names
    guess.said = [*rows.notes, *guess.said]
    if "valid" in parts and not guess.data.keys() & {"split", "fold"}:
        guess.data["valid"] = str(parts["valid"])
        guess.decide(
            "data.valid",
            f"validation: {parts['valid'].name}",
            "they lie beside the shards for training",
            "a fraction of the rows, such as 0.2",
        )
    if "test" in parts:
        guess.decide(
            "data.test",
            f"test: {parts['test'].name} kept out",
            "a test that is looked at after every run is none",
            f"classwise evaluate RUN '{parts['test']}' scores it",
        )
    return guess
