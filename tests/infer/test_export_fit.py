"""The pixels that an exported file prepares are those of `read_image` and `fit_image`."""

from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import helper

from classwise.data.decode import _halve
from classwise.data.fit import FITS, fit_image
from classwise.data.images import min_image_size
from classwise.infer.export_fit import preparation

LIKE = helper.make_model(
    helper.make_graph([], "empty", [], []), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
)
SIZE = (48, 40)
# By both sides: smaller, larger by whole multiples and by anything, halved once and thrice, one pixel, a line, one
# side of each kind.
SIZES = [
    *((30, 21), (48, 40), (96, 80), (144, 120), (97, 81), (61, 55), (200, 170), (401, 333), (803, 1201)),
    *((1, 1), (3, 50), (1, 300), (500, 2), (20, 300), (300, 20), (48, 400), (4, 4)),
]


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colors with noise on them: flat parts and edges."""
    rng = np.random.default_rng([seed, height, width])
    small = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int64)
    return (smooth + rng.integers(-25, 26, smooth.shape)).clip(0, 255).astype(np.uint8)


def session(channels: int, fit: str) -> Any:
    """ONNX Runtime for the preparation alone."""
    data = preparation(channels, SIZE, fit, LIKE).SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def resized(session: Any, images_NHWC: np.ndarray) -> np.ndarray:
    """The pixels (N, H, W, C) that the network would see."""
    return session.run(None, {"images": images_NHWC})[0].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("fit", FITS)
def test_every_pixel_as_predict_sees_it(fit: str) -> None:
    """To the bit, of images that shrink, grow, or do one along each side."""
    run = session(3, fit)
    for height, width in SIZES:
        images = np.stack([image(height, width, seed) for seed in range(2)])
        expected = np.stack([fit_image(_halve(one, min_image_size(SIZE)), SIZE, fit) for one in images])
        np.testing.assert_array_equal(resized(run, images), expected, err_msg=f"{height} x {width}")


def test_gray_is_made_of_rgb_inside() -> None:
    """With the weights of OpenCV, before anything is resized."""
    given = image(150, 190)
    gray_HW1 = cv2.cvtColor(given, cv2.COLOR_RGB2GRAY)[..., None]
    expected = fit_image(_halve(gray_HW1, min_image_size(SIZE)), SIZE, "crop")
    np.testing.assert_array_equal(resized(session(1, "crop"), given[None])[0], expected)
