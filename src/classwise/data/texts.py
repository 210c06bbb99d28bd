"""Many texts in two arrays: a million str objects take a hundred megabytes, and once more in every forked worker that
looks at them, since to look at an object is to write to its page."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import polars as pl

ROWS_AT_ONCE = 16_384
"""Of which objects are made at a time."""

LONGEST_IN_WORDS = 64
"""Bytes of the longest text of those that are compared as numbers of eight bytes."""
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, which spreads the bits (Knuth, The Art of Computer Programming 3, 6.4)."""

_ESCAPED = re.compile(rb'["\\\\\x00-\x1f]')

RowNumbers = Sequence[int] | npt.NDArray[np.int64]


class Texts(Sequence[str]):
    """N texts, each made when it is asked for. Equal to any other sequence of the same texts.

    data: all texts as one, in UTF-8 (what is no Unicode in a file's name as Python's `surrogateescape` keeps it).
    starts: (N + 1,) where each of them begins, and the end.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: bytes | bytearray, starts: npt.NDArray[np.int64]) -> None:
        self.data = data
        self.starts = starts

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """These texts; they themselves if they are kept like this already."""
        if isinstance(texts, Texts):
            return texts
        if isinstance(texts, pl.Series):
            return cls.of_column(texts)
        data, sizes = bytearray(), [0]
        for text in texts:
            encoded = text.encode(errors="surrogateescape")
            data += encoded
            sizes.append(len(encoded))
        return cls(data, np.cumsum(sizes, dtype=np.int64))

    @classmethod
    def of_column(cls, column: pl.Series) -> "Texts":
        """The cells of a column of text, none of which is null."""
        sizes = column.str.len_bytes().to_numpy()
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        data = bytearray()
        for first in range(0, len(column), ROWS_AT_ONCE):
            data += column.slice(first, ROWS_AT_ONCE).str.join().item().encode()
        return cls(data, starts)

    @classmethod
    def of_equal_length(cls, texts_N: npt.NDArray[np.bytes_]) -> "Texts":
        """The texts of an array of bytes, each as long as its type allows."""
        starts = np.arange(len(texts_N) + 1, dtype=np.int64) * texts_N.dtype.itemsize
        return cls(texts_N.tobytes(), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> "Texts": ...

    def __getitem__(self, row: int | slice) -> "str | Texts":
        if isinstance(row, slice):
            return self.take(np.arange(*row.indices(len(self))))
        row = range(len(self))[row]
        return self.data[self.starts[row] : self.starts[row + 1]].decode(errors="surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), ROWS_AT_ONCE):
            starts = self.starts[first : first + ROWS_AT_ONCE + 1]
            part = self.data[starts[0] : starts[-1]]
            ends = (starts - starts[0]).tolist()
            if part.isascii():  # then a byte is a character
                text = part.decode()
                for start, end in itertools.pairwise(ends):
                    yield text[start:end]
            else:
                for start, end in itertools.pairwise(ends):
                    yield part[start:end].decode(errors="surrogateescape")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return bool(np.array_equal(self.starts, other.starts) and self.data == other.data)
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        more = f", ... {len(self)} in all" if len(self) > 5 else ""
        return f"Texts({', '.join(map(repr, self[:5]))}{more})"

    def column(self) -> pl.Series:
        """The texts as a column of a table."""
        starts = range(0, len(self), ROWS_AT_ONCE)
        parts = [pl.Series(list(self[start : start + ROWS_AT_ONCE]), dtype=pl.String) for start in starts]
        return pl.concat(parts) if parts else pl.Series([], dtype=pl.String)

    def encoded(self) -> Iterator[bytes | bytearray]:
        """The texts as bytes."""
        for first in range(0, len(self), ROWS_AT_ONCE):
            ends = self.starts[first : first + ROWS_AT_ONCE + 1].tolist()
            for start, end in itertools.pairwise(ends):
                yield self.data[start:end]

    def take(self, rows: RowNumbers) -> "Texts":
        """Those of these rows only, in this order."""
        rows = np.asarray(rows, np.int64)
        sizes = self.starts[rows + 1] - self.starts[rows]
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        source = np.frombuffer(self.data, np.uint8)
        data = np.empty(starts[-1], np.uint8)
        # In parts: an index of every byte would take eight times the texts.
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            begin, end = starts[first], starts[min(first + ROWS_AT_ONCE, len(rows))]
            shift = np.repeat(self.starts[rows[part]] - starts[:-1][part], sizes[part])
            data[begin:end] = source[np.arange(begin, end) + shift]
        return Texts(data.tobytes(), starts)

    def __add__(self, more: "Texts") -> "Texts":
        """These, and after them the others."""
        return Texts(
            bytes(self.data) + bytes(more.data),
            np.concatenate([self.starts, self.starts[-1] + more.starts[1:]]),
        )

    def hashes(self) -> npt.NDArray[np.int64]:
        """(N,) of equal texts the same number; two that differ may have the same one, too. Other ones in each
        process."""
        if self._longest > LONGEST_IN_WORDS:
            return np.fromiter(map(hash, map(bytes, self.encoded())), np.int64, len(self))
        hash_N = np.diff(self.starts).astype(np.uint64)
        for first in range(0, len(self), ROWS_AT_ONCE):
            part = hash_N[first : first + ROWS_AT_ONCE]
            for word_n in self._words(first).T:
                part ^= word_n
                part *= MULTIPLIER
                part ^= part >> np.uint64(32)
        return hash_N.view(np.int64)

    def sorted_rows(self) -> npt.NDArray[np.int64]:
        """(N,) the rows in the order of their texts, of equal ones in their own: by characters, as Python sorts."""
        # In UTF-8 bytes sort as characters do, but not what is no UTF-8; and a NUL is no end of a text.
        if self._longest > LONGEST_IN_WORDS or not self.data.isascii() or b"\0" in self.data:
            return np.array(sorted(range(len(self)), key=list(self).__getitem__), np.int64)
        words_NW = np.empty((len(self), -(-self._longest // 8)), np.uint64)
        for first in range(0, len(self), ROWS_AT_ONCE):
            words_NW[first : first + ROWS_AT_ONCE] = self._words(first)
        differing = [word_N for word_N in words_NW.T if (word_N != word_N[:1]).any()]
        return np.lexsort(differing[::-1]) if differing else np.arange(len(self))

    @property
    def _longest(self) -> int:
        """Bytes of the longest text."""
        return int(np.diff(self.starts).max(initial=0))

    def _words(self, first: int) -> npt.NDArray[np.uint64]:
        """(n, W) the texts from this row on, ROWS_AT_ONCE at the most, as numbers of eight bytes each, of which the
        first counts most; they end with zeros."""
        starts = self.starts[first : first + ROWS_AT_ONCE + 1]
        part = np.frombuffer(self.data, np.uint8, int(starts[-1] - starts[0]), int(starts[0]))
        sizes = np.diff(starts)
        bytes_nB = np.zeros((len(sizes), 8 * -(-self._longest // 8)), np.uint8)
        is_there_nB = np.arange(bytes_nB.shape[1]) < sizes[:, None]
        bytes_nB[is_there_nB] = part  # texts lie one after the other, as the rows of a mask do
        return bytes_nB.view(">u8").astype(np.uint64)

    def first_rows(self) -> npt.NDArray[np.int64]:
        """(N,) of each row, the first row that has the same text."""
        hashes_N = self.hashes()
        if not _has_twice(hashes_N):
            return np.arange(len(self))
        _, first_N, number_N = np.unique(hashes_N, return_index=True, return_inverse=True)
        first_N = first_N[number_N].astype(np.int64)
        # Two texts may have one hash: then all are compared.
        for row in np.flatnonzero(first_N != np.arange(len(self))).tolist():
            if self[row] != self[int(first_N[row])]:
                firsts: dict[str, int] = {}
                return np.array([firsts.setdefault(text, i) for i, text in enumerate(self)], np.int64)
        return first_N

    @property
    def has_repeats(self) -> bool:
        """Whether any text occurs twice."""
        return bool((self.first_rows() != np.arange(len(self))).any())


def _has_twice(numbers_N: npt.NDArray[np.int64]) -> bool:
    sorted_N = np.sort(numbers_N)
    return bool((sorted_N[1:] == sorted_N[:-1]).any())


def json_items(texts: Texts, between: bytes) -> Iterator[bytes]:
    """The texts as JSON strings in UTF-8, with `between` between them, in parts. Raises UnicodeEncodeError for what is
    no UTF-8."""
    for first in range(0, len(texts), ROWS_AT_ONCE):
        part = texts[first : first + ROWS_AT_ONCE]
        # Nothing in it that is written in another way.
        is_plain = part.data.isascii() and not _ESCAPED.search(part.data)
        strings = (
            (b'"' + text + b'"' for text in part.encoded())
            if is_plain
            else (json.dumps(text, ensure_ascii=False).encode() for text in part)
        )
        yield (between if first else b"") + between.join(strings)
