"""Lists of the images of each part of a split beside class folders: meta/train.txt and meta/test.txt of Food-101."""

from pathlib import Path

import polars as pl

from classwise.data.listing import without_suffix
from classwise.suggest.guess import Guess
from classwise.suggest.layout import PARTS, part_of_folder

LIST_SUFFIXES = (".txt", ".lst", ".list")
MOST_BYTES = 200_000_000
LEAST_SHARE = 0.9
"""The lists are the split if they name at least this share of the images."""


def add_listed_split(guess: Guess, source: Path) -> None:
    """Use the lists as the split of the images, if there are some and no other split is given."""
    if guess.data.keys() & {"split", "fold"}:
        return
    lists = _lists_near(source)
    if "train" not in lists or len(lists) < 2:
        return
    names = guess.table[guess.data["path"]].to_list()
    row_of = {without_suffix(name): row for row, name in enumerate(names)}
    ends = _unique_ends(names)
    parts: dict[int, str] = {}
    for part, path in lists.items():
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            cells = line.split()
            entry = without_suffix(cells[0].removeprefix("./")) if cells else ""
            row = row_of.get(entry, ends.get(entry))
            if row is not None:
                parts[row] = part
    if len(parts) < LEAST_SHARE * len(names):
        return
    cells = [parts.get(row, "unlisted") for row in range(len(names))]
    guess.table = guess.table.with_columns(pl.Series("split", cells))
    guess.data["split"] = "split"
    if "unlisted" in cells or "test" in cells:
        guess.data["split_values"] = {
            cell: "skip" if cell == "unlisted" else cell for cell in dict.fromkeys(cells)
        }
    given = ", ".join(
        f"{cells.count(part)} images for {what}" for part, what in PARTS.items() if part in cells
    )
    unlisted = cells.count("unlisted")
    if unlisted:
        guess.said.append(f"left out {unlisted} images that none of the lists names")
    guess.decide(
        "data.split",
        f"split: {given}",
        f"the lists {', '.join(path.relative_to(source).as_posix() for path in lists.values())} name them",
        "without data.split the rows are drawn",
    )
    guess.keep_test_out()


def _lists_near(source: Path) -> dict[str, Path]:
    """The list of each part, in the folder or one below it, where there is one and no other."""
    found: dict[str, list[Path]] = {}
    folders = [source, *(entry for entry in sorted(source.iterdir()) if entry.is_dir())]
    for folder in folders:
        for path in sorted(folder.glob("*")):
            part = part_of_folder(path.stem)
            if (
                part
                and path.suffix.lower() in LIST_SUFFIXES
                and path.is_file()
                and path.stat().st_size < MOST_BYTES
            ):
                found.setdefault(part, []).append(path)
    return {part: paths[0] for part, paths in found.items() if len(paths) == 1}


def _unique_ends(names: list[str]) -> dict[str, int]:
    """Rows by the last two parts of the path and by the last one, without suffix, where only one row has that end."""
    rows: dict[str, int] = {}
    several: set[str] = set()
    for row, name in enumerate(names):
        parts = without_suffix(name).split("/")
        for end in {"/".join(parts[-2:]), parts[-1]}:
            if end in rows:
                several.add(end)
            rows[end] = row
    return {end: row for end, row in rows.items() if end not in several}
