"""Data sets without a label for a whole image, which folders could be mistaken for: boxes and outlines of objects."""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from classwise.data.listing import without_suffix
from classwise.suggest.names import words

OUTLINES = (
    "mask",
    "masks",
    "segmentation",
    "segmentations",
    "gt",
    "groundtruth",
    "trimap",
    "trimaps",
    "matte",
)
"""Words in the names of folders with outlines of objects."""
BOXES = (
    "xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "bbox", "bboxx", "bboxy", "boxx", "boxy", "bboxwidth",
    "bboxheight", "left", "top", "right", "bottom", "boundingbox",
)  # fmt: skip
"""Names of columns with the corners or sides of boxes, without the signs between their words."""
LOOKED_AT = 5
ALIKE = 0.9
WHOLE = (
    "has no label for a whole image; write a table with one row an image and the labels that it should have"
)


def boxes_text(source: Path) -> str:
    """That the folder is a data set of boxes, for the message of a refusal; empty if nothing says so."""
    for path in itertools.islice(_files(source, "*.txt"), LOOKED_AT):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:3]
        if path.stat().st_size and lines and all(_is_box(line) for line in lines):
            return f"{path.parent.name}/{path.name} holds boxes of objects (YOLO), a data set that {WHOLE}"
    for path in itertools.islice(_files(source, "*.xml"), LOOKED_AT):
        if "<bndbox>" in path.read_text(encoding="utf-8", errors="replace"):
            return (
                f"{path.parent.name}/{path.name} holds boxes of objects (Pascal VOC), a data set that {WHOLE}"
            )
    return ""


def outlines_text(names: Iterable[str]) -> str:
    """That folders hold images and the outlines of their objects, by the images' paths; empty if they do not."""
    stems: dict[str, set[str]] = {}
    for name in names:
        first, _, rest = name.partition("/")
        if rest:
            stems.setdefault(first, set()).add(without_suffix(rest.rsplit("/", 1)[-1]))
    for folder, own in stems.items():
        if not set(words(folder)) & set(OUTLINES):
            continue
        for other, its in stems.items():
            bare = {stem.removesuffix("_mask").removesuffix("_segmentation") for stem in own}
            if other != folder and len(its & (own | bare)) >= ALIKE * min(len(its), len(own)):
                return f"{folder}/ holds outlines of what is in {other}/, a data set that {WHOLE}"
    return ""


def without_outlines(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The images but the outlines that lie beside them: 1_mask.png beside 1.png, cat/masks/1.png beside
    cat/images/1.png; and a line that counts those."""
    names = list(names)
    stems = {without_suffix(name) for name in names}
    found = [name for name in names if _is_outline(without_suffix(name), stems)]
    if not found:
        return names, []
    left = set(found)
    line = f"left out {len(found)} images that are named as outlines of others, such as {found[0]}"
    return [name for name in names if name not in left], [line]


def _is_outline(stem: str, stems: set[str]) -> bool:
    """Whether a file is named as the outline of another one is: with a word behind its name, or in a folder beside."""
    bare = re.sub(r"[ _-](mask|segmentation|seg|gt|annotation)([ _-]?\d+)?$", "", stem, flags=re.IGNORECASE)
    if bare != stem and bare in stems:
        return True
    folder, _, base = stem.rpartition("/")
    above, _, last = folder.rpartition("/")
    if not above or not set(words(last)) & set(OUTLINES):
        return False
    beside = [f"{above}/{other}/{base}" for other in ("images", "image", "imgs", "img", "photos")]
    return any(other in stems for other in (*beside, f"{above}/{base}"))


def _files(source: Path, pattern: str) -> Iterable[Path]:
    """The files of the folder and of up to two levels below it."""
    return itertools.chain(source.glob(pattern), source.glob(f"*/{pattern}"), source.glob(f"*/*/{pattern}"))


def _is_box(line: str) -> bool:
    """`class x y width height`, all between 0 and 1, or an outline in the same form."""
    cells = line.split()
    try:
        values = [float(cell) for cell in cells[1:]]
    except ValueError:
        return False
    return len(values) >= 4 and cells[0].isdecimal() and all(0 <= value <= 1 for value in values)
