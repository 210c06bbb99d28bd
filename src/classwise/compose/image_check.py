"""Every image of a run is read once before anything is written: to find those that cannot be used, to hash
files and pixels, and to fill the image cache."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import ImageCache, cache_folder, default_base
from classwise.data.checking import PLAIN, Checked, check_images, first_rows
from classwise.data.image_file import Folders
from classwise.data.images import min_image_size
from classwise.data.left_out import bad_images_text
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat
from classwise.data.row_paths import RowPaths
from classwise.data.sources import Samples
from classwise.data.texts import Texts
from classwise.distributed import Processes
from classwise.errors import ConfigError, DataError, ImageError

LISTED_FILES = 200  # bad images named in an error; more are only counted


def pixel_format(config: Config) -> PixelFormat:
    """What every image file of the config becomes."""
    return PixelFormat(config.model.channels, config.data.value_range)


def open_cache(config: Config, root: Path, console: Console) -> ImageCache | None:
    """The image cache of the config, or None if there is to be none. Raises ConfigError if the folder that
    data.cache names cannot hold one; the default folder is only warned of."""
    data = config.data
    if data.cache == "off":
        return None
    try:
        base = default_base() if data.cache == "auto" else Path(data.cache)
        folder = cache_folder(
            base, root, min_image_size(config.model.image_size), data.max_pixels, pixel_format(config)
        )
        return ImageCache(folder, round(data.cache_gigabytes * 1e9))
    except OSError as error:
        reason = f"{error.filename or data.cache}: {error.strerror or error}"
        if data.cache != "auto":
            raise ConfigError(f"data.cache: images cannot be cached in {data.cache}: {reason}") from None
        console.line(
            f"note: decoded images are not cached ({reason}); every image is decoded again in each epoch (data.cache)"
        )
        return None


def usable_rows(
    samples: Samples,
    config: Config,
    console: Console,
    processes: Processes,
    cache: ImageCache | None,
    facts: dict[Path, ImageFacts],
) -> tuple[Samples, list[ImageError]]:
    """The rows whose images can be used, with their contents, and an error for each bad image. Adds what the files
    hold beside plain samples to `facts`.

    Raises DataError for a bad image, unless data.bad_images skips them, or if processes see different files.
    """
    paths = samples.paths
    share = None if processes.world_size == 1 else _share_of(samples, processes)
    checked = check_with_progress(
        paths if share is None else paths.take(share),
        max_pixels=config.data.max_pixels,
        console=console,
        root=samples.allowed_folders,
        min_size=min_image_size(config.model.image_size),
        cache=cache,
        pixels=pixel_format(config),
        remember=config.data.cache != "off",
    )
    if cache is not None:
        cache.flush()

    # What the other processes have found and, on this machine, added to the cache.
    if share is not None:
        processes.require_same(str(samples.frame.hash_rows().sum()), samples.where)
        checked = _merge_checks(checked, paths, share, processes)
        if cache is not None:
            cache.flush()
    facts |= checked.facts
    samples = with_contents(samples, checked)
    return processes.on_all_ranks(lambda: _without_bad(samples, checked, config)), checked.bad


def _share_of(samples: Samples, processes: Processes) -> npt.NDArray[np.int64]:
    """The rows whose images this one of several processes checks: each image of all rows once."""
    distinct = np.unique(first_rows(samples.paths))
    # Machines need not share a disk, so the processes of each machine divide all images among themselves. What is
    # behind an address is the same for all, and may be more than one machine should fetch.
    if samples.shards is not None and samples.shards.are_remote:
        return distinct[processes.rank :: processes.world_size]
    return distinct[processes.local_rank :: processes.local_world_size]


def with_contents(samples: Samples, checked: Checked) -> Samples:
    """The rows with the hashes of their files and pixels."""
    return dataclasses.replace(samples, files=checked.files, contents=Texts.of_equal_length(checked.pixels))


def _merge_checks(
    checked: Checked, paths: RowPaths, share: npt.NDArray[np.int64], processes: Processes
) -> Checked:
    """The checks of all processes, by the rows of `paths`, of which this one has checked those of `share`. Raises
    DataError if two machines hold different images under one name."""
    # Paths can be long and are the same everywhere, so their numbers are sent instead.
    bad_rows = share[checked.files == b""].tolist()
    errors = processes.all_gather_object(
        [[row, error.reason] for row, error in zip(bad_rows, checked.bad, strict=True)]
    )
    hashes_by_rank = processes.all_gather_object(
        [
            [
                row,
                checked.files[number].decode(),
                checked.pixels[number].decode(),
                list(checked.facts.get(paths[row], PLAIN)),
            ]
            for number, row in enumerate(share.tolist())
            if checked.files[number]
        ],
    )
    merged = processes.on_all_ranks(lambda: _merge_hashes(hashes_by_rank, paths))
    reasons = {row: reason for rank_errors in errors for row, reason in rank_errors}
    for row in reasons:  # bad on one machine is bad
        merged.files[row] = b""
    bad = [ImageError(paths[row], reasons[row]) for row in sorted(reasons)]

    # Rows that name an image once more have what its first row has.
    first_N = first_rows(paths)
    return Checked(bad, files=merged.files[first_N], pixels=merged.pixels[first_N], facts=merged.facts)


def _merge_hashes(
    hashes_by_rank: Sequence[Sequence[tuple[int, str, str, list[Any]]]], paths: RowPaths
) -> Checked:
    """The hashes of every process, in the order of ranks. Raises DataError if two machines hold different images
    under one name."""
    files_N, pixels_N = np.zeros(len(paths), "S32"), np.zeros(len(paths), "S16")
    facts: dict[Path, ImageFacts] = {}
    for rank, rank_hashes in enumerate(hashes_by_rank):
        for row, file, pixels, found in rank_hashes:
            # Of the pixels the first rank's hash counts everywhere: decoders of several machines may differ.
            if not files_N[row]:
                files_N[row], pixels_N[row] = file.encode(), pixels.encode()
                if ImageFacts(*found) != PLAIN:
                    facts[paths[row]] = ImageFacts(*found)
            elif files_N[row] != file.encode():
                raise DataError(
                    f"{paths[row]}: process {rank} has a different image than a process on another machine;"
                    " all need the same files"
                )
    return Checked([], files_N, pixels_N, facts)


def _without_bad(samples: Samples, checked: Checked, config: Config) -> Samples:
    """The rows without those of bad images, if data.bad_images allows that. Raises DataError."""
    bad, good_rows = checked.bad, checked.good_rows
    if not bad:
        return samples
    if config.data.bad_images == "error":
        refuse_bad(bad, samples.where, hint=' (data.bad_images = "skip" leaves such rows out)')
    if not len(good_rows):
        raise DataError(
            f"{samples.where}: not one of its {len(samples)} images can be used, such as {bad[0]}"
        )
    kept, left_out = samples.take(good_rows), samples.take(np.flatnonzero(checked.files == b""))
    _refuse_lost_classes(kept, left_out, config)
    count = image_count_text(len(bad))
    note = f"{count} left out, since unusable (data.bad_images = skip): {_counted(left_out, config)}"
    return dataclasses.replace(kept, notes=(*kept.notes, note))


def _class_columns(samples: Samples, config: Config) -> list[str]:
    """The columns that hold one class a row."""
    return [
        target.column
        for target in config.targets.values()
        if target.type in ("class", "ordinal") and not target.edges and target.column in samples.frame.columns
    ]


def _refuse_lost_classes(kept: Samples, left_out: Samples, config: Config) -> None:
    """Raise DataError if a class has lost all its images: it would be gone without a word."""
    for column in _class_columns(kept, config):
        lost = sorted(set(left_out.frame[column].drop_nulls()) - set(kept.frame[column].drop_nulls()))
        if lost:
            count = left_out.frame[column].is_in(lost).sum()
            raise DataError(
                f"{kept.where}: data.bad_images = skip would leave out all images of {', '.join(map(repr, lost))}"
                f" (column {column!r}, {count} rows): {_counted(left_out, config)}. Repair or convert them, or take"
                " these rows out of the table"
            )


def _counted(left_out: Samples, config: Config) -> str:
    """How many of the rows that are left out have which suffix, and which class."""
    labels = (left_out.frame[column].to_list() for column in _class_columns(left_out, config))
    return bad_images_text(left_out.names, itertools.chain.from_iterable(labels))


def check_with_progress(
    paths: Sequence[Path],
    max_pixels: int,
    console: Console,
    root: Folders = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
    pixels: PixelFormat = RGB,
    remember: bool = False,
) -> Checked:
    """Decode every file once, with a progress bar; a file outside of `root` (one folder or several) is bad. `min_size`,
    `cache`, `pixels` and `remember` as in `check_images`."""
    return check_images(
        paths,
        max_pixels=max_pixels,
        root=root,
        min_size=min_size,
        cache=cache,
        pixels=pixels,
        remember=remember,
        progress=lambda items: console.bar(items, "reading images", total=len(items)),
    )


def refuse_bad(bad: Sequence[ImageError], where: str, hint: str = "") -> None:
    """Raise one DataError that lists all bad images, if there are any. `where`: the table that names them."""
    if bad:
        listed = "\n".join(f"  {error}" for error in bad[:LISTED_FILES])
        more = f"\n  ... and {len(bad) - LISTED_FILES} more" if len(bad) > LISTED_FILES else ""
        raise DataError(f"{where}: {image_count_text(len(bad))} cannot be used{hint}:\n{listed}{more}")


def image_count_text(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
