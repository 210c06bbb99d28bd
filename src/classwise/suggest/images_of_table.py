"""Which column of a table names the images, and in which folders they lie."""

import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from classwise.data.image_paths import ImagePaths, find_images, number_of
from classwise.data.listing import is_image_name, without_suffix
from classwise.errors import DataError
from classwise.suggest.names import ID_NAMES, PATH_NAMES, columns_named, words

SAMPLED_CELLS = 60
MOST_FOLDERS = 200
"""Folders near the table that are looked into."""
MOST_LISTED = 4
"""More folders than these are listed in the config only if no folder around them will do."""
USUAL = ("images", "image", "imgs", "img", "jpg", "jpeg", "jpegs", "png", "photos", "pictures", "all")
UNUSUAL = (
    "mask",
    "masks",
    "thumb",
    "thumbs",
    "thumbnails",
    "annotation",
    "annotations",
    "segmentation",
    "labels",
    "test",
)


TABLE_PLACES = (
    "annotations", "annotation", "labels", "label", "csv", "csvs", "tables", "meta", "metadata", "lists", "splits",
    "gt",
)  # fmt: skip
"""Words in the names of folders that hold the tables of a data set, with its images beside them."""


@dataclass(frozen=True)
class ImageColumn:
    """column: holds the paths. folders: data.images. names: the path of each row's file relative to what the folders
    have in common. missing: the rows (from 0) without a file. paths: the cells as they have to be rewritten, where no
    folder makes them paths; None if they can stay. notes: how files were found.
    """

    column: str
    folders: list[Path]
    names: Sequence[str]
    missing: tuple[int, ...]
    paths: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def find_image_column(table: pl.DataFrame, path: Path) -> ImageColumn:
    """The column that names files below one of the folders near the table, which lies at `path`. Raises DataError if
    there is none, and for cells that several files fit."""
    names = [*columns_named(table.columns, PATH_NAMES), *columns_named(table.columns, ID_NAMES)]
    names += [name for name in table.columns if table[name].n_unique() >= 0.9 * table.height]
    samples = {name: _sample(table[name]) for name in dict.fromkeys(names)}
    samples = {name: cells for name, cells in samples.items() if cells}
    folders = folders_near(path)
    listings = _Listings()
    # The table's own folder first, with all columns and ways to name a file: beside it there may be other data, whose
    # files have other names of the table by chance, such as numbers.
    own_folders = [folder for folder in folders if folder.is_relative_to(path.parent)]
    for listings.is_loose in (False, True):
        for column, sample in samples.items():
            if found := _in_folders(table, column, sample, own_folders, path, listings):
                return found
    deeper, ambiguous = _deeper(table, samples, path)
    if deeper is not None:
        return deeper

    # Beside it, with a note. Where the table has images of its own, only paths with a folder count there.
    has_own_images = any(listings.has_images(folder) for folder in own_folders)
    beside = {
        column: sample
        for column, sample in samples.items()
        if not has_own_images or any("/" in cell.replace("\\", "/") for cell in sample)
    }
    for listings.is_loose in (False, True):
        for column, sample in beside.items():
            if found := _in_folders(table, column, sample, folders, path, listings):
                where = ", ".join(map(str, found.folders))
                return replace(
                    found, notes=[f"images: taken from {where}, beside the table's folder", *found.notes]
                )

    # Only the end of a path that another machine had.
    for column in samples:
        if stripped := _without_front(table, column, folders, path):
            return stripped
    raise DataError(
        f"{path}: no column holds paths of files below {path.parent.resolve()}{ambiguous or _hint(table, folders)};"
        " put the table beside its images or the folders that hold them, or write the full paths into it"
    )


def _in_folders(
    table: pl.DataFrame,
    column: str,
    sample: Sequence[str],
    folders: Sequence[Path],
    path: Path,
    listings: "_Listings",
) -> ImageColumn | None:
    """The column with the folders that cover most of it; None if none do."""
    chosen = _covering_folders(sample, [*folders, *_absolute_folder(sample)], words(path.stem), listings)
    if not chosen:
        return None
    if len(chosen) > MOST_LISTED:
        chosen = _common_folder(sample, chosen)
    found = _all_cells(table, column, chosen, path)
    return ImageColumn(column, chosen, found.names, found.missing, notes=list(found.notes))


