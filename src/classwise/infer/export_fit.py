"""What happens to pixels between the decoder and the network, as an ONNX graph: `_halve` of data/decode.py and
`fit_image` of data/fit.py, number by number.

OpenCV's arithmetic is repeated, not approximated (docs/decisions/0053-exported-answers.md): linear interpolation of
uint8 and bicubic interpolation with weights of 11 bits, means over whole blocks. So the
pixels that reach the network are those of `predict`. OpenCV's weights are computed in double, and their fractions in
float, as here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from classwise.data.decode_common import MOST_HALVINGS
from classwise.data.fit import PAD
from classwise.data.images import min_image_size
from classwise.infer.export_graph import Graph, Value, ints

CUBIC_A = -0.75  # OpenCV's parameter of bicubic interpolation (Keys 1981, equation 8)
GRAY_WEIGHTS = np.array([9798, 19235, 3735], dtype=np.int32)  # OpenCV's .299, .587 and .114, times 2 ** 15
IMAGES = "images"
PIXELS = "pixels"

_double = np.float64
_float = np.float32


@dataclass(frozen=True)
class _Image:
    """Images (N, height, width, C) uint8 of a graph; `height` and `width` are scalars of it."""

    value: str
    height: str
    width: str


def preparation(channels: int, image_size: tuple[int, int], fit: str, like: Any) -> Any:
    """A model from `images`, uint8 (N, height, width, channels) of any one size, RGB also where the network takes gray,
    to `pixels`, uint8 (N, channels, *image_size). Its versions are those of the model `like`."""
    from onnx import TensorProto, helper

    graph = Graph("prepare/")
    shape = graph("Shape", IMAGES)
    height, width = (graph("Gather", shape, ints(axis)) for axis in (1, 2))
    values = _gray(graph, IMAGES) if channels == 1 else IMAGES
    image = _halved(graph, _Image(values, height, width), min_image_size(image_size))
    fitted = _fitted(graph, image, image_size, fit)
    pixels = graph("Transpose", fitted, perm=[0, 3, 1, 2])

    given: list[str | int | None] = ["batch", "height", "width", input_channels(channels)]
    made: list[str | int | None] = ["batch", channels, *image_size]
    return graph.model(
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, given)],
        {PIXELS: pixels},
        [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, made)],
        like,
    )


def input_channels(channels: int) -> int:
    """The channels of an image that is given to the file: gray is made of RGB inside."""
    return 3 if channels == 1 else channels


def _gray(graph: Graph, images: str) -> str:
    weighted = graph("Mul", graph.cast(images, np.int32), GRAY_WEIGHTS)
    total = graph("ReduceSum", weighted, ints([3]), keepdims=1)
    rounded = graph("Div", graph("Add", total, np.int32(1 << 14)), np.int32(1 << 15))
    return graph.cast(rounded, np.uint8)


def _halved(graph: Graph, image: _Image, min_size: tuple[int, int]) -> _Image:
    """The image halved as often as it stays no smaller than `min_size`."""
    factors = 2 ** np.arange(MOST_HALVINGS + 1, dtype=np.int64)

    def divided(length: str, by: Value) -> str:
        return graph("Add", graph("Div", graph("Sub", length, ints(1)), by), ints(1))

    are_large = [
        graph("GreaterOrEqual", divided(length, factors[1:]), ints(least))
        for length, least in zip((image.height, image.width), min_size, strict=True)
    ]
    # Both lengths fall with every halving, so that those which are large enough come first.
    times = graph("ReduceSum", graph.cast(graph("And", *are_large), np.int64), keepdims=0)
    factor = graph("Gather", factors, times)
    return _resized(graph, image, divided(image.height, factor), divided(image.width, factor))


def _fitted(graph: Graph, image: _Image, size: tuple[int, int], fit: str) -> str:
    """`fit_image`; in double, as Python computes it."""
    if fit == "squash":
        return _resized(graph, image, ints(size[0]), ints(size[1])).value
    lengths = [graph.cast(length, _double) for length in (image.height, image.width)]
    scales = [graph("Div", _double(side), length) for side, length in zip(size, lengths, strict=True)]
    scale = graph("Max" if fit == "crop" else "Min", *scales)
    view = [graph("Div", _double(side), scale) for side in size]

    if fit == "pad":
        rows, columns = (
            _rounded(graph, graph("Div", graph("Mul", _double(side), length), seen))
            for side, length, seen in zip(size, lengths, view, strict=True)
        )
        resized = _resized(graph, image, rows, columns)
        free = [graph("Sub", ints(side), taken) for side, taken in zip(size, (rows, columns), strict=True)]
        before = [graph("Div", space, ints(2)) for space in free]
        after = [graph("Sub", space, first) for space, first in zip(free, before, strict=True)]
        pads = graph.shape(ints(0), *before, ints(0), ints(0), *after, ints(0))
        return graph("Pad", resized.value, pads, np.uint8(PAD))

    rows, columns = (_rounded(graph, length) for length in view)
    tops = [
        graph("Div", graph("Sub", whole, taken), ints(2))
        for whole, taken in ((image.height, rows), (image.width, columns))
    ]
    ends = [graph("Add", top, taken) for top, taken in zip(tops, (rows, columns), strict=True)]
    part = graph("Slice", image.value, graph.shape(*tops), graph.shape(*ends), ints([1, 2]))
    return _resized(graph, _Image(part, rows, columns), ints(size[0]), ints(size[1])).value


def _rounded(graph: Graph, length: Value) -> str:
    """At least 1; halves to even."""
    return graph("Max", ints(1), graph.cast(graph("Round", length), np.int64))


def _resized(graph: Graph, image: _Image, rows: Value, columns: Value) -> _Image:
    """`resize_image`: the axes that shrink are averaged first, then the others grow."""
    height = graph("Min", image.height, rows)
    width = graph("Min", image.width, columns)
    small = _Image(
        graph.where(
            _differs(graph, image, height, width),
            lambda branch: _shrunk(branch, image, height, width),
            lambda branch: image.value,
        ),
        height,
        width,
    )
    large = graph.where(
        _differs(graph, small, rows, columns),
        lambda branch: _cubic(branch, small, rows, columns),
        lambda branch: small.value,
    )
    return _Image(large, graph("Identity", rows), graph("Identity", columns))


def _differs(graph: Graph, image: _Image, height: Value, width: Value) -> str:
    """Whether the image has another size."""
    same = graph("And", graph("Equal", image.height, height), graph("Equal", image.width, width))
    return graph("Not", same)


def _shrunk(graph: Graph, image: _Image, height: str, width: str) -> str:
    """Linear to the nearest whole multiple of the size, then the means of whole blocks."""
    blocks = []
    for whole, part in ((image.height, height), (image.width, width)):
        ratio = graph("Div", graph.cast(whole, _double), graph.cast(part, _double))
        nearest = graph.cast(graph("Floor", graph("Add", ratio, _double(0.5))), np.int64)
        blocks.append(graph("Max", ints(1), nearest))
    rows, columns = graph("Mul", height, blocks[0]), graph("Mul", width, blocks[1])
    multiple = _Image(
        graph.where(
            _differs(graph, image, rows, columns),
            lambda branch: _linear(branch, image, rows, columns),
            lambda branch: image.value,
        ),
        rows,
        columns,
    )
    return graph.where(
        _differs(graph, multiple, height, width),
        lambda branch: _block_means(branch, multiple, (height, width), (blocks[0], blocks[1])),
        lambda branch: multiple.value,
    )


def _positions(graph: Graph, before: Value, after: Value) -> tuple[str, str]:
    """Where the pixels of a row of length `after` lie in one of length `before`: the pixel before each (int64), and how
    far behind it, from 0 to 1."""
    ratio = graph("Div", graph.cast(after, _double), graph.cast(before, _double))
    scale = graph("Div", _double(1), ratio)  # OpenCV divides twice, too
    number = graph.cast(graph("Range", ints(0), after, ints(1)), _double)
    at = graph("Sub", graph("Mul", graph("Add", number, _double(0.5)), scale), _double(0.5))
    at = graph.cast(at, _float)
    floor = graph("Floor", at)
    return graph.cast(floor, np.int64), graph("Sub", at, floor)


def _inside(graph: Graph, pixel: Value, length: Value) -> str:
    """The pixel, or the nearest that the row has."""
    return graph("Max", ints(0), graph("Min", pixel, graph("Sub", length, ints(1))))


def _weights(graph: Graph, fraction: str) -> tuple[str, str]:
    """Of the pixel before and the one behind, as whole numbers up to 2 ** 11."""
    shares = graph("Sub", _float(1), fraction), fraction
    first, second = (graph("Round", graph("Mul", share, _float(2048))) for share in shares)
    return first, second


def _linear(graph: Graph, image: _Image, rows: str, columns: str) -> str:
    """OpenCV's INTER_LINEAR of uint8: along the rows exactly, down the columns with four bits less, rounded twice. All
    numbers are whole, below 2 ** 24 in float and below 2 ** 53 in double."""
    channels = graph("Gather", graph("Shape", image.value), ints(3))
    flat = graph.shape(ints(-1), image.height, graph("Mul", columns, channels))

    pixel, fraction = _positions(graph, image.width, columns)
    last = graph("Sub", image.width, ints(1))
    has_both = graph("And", graph("GreaterOrEqual", pixel, ints(0)), graph("Less", pixel, last))
    weights = _weights(graph, graph("Where", has_both, fraction, _float(0)))
    parts = []
    for step, weight in enumerate(weights):
        taken = _inside(graph, graph("Add", pixel, ints(step)), image.width)
        values = graph.cast(graph("Gather", image.value, taken, axis=2), _float)
        # Each weight once for every channel: multiplying by one of length 1 takes twenty times as long.
        repeated = graph("Expand", graph("Unsqueeze", weight, ints([1])), graph.shape(columns, channels))
        parts.append(graph("Mul", graph("Reshape", values, flat), graph("Reshape", repeated, ints([-1]))))
    across = graph("Floor", graph("Mul", graph("Add", *parts), _float(1 / 16)))
    across = graph.cast(across, _double)

    pixel, fraction = _positions(graph, image.height, rows)
    parts = []
    for step, weight in enumerate(_weights(graph, fraction)):
        taken = _inside(graph, graph("Add", pixel, ints(step)), image.height)
        share = graph.cast(graph("Mul", weight, _float(2.0**-16)), _double)
        product = graph("Mul", graph("Gather", across, taken, axis=1), graph("Unsqueeze", share, ints([1])))
        parts.append(graph.cast(graph("Floor", product), _float))
    total = graph("Add", graph("Add", *parts), _float(2))
    pixels = graph.cast(graph("Floor", graph("Mul", total, _float(0.25))), np.uint8)
    return graph("Reshape", pixels, graph.shape(ints(-1), rows, columns, channels))


def _block_means(graph: Graph, image: _Image, size: tuple[str, str], block: tuple[str, str]) -> str:
    """The mean of each block; halves are rounded up where no side of it is longer than 2, else to even, as OpenCV
    does."""
    channels = graph("Gather", graph("Shape", image.value), ints(3))
    row = graph("Mul", image.width, channels)
    strips = graph("Reshape", graph.cast(image.value, _float), graph.shape(ints(-1), block[0], row))
    strips = graph("ReduceSum", strips, ints([1]), keepdims=0)

    # The sum along a row by a product with ones: a reduction over so few numbers takes ten times as long.
    one_each = graph("EyeLike", graph("Expand", _float(0), graph.shape(channels, channels)))
    folding = graph("Tile", one_each, graph.shape(block[1], ints(1)))
    blocks = graph("Reshape", strips, graph.shape(ints(-1), graph("Mul", block[1], channels)))
    total = graph("MatMul", blocks, folding)

    area = graph.cast(graph("Mul", *block), _double)
    mean = graph("Mul", total, graph.cast(graph("Div", _double(1), area), _float))
    half_up = graph("Floor", graph("Add", mean, _float(0.5)))
    is_short = graph("Equal", graph("Max", *block), ints(2))
    rounded = graph.cast(graph("Where", is_short, half_up, graph("Round", mean)), np.uint8)
    return graph("Reshape", rounded, graph.shape(ints(-1), *size, channels))


def _cubic(graph: Graph, image: _Image, rows: Value, columns: Value) -> str:
    """OpenCV's INTER_CUBIC of uint8: weights of 11 bits, along the rows exactly, down the columns in float, from the
    last of the four pixels to the first."""
    channels = graph("Gather", graph("Shape", image.value), ints(3))
    flat = graph.shape(ints(-1), image.height, graph("Mul", columns, channels))
    parts = []
    for taken, weight in _cubic_taps(graph, image.width, columns):
        values = graph.cast(graph("Gather", image.value, taken, axis=2), _float)
        repeated = graph("Expand", graph("Unsqueeze", weight, ints([1])), graph.shape(columns, channels))
        parts.append(graph("Mul", graph("Reshape", values, flat), graph("Reshape", repeated, ints([-1]))))
    across = graph("Add", graph("Add", parts[0], parts[1]), graph("Add", parts[2], parts[3]))

    total = ""
    for taken, weight in reversed(_cubic_taps(graph, image.height, rows)):
        share = graph("Mul", weight, _float(2.0**-22))
        part = graph("Mul", graph("Gather", across, taken, axis=1), graph("Unsqueeze", share, ints([1])))
        total = graph("Add", total, part) if total else part
    pixels = graph.cast(graph("Clip", graph("Round", total), _float(0), _float(255)), np.uint8)
    return graph("Reshape", pixels, graph.shape(ints(-1), rows, columns, channels))


def _cubic_taps(graph: Graph, before: str, after: Value) -> list[tuple[str, str]]:
    """For each of the four old pixels around every new one: which it is, and its weight times 2 ** 11."""
    pixel, fraction = _positions(graph, before, after)
    weights = _cubic_weights(graph, fraction)
    return [
        (
            _inside(graph, graph("Add", pixel, ints(step)), before),
            graph("Round", graph("Mul", weight, _float(2048))),
        )
        for step, weight in zip((-1, 0, 1, 2), weights, strict=True)
    ]


def _cubic_weights(graph: Graph, fraction: str) -> list[str]:
    """The weights of the four pixels around a place that is `fraction` behind the second."""

    def near(distance: str) -> str:
        """((a + 2) x - (a + 3)) x^2 + 1"""
        inner = graph("Sub", graph("Mul", _float(CUBIC_A + 2), distance), _float(CUBIC_A + 3))
        return graph("Add", graph("Mul", graph("Mul", inner, distance), distance), _float(1))

    # a x^3 - 5 a x^2 + 8 a x - 4 a, from 1 to 2
    away = graph("Add", fraction, _float(1))
    first = graph("Mul", graph("Sub", graph("Mul", _float(CUBIC_A), away), _float(5 * CUBIC_A)), away)
    first = graph("Mul", graph("Add", first, _float(8 * CUBIC_A)), away)
    first = graph("Sub", first, _float(4 * CUBIC_A))
    second = near(fraction)
    third = near(graph("Sub", _float(1), fraction))
    rest = graph("Sub", graph("Sub", graph("Sub", _float(1), first), second), third)
    return [first, second, third, rest]
