"""From the cells of a path column to image files, however a table writes them.

A cell that is the path of a file stays as it is. Otherwise it may be an absolute path inside the folder, be written
with backslashes, in another Unicode form or in another case, lack its suffix or have another one, have lost zeros or
have spaces around it, or name a file that lies deeper; where exactly one file fits, that is it, and a note counts such
cells.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from classwise.data.listing import image_names, without_suffix
from classwise.data.table import rows_text
from classwise.errors import DataError

FORMS: dict[str, Callable[[str], str]] = {
    "by another Unicode form of the name": lambda name: unicodedata.normalize("NFC", name),
    "by the name in another case": lambda name: unicodedata.normalize("NFC", name).casefold(),
    "by the name without its suffix": lambda name: without_suffix(unicodedata.normalize("NFC", name)),
    "by the number that the name is": lambda name: number_of(name),
}
"""How names are compared when none is the same character by character, in this order."""
WRITTEN: dict[str, Callable[[str], str]] = {
    "by the path without white space around it": lambda cell: cell.strip(),
    "by the path without % codes": lambda cell: unquote(cell),
}
"""How a cell is read otherwise, where it names no file as it stands."""
DEEPER = "in a deeper folder"


def number_of(name: str) -> str:
    """The same text for 7, 007.png and 7.0, as spreadsheets take zeros away and tables of numbers add .0; the name
    itself where it is no number."""
    number = re.fullmatch(r"0*([0-9]+)(\.0)?", without_suffix(name))
    return number[1] if number else unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class ImagePaths:
    """`names`: the path of each cell's file relative to `root`, or the cell itself if there is no such file.

    root: the folder, or what several have in common. missing: the rows (from 0) without a file. notes: how cells were
    matched that are not the path of a file as they stand, for the user.
    """

    names: tuple[str, ...]
    root: Path
    missing: tuple[int, ...]
    notes: tuple[str, ...]


def find_images(
    cells: Sequence[str], folders: Sequence[Path], where: str, follow_links: bool = False
) -> ImagePaths:
    """The files that the cells of a path column name, below any of `folders`; `where` names the table. Raises DataError
    for a cell that several files fit."""
    root = (
        folders[0] if len(folders) == 1 else Path(os.path.commonpath([os.path.abspath(f) for f in folders]))
    )
    trees = [_Tree(str(folder), follow_links) for folder in folders]
    prefixes = ["" if len(folders) == 1 else os.path.relpath(folder, root) + "/" for folder in folders]
    names: list[str] = []
    missing: list[int] = []
    examples: dict[str, tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    for i, cell in enumerate(cells):
        found, how = _find(cell, trees, prefixes)
        if len(found) > 1:
            raise DataError(
                f"{where}: {rows_text([i + 1])}: {cell!r} could be {' or '.join(found[:3])}"
                f"{' or others' if len(found) > 3 else ''}; write the path from {root} on, with its suffix"
            )
        if not found:
            missing.append(i)
        name = found[0] if found else cell
        names.append(name if len(folders) == 1 else os.path.normpath(name))
        if how:
            counts[how] += 1
            examples.setdefault(how, (cell, names[-1]))
    notes = [
        f"{where}: {count} of {len(cells)} images were found {how}, such as {name!r} for {cell!r}"
        for (how, count), (cell, name) in zip(counts.items(), examples.values(), strict=True)
    ]
    return ImagePaths(names=tuple(names), root=root, missing=tuple(missing), notes=tuple(notes))


def _find(cell: str, trees: Sequence["_Tree"], prefixes: Sequence[str]) -> tuple[list[str], str]:
    """The files that fit a cell best, and how they were matched; the latter is empty for a path as it stands."""
    ways: tuple[Callable[[_Tree, str], tuple[list[str], str]], ...] = (
        _as_written,
        _inside,
        _similar,
        _deeper,
    )
    for way in ways:
        matches = [
            (prefix + name, how)
            for tree, prefix in zip(trees, prefixes, strict=True)
            for names, how in [way(tree, cell)]
            for name in names
        ]
        if matches:
            # Two folders may lead to the same file: ../x.png.
            return list({os.path.normpath(name): name for name, _ in matches}.values()), matches[0][1]
    return [], ""


def _as_written(tree: "_Tree", cell: str) -> tuple[list[str], str]:
    return ([cell] if not os.path.isabs(cell) and tree.has(cell) else []), ""


def _inside(tree: "_Tree", cell: str) -> tuple[list[str], str]:
    """An absolute path that lies in the folder, by its text or in reality."""
    if not os.path.isabs(cell):
        return [], ""
    for folder, path in (
        (os.path.abspath(tree.folder), os.path.normpath(cell)),
        (os.path.realpath(tree.folder), os.path.realpath(cell)),
    ):
        name = os.path.relpath(path, folder)
        if not name.startswith("..") and tree.has(name):
            return [name], "by an absolute path"
    return [], ""


def _similar(tree: "_Tree", cell: str) -> tuple[list[str], str]:
    """The same path with other separators, or with a name that is the same in one of FORMS."""
    path = cell.replace("\\", "/")
    if path != cell and not os.path.isabs(path) and tree.has(path):
        return [path], "by a path with backslashes"
    if os.path.isabs(path):
        return [], ""
    for how in FORMS:
        if found := tree.similar(path, how):
            return found, how
    for how, read in WRITTEN.items():
        other = read(path)
        if other != path and (found := [other] if tree.has(other) else _similar(tree, other)[0]):
            return found, how
    return [], ""


def _deeper(tree: "_Tree", cell: str) -> tuple[list[str], str]:
    """Files anywhere below the folder whose path ends as the cell does, with or without their suffix."""
    path = cell.replace("\\", "/").removeprefix("./")
    return ([] if os.path.isabs(path) else tree.ending(path)), DEEPER


class _Tree:
    """The files below a folder. Folders are listed once each, and everything below it only if need be."""

    def __init__(self, folder: str, follow_links: bool) -> None:
        self.folder = folder
        self._follow_links = follow_links
        self._names: dict[str, set[str]] = {}
        self._by_form: dict[tuple[str, str], dict[str, list[str]]] = {}
        self._by_end: dict[str, list[str]] | None = None

    def has(self, path: str) -> bool:
        """Whether there is a file or a link of this name, letter by letter."""
        inner, base = os.path.split(path)
        return bool(base) and base in self._listed(inner)

    def similar(self, path: str, how: str) -> list[str]:
        """The files of the same folder whose names are equal to that of `path` in one of FORMS."""
        form = FORMS[how]
        inner, base = os.path.split(path)
        if not self._listed(inner):
            inner = self._real_folder(inner, form)
        key = (inner, how)
        if key not in self._by_form:
            names: dict[str, list[str]] = {}
            for name in sorted(self._listed(inner)):
                names.setdefault(form(name), []).append(os.path.join(inner, name))
            self._by_form[key] = names
        found = self._by_form[key].get(form(base), [])
        return [name for name in found if os.path.isfile(os.path.join(self.folder, name))]

    def ending(self, path: str) -> list[str]:
        """The images anywhere below the folder whose path ends with `path`, with or without a suffix."""
        if self._by_end is None:
            self._by_end = {}
            for name in image_names(Path(self.folder), self._follow_links):
                base = unicodedata.normalize("NFC", name.rsplit("/", 1)[-1])
                for key in {base, without_suffix(base)}:
                    self._by_end.setdefault(key, []).append(name)
        normal = unicodedata.normalize("NFC", path)
        candidates = self._by_end.get(normal.rsplit("/", 1)[-1], [])
        ends = [f"/{unicodedata.normalize('NFC', name)}" for name in candidates]
        return [
            name
            for name, end in zip(candidates, ends, strict=True)
            if end.endswith(f"/{normal}") or without_suffix(end).endswith(f"/{normal}")
        ]

    def _listed(self, inner: str) -> set[str]:
        """The names in a folder; none if it does not exist."""
        if inner not in self._names:
            try:
                self._names[inner] = set(os.listdir(os.path.join(self.folder, inner)))
            except (OSError, ValueError):  # ValueError: a NUL in the cell
                self._names[inner] = set()
        return self._names[inner]

    def _real_folder(self, inner: str, form: Callable[[str], str]) -> str:
        """The same folder as it is written here, where the form of its names is the same; else as it is."""
        found = ""
        for part in inner.split("/"):
            names = [name for name in self._listed(found) if form(name) == form(part)]
            if len(names) != 1:
                return inner
            found = os.path.join(found, names[0])
        return found