def _deeper(
    table: pl.DataFrame, samples: Mapping[str, Sequence[str]], path: Path
) -> tuple[ImageColumn | None, str]:
    """The column that names files anywhere below the table's folder; and why not, where several files fit a cell."""
    ambiguous = ""
    for column, sample in samples.items():
        inside = [cell for cell in sample if not os.path.normpath(cell).startswith("..")]
        try:
            below = find_images(inside, [path.parent], str(path))
        except DataError as error:
            ambiguous = f" ({error})"
            continue
        if 2 * (len(inside) - len(below.missing)) > len(sample):
            found = _all_cells(table, column, [path.parent], path)
            return ImageColumn(column, [path.parent], found.names, found.missing, notes=list(found.notes)), ""
    return None, ambiguous


def _hint(table: pl.DataFrame, folders: Sequence[Path]) -> str:
    """What cells look like paths, and what files look like, for a table of which no column names files."""
    sampled = {column: [cell or "" for cell in table[column].head(50).to_list()] for column in table.columns}
    if embedded := next(
        (c for c, cells in sampled.items() if any("JFIF" in x or "\\x89PNG" in x for x in cells)), None
    ):
        return f" (column {embedded!r} holds the bytes of images; write them to files, and their names into the table)"
    named = (column for column, cells in sampled.items() if any(map(is_image_name, cells)))
    likely = next(named, next(iter(columns_named(table.columns, (*PATH_NAMES, *ID_NAMES))), None))
    if likely is None:
        return ""
    text = f"column {likely!r} has names of images, but there are no such files"
    if not any(map(is_image_name, sampled[likely])):
        text = f"column {likely!r} has {next((c for c in sampled[likely] if c), '')!r}, but there is no such image"
    for folder in folders:
        found = sorted(name for name in os.listdir(folder) if is_image_name(name)) if folder.is_dir() else []  # noqa: PTH208
        if found:
            return f" ({text}; images in {folder} are named as {found[0]!r})"
    return f" ({text})"


