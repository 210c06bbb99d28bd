"""Images to the size that a model takes: squashed, cropped or padded, and resized without aliasing."""

from collections.abc import Callable

import cv2
import numpy as np

FITS = ("squash", "crop", "pad")
PAD = 128  # mid gray: near zero after any usual normalization, so that the padding's edges do not stand out


def fit_view(
    image_size: tuple[int, int], size: tuple[int, int], fit: str
) -> tuple[float, float, float, float]:
    """(top, left, height, width): the part of an image, in its own pixels, that fills an output of `size`.

    `fit` "squash" takes the whole image and gives up its aspect ratio; "crop" keeps the ratio and takes the largest
    centered part; "pad" keeps it and takes the smallest part that holds the whole image, which reaches over its edges.
    Raises ValueError for any other.
    """
    height, width = image_size
    if fit == "squash":
        return 0.0, 0.0, float(height), float(width)
    if fit not in FITS:
        raise ValueError(f"fit: found {fit!r}; allowed: {', '.join(FITS)}")
    scales = size[0] / height, size[1] / width
    scale = max(scales) if fit == "crop" else min(scales)
    view_height, view_width = size[0] / scale, size[1] / scale
    return (height - view_height) / 2, (width - view_width) / 2, view_height, view_width


def fit_image(image_HWC: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """The image at `size` (height, width), padded with mid gray if `fit` is "pad" (see `fit_view`). An image that has
    the size already is returned as it is, without a copy."""
    height, width = image_HWC.shape[:2]
    if (height, width) == tuple(size):
        return image_HWC
    _, _, view_height, view_width = fit_view((height, width), size, fit)
    if fit == "pad":
        rows = max(1, round(size[0] * height / view_height))
        columns = max(1, round(size[1] * width / view_width))
        top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
        padded_HWC = np.full((*size, *image_HWC.shape[2:]), PAD, image_HWC.dtype)
        padded_HWC[top : top + rows, left : left + columns] = resize_image(image_HWC, (rows, columns))
        return padded_HWC

    rows, columns = max(1, round(view_height)), max(1, round(view_width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resize_image(image_HWC[top : top + rows, left : left + columns], size)


def resize_image(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image at `size` (height, width), without aliasing: each axis that shrinks is averaged first, then the others
    grow (bicubic)."""
    if image_HWC.ndim == 3 and image_HWC.shape[2] > 4:
        return by_four_channels(lambda part_HWC: resize_image(part_HWC, size), image_HWC)
    height = min(image_HWC.shape[0], size[0])
    width = min(image_HWC.shape[1], size[1])
    resized = image_HWC
    if (height, width) != resized.shape[:2]:
        # Linear to the nearest whole multiple, then exact means over whole blocks: as close to an ideal filter as
        # INTER_AREA at the ratio itself, in a third of the time (docs/decisions/0003-images.md).
        block_height = max(1, int(resized.shape[0] / height + 0.5))
        block_width = max(1, int(resized.shape[1] / width + 0.5))
        multiple = (height * block_height, width * block_width)
        if multiple != resized.shape[:2]:
            resized = cv2.resize(resized, multiple[::-1], interpolation=cv2.INTER_LINEAR)
        # In blocks of two, linear interpolation gives the same means, in a third of the time.
        interpolation = cv2.INTER_LINEAR if max(block_height, block_width) == 2 else cv2.INTER_AREA
        if (height, width) != resized.shape[:2]:
            resized = cv2.resize(resized, (width, height), interpolation=interpolation)
    if (height, width) != size:
        resized = _cubic(resized, size)
    return np.ascontiguousarray(resized.reshape(*size, *image_HWC.shape[2:]))


def _cubic(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic interpolation by OpenCV's own code: that of Intel's, which it would take instead, gives other pixels than
    other processors do, and no exported file can repeat them (docs/decisions/0053-exported-answers.md)."""
    used_ipp = cv2.ipp.useIPP()  # of this thread alone
    cv2.ipp.setUseIPP(False)
    try:
        grown: np.ndarray = cv2.resize(image_HWC, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        return grown
    finally:
        cv2.ipp.setUseIPP(used_ipp)


def by_four_channels(change: Callable[[np.ndarray], np.ndarray], image_HWC: np.ndarray) -> np.ndarray:
    """The image changed by a function of OpenCV, many of which take four channels at most and drop a single one."""
    parts = [image_HWC]
    if image_HWC.shape[2] > 4:
        starts = range(0, image_HWC.shape[2], 4)
        parts = [np.ascontiguousarray(image_HWC[..., start : start + 4]) for start in starts]
    changed = [change(part) for part in parts]
    shaped = [new.reshape(*new.shape[:2], part.shape[2]) for new, part in zip(changed, parts, strict=True)]
    return shaped[0] if len(shaped) == 1 else np.concatenate(shaped, axis=2)
