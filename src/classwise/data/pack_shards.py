"""Shards written from the rows of any source: the images' bytes as they are, with every column of the table.

The same rows give the same bytes: nothing of a shard depends on the time, the user or the machine. A new folder
takes its name once all shards in it are complete and on the disk."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from classwise.data.image_file import Unreadable, read_file
from classwise.data.images import MAX_PIXELS
from classwise.data.listing import IMAGE_SUFFIXES
from classwise.data.parquet_shards import PATH
from classwise.data.sources import Samples
from classwise.errors import DataError, ImageError, OutputError
from classwise.files import folder_in_one_step, write_bytes

FORMATS = ("parquet", "tar", "zip")
ROWS_PER_GROUP = 100
"""Rows of a row group of Parquet, as `datasets` writes them: other readers decode whole groups."""
IMAGE_COLUMNS = ("image", "image_file", "image_bytes", "classwise_image")
"""The first of these that the table does not have becomes the column of images."""
STEM = "images"
TABLE = "samples.csv"
Progress = Callable[[Sequence[int]], Iterable[int]]


def pack(
    samples: Samples,
    path_column: str,
    out: Path,
    kind: str,
    shard_bytes: int,
    max_pixels: int = MAX_PIXELS,
    progress: Progress = iter,
) -> list[Path]:
    """Write all rows into a new folder `out`, in their order: `images-00000-of-00003.parquet`, ... `path_column`: the
    column with the paths. Each shard has at most `shard_bytes` of images, or one image. Returns the shards.

    Raises DataError for an image that cannot be read, or a name that an archive cannot have; OutputError if `out`
    is there already or cannot be written."""
    if kind not in FORMATS:
        raise OutputError(f"--format: found {kind!r}; allowed: {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already; it is kept. Name a new folder")
    write = {"parquet": _parquet, "tar": _tar, "zip": _zip}[kind]
    if kind == "zip":
        _refuse_unsafe_names(samples, path_column)

    try:
        with folder_in_one_step(out) as new:
            rows = iter(progress(range(len(samples))))
            names: list[str] = []
            for chunk in _chunks(samples, rows, shard_bytes, max_pixels):
                name = f"{len(names):05d}.{kind}"
                names.append(name)
                write_bytes(new / name, write(samples, path_column, *chunk))

            # How many there are is known only now.
            finals = [f"{STEM}-{number:05d}-of-{len(names):05d}.{kind}" for number in range(len(names))]
            for name, final in zip(names, finals, strict=True):
                (new / name).replace(new / final)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from None
    return [out / final for final in finals]


def _chunks(
    samples: Samples, rows: Iterator[int], most: int, max_pixels: int
) -> Iterator[tuple[list[int], list[tuple[str, bytes]]]]:
    """The rows of each shard, and the kind and the bytes of their images. Raises ImageError."""
    chunk: list[int] = []
    images: list[tuple[str, bytes]] = []
    size = 0
    paths = samples.paths
    for row in rows:
        try:
            image = read_file(paths[row], max_pixels, samples.allowed_folders)
        except Unreadable as error:
            raise ImageError(paths[row], str(error)) from None
        if chunk and size + len(image[1]) > most:
            yield chunk, images
            chunk, images, size = [], [], 0
        chunk.append(row)
        images.append(image)
        size += len(image[1])
    if chunk:
        yield chunk, images


def _parquet(
    samples: Samples, path_column: str, rows: Sequence[int], images: Sequence[tuple[str, bytes]]
) -> bytes:
    """A shard as `datasets` reads it: the images first, neither compressed nor with statistics, which would repeat
    them."""
    frame = samples.frame[list(rows)]
    paths = frame[path_column]
    if path_column == PATH:
        frame = frame.drop(PATH)  # it is with the images
    column = next(name for name in IMAGE_COLUMNS if name not in frame.columns)
    data = pl.Series("bytes", [data for _, data in images], dtype=pl.Binary)
    structs = pl.DataFrame({"bytes": data, "path": paths}).to_struct(column)
    frame = frame.select(structs, pl.all())
    features: dict[str, dict[str, str]] = {
        name: {"dtype": "string", "_type": "Value"} for name in frame.columns
    }
    features[column] = {"_type": "Image"}
    buffer = io.BytesIO()
    frame.write_parquet(
        buffer,
        compression="uncompressed",
        statistics=False,
        row_group_size=ROWS_PER_GROUP,
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return buffer.getvalue()


def _tar(
    samples: Samples, path_column: str, rows: Sequence[int], images: Sequence[tuple[str, bytes]]
) -> bytes:
    """A shard by WebDataset's naming: `00000017.jpg`, and its columns in `00000017.json`."""
    frame = samples.frame[list(rows)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row, (kind, data), cells in zip(rows, images, frame.iter_rows(named=True), strict=True):
            columns = json.dumps({PATH: cells[path_column]} | cells, ensure_ascii=False)
            for suffix, content in ((_suffix(cells[path_column], kind), data), (".json", columns.encode())):
                entry = tarfile.TarInfo(f"{row:08d}{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _suffix(name: str, kind: str) -> str:
    """The suffix of an image's name or, where that says nothing, one for its kind."""
    suffix = Path(name).suffix.lower()
    return (
        suffix if suffix in IMAGE_SUFFIXES else {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
    )


def _zip(
    samples: Samples, path_column: str, rows: Sequence[int], images: Sequence[tuple[str, bytes]]
) -> bytes:
    """An archive of images by their paths, and the table unless the folders say it all."""
    frame = samples.frame[list(rows)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        if not _is_of_folders(samples, path_column):
            archive.writestr(_entry(TABLE), frame.write_csv().encode())
        for name, (_, data) in zip(frame[path_column], images, strict=True):
            archive.writestr(_entry(name), data)
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry that looks the same whenever and wherever it is written."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    return entry


def _is_of_folders(samples: Samples, path_column: str) -> bool:
    """Whether the folder of each image is its label, and there is nothing else to say."""
    if samples.frame.columns != [PATH, "label"] or path_column != PATH:
        return False
    first = samples.frame[PATH].str.split("/").list.first()
    return bool((first == samples.frame["label"]).all()) and first.n_unique() > 1


def _refuse_unsafe_names(samples: Samples, path_column: str) -> None:
    """Raise DataError for a path that would lead out of the folder into which an archive is unpacked, or that is no
    image's by its name."""
    for row, name in enumerate(samples.frame[path_column].to_list(), start=1):
        parts = name.split("/")
        if (
            "" in parts
            or "." in parts
            or ".." in parts
            or "\\" in name
            or not name.lower().endswith(IMAGE_SUFFIXES)
        ):
            raise DataError(
                f"{samples.where}: row {row}: the path {name!r} cannot be a name in a zip; allowed: relative paths of"
                f" images without `.` and `..`; --format parquet and tar take any"
            )
