"""The paths of many rows in two arrays: a million Path objects would take hundreds of megabytes, and once more in every
forked worker, since to look at an object is to write to its page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

from classwise.data.texts import RowNumbers, Texts


class RowPaths(Sequence[Path]):
    """`root / name` of each of N names, made when it is asked for. Equal to any other sequence of the same paths."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root
        self.names = Texts.of(names)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, row: int) -> Path: ...

    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...

    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return self.root / self.names[row]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def take(self, rows: RowNumbers) -> "RowPaths":
        """Those of these rows only, in this order."""
        return RowPaths(self.root, self.names.take(rows))
