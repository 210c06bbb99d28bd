"""Which files lie below a folder, and which of them are named as images."""

import os
from collections.abc import Iterator
from pathlib import Path

from classwise.errors import DataError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp",
    ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
)  # fmt: skip


def image_names(folder: Path, follow_links: bool = False) -> list[str]:
    """Every image below a folder as a path relative to it, sorted; links to folders only with `follow_links`."""
    return [name for name in files_below(folder, follow_links) if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """Whether a file is named as an image, by its suffix. Hidden files are not, among them macOS's `._*` files."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(IMAGE_SUFFIXES)


def without_suffix(name: str) -> str:
    """A file's name without the suffix of an image; any other name as it is."""
    return name.rsplit(".", 1)[0] if is_image_name(name) else name


def files_below(folder: Path, follow_links: bool = False) -> Iterator[str]:
    """Every file below a folder as a path relative to it, sorted folder by folder; hidden folders are left out, and so
    are links to folders unless `follow_links`. Such a link is then passed on with a slash at its end, to be counted.
    Raises DataError for a folder that cannot be listed, and for an image whose name is not UTF-8."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be listed: {error.strerror}")

    # By folder: where it and those above it really are.
    on_the_way: dict[str, tuple[str, ...]] = {str(folder): (os.path.realpath(folder),)}
    for base, folders, files in os.walk(folder, onerror=fail, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        if follow_links:
            links = [name for name in links if os.path.realpath(os.path.join(base, name)) in on_the_way[base]]
            folders[:] = [
                name for name in folders if name not in links
            ]  # a link to where it lies would never end
            for name in folders:
                path = os.path.join(base, name)
                on_the_way[path] = (*on_the_way[base], os.path.realpath(path))
        for name in sorted([*files, *(f"{link}/" for link in links)]):
            path = (Path(base) / name).relative_to(folder).as_posix() + "/" * name.endswith("/")
            if is_image_name(name) and not path.isascii():
                _refuse_undecodable(base, name)
            yield path


def _refuse_undecodable(folder: str, name: str) -> None:
    """Linux allows any bytes in a file name, but one that is not UTF-8 cannot be written to a table or a result."""
    try:
        os.path.join(folder, name).encode()
    except UnicodeEncodeError:
        raise DataError(f"{folder}: the name of {os.fsencode(name)!r} is not UTF-8; rename it") from None
