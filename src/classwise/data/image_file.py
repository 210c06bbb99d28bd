"""An image file's kind and its bytes, read safely.

A file is recognized by its first bytes, never by its name. Pipes, devices and files outside of the allowed folder are
refused before any of their content is read.
"""

import functools
import os
import stat
from pathlib import Path

# The first bytes of files that people do hand in as images.
_OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"PK\3\4": "a ZIP archive",
    b"\0\5\x16\7": "a macOS resource fork ('._' file)",
    b"version https://git-lfs": "a Git LFS pointer (fetch the real file with `git lfs pull`)",
    b"<": "XML or HTML text",
}


class Unreadable(Exception):  # noqa: N818 - carries a reason to `read_image`, which raises ImageError
    """Why the file at hand cannot be used."""


def read_file(path: str | Path, max_pixels: int, root: str | Path | None) -> tuple[str, bytes]:
    """The file's kind ("JPEG", "PNG", "WebP" or "BMP") and its bytes.

    Raises Unreadable: for a pipe or a device before it is opened, for a file outside of `root` before a byte of it is
    read, for one that is too large for an image of `max_pixels`, and for any other kind.
    """
    try:
        _require_regular(Path(path).stat().st_mode)
        # A file can be swapped for a pipe after that check, and opening a pipe would wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            # Again for the open file, which nobody can swap.
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode)
            if root is not None:
                _require_below(str(root), path, file.fileno())

            first_bytes = file.read(32)
            kind = kind_of(first_bytes)
            # A pixel takes 8 bytes at most (16 bits, four channels); the rest is metadata.
            if status.st_size > 8 * max_pixels + 2**26:
                raise Unreadable(f"{status.st_size:,} bytes, too many for an image of {max_pixels:,} pixels")
            return kind, first_bytes + file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise Unreadable(f"not a file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _require_below(root: str, path: str | Path, handle: int) -> None:
    """Checks where the open file really is: a check of its name could be true before it is opened and false after."""
    try:
        real_path = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115 - not the path of a file
    except OSError:  # not Linux: the name has to do
        real_path = os.path.realpath(path)
    if not real_path.startswith(_real_folder(root)):
        raise Unreadable(f"is outside of {root}, reached through a link")


@functools.lru_cache(maxsize=64)
def _real_folder(root: str) -> str:
    return os.path.realpath(root).rstrip(os.sep) + os.sep


def kind_of(first_bytes: bytes) -> str:
    """The kind of a file by its first 32 bytes. Raises Unreadable for any that is not supported."""
    if first_bytes.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if first_bytes.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if first_bytes.startswith(b"RIFF") and first_bytes[8:12] == b"WEBP":
        return "WebP"
    if first_bytes.startswith(b"BM"):
        return "BMP"
    if not first_bytes:
        raise Unreadable("an empty file")
    raise Unreadable(f"{_other_kind(first_bytes)}; allowed: JPEG, PNG, WebP, BMP")


def _other_kind(first_bytes: bytes) -> str:
    """What a file that is not supported seems to be, for the message."""
    if first_bytes[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    for magic, name in _OTHER_KINDS.items():
        if first_bytes.lstrip().startswith(magic):
            return name
    return f"not an image of a known kind (it starts with the bytes {first_bytes[:8].hex(' ')})"
