"""The paths of many rows in two arrays: a million Path objects would take hundreds of megabytes, and once more in every
forked worker, since to look at an object is to write to its page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt


class RowPaths(Sequence[Path]):
    """`root / name` of each of N names, made when it is asked for.

    names: all names as one text. starts: (N + 1,) where each of them begins, and the end.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        encoded = [name.encode(errors="surrogateescape") for name in names]
        self.root = root
        self.names = b"".join(encoded)
        self.starts: npt.NDArray[np.int64] = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(name) for name in encoded], out=self.starts[1:])

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: int) -> Path: ...

    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...

    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return self.root / self._name(row)

    def take(self, rows: Iterable[int]) -> "RowPaths":
        """Those of these rows only, in this order."""
        return RowPaths(self.root, [self._name(int(row)) for row in rows])

    def _name(self, row: int) -> str:
        return self.names[self.starts[row] : self.starts[row + 1]].decode(errors="surrogateescape")
