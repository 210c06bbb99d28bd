"""Shortcuts that are planted, and sets without any: which columns tell the label, and how often shuffled labels warn.

    python benchmarks/check.py shortcuts WORK [--data ../shared/data] [--sets digits ...] [--shuffles 200]
        [--records FILE] [--tables] [--write]

Sets: scikit-learn's digits with an imbalance of 15, the bundled clothes, and `tiles` and `cells` of --data. Columns:
what `file_facts` knows of each file, the mean color of its outermost pixels and whether they are all alike, and its
brightness.

`clean`: the images as they are, with their own labels (what tells them is there, such as the size of files, which
depends on what they show), and with shuffled labels, which nothing may tell: the share of shuffles in which any column
is notable. `planted`, into every second class of the set: JPEG files of quality 75 among 90 (`quality`), a gray border
of one pixel (`border`), a size of nine tenths (`size`); and the border into the rarest class of ten rows or more alone
(`rarest`). All images are written as JPEG files for it.

`speed`: seconds for 10,000 rows, 8 columns and 10 classes, with nothing to find. --write puts the tables into
docs/results/check.md."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
from numpy.typing import NDArray

from checking.options import make_parser, parse
from classwise.datacheck.file_facts import file_facts
from classwise.datacheck.shortcuts import LEAST_ROWS, Shortcut, find_shortcuts
from imbalance import replace_between
from sidebyside.sets import make_split, read_rows

Image = NDArray[np.uint8]
Ints = NDArray[np.int64]
Record = dict[str, Any]

SETS = ("digits", "clothes", "tiles", "cells")
QUALITY, BORDER = 90, 160
FLAT = 6
"""The standard deviation up to which a border has one color, as JPEG keeps it."""


def bordered(image_HWC: Image) -> Image:
    image_HWC = image_HWC.copy()
    image_HWC[[0, -1]] = BORDER
    image_HWC[:, [0, -1]] = BORDER
    return image_HWC


def smaller(image_HWC: Image) -> Image:
    height, width = (round(0.9 * length) for length in image_HWC.shape[:2])
    return cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)


Plant = tuple[Callable[[Image], Image], int, str]
PLANTS: dict[str, Plant] = {
    "quality": (lambda image_HWC: image_HWC, 75, "quantization"),
    "border": (bordered, QUALITY, "border_flat"),
    "size": (smaller, QUALITY, "width"),
    "rarest": (bordered, QUALITY, "border_flat"),
}
"""What is done to an image, the quality that it is written with, and the column that shows it."""


def read_set(name: str, options: argparse.Namespace) -> tuple[list[Path], Ints]:
    """The files of a set and the numbers of their classes."""
    if name in ("tiles", "cells"):
        if options.data is None:
            raise SystemExit(f"--data: the set {name} needs the folder with {name}/table.csv")
        folder = options.data / name
        rows = read_rows(folder / "table.csv")
    else:
        split = make_split(name, 0, options.work, options.data)
        folder, rows = split.train.parent, read_rows(split.train)
    _, label_N = np.unique([row["label"] for row in rows], return_inverse=True)
    return [folder / row["path"] for row in rows], label_N.astype(np.int64)


def columns_of(paths: Sequence[Path]) -> pl.DataFrame:
    """The columns of a set's files; the folder is the same for all."""
    borders, is_flat, brightness = [], [], []
    for path in paths:
        image_HWC = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        edge_PC = np.concatenate([image_HWC[0], image_HWC[-1], image_HWC[1:-1, 0], image_HWC[1:-1, -1]])
        borders.append(edge_PC.mean(axis=0))
        is_flat.append(bool(edge_PC.std(axis=0).max() < FLAT))
        brightness.append(float(image_HWC.mean()))
    colors = {f"border_{color}": values for color, values in zip("rgb", np.transpose(borders), strict=True)}
    return file_facts(paths).with_columns(
        **colors, border_flat=pl.Series(is_flat), brightness=np.array(brightness)
    )


def write_planted(paths: Sequence[Path], label_N: Ints, name: str, folder: Path) -> list[Path]:
    """The images as JPEG files, those of every second class (or of the rarest alone) changed."""
    folder.mkdir(parents=True, exist_ok=True)
    change, quality, _ = PLANTS[name]
    counts = Counter(label_N.tolist())
    rarest = min(
        (label for label in counts if counts[label] >= LEAST_ROWS), key=lambda label: (counts[label], label)
    )
    written = []
    for number, (path, label) in enumerate(zip(paths, label_N.tolist(), strict=True)):
        image_HWC = cv2.imread(str(path), cv2.IMREAD_COLOR)
        is_changed = label == rarest if name == "rarest" else label % 2 == 1
        file = folder / f"{number:05d}.jpg"
        options = [cv2.IMWRITE_JPEG_QUALITY, quality if is_changed else QUALITY]
        cv2.imwrite(str(file), change(image_HWC) if is_changed else image_HWC, options)
        written.append(file)
    return written


