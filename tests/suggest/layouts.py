"""The layouts of public data sets, drawn small: the names and the form of their files, with a few pixels in each."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from classwise.compose.dataset import prepare_labels
from classwise.errors import DataError
from classwise.suggest.config import Suggestion, look_at

ABC = ("ash", "elm", "oak")


@dataclass(frozen=True)
class Layout:
    """One layout. origin: the data set, or the tool, that has it. build: draws it into a folder, and returns what
    `init` is given. targets: (type, number of labels) by target. rows: how many rows each part has; without a given
    split only `all`. data: keys of [data]. says: texts that the user is told. refusal: a text of the refusal, if it is
    one.
    """

    name: str
    origin: str
    build: Callable[[Path], Path]
    targets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    says: Sequence[str] = ()
    refusal: str = ""


@dataclass(frozen=True)
class Seen:
    """What `init` makes of a layout: as in Layout, or why it was refused. labels: of all targets."""

    targets: dict[str, tuple[str, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    said: str = ""
    refusal: str = ""
    suggestion: Suggestion | None = None


def seen(layout: Layout, folder: Path) -> Seen:
    """Draw the layout and look at it. The training rows and, for a given split, those of the other parts are counted as
    `train` would have them."""
    source = layout.build(folder)
    try:
        suggestion = look_at(source, hub=False, scratch=True)
    except DataError as error:
        return Seen(refusal=str(error).replace(str(folder), "DATA"))
    config = suggestion.config
    table = None if suggestion.guess.source else suggestion.guess.table
    splits = prepare_labels(config, table)
    data = config.data
    counts = {name: len(split.samples) for name, split in splits.by_name.items()}
    is_given = data.split is not None or data.fold is not None or isinstance(data.valid, str)
    return Seen(
        targets={target.name: (target.type, len(target.labels)) for target in splits.targets},
        rows=counts if is_given else {"all": sum(counts.values())},
        data={key: getattr(data, key) for key in type(data).model_fields},
        labels={target.name: target.labels for target in splits.targets},
        said="\n".join(suggestion.summary).replace(str(folder), "DATA"),
        suggestion=suggestion,
    )


def differences(layout: Layout, found: Seen) -> list[str]:
    """What differs from what the layout is; empty if it was recognized."""
    if layout.refusal or found.refusal:
        if layout.refusal and layout.refusal in found.refusal:
            return []
        return [f"refused: {found.refusal}" if found.refusal else "not refused"]
    wrong = []
    if found.targets != dict(layout.targets):
        wrong.append(f"targets: {found.targets}, not {dict(layout.targets)}")
    if layout.rows and not layout.rows.items() <= found.rows.items():
        wrong.append(f"rows: {found.rows}, not {dict(layout.rows)}")
    wrong += [
        f"data.{key}: {found.data[key]!r}, not {value!r}"
        for key, value in layout.data.items()
        if found.data[key] != value
    ]
    return wrong + [f"not said: {text!r}" for text in layout.says if text not in found.said]


# Drawing


def image(path: Path, kind: int = 0, seed: int = 0) -> Path:
    """A small image of a colour by kind, with noise; PNG, JPEG, WebP or BMP by its suffix."""
    rng = np.random.default_rng([kind, seed, len(str(path.name))])
    pixels = rng.integers(0, 90, (8, 8, 3)) + np.roll([150, 0, 60], kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels.astype(np.uint8))[1].tobytes())
    return path


def images(folder: Path, names: Sequence[str], kinds: Sequence[int] = (0, 1, 2)) -> None:
    """Images of these names, of the kinds in turn."""
    for number, name in enumerate(names):
        image(folder / name, kinds[number % len(kinds)], number)


def classes(folder: Path, counts: Mapping[str, int], suffix: str = ".png", first: int = 0) -> Path:
    """One sub-folder for each class."""
    for kind, (label, count) in enumerate(counts.items()):
        for number in range(count):
            image(folder / label / f"{first + number}{suffix}", kind % 3, first + number)
    return folder


def table(
    path: Path, header: Sequence[str] | None, rows: Sequence[Sequence[Any]], separator: str = ","
) -> Path:
    """A text table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([*([header] if header is not None else []), *rows])
    return path


def lines(path: Path, rows: Sequence[str]) -> Path:
    """A text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def records(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """JSON, one record a line."""
    return lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])


def uneven(count: int, kinds: int = 3) -> list[int]:
    """Numbers of classes, the first ones more often."""
    return [
        min(number % (kinds + 2) % (kinds + 1), kinds - 1) if number >= 2 * kinds else number % kinds
        for number in range(count)
    ]
