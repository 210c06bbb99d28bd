"""What the check of images has found in a shard, remembered beside its index (see shard_index.py), so that an image is
read and decoded once and not at every start.

Of each shard and each way to decode there is one file: an array of records, one for each image that can be used, in
the order of their keys. An image without a record is checked as if nothing were remembered; so are all images of a
shard that has changed, of which the stamp is another one, and all images after an update of a decoder. Images that
cannot be used have no record, since why they cannot is for the decoder to say."""

import contextlib
import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classwise.data.cache import VERSION as CACHE_VERSION
from classwise.data.cache import decoder_versions
from classwise.data.pixel_format import FACTS_FIELDS, ImageFacts, PixelFormat
from classwise.data.record_table import bytes_of_hex
from classwise.data.shard_files import ShardFile, Shards
from classwise.data.shard_index import remembered_path
from classwise.data.shards import open_shard
from classwise.files import write_bytes

VERSION = 1
"""Of the checks, and of RECORD."""
SUFFIX = ".checks"
RECORD = np.dtype(
    [
        ("key", "<u8"),
        # The bytes of the `content_key` and the `pixels_key`.
        ("file", "u1", (16,)),
        ("pixels", "u1", (8,)),
        *FACTS_FIELDS,
    ]
)

Records = npt.NDArray[np.void]


@dataclass(frozen=True)
class Decoding:
    """How images are decoded, as `read_image` describes it."""

    max_pixels: int
    min_size: tuple[int, int] | None
    pixels: PixelFormat

    @functools.cached_property
    def digest(self) -> str:
        """A hash of it and of the versions of the decoders."""
        identity = (
            VERSION,
            CACHE_VERSION,
            decoder_versions(),
            self.max_pixels,
            self.min_size,
            tuple(self.pixels),
        )
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def new_records(
    keys_N: npt.NDArray[np.uint64], files_N: npt.NDArray[np.bytes_], pixels_N: npt.NDArray[np.bytes_]
) -> Records:
    """(N,) records of images with these hashes, of plain samples."""
    records = np.zeros(len(keys_N), RECORD)
    records["key"] = keys_N
    records["file"], records["pixels"] = bytes_of_hex(files_N), bytes_of_hex(pixels_N)
    for name, value in ImageFacts()._asdict().items():
        records[name] = value
    return records


def recall_checks(path: Path, shards: Shards, decoding: Decoding) -> Records:
    """The records of a shard, sorted by key, for this way to decode; none if there are none that can be read. Raises
    DataError if the shard is missing or has changed."""
    return _recall(_file_of(path, shards), decoding)


def keep_checks(path: Path, shards: Shards, decoding: Decoding, records: Records) -> None:
    """Remember these records of a shard beside those that are remembered already, in the place of any with the same
    keys; and remove those of the shard as it was before it changed. A cache that cannot be written to is left alone,
    and so is a shard without a version. Raises DataError if the shard is missing or has changed."""
    file = _file_of(path, shards)
    if not file.has_version or not len(records):
        return
    with contextlib.suppress(OSError):
        known = _recall(file, decoding)
        known = known[~np.isin(known["key"], records["key"])]
        every = np.concatenate([known, records])
        # In order, and each key once: two names with one key are the same image.
        _, first = np.unique(every["key"], return_index=True)
        buffer = io.BytesIO()
        np.save(buffer, every[first])
        place = _place(file, decoding)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shard, stamp, _ = place.name.split("-")
        for older in place.parent.glob(f"{shard}-*{SUFFIX}"):
            if not older.name.startswith(f"{shard}-{stamp}-"):
                older.unlink(missing_ok=True)
        write_bytes(place, buffer.getvalue())


def _file_of(path: Path, shards: Shards) -> ShardFile:
    return open_shard(path, shards.stamps[str(path)]).file


def _recall(file: ShardFile, decoding: Decoding) -> Records:
    if file.has_version:
        with contextlib.suppress(OSError, ValueError, EOFError):
            found = np.load(_place(file, decoding), allow_pickle=False)
            if found.dtype == RECORD and found.ndim == 1 and (found["key"][1:] > found["key"][:-1]).all():
                return np.asarray(found)
    return np.zeros(0, RECORD)


def _place(file: ShardFile, decoding: Decoding) -> Path:
    """Raises OSError for a user without a home folder."""
    return remembered_path(file, f"-{decoding.digest}{SUFFIX}")
