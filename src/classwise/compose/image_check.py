"""Every image of a run, looked at before anything is written: which can be used, what their bytes are, and the store
that keeps them decoded."""

from collections.abc import Sequence
from pathlib import Path

from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import ImageCache, cache_folder, default_base
from classwise.data.checking import Checked, check_images
from classwise.data.images import min_image_size
from classwise.data.sources import Samples
from classwise.distributed import Processes
from classwise.errors import ConfigError, DataError, ImageError


def open_cache(config: Config, root: Path, console: Console) -> ImageCache | None:
    """The store that data.cache says; None if there is to be none. Raises ConfigError if DIR cannot be one."""
    data = config.data
    if data.cache == "off":
        return None
    base = default_base() if data.cache == "auto" else Path(data.cache)
    folder = cache_folder(base, root, min_image_size(config.model.image_size), data.max_pixels)
    try:
        return ImageCache(folder, round(data.cache_gigabytes * 1e9))
    except OSError as error:
        reason = f"{error.filename or folder}: {error.strerror or error}"
        if data.cache != "auto":
            raise ConfigError(f"data.cache: no images can be kept in {base}: {reason}") from None
        console.line(f"note: decoded images are not kept ({reason}); each is decoded every time (data.cache)")
        return None


def usable_rows(
    samples: Samples,
    config: Config,
    console: Console,
    processes: Processes,
    cache: ImageCache | None,
    keys: dict[Path, bytes],
) -> tuple[Samples, list[ImageError]]:
    """The rows whose images can be used, and the errors of the others; `keys` learns what the files hold."""
    distinct = list(dict.fromkeys(samples.paths))
    # The processes of each machine share its images: they are its own files, and its own store.
    own = range(processes.local_rank, len(distinct), processes.local_world_size)
    data, min_size = config.data, min_image_size(config.model.image_size)
    checked = check_with_progress(
        [distinct[i] for i in own], data.max_pixels, console, samples.root, min_size, cache
    )
    if cache is not None:
        cache.flush()
    bad = checked.bad
    keys |= checked.keys
    if processes.world_size > 1:
        processes.require_same(str(samples.frame.hash_rows().sum()), samples.where)
        at = {path: number for number, path in enumerate(distinct)}
        # Also where one process has no store: all have to take part.
        errors = processes.all_gather_object([[at[error.path], error.reason] for error in bad])
        known = processes.all_gather_object([[at[path], key.decode()] for path, key in checked.keys.items()])
        reasons = {distinct[number]: reason for part in errors for number, reason in part}
        processes.on_all_ranks(lambda: _join(keys, known, distinct))
        bad = [ImageError(path, reasons[path]) for path in distinct if path in reasons]
        if cache is not None:
            cache.flush()  # what the others on this machine have added
    return processes.on_all_ranks(lambda: (_usable(samples, bad, config), bad))


def _join(
    keys: dict[Path, bytes], known: Sequence[Sequence[tuple[int, str]]], distinct: Sequence[Path]
) -> None:
    """Add to `keys` what every process, in the order of ranks, has found. Raises DataError where two machines hold
    different images under one name."""
    for rank, part in enumerate(known):
        for number, key in part:
            if keys.setdefault(distinct[number], key.encode()) != key.encode():
                raise DataError(
                    f"{distinct[number]}: process {rank} has another image than a process on another machine;"
                    " all need the same files"
                )


def _usable(samples: Samples, bad: Sequence[ImageError], config: Config) -> Samples:
    """The rows without those of bad images, if data.bad_images allows that."""
    if not bad:
        return samples
    if config.data.bad_images == "error":
        refuse_bad(bad, samples.where, ' (data.bad_images = "skip" leaves such rows out)')
    unusable = {error.path for error in bad}
    good = [row for row, path in enumerate(samples.paths) if path not in unusable]
    if not good:
        raise DataError(
            f"{samples.where}: not one of its {len(samples)} images can be used, such as {bad[0]}"
        )
    return samples.take(good)


def check_with_progress(
    paths: Sequence[Path],
    max_pixels: int,
    console: Console,
    root: Path | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
) -> Checked:
    """Decode every file once; one outside of `root` is bad. `min_size` and `cache` as in `check_images`."""
    return check_images(
        paths,
        max_pixels,
        root=root,
        min_size=min_size,
        cache=cache,
        progress=lambda items: console.bar(items, "reading images", total=len(set(paths))),
    )


def refuse_bad(bad: Sequence[ImageError], where: str, hint: str = "") -> None:
    """All bad files in one message."""
    if bad:
        listed = "\n".join(f"  {error}" for error in bad[:200])
        more = f"\n  ... and {len(bad) - 200} more" if len(bad) > 200 else ""
        raise DataError(f"{where}: {image_count_text(len(bad))} cannot be used{hint}:\n{listed}{more}")


def image_count_text(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
