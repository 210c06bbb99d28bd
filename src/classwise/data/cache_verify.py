"""Whether the pixels in the file of an image cache are those that were written there, by their checksums."""

import os
import zlib

import numpy as np
import numpy.typing as npt

READ_BYTES = 8 * 2**20
"""Of the pixels of several small images that are read at once."""

Records = npt.NDArray[np.void]


def is_intact(pixels: int, record: np.void) -> bool:
    """Whether the pixels of a record are those that were written; they are not if the disk cannot read them. `pixels`:
    the handle of their file."""
    size = int(record["height"]) * int(record["width"]) * int(record["channels"])
    try:
        data = os.pread(pixels, size, int(record["at"]))
    except OSError:
        return False
    return len(data) == size and zlib.crc32(data) == int(record["sum"])


def are_intact(pixels: int, records_N: Records) -> npt.NDArray[np.bool_]:
    """(N,) `is_intact` of each; small images that lie close together are read at once."""
    order_N = np.argsort(records_N["at"], kind="stable")
    sorted_N = records_N[order_N]
    begin_N = sorted_N["at"].astype(np.int64)
    end_N = begin_N + byte_counts(sorted_N).astype(np.int64)
    found: list[bool] = []
    while (first := len(found)) < len(sorted_N):
        last = int(np.searchsorted(begin_N, begin_N[first] + READ_BYTES))
        size = int(end_N[first:last].max() - begin_N[first])
        if last == first + 1 or size > 2 * READ_BYTES:
            found += [is_intact(pixels, record) for record in sorted_N[first:last]]
            continue
        part = slice(first, last)
        spans = zip(
            (begin_N[part] - begin_N[first]).tolist(),
            (end_N[part] - begin_N[first]).tolist(),
            sorted_N["sum"][part].tolist(),
            strict=True,
        )
        data = _read(pixels, size, int(begin_N[first]))
        found += [
            end <= len(data) and zlib.crc32(data[begin:end]) == expected for begin, end, expected in spans
        ]
    is_intact_N = np.zeros(len(records_N), bool)
    is_intact_N[order_N] = found
    return is_intact_N


def byte_counts(records_N: Records) -> npt.NDArray[np.float64]:
    """(N,) how many bytes of pixels each has: numbers that do not overflow, whatever a damaged record says."""
    counts_N: npt.NDArray[np.float64] = (
        records_N["height"].astype(np.float64) * records_N["width"] * records_N["channels"]
    )
    return counts_N


def _read(pixels: int, size: int, at: int) -> memoryview:
    """These bytes, or fewer: a read may end early, and none come from a disk that cannot be read there."""
    try:
        return memoryview(os.pread(pixels, size, at))
    except OSError:
        return memoryview(b"")