def folders_near(path: Path) -> list[Path]:
    """The folders in which the images of a table may lie: its own, those up to two levels below it, the one above,
    those beside it and, where it is named as one of tables, one level below these."""
    own = path.parent
    inner = _folders_in(own)
    innermost = [folder for parent in inner for folder in _folders_in(parent)]
    beside = [] if own.parent == own else [own.parent, *(f for f in _folders_in(own.parent) if f != own)]
    is_place = bool(set(words(own.name)) & set(TABLE_PLACES))
    within = [folder for parent in beside[1:] for folder in _folders_in(parent)] if is_place else []
    near = [own, *inner, *innermost[:MOST_FOLDERS], *beside, *within]
    return list(dict.fromkeys(near))[: 2 * MOST_FOLDERS]


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(
            entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError:
        return []


def _sample(cells: pl.Series) -> list[str]:
    """Some of the cells, from all over the column; fewer if they are long or the same."""
    known = [cell for cell in cells.drop_nulls().unique(maintain_order=True).to_list() if cell.strip()]
    step = max(1, len(known) // SAMPLED_CELLS)
    return [cell for cell in known[::step] if len(cell) < 500]


def _absolute_folder(sample: Sequence[str]) -> list[Path]:
    """The folder that absolute paths have in common, if they are paths of files."""
    existing = [cell for cell in sample if os.path.isabs(cell) and os.path.isfile(cell)]  # noqa: PTH113, PTH117
    return [Path(os.path.commonpath([os.path.dirname(cell) for cell in existing]))] if existing else []  # noqa: PTH120


def _covering_folders(
    sample: Sequence[str], folders: Sequence[Path], table_words: Sequence[str], listings: "_Listings"
) -> list[Path]:
    """The folder that has files for most of the cells, and others that have those it lacks; none if fewer than half of
    the cells are found."""
    unusual = set(UNUSUAL) - set(table_words)
    usual = [folder for folder in folders if not set(words(folder.name)) & unusual]
    if len(usual) < len(folders) and (better := _covering_folders(sample, usual, table_words, listings)):
        return better
    found = {folder: listings.hits(sample, folder) for folder in folders}
    covered: set[str] = set()
    chosen: list[Path] = []
    while len(covered) < len(sample):
        # A second folder with the same names would make the first one's ambiguous.
        open_folders = [folder for folder in folders if not covered & found[folder].keys()]
        ranks = {
            folder: (len(found[folder]), sum(found[folder].values()), _liking(folder, table_words))
            for folder in open_folders
        }
        best = max(open_folders, key=ranks.__getitem__, default=None)
        if best is None or not found[best]:
            break
        chosen.append(best)
        covered |= found[best].keys()
    return chosen if 2 * len(covered) > len(sample) else []


class _Listings:
    """Which cells name files of a folder. Every folder is listed once. is_loose: whether spaces around a cell, % codes
    in it and zeros before a number are passed over."""

    def __init__(self) -> None:
        self.is_loose = False
        self._forms: dict[str, set[str]] = {}

    def hits(self, sample: Sequence[str], folder: Path) -> dict[str, bool]:
        """The cells that name a file in the folder, and whether they do so letter by letter."""
        hits: dict[str, bool] = {}
        for cell in sample:
            path = cell.replace("\\", "/")
            if os.path.isabs(path):  # noqa: PTH117
                if not os.path.isfile(path) or not Path(path).is_relative_to(folder):  # noqa: PTH113
                    continue
                hits[cell] = True
            elif os.path.normpath(path).startswith(".."):
                continue  # would leave the folder
            elif os.path.isfile(folder / path):  # noqa: PTH113 - Path raises for a text that is too long to be a name
                hits[cell] = path == cell
            else:
                read = unquote(path.strip()) if self.is_loose else path
                inner, _, base = read.rpartition("/")
                forms = {unicodedata.normalize("NFC", without_suffix(base)).casefold()}
                forms |= {number_of(base)} if self.is_loose else set()
                if base and forms & self._image_forms(folder / inner):
                    hits[cell] = False
        return hits

    def has_images(self, folder: Path) -> bool:
        """Whether images lie directly in the folder."""
        return bool(self._image_forms(folder))

    def _image_forms(self, folder: Path) -> set[str]:
        """The names of a folder's images in lower case without their suffixes."""
        key = f"{folder}\0{self.is_loose}"
        if key not in self._forms:
            try:
                entries = os.listdir(folder)  # noqa: PTH208
            except (OSError, ValueError):
                entries = []
            images = [name for name in entries if is_image_name(name)]
            self._forms[key] = {
                unicodedata.normalize("NFC", without_suffix(name)).casefold() for name in images
            }
            if self.is_loose:
                self._forms[key] |= set(map(number_of, images))
        return self._forms[key]


def _liking(folder: Path, table_words: Sequence[str]) -> int:
    """Of folders with the same names: one that is named as the table is, or as folders of images are."""
    own = words(folder.name)
    is_alike = any(
        word in own for word in table_words if word in ("train", "training", "val", "valid", "test")
    )
    return 4 * is_alike + 2 * any(word in USUAL for word in own) - 2 * any(word in UNUSUAL for word in own)


def _common_folder(sample: Sequence[str], folders: list[Path]) -> list[Path]:
    """The folder around many folders, such as those of classes, if each cell names one file anywhere below it."""
    around = Path(os.path.commonpath(folders))
    try:
        below = find_images(sample, [around], str(around))
    except DataError:
        return folders
    return folders if below.missing else [around]


def _all_cells(table: pl.DataFrame, column: str, folders: Sequence[Path], path: Path) -> ImagePaths:
    """The files of all rows."""
    cells = [cell or "" for cell in table[column].to_list()]
    return find_images(cells, folders, path.name, follow_links=True)


def _without_front(
    table: pl.DataFrame, column: str, folders: Sequence[Path], path: Path
) -> ImageColumn | None:
    """The column with paths of another machine or another folder, whose ends are paths here; None if they are not."""
    cells = [(cell or "").replace("\\", "/") for cell in table[column].to_list()]
    sample = [cell for cell in _sample(table[column].str.replace_all("\\", "/", literal=True)) if "/" in cell]
    if not sample:
        return None
    counts: Counter[tuple[str, Path]] = Counter()
    for cell in sample:
        parts = cell.split("/")
        for folder in folders:
            end = next(
                (n for n in range(1, len(parts)) if os.path.isfile(folder / "/".join(parts[n:]))),  # noqa: PTH113
                None,
            )
            if end is not None:
                counts["/".join(parts[:end]), folder] += 1
    if not counts:
        return None
    (_, folder), _ = counts.most_common(1)[0]
    fronts = sorted({front for front, at in counts if at == folder}, key=len, reverse=True)
    if 2 * sum(count for (_, at), count in counts.items() if at == folder) <= len(sample):
        return None
    paths = [next((cell[len(f) + 1 :] for f in fronts if cell.startswith(f"{f}/")), cell) for cell in cells]
    found = find_images(paths, [folder], path.name, follow_links=True)
    note = f"paths begin with {fronts[0]!r}, which is not here; what follows is in {folder}"
    return ImageColumn(column, [folder], found.names, found.missing, paths=paths, notes=[note, *found.notes])
