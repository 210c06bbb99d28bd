"""The validation rows that the model got wrong with the most confidence, as pictures.

They are the first thing to look at: either the model misses something that a person sees at once, or the label is
wrong. Found per target, so that the target with the most mistakes does not fill the page alone.
"""

import base64
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from classwise.data.images import read_image
from classwise.errors import ImageError
from classwise.report.read import RunFiles, mapping

LONGEST_SIDE = 160  # pixels of a thumbnail
SMALL = 64  # pictures up to this size stay as they are, without JPEG's blur
TILES = 24  # on the whole page


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, or the reason why there is none. `small` ones are shown with hard pixels."""

    uri: str = ""
    reason: str = ""
    small: bool = False


@dataclass(frozen=True)
class Tile:
    """One wrong row: the picture, what it is, what it was taken for and how surely (None: not recorded)."""

    id: str
    truth: str
    predicted: str
    probability: float | None
    picture: Thumbnail


@dataclass(frozen=True)
class Gallery:
    """The most confident mistakes of one target, out of `wrong` among `rows` rows with a known label."""

    target: str
    wrong: int
    rows: int
    tiles: list[Tile]


@dataclass(frozen=True)
class _Mistake:
    id: str
    truth: str
    predicted: str
    probability: float | None


def galleries(run: RunFiles) -> list[Gallery]:
    """One gallery a target that has predictions with known labels, in the config's order."""
    table = run.predictions
    names = mapping(run.config.get("targets")) or mapping(run.metrics.get("targets"))
    targets = [
        name for name in names if {"id", name, f"{name}_true"} <= set(table.columns) and _classes(run, name)
    ]
    if not targets:
        return []
    worst = {name: _worst(table, name, TILES // min(len(targets), TILES)) for name in targets}
    pictures = _thumbnails(run, {mistake.id for _, _, mistakes in worst.values() for mistake in mistakes})
    return [
        Gallery(
            name,
            wrong,
            rows,
            [Tile(m.id, m.truth, m.predicted, m.probability, pictures[m.id]) for m in mistakes],
        )
        for name, (wrong, rows, mistakes) in worst.items()
    ]


def _classes(run: RunFiles, target: str) -> bool:
    """Whether a target's answers are classes: a regression has errors, not mistakes."""
    kind = mapping(mapping(run.metrics.get("targets")).get(target)).get("type", "class")
    return kind in ("class", "ordinal")


def _worst(table: pl.DataFrame, target: str, most: int) -> tuple[int, int, list[_Mistake]]:
    """How many rows are wrong, how many have a known label, and the `most` surest of the wrong ones."""
    known = table.filter(pl.col(f"{target}_true").is_not_null())
    wrong = known.filter(pl.col(target) != pl.col(f"{target}_true"))
    probability = _probability_of_prediction(wrong, target)
    # Rows without a probability come last; equal ones keep the file's order.
    order = np.argsort(-np.nan_to_num(probability, nan=-1.0), kind="stable")[:most]
    rows = wrong.select("id", f"{target}_true", target)[order.tolist()].rows() if wrong.height else []
    found = [
        _Mistake(str(row[0]), str(row[1]), str(row[2]), None if np.isnan(p) else float(p))
        for row, p in zip(rows, probability[order], strict=True)
    ]
    return wrong.height, known.height, found


def _probability_of_prediction(table: pl.DataFrame, target: str) -> np.ndarray:
    """Each row's probability of the label that was predicted; NaN where it is not in the table."""
    predicted = table[target].to_numpy()
    probability = np.full(table.height, np.nan)
    for label in sorted(set(predicted.tolist())):
        column = f"{target}_p_{label}"
        if column in table.columns:
            values = table[column].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
            here = predicted == label
            probability[here] = values[here]
    return probability


def _thumbnails(run: RunFiles, ids: Iterable[str]) -> dict[str, Thumbnail]:
    wanted = sorted(ids)
    data = mapping(run.config.get("data"))
    # A folder source, or a folder to validate on, is a root of its own.
    folders = [root for key in ("images", "source", "valid") if isinstance(root := data.get(key), str)]
    paths = _paths(run.split, wanted)
    with ThreadPoolExecutor() as pool:  # decoding leaves the interpreter lock, so large photographs overlap
        return dict(
            zip(wanted, pool.map(lambda id_: _thumbnail(folders, paths.get(id_)), wanted), strict=True)
        )


def _paths(split: pl.DataFrame, ids: list[str]) -> dict[str, str]:
    if not {"id", "path"} <= set(split.columns):
        return {}
    found = split.filter(pl.col("id").is_in(ids) & pl.col("path").is_not_null())
    return dict(zip(found["id"].to_list(), found["path"].to_list(), strict=True))


def _thumbnail(folders: list[str], path: str | None) -> Thumbnail:
    if not folders or path is None:
        return Thumbnail(reason="the run does not say where it lies")
    file = next((file for folder in folders if (file := _inside(folder, path))), None)
    if file is None:
        return Thumbnail(reason=f"{path} lies outside the folder of pictures")
    try:
        return encode(read_image(file))
    except ImageError as error:
        return Thumbnail(reason=error.reason)
    except OSError as error:
        return Thumbnail(reason=error.strerror or str(error))


def _inside(folder: str, path: str) -> Path | None:
    """The file that `path`, relative or absolute, names inside `folder`; None if it lies elsewhere.

    By the names alone: links inside the folder are the user's own choice."""
    root = os.path.normpath(folder)
    file = Path(os.path.normpath(Path(root) / path))
    return file if file.is_relative_to(root) else None


def encode(image_HWC: np.ndarray) -> Thumbnail:
    """A uint8 RGB picture as a data URI of at most LONGEST_SIDE pixels a side: PNG if small, else JPEG."""
    picture = Image.fromarray(image_HWC)
    small = max(picture.size) <= SMALL
    picture.thumbnail(
        (LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX if small else Image.Resampling.LANCZOS
    )
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if small else "jpeg"
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small=small)
