"""What `classwise explain` writes: a page and, into a folder, every heat map as a PNG file."""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from classwise.errors import OutputError
from classwise.explain.explanation import Explanation
from classwise.explain.overlay import Image, overlay
from classwise.files import make_folder, refuse_existing, write_bytes
from classwise.report.explain_page import write_page

PAGE = "explain.html"
LONGEST_PART = 50
"""Characters of an image's or a target's name in that of a file, which is limited to 255 bytes."""


def check_out(out: Path, force: bool) -> None:
    """Raise OutputError unless `out` is a new .html file, or a folder that is new or empty; `force` allows any."""
    if out.suffix.lower() == ".html" and not out.is_dir():
        refuse_existing(out, force)
    elif out.suffix and not out.is_dir():
        raise OutputError(f"--out {out}: found suffix {out.suffix}, allowed: .html, or a folder")
    elif out.exists() and not out.is_dir():
        raise OutputError(f"--out {out}: found a file, allowed: .html, or a folder")
    elif out.exists() and not force and any(out.iterdir()):
        raise OutputError(
            f"{out} is a folder that is not empty; use --force to write into it, or another name"
        )


def write_explanations(found: Sequence[Explanation], name: str, out: Path) -> Path:
    """Write the page `out`, or the folder `out` with a page, each heat map over its image, and the maps alone (gray,
    black = 0, white = 1) at the size that the model sees; returns the path of the page. `name`: of the run. Raises
    OutputError."""
    if out.suffix.lower() == ".html" and not out.is_dir():
        write_page(found, name, out)
        return out
    try:
        make_folder(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror}") from None
    has_targets = len({each.target for each in found}) > 1
    number_of = {id_: number for number, id_ in enumerate(dict.fromkeys(each.id for each in found), start=1)}
    for each in found:
        parts = [f"{number_of[each.id]:03}", Path(each.id).stem, *([each.target] if has_targets else [])]
        stem = "-".join(re.sub(r"[^\w.-]+", "_", part)[:LONGEST_PART] for part in parts)
        write_bytes(
            out / f"{stem}.png", _png(cv2.cvtColor(overlay(each.image, each.heat_map), cv2.COLOR_RGB2BGR))
        )
        write_bytes(out / f"{stem}-map.png", _png((255 * each.heat_map).round().astype(np.uint8)))
    write_page(found, name, out / PAGE)
    return out / PAGE


def _png(image: Image) -> bytes:
    encoded, data = cv2.imencode(".png", image)
    assert encoded
    return bytes(data)
