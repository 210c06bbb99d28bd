"""An image file's kind and its bytes, read safely.

A file is recognised by its first bytes, never by its name. Pipes, devices, and files outside the allowed folder are
refused before any of their content is read.
"""

import functools
import os
import stat
from pathlib import Path

# First bytes of files that people do hand in as images.
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


class Unreadable(Exception):  # noqa: N818 - carries a reason to read_image and never leaves this file
    """Why the file at hand cannot be used."""


def read_file(path: str | Path, max_pixels: int, root: str | Path | None) -> tuple[str, bytes]:
    """The file's kind and its bytes. A pipe or a device is refused before it is opened, a file outside of `root`
    before a byte of it is read."""
    try:
        _require_regular(Path(path).stat().st_mode)
        # Between the two lines a file can be swapped for a pipe, whose opening would wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode)
            if root is not None:
                _require_below(str(root), path, file.fileno())
            start = file.read(32)
            kind = _kind(start)
            # The most that pixels take is 8 bytes (16 bits, four channels); the rest is metadata.
            if status.st_size > 8 * max_pixels + 2**26:
                raise Unreadable(f"{status.st_size:,} bytes, too many for an image of {max_pixels:,} pixels")
            return kind, start + file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise Unreadable(f"not a file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _require_below(root: str, path: str | Path, handle: int) -> None:
    """Where the open file really lies: a check of its name could be true before it is opened and false after."""
    try:
        real = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115 - it is no path of a file
    except OSError:  # not Linux: the name has to do
        real = os.path.realpath(path)
    if not real.startswith(_real_folder(root)):
        raise Unreadable(f"lies outside of {root}, to which a link leads")


@functools.lru_cache(maxsize=64)
def _real_folder(root: str) -> str:
    return os.path.realpath(root).rstrip(os.sep) + os.sep


def _kind(start: bytes) -> str:
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith(b"BM"):
        return "BMP"
    if not start:
        raise Unreadable("an empty file")
    raise Unreadable(f"{_other_kind(start)}; allowed: JPEG, PNG, WebP, BMP")


def _other_kind(start: bytes) -> str:
    if start[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    found = (name for magic, name in _OTHER_KINDS.items() if start.lstrip().startswith(magic))
    return next(found, f"no image that is known here (it starts with the bytes {start[:8].hex(' ')})")
