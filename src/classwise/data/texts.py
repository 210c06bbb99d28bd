"""Many texts in two arrays: a million str objects take a hundred megabytes, and once more in every forked worker that
looks at them, since to look at an object is to write to its page."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import polars as pl

ROWS_AT_ONCE = 16_384
"""Of which objects are made at a time."""

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
            data += "".join(column.slice(first, ROWS_AT_ONCE).to_list()).encode()
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
        for encoded in self.encoded():
            yield encoded.decode(errors="surrogateescape")

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
        return np.fromiter(map(hash, map(bytes, self.encoded())), np.int64, len(self))

    def first_rows(self) -> npt.NDArray[np.int64]:
        """(N,) of each row, the first row that has the same text."""
        hashes_N = self.hashes()
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
