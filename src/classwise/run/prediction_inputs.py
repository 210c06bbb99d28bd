"""What `predict` is given: a table, a folder, image files, patterns, a list of paths, or images in memory."""

import glob
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from classwise.compose.image_check import image_count_text, pixel_format
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.images import min_image_size
from classwise.data.listing import image_names
from classwise.data.memory_images import ImageSource, MemoryImages, image_of, is_in_memory
from classwise.data.shard_source import is_sharded
from classwise.data.source_names import PATTERN_SIGNS
from classwise.data.sources import Samples, refuse_repeated
from classwise.data.table import SUFFIXES
from classwise.errors import DataError, ImageError
from classwise.run.inputs import checked_images, read_rows, refuse_unknown_choice

Source = ImageSource | Sequence[ImageSource]
STANDARD_INPUT = "-"
LIST_SUFFIXES = (".txt", ".lst", ".list")
TENSOR_HINT = "; a tensor (C, H, W) of uint8 as an array: tensor.permute(1, 2, 0).cpu().numpy()"


@dataclass(frozen=True)
class Rows:
    """The rows to predict in their order; `memory` holds their images, where they are no files."""

    samples: Samples
    memory: MemoryImages | None = None


@dataclass(frozen=True)
class UsableRows:
    """The rows whose images can be used, and by id why the others cannot; `ids`: of all rows in their order."""

    rows: Rows
    reasons: dict[str, str]
    ids: Sequence[str] = ()

    @property
    def all_ids(self) -> Sequence[str]:
        """The ids of all rows, in the order of the source."""
        return self.ids or self.rows.samples.ids

    @property
    def note(self) -> str:
        """`2 of 6 images cannot be used, such as b.png: cut short`; empty if all can."""
        if not self.reasons:
            return ""
        id, reason = next(iter(self.reasons.items()))
        total = len(self.rows.samples) + len(self.reasons)
        return f"{len(self.reasons)} of {image_count_text(total)} cannot be used, such as {id}: {reason}"


def rows_to_predict(
    config: Config,
    source: Source,
    images: str | Path | None,
    ids: Sequence[str] | None,
    bad_images: str,
    console: Console,
) -> UsableRows:
    """The rows of any source. `ids`: of images in memory, or of a list of paths (default: their numbers from 0, and the
    paths as given). `bad_images`: `skip` leaves out those that cannot be used, for which every image is read once
    before. Raises DataError."""
    refuse_unknown_choice(bad_images)
    skips = bad_images == "skip"
    if _is_list(source):
        source = _listed(source)
        if any(map(is_in_memory, source)):
            return _rows_in_memory(config, source, ids, skips)
    samples = _samples_of(config, source, images, ids, console)
    return usable_rows(samples, config, console) if skips else UsableRows(Rows(samples), {})


def _is_list(source: Source) -> bool:
    return not isinstance(source, str | Path)


def _listed(source: Any) -> list[Any]:
    """The images of a list, or the only one. Raises DataError for what is neither an image nor a path of one."""
    source = _unpacked(source)
    given = list(source) if isinstance(source, Iterable) and not _is_one(source) else [source]
    given = [_content(item) if _is_open_file(item) else item for item in given]
    for item in given:
        if not is_in_memory(item) and not isinstance(item, str | Path):
            kind = f"{type(item).__module__}.{type(item).__qualname__}"
            raise DataError(
                f"found {kind} for an image; allowed: a path, the bytes of a file or an open file, an array (H, W, 3)"
                f" of uint8, an image of Pillow's, or a list of these{TENSOR_HINT if kind == 'torch.Tensor' else ''}"
            )
    return given


def _unpacked(source: Any) -> Any:
    """A batch (N, H, W, C) as the list of its images, and a column or an array of paths as the list of them; anything
    else as it is. Fewer axes are one image: (N, H, W) could not be told from (H, W, C)."""
    if isinstance(source, np.ndarray):
        is_list = source.ndim == 4 or (source.ndim == 1 and source.dtype.kind in "OUT")
        return list(source) if is_list else source
    # Columns of pandas and polars, which would count as one array otherwise.
    return source.to_list() if callable(getattr(source, "to_list", None)) else source


def _is_one(source: Any) -> bool:
    """Whether this is one image, though it could be iterated over: a tensor's rows are no images."""
    return is_in_memory(source) or _is_open_file(source) or hasattr(source, "__array__")


def _is_open_file(source: Any) -> bool:
    """Whether this is a file to read from, also one of those that are no `io.IOBase` (tempfile.NamedTemporaryFile)."""
    return callable(getattr(source, "read", None))


def _content(file: Any) -> bytes:
    """What is left to read of an open file. Raises DataError for one of text."""
    content = file.read()
    if not isinstance(content, bytes | bytearray | memoryview):
        raise DataError(
            f"found an open file that gives {type(content).__name__} in place of bytes; allowed: one that was opened"
            ' with "rb"'
        )
    return bytes(content)


def _samples_of(
    config: Config, source: Source, images: str | Path | None, ids: Sequence[str] | None, console: Console
) -> Samples:
    """The rows of a source of files. Raises DataError."""
    if isinstance(source, str | Path):
        if ids is not None:
            raise DataError("ids: found for a single path; allowed: for a list of images")
        return _rows_of_path(config, source, images, console)
    given = _listed(source)
    _refuse_other_count(given, ids)
    if len(given) == 1 and ids is None:
        return _rows_of_path(config, given[0], images, console)
    return _rows_of_paths([str(item) for item in given], "the list of images", ids, console)


