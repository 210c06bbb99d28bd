"""Images with what is said of them, as `image_tile` of macros.html.j2 draws them."""

from dataclasses import dataclass

from classwise.report.thumbnails import Thumbnail


@dataclass(frozen=True)
class Line:
    """One line under an image. `term` says to a screen reader what the line is; `sign` is shown in its place."""

    term: str
    text: str
    sign: str = ""
    note: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Tile:
    """One row: its image, the name of its file, and a line for each thing that is said of it, such as its true and its
    predicted label. `heat_map`: the image with its heat map, which stands beside it."""

    id: str
    file: str
    lines: list[Line]
    image: Thumbnail
    heat_map: Thumbnail | None = None


@dataclass(frozen=True)
class Group:
    """Images under one title. It is empty where there is one group alone, such as the mistakes of a regression."""

    title: str
    note: str
    tiles: list[Tile]
