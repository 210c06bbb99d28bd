"""What every image file becomes: its channels, and samples of more than 8 bits as levels from 0 to 255.

Samples of up to 16 bits without a sign, and floats from 0 to 1, have a range of their own. For all others, and for data
that uses only a part of its range (12 bits of a camera or a scanner in files of 16), it has to be said.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from classwise.data.image_file import Unreadable

Range = tuple[float, float]


class PixelFormat(NamedTuple):
    """channels: 1 is gray, 3 RGB, and any other number that of the file. value_range: the samples of more than 8 bits
    that become black and white; None: the lowest and highest of their type."""

    channels: int = 3
    value_range: Range | None = None


RGB = PixelFormat()


class ImageFacts(NamedTuple):
    """What a file holds beside the pixels that are used. kind: numpy's of the samples, f for floats. bits: of a sample.
    lowest, highest: of samples of more than 8 bits, 0 for others. frames: images, of which the first is used.
    unused_channels: behind the three that are used."""

    kind: str = "u"
    bits: int = 8
    lowest: float = 0.0
    highest: float = 0.0
    frames: int = 1
    unused_channels: int = 0


FACTS_FIELDS = [
    ("kind", "S1"),
    ("bits", "u1"),
    ("lowest", "<f8"),
    ("highest", "<f8"),
    ("frames", "<u4"),
    ("unused_channels", "<u2"),
]
"""Those of a record that is an ImageFacts, among others."""


def facts_of(record: np.void) -> ImageFacts:
    """The ImageFacts that a record holds."""
    return ImageFacts(
        kind=bytes(record["kind"]).decode(),
        bits=int(record["bits"]),
        lowest=float(record["lowest"]),
        highest=float(record["highest"]),
        frames=int(record["frames"]),
        unused_channels=int(record["unused_channels"]),
    )


def special_facts(records_N: npt.NDArray[np.void]) -> dict[int, ImageFacts]:
    """Those of N records that are not of plain 8-bit samples, by their numbers."""
    plain = np.array([tuple(ImageFacts())], FACTS_FIELDS)
    is_special_N = np.zeros(len(records_N), bool)
    for name, _ in FACTS_FIELDS:
        is_special_N |= records_N[name] != plain[name]
    return {number: facts_of(records_N[number]) for number in np.flatnonzero(is_special_N).tolist()}


class Raster(NamedTuple):
    """A decoded file before it has the channels of a PixelFormat: uint8, and whether the last channel is alpha (not
    premultiplied)."""

    samples_HWC: np.ndarray  # noqa: N815 - a shape suffix
    has_alpha: bool
    facts: ImageFacts = ImageFacts()


class UnknownRange(Unreadable):
    """Samples of which nobody has said what is black and what is white."""

    def __init__(self, facts: "ImageFacts") -> None:
        numbers = {"f": "floats", "u": "numbers without a sign"}.get(facts.kind, "numbers with a sign")
        super().__init__(
            f"{numbers} of {facts.bits} bits from {facts.lowest:g} to {facts.highest:g}: which of them are black and"
            " white is not known; data.value_range = [black, white] says it"
        )
        self.facts = facts


class OtherChannels(Unreadable):
    """An image that is neither gray nor in colours, and can only be used with all of its `found` channels."""

    def __init__(self, found: int) -> None:
        super().__init__(
            f"{found} channels, which are not red, green and blue; model.channels = {found} takes them as they are"
        )
        self.found = found


def scaled(samples_HWC: np.ndarray, bits: int, value_range: Range | None) -> tuple[np.ndarray, ImageFacts]:
    """Samples of more than 8 bits as uint8, rounded to nearest, and what the file holds. `bits`: what a sample may use
    of its type, such as 12. Raises Unreadable for NaN and infinity, UnknownRange."""
    is_float = samples_HWC.dtype.kind == "f"
    if is_float and not np.isfinite(samples_HWC).all():
        count = int((~np.isfinite(samples_HWC)).sum())
        raise Unreadable(f"{count:,} samples are not finite numbers (NaN or infinity)")
    facts = ImageFacts(samples_HWC.dtype.kind, bits, float(samples_HWC.min()), float(samples_HWC.max()))

    # The range of the type, where it has one that means something.
    if value_range is None:
        value_range = _own_range(facts)
        if value_range is None:
            raise UnknownRange(facts)
    low, high = value_range

    # Of 16 bits there are few values: a table is faster than arithmetic.
    if samples_HWC.dtype == np.uint16:
        levels = _levels(np.arange(2**16, dtype=np.float64), low, high)[samples_HWC]
    else:
        levels = _levels(samples_HWC.astype(np.float64), low, high)
    return levels, facts


def _own_range(facts: ImageFacts) -> Range | None:
    """The lowest and highest sample of the type, where these mean something."""
    if facts.kind == "f":
        return (0.0, 1.0) if facts.lowest >= 0 and facts.highest <= 1 else None
    return (0.0, 2.0**facts.bits - 1) if facts.kind == "u" and facts.bits <= 16 else None


def proposed_range(images: Iterable[ImageFacts]) -> Range | None:
    """The data.value_range that a whole set of images seems to need; None where the range of their type is right, as
    far as their samples tell."""
    deep = [facts for facts in images if facts.bits > 8]
    if not deep:
        return None
    low, high = min(facts.lowest for facts in deep), max(facts.highest for facts in deep)
    if low >= high or not all(_own_range(facts) is None for facts in deep):
        # Samples that have a range: 12 bits in files of 16 use a sixteenth of it.
        widths = [2.0**facts.bits for facts in deep if facts.kind == "u" and facts.bits <= 16]
        is_narrow = len(widths) == len(deep) and 0 < high < min(widths) / 4
        return (0.0, _full_scale(high)) if is_narrow else None
    return (0.0, _full_scale(high)) if low >= 0 and 1 < high < 2**16 else (low, high)


def _full_scale(highest: float) -> float:
    """255, 1023, 4095 or 16383 and so on: the highest number of the even number of bits that `highest` needs."""
    bits = max(8, int(highest).bit_length())
    return 2.0 ** (bits + bits % 2) - 1


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)


def in_format(raster: Raster, channels: int) -> tuple[np.ndarray, ImageFacts]:
    """(H, W, channels) uint8 of a raster: gray, RGB, or as many channels as the file has. Raises Unreadable where it
    has another number, OtherChannels."""
    samples_HWC, facts = raster.samples_HWC, raster.facts
    found = samples_HWC.shape[2]
    if channels not in (1, 3):
        if found != channels:
            raise Unreadable(
                f"{found} channel{'s' * (found > 1)}; allowed: {channels}, as model.channels says"
            )
        return samples_HWC, facts
    if channels == 1 and found == 1:
        return samples_HWC, facts
    if found > 4 or (found == 2 and not raster.has_alpha):
        raise OtherChannels(found)

    # Gray is repeated; transparent parts are white.
    if found < 3:
        alpha = [samples_HWC[..., 1]] if found == 2 else []
        samples_HWC = np.stack([samples_HWC[..., 0]] * 3 + alpha, axis=-1)
    if samples_HWC.shape[2] == 4:
        if raster.has_alpha:
            samples_HWC = over_white(samples_HWC)
        else:
            samples_HWC, facts = samples_HWC[..., :3], facts._replace(unused_channels=1)
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(samples_HWC), cv2.COLOR_RGB2GRAY)[..., None], facts
    return samples_HWC, facts


def shown_channels(image_HWC: np.ndarray) -> np.ndarray:
    """(H, W, 3) for a person to look at: of other channels than RGB the first three as it, or the first as gray."""
    shown = [0, 1, 2] if image_HWC.shape[2] >= 3 else [0, 0, 0]
    return np.ascontiguousarray(image_HWC[..., shown])


def over_white(image_HWC: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA, not premultiplied, to RGB over white, rounded to nearest."""
    image = Image.fromarray(image_HWC)
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return np.array(white)
