"""Drawn drawings that differ as photographs do, and what people do to copies of them."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Drawing = NDArray[np.uint8]


def drawing(seed: int, size: tuple[int, int] = (120, 160)) -> Drawing:
    """(H, W, 3): clouds in light that falls from the left, the same light in all, with a few things in them."""
    rng = np.random.default_rng(seed)
    height, width = size
    clouds_HW = np.zeros(size, np.float32)
    for cells, strength in ((3, 25), (8, 25), (24, 20)):
        noise = rng.normal(0, strength, (cells, cells)).astype(np.float32)
        clouds_HW += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    clouds_HW += np.linspace(150, 90, width, dtype=np.float32)
    image_HWC = np.clip(clouds_HW[..., None] + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
    for _ in range(6):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(3, width // 5)), int(rng.integers(3, height // 5)))
        color = tuple(int(level) for level in rng.integers(40, 215, 3))
        cv2.ellipse(image_HWC, center, axes, int(rng.integers(180)), 0, 360, color, thickness=-1)
    return image_HWC


def write_drawing(path: Path, image_HWC: Drawing, quality: int = 95) -> Path:
    """Write (H, W, 3) RGB or (H, W) gray as the kind that the name says; `quality` of a JPEG."""
    stored = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR) if image_HWC.ndim == 3 else image_HWC
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    encoded, data = cv2.imencode(path.suffix, np.ascontiguousarray(stored), options)
    assert encoded
    path.write_bytes(data.tobytes())
    return path


def resized(image_HWC: Drawing, scale: float) -> Drawing:
    """At another size."""
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image_HWC, None, fx=scale, fy=scale, interpolation=interpolation)


def cut(image_HWC: Drawing, top: float, bottom: float, left: float, right: float) -> Drawing:
    """Without these shares of its sides."""
    height, width = image_HWC.shape[:2]
    rows = slice(round(top * height), round((1 - bottom) * height))
    return image_HWC[rows, round(left * width) : round((1 - right) * width)]


def bordered(image_HWC: Drawing, rows: int, columns: int, level: int) -> Drawing:
    """With a border of one level of gray."""
    color = (level, level, level)
    return cv2.copyMakeBorder(image_HWC, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=color)
