"""The rows that `evaluate` and `predict` are given: a table, or a folder of images; and what to say of their scores."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.compose.dataset import image_folders
from classwise.compose.image_check import check_with_progress, pixel_format, refuse_bad, with_contents
from classwise.compose.image_facts import image_warnings
from classwise.compose.labels import Labels, labeled_rows
from classwise.compose.splits import Split
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.checking import Checked
from classwise.data.images import min_image_size
from classwise.data.left_out import not_predicted_notes
from classwise.data.listing import files_below, is_image_name
from classwise.data.parquet_shards import PATH
from classwise.data.shard_source import is_sharded, read_shards
from classwise.data.sources import Samples, read_source, samples_of, samples_of_shards
from classwise.data.table import full_column, read_table
from classwise.data.targets import Target
from classwise.errors import DataError, ImageError
from classwise.files import is_address
from classwise.run.labels_by_value import with_labels_by_value
from classwise.run.unseen import UnseenLabels, with_unseen

BAD_IMAGES = ("error", "skip")
"""What becomes of images that cannot be used: an error that lists them, or the others are used."""


@dataclass(frozen=True)
class RowsToScore:
    """The rows of a table that are scored, warnings of what their scores mean, the labels among theirs that the model
    has never seen, and the images that were left out."""

    split: Split
    warnings: list[str]
    unseen: UnseenLabels
    bad: tuple[ImageError, ...]


def refuse_unknown_choice(bad_images: str) -> None:
    """Raise DataError unless this is one of BAD_IMAGES."""
    if bad_images not in BAD_IMAGES:
        raise DataError(f"--bad-images: found {bad_images!r}, allowed: {', '.join(BAD_IMAGES)}")


def read_labeled(config: Config, table: Path, images: str | Path | None) -> Samples:
    """The rows of a table or of a folder of class folders. `images`: the folder that the table's paths are relative
    to (default: that of the run's config or, if it has none of them, the table's own or the current one). Raises
    DataError."""
    folders = image_folders(config) if images is None else [Path(images)]
    samples = _read(config, table, folders)
    if images is not None or samples.shards is not None or not table.is_file() or _any_is_there(samples):
        return samples

    # A new table has new images: beside it, or where its paths lead from here.
    for folder in (table.parent, Path()):
        try:
            other = _read(config, table, [folder])
        except DataError:
            continue
        if _any_is_there(other):
            where = ", ".join(map(str, folders))
            note = f"{table}: its images were found below {folder.absolute()}, and none of them in {where}"
            return dataclasses.replace(other, notes=(*other.notes, note))
    return samples


def _read(config: Config, table: Path, folders: Sequence[Path]) -> Samples:
    try:
        if is_sharded(table):
            rows = read_shards(table, config.data.path)
            id = config.data.id if config.data.id in rows.frame.columns else None
            path = config.data.path if config.data.path in rows.frame.columns else PATH
            return samples_of_shards(rows, str(table), path, id, group=None)
        return read_source(
            table,
            folders,
            path=_path_column(config, table),
            id=_id_column(config, table),
            group=None,
            follow_links=config.data.follow_links,
        )
    except DataError as error:
        # The message names a key of the config, but here the table was given on the command line.
        raise DataError(str(error).replace("data.source: ", "")) from None


def _any_is_there(samples: Samples) -> bool:
    return any(Path(path).is_file() for path in samples.paths)


def _path_column(config: Config, table: Path) -> str:
    """The column of paths; the only one of a table with a single column."""
    columns = read_table(table).columns if table.is_file() else []
    return columns[0] if len(columns) == 1 else config.data.path


def _id_column(config: Config, table: Path) -> str | None:
    """The column of ids, where a table of other rows has it; else its paths are its ids."""
    is_there = not table.is_file() or config.data.id in read_table(table).columns
    return config.data.id if is_there else None


def read_rows(config: Config, source: Path, images: str | Path | None) -> Samples:
    """The rows of a table, or one row for each image below a folder, which needs no labels. Raises DataError."""
    if not source.is_dir() or is_sharded(source):
        return read_labeled(config, source, images)
    files = [name for name in files_below(source, config.data.follow_links) if not name.endswith("/")]
    names = [name for name in files if is_image_name(name)]
    if not names:
        raise DataError(f"{source}: no images in this folder")
    notes = not_predicted_notes(source, [name for name in files if not is_image_name(name)])
    return samples_of(
        notes=tuple(notes),
        frame=pl.DataFrame({"path": names}),
        where=str(source),
        images=source,
        path="path",
        id=None,
        group=None,
        follow_links=config.data.follow_links,
    )


def checked_images(samples: Samples, config: Config, console: Console) -> Checked:
    """The images of all rows, each read once as the run reads its own: their hashes, and which cannot be used."""
    return check_with_progress(
        samples.paths,
        max_pixels=config.data.max_pixels,
        console=console,
        root=samples.allowed_folders,
        min_size=min_image_size(config.model.image_size),
        pixels=pixel_format(config),
        remember=config.data.cache != "off",
    )


def rows_to_score(
    trained: pl.DataFrame,
    config: Config,
    targets: Sequence[Target],
    table: Path,
    images: str | Path | None,
    bad_images: str,
    console: Console,
) -> RowsToScore:
    """The rows of a labeled table or folder with their groups, contents and labels, and warnings of what makes their
    scores mean less than it seems. `trained`: split.csv of the model's run. Every image is decoded once for its
    content; with `bad_images="skip"` rows whose image cannot be used are left out. Raises DataError."""
    refuse_unknown_choice(bad_images)
    samples, warnings = _with_groups(read_labeled(config, table, images), config)
    frame, matched = with_labels_by_value(targets, samples.frame, samples.where)
    samples = dataclasses.replace(samples, frame=frame)
    unseen = with_unseen(targets, samples.frame, samples.where)
    samples, labels = _labeled(unseen.targets, samples, config)
    checked = checked_images(samples, config, console)
    if bad_images == "error":
        refuse_bad(checked.bad, samples.where, hint=" (--bad-images skip leaves such rows out)")
    samples, labels = _without_bad(with_contents(samples, checked), labels, checked)
    warnings += image_warnings(checked.facts, config)
    return RowsToScore(
        split=Split(samples, labels),
        warnings=[
            *samples.notes,
            *warnings,
            *matched,
            *unseen.warnings,
            *_training_row_warnings(trained, samples),
        ],
        unseen=unseen,
        bad=tuple(checked.bad),
    )


def _labeled(targets: Sequence[Target], samples: Samples, config: Config) -> tuple[Samples, Labels]:
    """The rows with a label, whatever data.unlabeled says of the rows that were trained on: others cannot be scored."""
    skipping = config.model_copy(update={"data": config.data.model_copy(update={"unlabeled": "skip"})})
    rows, labels = labeled_rows(targets, samples, skipping)
    left_out = len(samples) - len(rows)
    if left_out:
        are = "row has no label and is" if left_out == 1 else "rows have no label and are"
        rows = dataclasses.replace(rows, notes=(*samples.notes, f"{left_out} {are} not scored"))
    return rows, labels


def _without_bad(samples: Samples, labels: Labels, checked: Checked) -> tuple[Samples, Labels]:
    """The rows whose images can be used. Raises DataError if there is none."""
    if not checked.bad:
        return samples, labels
    good = checked.good_rows
    if not len(good):
        raise DataError(
            f"{samples.where}: not one of its {len(samples)} images can be used, such as {checked.bad[0]}"
        )
    return samples.take(good), {name: values[good] for name, values in labels.items()}


def _with_groups(samples: Samples, config: Config) -> tuple[Samples, list[str]]:
    """The same rows with their groups, which the bootstrap draws, and a warning if the table has none although the
    run's had. Raises DataError for an empty cell, as for the run's own table."""
    column = config.data.group
    if column is None:
        return samples, []
    if column not in samples.frame.columns:
        warning = (
            f"{samples.where} has no column {column!r} (data.group): its intervals are those of independent rows, too"
            " narrow if its rows belong to groups"
        )
        return samples, [warning]
    groups = tuple(full_column(samples.frame, column, samples.where, "data.group"))
    return dataclasses.replace(samples, groups=groups), []


def _training_row_warnings(split: pl.DataFrame, samples: Samples) -> list[str]:
    """A warning if some of the images were trained on, under the same path or another: their scores say nothing about
    new images."""
    train = split.filter(pl.col("split") == "train")
    # The config's folders, and so the paths in split.csv, are resolved too.
    root = samples.root if is_address(samples.root) else samples.root.resolve()
    paths = set(train["path"].to_list())
    is_path_N = [str(root / name) in paths for name in samples.names]

    # Runs of earlier versions have no contents.
    contents = set(train["content"].drop_nulls().to_list()) if "content" in train.columns else set()
    is_content_N = [content in contents for content in samples.contents or ()]
    seen = sum(path or content for path, content in zip(is_path_N, is_content_N, strict=True))
    if not seen:
        return []
    copies = seen - sum(is_path_N)
    under = f", {copies} of them under another path" if copies else ""
    return [f"the model was trained on {seen} of these {len(samples)} images (split.csv){under}"]
