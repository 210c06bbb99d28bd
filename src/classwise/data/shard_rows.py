"""Which shard the image of each row lies in and by what key, for many rows at once: as paths, each would be an object,
taken apart by a regular expression."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classwise.data.row_paths import RowPaths
from classwise.data.shard_files import Shards
from classwise.data.shard_index import key_of
from classwise.data.texts import Texts

ROWS_AT_ONCE = 65_536
MOST_DIGITS = 18
"""Of the number of a row in its shard."""
NO_KEY = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class RowsOfShard:
    """The rows (N,), in their order, whose images lie in one shard, and the keys (N,) by which its index has them."""

    shard: Path
    rows: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]


def rows_by_shard(paths: RowPaths, rows: npt.NDArray[np.int64], shards: Shards) -> Iterator[RowsOfShard]:
    """The rows among these whose paths go through one of the shards, by shard in the order of the shards."""
    prefixes = _prefixes(paths.root, shards)
    number_N = _shard_numbers(paths.names, rows, list(prefixes.values()))
    for number, (shard, prefix) in enumerate(prefixes.items()):
        its_rows = rows[number_N == number]
        if len(its_rows):
            path = Path(shard)
            yield RowsOfShard(path, its_rows, keys_of_rows(paths.names, its_rows, len(prefix), path))


def _prefixes(root: Path, shards: Shards) -> dict[str, bytes]:
    """By shard, what the names of its images begin with."""
    found: dict[str, bytes] = {}
    for shard in shards.stamps:
        path = Path(shard)
        if path.is_relative_to(root):
            found[shard] = f"{path.relative_to(root).as_posix()}/".encode(errors="surrogateescape")
    return found


def _shard_numbers(names: Texts, rows: npt.NDArray[np.int64], prefixes: list[bytes]) -> npt.NDArray[np.int64]:
    """(N,) of each row the number of the prefix that its name has; -1 for none."""
    data, number_N = np.frombuffer(names.data, np.uint8), np.full(len(rows), -1, np.int64)
    for length in sorted({len(prefix) for prefix in prefixes}, reverse=True):
        numbers = np.array([number for number, prefix in enumerate(prefixes) if len(prefix) == length])
        texts = np.array([prefixes[number] for number in numbers], f"S{length}")
        order = np.argsort(texts, kind="stable")
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[first : first + ROWS_AT_ONCE]
            starts = names.starts[part]
            is_long = names.starts[part + 1] - starts > length
            at_ND = starts[is_long, None] + np.arange(length)
            begins = np.ascontiguousarray(data[at_ND]).view(f"S{length}").reshape(-1)
            at = np.minimum(np.searchsorted(texts[order], begins), len(order) - 1)
            is_found = texts[order][at] == begins
            number_N[first + np.flatnonzero(is_long)[is_found]] = numbers[order[at[is_found]]]
    return number_N


def keys_of_rows(
    names: Texts, rows: npt.NDArray[np.int64], skipped: int, shard: Path
) -> npt.NDArray[np.uint64]:
    """(N,) by which key the shard's index has the image of each row, whose name in the shard begins after so many
    bytes: `row_of_name` or `key_of` of that name."""
    if shard.suffix.lower() != ".parquet":
        texts = (names.data[names.starts[row] + skipped : names.starts[row + 1]] for row in rows.tolist())
        keys = (key_of(text.decode(errors="surrogateescape")) for text in texts)
        return np.fromiter(keys, np.uint64, len(rows))

    # Digits up to a dot or the end.
    data = np.frombuffer(names.data, np.uint8)
    at_N, end_N = names.starts[rows] + skipped, names.starts[rows + 1]
    key_N, count_N = np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.int64)
    for _ in range(MOST_DIGITS):
        is_digit_N = at_N < end_N
        digit_N = data[np.minimum(at_N, len(data) - 1)] - np.uint8(ord("0"))
        is_digit_N &= digit_N < 10
        key_N[is_digit_N] = key_N[is_digit_N] * np.uint64(10) + digit_N[is_digit_N]
        count_N += is_digit_N
        at_N = at_N + is_digit_N
        if not is_digit_N.any():
            break
    has_ended_N = (at_N == end_N) | (data[np.minimum(at_N, len(data) - 1)] == ord("."))
    key_N[~has_ended_N | (count_N == 0)] = NO_KEY
    return key_N