def facts(found: Sequence[Shortcut]) -> list[Record]:
    return [
        {
            "column": one.column,
            "strength": one.strength,
            "informedness": one.informedness,
            "p": one.p_value,
            "notable": one.is_notable,
            "strong": one.is_strong,
        }
        for one in found
    ]


def clean_record(name: str, options: argparse.Namespace) -> Record:
    """What tells the labels as they are, and how many shuffles of them are told."""
    paths, label_N = read_set(name, options)
    columns = columns_of(paths)
    rng = np.random.default_rng(0)
    notable = 0
    for shuffle in range(options.shuffles):
        found = find_shortcuts(columns, rng.permutation(label_N), seed=shuffle)
        notable += any(one.is_notable for one in found)
    return {
        "kind": "shortcuts clean",
        "set": name,
        "rows": len(paths),
        "shuffles": options.shuffles,
        "notable": notable,
        "found": facts(find_shortcuts(columns, label_N)),
    }


def planted_record(name: str, plant: str, options: argparse.Namespace) -> Record:
    """What tells the labels where a shortcut is planted, beside the same files without."""
    paths, label_N = read_set(name, options)
    written = write_planted(paths, label_N, plant, options.work / "planted" / f"{name}-{plant}")
    found = find_shortcuts(columns_of(written), label_N)
    return {"kind": "shortcuts planted", "set": name, "plant": plant, "found": facts(found)}


def speed_record(options: argparse.Namespace) -> Record:
    rng = np.random.default_rng(0)
    columns = {f"column {number}": rng.normal(size=10_000) for number in range(8)}
    label_N = rng.integers(0, 10, 10_000)
    started = time.perf_counter()
    find_shortcuts(columns, label_N)
    return {"kind": "shortcuts speed", "seconds": time.perf_counter() - started}


def clean_table(records: Sequence[Record]) -> str:
    lines = [
        "| set | rows | shuffles that warn | told by, of the labels as they are (strength / best class; **strong**) |",
        "|---|---|---|---|",
    ]
    for record in records:
        told = [one for one in record["found"] if one["notable"]]
        texts = [f"{one['column']} ({one['strength']:.2f} / {one['informedness']:.2f})" for one in told]
        texts = [f"**{text}**" if one["strong"] else text for text, one in zip(texts, told, strict=True)]
        cells = [
            record["set"],
            record["rows"],
            f"{record['notable']} of {record['shuffles']}",
            ", ".join(texts),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def planted_table(records: Sequence[Record], clean: dict[str, Record]) -> str:
    """What the column of the plant tells with it, its place among the columns, and what it tells without the plant."""
    lines = [
        "| set | planted | column | place | strength | best class | warned of | without |",
        f"|{'---|' * 8}",
    ]
    for record in records:
        column = PLANTS[record["plant"]][2]
        names = [one["column"] for one in record["found"]]
        one = record["found"][names.index(column)]
        before = {one["column"]: one for one in clean[record["set"]]["found"]}.get(column)
        cells = [
            record["set"],
            record["plant"],
            column,
            names.index(column) + 1,
            f"{one['strength']:.2f}",
            f"{one['informedness']:.2f}",
            "strong" if one["strong"] else "notable" if one["notable"] else "no",
            "constant" if before is None else f"{before['strength']:.2f} / {before['informedness']:.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def tables(options: argparse.Namespace) -> None:
    """Print the tables of all records, and write them with --write."""
    records = [json.loads(line) for line in options.records.read_text(encoding="utf-8").splitlines()]
    clean = {record["set"]: record for record in records if record["kind"] == "shortcuts clean"}
    planted = {(r["set"], r["plant"]): r for r in records if r["kind"] == "shortcuts planted"}
    texts = {
        "shortcuts clean": clean_table(list(clean.values())),
        "shortcuts planted": planted_table(list(planted.values()), clean),
        "shortcuts speed": "\n".join(
            f"10,000 rows, 8 columns and 10 classes take {record['seconds']:.1f} s."
            for record in records[::-1]
            if record["kind"] == "shortcuts speed"
        ).split("\n")[0],
    }
    for marker, text in texts.items():
        print(f"\n{marker}\n{text}")
        if options.write:
            replace_between("check.md", marker, text)


def main(arguments: Sequence[str]) -> int:
    parser = make_parser("shortcuts", __doc__)
    parser.add_argument("--data", type=Path, help="the folder with tiles/ and cells/")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--shuffles", type=int, default=200)
    options = parse(parser, arguments)
    with options.records.open("a", encoding="utf-8") as file:
        for name in () if options.tables else options.sets:
            planted = [planted_record(name, plant, options) for plant in PLANTS]
            for record in (clean_record(name, options), *planted, speed_record(options)):
                file.write(json.dumps(record) + "\n")
            print(f"{name}: done", flush=True)
    tables(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
