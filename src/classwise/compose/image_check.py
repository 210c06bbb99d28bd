"""Every image of a run is read once before anything is written: to find those that cannot be used, to hash
files and pixels, and to fill the image cache."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import ImageCache, cache_folder, default_base
from classwise.data.checking import Checked, ImageHashes, check_images
from classwise.data.image_file import Folders
from classwise.data.images import min_image_size
from classwise.data.left_out import bad_images_text
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat
from classwise.data.sources import Samples
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
    hashes: dict[Path, ImageHashes],
) -> tuple[Samples, list[ImageError]]:
    """The rows whose images can be used, with their contents, and an error for each bad image. Adds the hashes of each
    file to `hashes`.

    Raises DataError for a bad image, unless data.bad_images skips them, or if processes see different files.
    """
    paths = list(dict.fromkeys(samples.paths))
    # Machines need not share a disk, so the processes of each machine divide all images among themselves. What is
    # behind an address is the same for all, and may be more than one machine should fetch.
    share = paths[processes.local_rank :: processes.local_world_size]
    if samples.shards is not None and samples.shards.are_remote:
        share = paths[processes.rank :: processes.world_size]
    checked = check_with_progress(
        share,
        max_pixels=config.data.max_pixels,
        console=console,
        root=samples.allowed_folders,
        min_size=min_image_size(config.model.image_size),
        cache=cache,
        pixels=pixel_format(config),
    )
    if cache is not None:
        cache.flush()

    bad = checked.bad
    hashes |= checked.hashes
    if processes.world_size > 1:
        processes.require_same(str(samples.frame.hash_rows().sum()), samples.where)
        bad = _merge_checks(checked, paths, hashes, processes)
        if cache is not None:
            cache.flush()  # reads what the other processes on this machine have added
    samples = processes.on_all_ranks(lambda: _without_bad(samples, bad, config))
    return with_contents(samples, hashes), bad


def with_contents(samples: Samples, hashes: Mapping[Path, ImageHashes]) -> Samples:
    """The rows with the hashes of their pixels."""
    contents = tuple(hashes[path].pixels.decode() for path in samples.paths)
    return dataclasses.replace(samples, contents=contents)


def _merge_checks(
    checked: Checked, paths: Sequence[Path], hashes: dict[Path, ImageHashes], processes: Processes
) -> list[ImageError]:
    """The bad images of all processes, in the order of `paths`; adds their hashes to `hashes`."""
    # Paths can be long and are the same everywhere, so their numbers are sent instead.
    number_of = {path: number for number, path in enumerate(paths)}
    errors = processes.all_gather_object([[number_of[error.path], error.reason] for error in checked.bad])
    hashes_by_rank = processes.all_gather_object(
        [
            [number_of[path], found.file.decode(), found.pixels.decode(), list(found.facts)]
            for path, found in checked.hashes.items()
        ],
    )

    processes.on_all_ranks(lambda: _merge_hashes(hashes, hashes_by_rank, paths))
    reasons = {paths[number]: reason for rank_errors in errors for number, reason in rank_errors}
    return [ImageError(path, reasons[path]) for path in paths if path in reasons]


def _merge_hashes(
    hashes: dict[Path, ImageHashes],
    hashes_by_rank: Sequence[Sequence[tuple[int, str, str, list[Any]]]],
    paths: Sequence[Path],
) -> None:
    """Put the hashes of every process, in the order of ranks, into `hashes`. Raises DataError if two machines hold
    different images under one name."""
    merged: dict[Path, ImageHashes] = {}
    for rank, rank_hashes in enumerate(hashes_by_rank):
        for number, file, pixels, facts in rank_hashes:
            # Of the pixels the first rank's hash counts everywhere: decoders of several machines may differ.
            found = ImageHashes(file.encode(), pixels.encode(), ImageFacts(*facts))
            first = merged.setdefault(paths[number], found)
            if first.file != file.encode():
                raise DataError(
                    f"{paths[number]}: process {rank} has a different image than a process on another machine;"
                    " all need the same files"
                )
    hashes |= merged


def _without_bad(samples: Samples, bad: Sequence[ImageError], config: Config) -> Samples:
    """The rows without those of bad images, if data.bad_images allows that. Raises DataError."""
    if not bad:
        return samples
    if config.data.bad_images == "error":
        refuse_bad(bad, samples.where, hint=' (data.bad_images = "skip" leaves such rows out)')
    bad_paths = {error.path for error in bad}
    good_rows = [row for row, path in enumerate(samples.paths) if path not in bad_paths]
    if not good_rows:
        raise DataError(
            f"{samples.where}: not one of its {len(samples)} images can be used, such as {bad[0]}"
        )
    bad_rows = [row for row, path in enumerate(samples.paths) if path in bad_paths]
    kept, left_out = samples.take(good_rows), samples.take(bad_rows)
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
) -> Checked:
    """Decode every file once, with a progress bar; a file outside of `root` (one folder or several) is bad. `min_size`,
    `cache` and `pixels` as in `check_images`."""
    return check_images(
        paths,
        max_pixels=max_pixels,
        root=root,
        min_size=min_size,
        cache=cache,
        pixels=pixels,
        progress=lambda items: console.bar(items, "reading images", total=len(set(paths))),
    )


def refuse_bad(bad: Sequence[ImageError], where: str, hint: str = "") -> None:
    """Raise one DataError that lists all bad images, if there are any. `where`: the table that names them."""
    if bad:
        listed = "\n".join(f"  {error}" for error in bad[:LISTED_FILES])
        more = f"\n  ... and {len(bad) - LISTED_FILES} more" if len(bad) > LISTED_FILES else ""
        raise DataError(f"{where}: {image_count_text(len(bad))} cannot be used{hint}:\n{listed}{more}")


def image_count_text(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
