"""Images on the page: small, re-encoded (which drops the file's metadata), only from the data's folders, and all of
them together within a budget."""

import base64
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from classwise.data.images import read_image
from classwise.data.pixel_format import PixelFormat, shown_channels
from classwise.data.source_names import is_pattern
from classwise.errors import DataError, ImageError
from classwise.report.read import RunFiles, mapping

LONGEST_SIDE = 160  # pixels of a thumbnail
SMALL = 64  # images up to this size keep their pixels, without JPEG's artefacts
BUDGET = 4_000_000
"""Bytes of all mistakes on a page, as text."""
SIDES = (320, 224, LONGEST_SIDE)
"""The largest at which all images are within the budget; at the last, 72 images of pure noise are 3 MB."""


_DATA_URI = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+=*")
"""All that an image kept in a file of the run may be: others may have changed the file."""


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data URI, or the reason why there is none. `small` images are enlarged without smoothing."""

    uri: str = ""
    reason: str = ""
    small: bool = False


def thumbnails(run: RunFiles, ids: Iterable[str], budget: int = BUDGET) -> dict[str, Thumbnail]:
    """The images of the rows `ids`, by id: split.csv has their paths, the config their folders. They are smaller where
    all together would be more than `budget` bytes."""
    ordered = sorted(ids)
    data = mapping(run.config.get("data"))
    # Images lie in data.images, or in the folder or the shards that are the source, the validation set or the test.
    images = data.get("images")
    sources = [data.get(key) for key in ("source", "valid", "test")]
    values = [*(images if isinstance(images, list) else [images]), *sources]
    folders = [folder for folder in values if isinstance(folder, str)]
    folders += [str(Path(folder).parent) for folder in folders if is_pattern(folder)]
    paths = row_paths(run.split, ordered)
    pixels = _pixel_format(data, mapping(run.config.get("model")))
    found: dict[str, Thumbnail] = {}
    for side in SIDES:
        make = partial(_thumbnail, folders, pixels=pixels, side=side)
        # Decoding releases the interpreter lock, so that large photographs overlap.
        with ThreadPoolExecutor() as pool:
            found = dict(zip(ordered, pool.map(make, map(paths.get, ordered)), strict=True))
        if sum(len(image.uri) for image in found.values()) <= budget:
            break
    return found


def row_paths(split: pl.DataFrame, ids: list[str]) -> dict[str, str]:
    """The path of each row by its id, as far as split.csv has it."""
    if not {"id", "path"} <= set(split.columns):
        return {}
    rows = split.filter(pl.col("id").is_in(ids) & pl.col("path").is_not_null())
    return dict(zip(rows["id"].to_list(), rows["path"].to_list(), strict=True))


def file_names(paths: Mapping[str, str]) -> dict[str, str]:
    """The name of each row's file; of all with their folders where two of them have one name, so that they are told
    apart by the same parts."""
    names = Counter(PurePath(path).name for path in paths.values())
    kept = 2 if any(count > 1 for count in names.values()) else 1
    return {id_: "/".join(PurePath(path).parts[-kept:]) for id_, path in paths.items()}


def _pixel_format(data: Mapping[str, Any], model: Mapping[str, Any]) -> PixelFormat:
    """As the run read its images; runs of earlier versions read RGB."""
    channels, value_range = model.get("channels"), data.get("value_range")
    given = [float(value) for value in value_range] if isinstance(value_range, list) else []
    return PixelFormat(
        channels=channels if isinstance(channels, int) else 3,
        value_range=(given[0], given[1]) if len(given) == 2 else None,
    )


def _thumbnail(folders: list[str], path: str | None, pixels: PixelFormat, side: int) -> Thumbnail:
    if not folders or path is None:
        return Thumbnail(reason="the run does not record its path")
    file = next((file for folder in folders if (file := _inside(folder, path))), None)
    if file is None:
        return Thumbnail(reason=f"{path} is outside the image folder")
    try:
        # A photograph may be decoded at a part of its size.
        return encode(shown_channels(read_image(file, min_size=(side, side), pixels=pixels)), side)
    except ImageError as error:
        return Thumbnail(reason=error.reason)
    except DataError as error:  # a shard that is gone
        return Thumbnail(reason=str(error))
    except OSError as error:
        return Thumbnail(reason=error.strerror or str(error))


def _inside(folder: str, path: str) -> Path | None:
    """The file at `path`, relative to `folder` or absolute; None if that is outside `folder`.

    Only names are compared: links inside the folder are the user's own choice."""
    root = os.path.normpath(folder)
    file = Path(os.path.normpath(Path(root) / path))
    return file if file.is_relative_to(root) else None


def kept_image(uri: object) -> Thumbnail:
    """What `encode` has made, read back from a file of the run; an empty one for anything else."""
    text = str(uri)
    return Thumbnail(text if _DATA_URI.fullmatch(text) else "", small=text.startswith("data:image/png"))


def encode(image_HWC: np.ndarray, longest_side: int = LONGEST_SIDE) -> Thumbnail:
    """A uint8 RGB image as a data URI of at most `longest_side` pixels a side: PNG if small, else JPEG."""
    image = Image.fromarray(image_HWC)
    small = max(image.size) <= SMALL
    image.thumbnail((longest_side, longest_side), Image.Resampling.BOX if small else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if small else "jpeg"
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small=small)