def _refuse_other_count(given: Sequence[Any], ids: Sequence[str] | None) -> None:
    if not given:
        raise DataError("found no image to predict; allowed: one or more")
    if ids is not None and len(ids) != len(given):
        raise DataError(f"ids: found {len(ids)} for {len(given)} images; allowed: one for each")


def usable_rows(samples: Samples, config: Config, console: Console) -> UsableRows:
    """Read every image once, and keep the rows whose images can be used. Raises DataError if there is none."""
    checked = checked_images(samples, config, console)
    reason_of = {error.path: error.reason for error in checked.bad}
    bad_rows = np.flatnonzero(checked.files == b"").tolist()
    reasons = {samples.ids[row]: reason_of[samples.paths[row]] for row in bad_rows}
    good = checked.good_rows
    if not len(good):
        raise DataError(
            f"{samples.where}: not one of its {image_count_text(len(samples))} can be used, such as {checked.bad[0]}"
        )
    return UsableRows(Rows(samples.take(good)), reasons, samples.ids)


def _rows_of_path(config: Config, source: str | Path, images: str | Path | None, console: Console) -> Samples:
    """A table, a folder, one image file, a pattern, or `-` for a list on standard input."""
    path = Path(source)
    if str(source) == STANDARD_INPUT:
        # Names may hold any character but NUL: `find -print0` separates them by that.
        text = sys.stdin.read()
        names = text.split("\0") if "\0" in text else text.splitlines()
        return _rows_of_paths([name for name in names if name.strip()], "standard input", None, console)
    if path.exists() or path.suffix.lower() in SUFFIXES or is_sharded(path):
        if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
            raise DataError(
                f"{source}: a text file is no image; a list of paths is read from standard input: predict RUN - <"
                f" {source}"
            )
        if path.is_file() and path.suffix.lower() not in SUFFIXES and not is_sharded(path):
            return _rows_of_paths([str(source)], str(source), None)
        samples = read_rows(config, path, images)
        for note in samples.notes:
            console.line(f"warning: {note}")
        return samples
    if any(sign in str(source) for sign in PATTERN_SIGNS):
        found = sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207 - an absolute pattern as well
        names = [name for name in found if Path(name).is_file()]
        if not names:
            raise DataError(f"{source}: no file matches this pattern")
        return _rows_of_paths(names, str(source), None)
    raise DataError(f"{source}: there is no such table, folder or image")


def _rows_of_paths(
    names: Sequence[str], where: str, ids: Sequence[str] | None, console: Console | None = None
) -> Samples:
    """A row for each path, and for each image of a folder; the id is the path as given. A path that comes again is left
    out. Raises DataError."""
    listed: list[str] = []
    for name in names:
        if Path(name).is_dir():
            if ids is not None:
                raise DataError(
                    f"{where}: {name} is a folder, which has no id of its own; allowed: image files"
                )
            listed += [str(Path(name) / inner) for inner in image_names(Path(name))]
        else:
            listed.append(name)
    if ids is None:
        unique = list(dict.fromkeys(listed))
        if console is not None and len(unique) < len(listed):
            again = len(listed) - len(unique)
            come = "path comes again, and is" if again == 1 else "paths come again, and are"
            console.line(f"{where}: {again} {come} predicted once")
        listed, ids = unique, unique
    if not listed:
        raise DataError(f"{where}: found no image; allowed: one or more paths")
    refuse_repeated(list(ids), where, "id")
    # Named by the user, each for itself, so there is no folder that they must not leave.
    resolved = [Path(name).absolute() for name in listed]
    return Samples(
        where=where,
        root=Path(resolved[0].anchor),
        ids=tuple(ids),
        names=tuple(str(path.relative_to(path.anchor)) for path in resolved),
        groups=None,
        frame=pl.DataFrame({"id": list(ids)}, schema={"id": pl.String}),
    )


def _rows_in_memory(
    config: Config, given: Sequence[ImageSource], ids: Sequence[str] | None, skips: bool
) -> UsableRows:
    """Images that are handed over themselves, perhaps with paths among them. Raises ImageError for one that cannot be
    used, unless `skips`; DataError if none can."""
    _refuse_other_count(given, ids)
    names = [
        str(ids[row]) if ids is not None else str(item) if isinstance(item, str | Path) else str(row)
        for row, item in enumerate(given)
    ]
    refuse_repeated(names, "the list of images", "id")
    min_size = min_image_size(config.model.image_size)
    images: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for item, name in zip(given, names, strict=True):
        try:
            images[name] = image_of(item, name, config.data.max_pixels, min_size, pixel_format(config))
        except ImageError as error:
            if not skips:
                raise
            reasons[name] = error.reason
    if not images:
        such_as = f"{names[0]}: {reasons[names[0]]}"
        raise DataError(f"not one of {image_count_text(len(given))} can be used, such as {such_as}")
    samples = Samples(
        where="the list of images",
        root=Path(),
        ids=tuple(images),
        names=tuple(images),
        groups=None,
        frame=pl.DataFrame({"id": list(images)}),
    )
    return UsableRows(Rows(samples, MemoryImages(list(images.values()))), reasons, tuple(names))
