"""Files behind an address (`s3://bucket/a.tar`, `https://host/a.parquet`), by fsspec and the package for the
protocol."""

import time
from typing import IO, Any

from classwise.errors import DataError, ModelError
from classwise.files import is_address

OTHER_NAMES = {"file": "its path alone", "local": "its path alone"}
WAITS = (0.2, 1.0)
"""Seconds before a request that failed is tried again."""
BLOCK_BYTES = 2**20
"""Read at once where a library walks through a file."""
VERSION_KEYS = (
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "mtime", "LastModified", "Last-Modified", "last_modified",
    "updated",
)  # fmt: skip
"""What file systems call that by which a file differs from an earlier one of the same name, the surest first."""


def file_system(address: str) -> Any:
    """What reads files behind this kind of address. Raises DataError for an unknown protocol, ModelError for a
    missing package."""
    import fsspec

    protocol = address.partition("://")[0]
    if protocol in OTHER_NAMES or protocol not in fsspec.available_protocols():
        allowed = "http, https, s3, gs, az and the other protocols of fsspec"
        raise DataError(
            f"{address}: found the protocol {protocol!r}; allowed: {allowed}, or a path on this machine"
        )
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        raise ModelError(
            f'{address}: reading it needs a package that is missing: pip install "classwise[remote]" ({error})'
        ) from None


def addresses(pattern: str) -> list[str]:
    """The addresses that a pattern with `*`, `?` or `[` stands for, sorted. Raises DataError if the server cannot be
    asked."""
    protocol = pattern.partition("://")[0]
    system = file_system(pattern)
    try:
        found = system.glob(pattern)
    except Exception as error:  # each file system has exceptions of its own
        raise DataError(f"{pattern}: cannot be listed: {_text(error)}") from None
    return sorted(name if is_address(name) else f"{protocol}://{name}" for name in found)


class RemoteFile:
    """A shard behind an address. Raises DataError if it is missing, and for a server that tells no sizes."""

    def __init__(self, address: str) -> None:
        self.name = address
        self._system = file_system(address)
        try:
            self._system.invalidate_cache()  # of listings, which would hide that the shard has changed
            facts = self._system.info(address)
        except Exception as error:
            raise DataError(f"{address}: this shard cannot be opened: {_text(error)}") from None
        if not isinstance(facts.get("size"), int):
            raise DataError(
                f"{address}: the server does not say how many bytes it has, which reading parts needs"
            )
        self.size = int(facts["size"])
        version = next((str(facts[key]) for key in VERSION_KEYS if facts.get(key)), None)
        self.has_version = version is not None
        self.stamp = f"{self.size} bytes, version {version or 'unknown'}"

    def read(self, at: int, size: int) -> bytes:
        """These bytes; a request that fails is tried again, since a long run meets a bad moment of any network. Raises
        DataError."""
        if not size:
            return b""
        if at < 0 or size < 0 or at + size > self.size:
            raise DataError(
                f"{self.name}: cut short or damaged: it has {self.size:,} bytes, not {at + size:,}"
            )
        for wait in (*WAITS, None):
            why = ""
            try:
                data = bytes(self._system.cat_file(self.name, start=at, end=at + size))
                if len(data) == size:
                    return data
                why = f"found {len(data):,} bytes in place of {size:,}: cut short, or a server without range requests"
            except FileNotFoundError:
                raise DataError(f"{self.name}: this shard is no longer there") from None
            except Exception as error:
                why = f"reading failed: {_text(error)}"
            if wait is not None:
                time.sleep(wait)
        raise DataError(f"{self.name}: {why}")

    def open(self) -> IO[bytes]:
        file: IO[bytes] = self._system.open(self.name, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
        return file


def _text(error: Exception) -> str:
    """One line about an error of a file system."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
