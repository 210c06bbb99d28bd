"""The images in the body of a request, read as it comes: whatever is too much is refused before more of it is read."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from classwise.serve.limits import Limits
from classwise.serve.quota import Quota
from classwise.serve.refusals import Refusal

FIELD = "file"
RAW = "application/octet-stream"
ALLOWED_TYPES = f"multipart/form-data with fields {FIELD!r}, an image's own type such as image/jpeg, or {RAW}"
PART_HEADERS = 8
PART_HEADER_BYTES = 4096
LONGEST_NAME = 255
"""Characters of a file name that are echoed."""


@dataclass
class Upload:
    """One image as it was sent. `name`: what the client calls it; it is echoed, and never used as a path."""

    name: str | None
    data: bytearray = field(default_factory=bytearray)


class _Reader(Protocol):
    """What takes a body piece by piece. Its methods raise Refusal."""

    uploads: list[Upload]

    def write(self, piece: bytes) -> None: ...

    def finish(self) -> None: ...


async def read_uploads(request: Request, limits: Limits, held: Quota) -> list[Upload]:
    """The images in the body of a request, in their order; one or more. The bytes of the body are taken from `held` as
    they come, whatever length the headers promise.

    Raises Refusal: 400 for a body that is not whole, 408 for one that does not come within the time allowed, 413 for
    too many bytes or images, 415 for another type, 503 where other requests hold too much.
    """
    reader = _reader_of(request, limits)
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and int(promised) > limits.max_bytes:
        raise _too_large(limits)

    size = 0
    try:
        async with asyncio.timeout(limits.timeout):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.max_bytes:
                    raise _too_large(limits)
                if piece:
                    held.acquire(len(piece))
                    reader.write(piece)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {limits.timeout:g} s") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection was closed before the body was whole") from None
    reader.finish()
    if not reader.uploads or size == 0:
        raise Refusal(400, f"found no image; allowed: {ALLOWED_TYPES}")
    return reader.uploads


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"the body has more than the {limits.max_bytes:,} bytes allowed for a request")


def _reader_of(request: Request, limits: Limits) -> _Reader:
    """What reads a body of the request's type. Raises a Refusal with status 415 or 400."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise Refusal(
            415, f"Content-Encoding: found {coding[:50]!r}; allowed: none, images are compressed already"
        )
    kind, options = parse_options_header(request.headers.get("content-type"))
    media_type = kind.decode("latin-1")
    if media_type == "multipart/form-data":
        return _Multipart(options.get(b"boundary", b""), limits.max_images)
    if media_type.startswith("image/") or media_type == RAW:
        return _Raw()
    raise Refusal(415, f"Content-Type: found {media_type[:50] or 'none'!r}; allowed: {ALLOWED_TYPES}")


class _Raw:
    """A body that is one image."""

    def __init__(self) -> None:
        self.uploads = [Upload(None)]

    def write(self, piece: bytes) -> None:
        self.uploads[0].data += piece

    def finish(self) -> None:
        """A raw body is as long as HTTP says."""


class _Multipart:
    """A form with the images of its fields `file` (RFC 7578)."""

    def __init__(self, boundary: bytes, max_images: int) -> None:
        self.uploads: list[Upload] = []
        self._max_images = max_images
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._is_whole = False
        if not boundary:
            raise Refusal(400, "Content-Type: found no boundary of the multipart form")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_to_name,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
                max_header_count=PART_HEADERS,
                max_header_size=PART_HEADER_BYTES,
            )
        except FormParserError as error:
            raise Refusal(400, f"the multipart form cannot be read: {error}") from None

    def write(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise Refusal(400, f"the multipart form cannot be read: {error}") from None

    def finish(self) -> None:
        if not self._is_whole:
            raise Refusal(400, "the multipart form is cut short: it has no closing boundary")

    def _begin_part(self) -> None:
        if len(self.uploads) == self._max_images:
            raise Refusal(413, f"found more than {self._max_images} images, the most of a request")
        self._disposition = b""

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        field_name = options.get(b"name", b"").decode("utf-8", errors="replace")
        if field_name != FIELD:
            raise Refusal(
                400, f"the form has a field {field_name[:50]!r}; allowed: {FIELD!r}, once for each image"
            )
        name = options.get(b"filename")
        text = None if name is None else name.decode("utf-8", errors="replace")[:LONGEST_NAME]
        self.uploads.append(Upload(text))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.uploads[-1].data += data[start:end]

    def _end(self) -> None:
        self._is_whole = True
