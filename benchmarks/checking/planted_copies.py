"""Copies planted among images: ten transformations at two strengths each, on four data sets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from classwise.data.images import read_image
from sidebyside.sets import make_split, read_rows

SETS = ("tiles", "cells", "clothes", "faces")
QUALITY = 90
"""Of the JPEG files that the transformed images become."""

Image = NDArray[np.uint8]
Change = Callable[[Image, float, np.random.Generator], Image]


@dataclass(frozen=True)
class Planted:
    """One copy: the path of its file, the number of its original, and what was done. `strength`: 0 weak, 1 strong."""

    path: Path
    original: int
    change: str
    strength: int


@dataclass(frozen=True)
class Original:
    """An image of a data set. group: that of the images which are copies of each other already, its own path where
    there are none. subject: who or what it shows, as far as that is known."""

    path: Path
    group: str
    subject: str


def originals(name: str, work: Path, data: Path | None, count: int, seed: int) -> list[Original]:
    """`count` images of a data set, drawn without replacement, in the order of their table; all, if there are fewer.

    Tiles in one group are exposures of one part (sidebyside.splits.tile_groups). Faces are those whose person is
    known.
    """
    split = make_split(name, 0, work, data)
    folder = split.train.parent
    tables = (split.train,) if name == "faces" else (split.train, split.test)
    rows = [row for table in tables for row in read_rows(table)]
    groups = _tile_groups(folder, data) if name == "tiles" else {}
    chosen = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False)
    kept = [rows[row] for row in sorted(chosen.tolist())]
    return [
        Original(folder / row["path"], groups.get(row["path"], row["path"]), row.get("person", row["path"]))
        for row in kept
    ]


def _tile_groups(folder: Path, data: Path | None) -> dict[str, str]:
    """The group of each photograph of a tile, by its path."""
    assert data is not None
    rows = read_rows(data / "tiles" / "table.csv")
    groups = read_rows(folder / "groups.csv")
    return {row["path"]: group["group"] for row, group in zip(rows, groups, strict=True)}


def plant(paths: Sequence[Path], folder: Path, each: int, seed: int) -> list[Planted]:
    """Write `each` copies for every transformation and strength into `folder`, each of another original."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    kinds = [(change, strength) for change in CHANGES for strength in (0, 1)] * each
    sources = rng.choice(len(paths), len(kinds), replace=False)
    planted = []
    for number, ((change, strength), source) in enumerate(zip(kinds, sources.tolist(), strict=True)):
        image_HWC = read_image(paths[source])
        make, strengths = CHANGES[change]
        path = folder / f"{number:04d}.jpg"
        if change == "JPEG":
            write_jpeg(path, image_HWC, int(strengths[strength]))
        else:
            write_jpeg(path, make(image_HWC, strengths[strength], rng), QUALITY)
        planted.append(Planted(path, source, change, strength))
    return planted


def write_jpeg(path: Path, image_HWC: Image, quality: int) -> None:
    """Write (H, W, 3) RGB."""
    bgr_HWC = cv2.cvtColor(np.ascontiguousarray(image_HWC), cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(".jpg", bgr_HWC, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    path.write_bytes(data.tobytes())


def _same(image_HWC: Image, strength: float, rng: np.random.Generator) -> Image:
    return image_HWC


def _resized(image_HWC: Image, scale: float, rng: np.random.Generator) -> Image:
    size = [max(1, round(length * scale)) for length in image_HWC.shape[:2]]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image_HWC, size[::-1], interpolation=interpolation)


def _cropped(image_HWC: Image, most: float, rng: np.random.Generator) -> Image:
    """Each side loses between half of `most` and `most` of the image."""
    height, width = image_HWC.shape[:2]
    top, bottom, left, right = rng.uniform(most / 2, most, 4)
    rows = slice(round(top * height), round((1 - bottom) * height))
    columns = slice(round(left * width), round((1 - right) * width))
    return image_HWC[rows, columns]


def _brightened(image_HWC: Image, factor: float, rng: np.random.Generator) -> Image:
    """Times the factor, or divided by it."""
    gain = factor if rng.random() < 0.5 else 1 / factor
    return cv2.convertScaleAbs(image_HWC, alpha=gain)


def _flattened(image_HWC: Image, factor: float, rng: np.random.Generator) -> Image:
    mean = float(image_HWC.mean())
    return cv2.convertScaleAbs(image_HWC, alpha=factor, beta=mean * (1 - factor))


def _mirrored(image_HWC: Image, axis: float, rng: np.random.Generator) -> Image:
    return cv2.flip(image_HWC, int(axis))


def _turned(image_HWC: Image, turns: float, rng: np.random.Generator) -> Image:
    return np.rot90(image_HWC, int(turns))


def _bordered(image_HWC: Image, share: float, rng: np.random.Generator) -> Image:
    """A border of one color, black or white."""
    height, width = (max(1, round(length * share)) for length in image_HWC.shape[:2])
    level = int(rng.choice([0, 255]))
    return cv2.copyMakeBorder(
        image_HWC, height, height, width, width, cv2.BORDER_CONSTANT, value=(level, level, level)
    )


def _blurred(image_HWC: Image, share: float, rng: np.random.Generator) -> Image:
    sigma = share * max(image_HWC.shape[:2])
    return cv2.GaussianBlur(image_HWC, (0, 0), sigma)


CHANGES: dict[str, tuple[Change, tuple[float, float]]] = {
    "JPEG": (_same, (50, 20)),
    "smaller": (_resized, (0.6, 0.4)),
    "larger": (_resized, (1.5, 2.5)),
    "cropped": (_cropped, (0.05, 0.1)),
    "brightness": (_brightened, (1.2, 1.5)),
    "contrast": (_flattened, (0.7, 0.4)),
    "mirrored": (_mirrored, (1, 0)),
    "turned by 90°": (_turned, (1, 3)),
    "border": (_bordered, (0.05, 0.15)),
    "blurred": (_blurred, (0.01, 0.02)),
}
"""Each with its weak and its strong form: the JPEG quality, the scale, what each side loses at most, the factor, the
axis, the number of quarter turns, the width of the border and the sigma of the blur as a share of the image's
sides."""
