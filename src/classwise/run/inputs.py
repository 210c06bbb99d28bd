"""The rows that `evaluate` and `predict` are given: a table, or a folder of images."""

import dataclasses
from pathlib import Path

import polars as pl

from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.sources import Samples, image_names, read_source, samples_of
from classwise.errors import DataError
from classwise.run.folder import RunFolder


def read_labelled(config: Config, table: Path, images: str | Path | None) -> Samples:
    """The rows of a table or of a folder of class folders. `images`: the folder that the table's paths are relative
    to (default: that of the run's config). Raises DataError."""
    root = Path(images) if images is not None else Path(config.data.images)
    try:
        return read_source(table, root, config.data.path, config.data.id, None)
    except DataError as error:
        # The message names a key of the config, but here the table was given on the command line.
        raise DataError(str(error).replace("data.source: ", "")) from None


def read_rows(config: Config, source: Path, images: str | Path | None) -> Samples:
    """The rows of a table, or one row for each image below a folder, which needs no labels. Raises DataError."""
    if not source.is_dir():
        return read_labelled(config, source, images)
    names = image_names(source)
    if not names:
        raise DataError(f"{source}: no images in this folder")
    return samples_of(pl.DataFrame({"path": names}), str(source), source, "path", None, None)


def with_groups(samples: Samples, config: Config) -> Samples:
    """The same rows with their groups, if the table has the run's group column: the bootstrap then draws groups."""
    column = config.data.group
    if column is None or column not in samples.frame.columns or samples.frame[column].null_count():
        return samples
    return dataclasses.replace(samples, groups=tuple(samples.frame[column].to_list()))


def warn_of_training_rows(folder: RunFolder, samples: Samples, console: Console) -> None:
    """Warn if some of the images were trained on: their scores say nothing about new images."""
    split = folder.split()
    trained = set(split.filter(pl.col("split") == "train")["path"].to_list())
    root = samples.root.resolve()  # the config's folders, and so the paths in split.csv, are resolved too
    seen = sum(str(root / name) in trained for name in samples.names)
    if seen:
        console.line(f"warning: the model was trained on {seen} of these {len(samples)} images (split.csv)")
