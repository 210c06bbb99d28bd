"""An image file's kind and its bytes, read safely.

A file is recognized by its first bytes, never by its name. Pipes, devices and files outside of the allowed folder are
refused before any of their content is read.
"""

import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classwise.data.shard_files import LocalFile, Shards
from classwise.data.shards import Member, member_of, open_shard
from classwise.errors import DataError
from classwise.files import is_address

# The first bytes of files that people do hand in as images.
_OTHER_KINDS = {
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"\xff\x0a": "a JPEG XL file",
    b"\x93NUMPY": "a NumPy array",
    b"SIMPLE": "a FITS file",
    b"qoif": "a QOI file",
    b"PK\3\4": "a ZIP archive",
    b"\0\5\x16\7": "a macOS resource fork ('._' file)",
    b"version https://git-lfs": "a Git LFS pointer (fetch the real file with `git lfs pull`)",
    b"<": "XML or HTML text",
}


KINDS = ("JPEG", "PNG", "TIFF", "WebP", "BMP", "GIF", "AVIF", "HEIC")
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
Folders = str | Path | Sequence[str | Path] | Shards | None
"""The folder, or folders, outside of which no file is read, or the shards; None allows any."""
METADATA_BYTES = 2**26
"""What a file may have beside its pixels."""


class Unreadable(Exception):  # noqa: N818 - carries a reason to `read_image`, which raises ImageError
    """Why the file at hand cannot be used."""


def read_file(path: str | Path, max_pixels: int, root: Folders) -> tuple[str, bytes]:
    """The file's kind (one of KINDS) and its bytes.

    Raises Unreadable: for a pipe or a device before it is opened, for a file outside of `root` before a byte of it is
    read, for one that is too large for an image of `max_pixels`, and for any other kind. Raises DataError for a shard
    that is missing, cut short, or not what it was.
    """
    if (member := member_of(path)) is not None:
        return _read_member(member, max_pixels, root)
    try:
        _require_regular(Path(path).stat().st_mode)
        # A file can be swapped for a pipe after that check, and opening a pipe would wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            # Again for the open file, which nobody can swap.
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode)
            if isinstance(root, Shards):
                raise Unreadable("is outside of the shards of this source")
            if root is not None:
                _require_below(root, path, file.fileno())

            first_bytes = file.read(32)
            kind = kind_of(first_bytes)
            _refuse_large(kind, status.st_size, max_pixels)
            return kind, first_bytes + file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _refuse_large(kind: str, size: int, max_pixels: int) -> None:
    """A pixel takes 8 bytes at most (16 bits, four channels), in a TIFF 32; the rest is metadata."""
    if size > (32 if kind == "TIFF" else 8) * max_pixels + METADATA_BYTES:
        raise Unreadable(f"{size:,} bytes, too many for an image of {max_pixels:,} pixels")


def _read_member(member: Member, max_pixels: int, root: Folders) -> tuple[str, bytes]:
    """`read_file` of an image in a shard."""
    stamp = root.stamps.get(str(member.shard)) if isinstance(root, Shards) else None
    if isinstance(root, Shards) and stamp is None:
        raise Unreadable("is outside of the shards of this source")
    folders = None if isinstance(root, Shards) else root
    if folders is not None and is_address(member.shard):
        # Before it is opened: a cell of a table must not make this machine ask a server.
        raise Unreadable("is behind an address, and so outside of the folder of images")
    shard = open_shard(member.shard, stamp)
    if folders is not None and isinstance(shard.file, LocalFile):
        _require_below(folders, member.shard, shard.file.handle)
    try:
        place = shard.place_of(member.name)
        size = shard.size_at(place)
        # Perhaps of little data that is compressed: no more is unpacked than its kind allows.
        if size > METADATA_BYTES:
            _refuse_large(kind_of(shard.read_at(place, 32)), size, max_pixels)
        data = shard.read_at(place)
    except KeyError:
        raise Unreadable(f"there is no such image in {member.shard.name}") from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    return kind_of(data[:32]), data


def read_members(shard: Path, keys: npt.NDArray[np.uint64], shards: Shards) -> list[tuple[str, bytes] | None]:
    """`read_file` of many images in one of the shards, by their keys in its index; None for each image for which
    `read_file` may raise Unreadable. Raises DataError as it does."""
    opened = open_shard(shard, shards.stamps[str(shard)])
    members: list[tuple[str, bytes] | None] = []
    for place in opened.places_of(keys):
        try:
            if place is None or opened.size_at(place) > METADATA_BYTES:
                members.append(None)
                continue
            data = opened.read_at(place)
            members.append((kind_of(data[:32]), data))
        except (ValueError, Unreadable):
            members.append(None)
    return members


def file_size(path: str | Path) -> int | None:
    """The bytes of an image on this machine, of which none is read; None where that is not known."""
    try:
        member = member_of(path)
        if member is None:
            return Path(path).stat().st_size
        return open_shard(member.shard).size_of(member.name)
    except (OSError, ValueError, KeyError, DataError):
        return None


def is_image_content(path: str | Path) -> bool:
    """Whether a regular file begins as an image that can be read does, whatever its name."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with Path(path).open("rb") as file:
            first_bytes = file.read(32)
        # Two letters do not make a BMP: its reserved bytes are zero.
        return kind_of(first_bytes) != "BMP" or first_bytes[6:10] == bytes(4)
    except (OSError, ValueError, Unreadable):
        return False


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise Unreadable(f"not a file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _require_below(root: str | Path | Sequence[str | Path], path: str | Path, handle: int) -> None:
    """Checks where the open file really is: a check of its name could be true before it is opened and false after."""
    try:
        real_path = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115 - not the path of a file
    except OSError:  # not Linux: the name has to do
        real_path = os.path.realpath(path)
    folders = [str(folder) for folder in ([root] if isinstance(root, str | Path) else root)]
    # As absolute paths, which stay true in a process that changes its working directory.
    if not real_path.startswith(tuple(_real_folder(os.path.abspath(f)) for f in folders)):  # noqa: PTH100
        raise Unreadable(f"is outside of {', '.join(folders)}, reached through a link")


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
    if first_bytes.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if first_bytes.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if first_bytes[4:8] == b"ftyp":
        return _kind_of_container(first_bytes)
    if not first_bytes:
        raise Unreadable("an empty file")
    raise Unreadable(f"{_other_kind(first_bytes)}; allowed: {', '.join(KINDS)}")


def _kind_of_container(first_bytes: bytes) -> str:
    """The kind of a file of boxes (ISO/IEC 14496-12, 4.3): by its main brand and those that it is compatible with."""
    brands = [first_bytes[at : at + 4] for at in (8, *range(16, len(first_bytes), 4))]
    for kind, names in _BRANDS.items():
        if any(brand in names for brand in brands):
            return kind
    raise Unreadable(f"a video or another file of the brand {brands[0]!r}; allowed: {', '.join(KINDS)}")


def _other_kind(first_bytes: bytes) -> str:
    """What a file that is not supported seems to be, for the message."""
    for magic, name in _OTHER_KINDS.items():
        if first_bytes.lstrip().startswith(magic):
            return name
    return f"not an image of a known kind (it starts with the bytes {first_bytes[:8].hex(' ')})"
