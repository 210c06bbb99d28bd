"""Images on the page: small, encoded anew (which drops the file's metadata), and only from the data's folders."""

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
SMALL = 64  # images up to this size stay as they are, without JPEG's blur


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data URI, or the reason why there is none. `small` ones are shown with hard pixels."""

    uri: str = ""
    reason: str = ""
    small: bool = False


def thumbnails(run: RunFiles, ids: Iterable[str]) -> dict[str, Thumbnail]:
    """By id, the images of the rows `ids`, found through split.csv in the config's folders."""
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
        return Thumbnail(reason=f"{path} lies outside the folder of images")
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
    """A uint8 RGB image as a data URI of at most LONGEST_SIDE pixels a side: PNG if small, else JPEG."""
    image = Image.fromarray(image_HWC)
    small = max(image.size) <= SMALL
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX if small else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if small else "jpeg"
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small=small)
