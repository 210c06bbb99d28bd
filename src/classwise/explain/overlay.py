"""A heat map over its image, as an image that can be read without seeing colors: bright means strong."""

import cv2
import numpy as np
import numpy.typing as npt

from classwise.data.pixel_format import shown_channels

Image = npt.NDArray[np.uint8]
COLORS = cv2.COLORMAP_INFERNO
"""Lightness grows evenly from weak to strong, whatever colors an eye tells apart."""
READABLE_SIDE = 320
"""Pixels of the longer side that a smaller image is enlarged to."""


def enlarged(image_HWC: Image, side: int = READABLE_SIDE) -> Image:
    """The image as a person looks at it, of about `side` pixels if it is small: in whole multiples of its size, so that
    its pixels stay what they are."""
    factor = max(1, round(side / max(image_HWC.shape[:2])))
    enlarged_HWC: Image = shown_channels(image_HWC).repeat(factor, axis=0).repeat(factor, axis=1)
    return enlarged_HWC


def overlay(image_HWC: Image, map_HW: npt.NDArray[np.float32], side: int = READABLE_SIDE) -> Image:
    """The image in gray, enlarged if it is small, and over it the map (H, W) in [0, 1] in color: the stronger, the more
    opaque. A line runs around the fifth of the image where the map is strongest."""
    shown_HWC = enlarged(image_HWC, side)
    height, width = shown_HWC.shape[:2]
    smooth_HW = cv2.resize(map_HW, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    gray_HW = cv2.cvtColor(shown_HWC, cv2.COLOR_RGB2GRAY)
    color_HWC = cv2.cvtColor(cv2.applyColorMap(np.uint8(255 * smooth_HW), COLORS), cv2.COLOR_BGR2RGB)
    opaque_HWC = (0.8 * np.sqrt(smooth_HW))[..., None]
    mixed_HWC: Image = (
        ((1 - opaque_HWC) * gray_HW[..., None] + opaque_HWC * color_HWC).round().astype(np.uint8)
    )
    if map_HW.max() > 0:
        import torch  # not for a page that is written again from its files

        from classwise.explain.hiding import strongest

        _outline(mixed_HWC, strongest(torch.from_numpy(smooth_HW)[None])[0].numpy())
    return mixed_HWC


def _outline(image_HWC: Image, part_HW: npt.NDArray[np.bool_]) -> None:
    """Draw a light line with a dark edge, which shows on any ground; around specks of less than a thousandth of the
    image there is none."""
    outlines, _ = cv2.findContours(part_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = [line for line in outlines if cv2.contourArea(line) >= part_HW.size / 1000]
    width = max(1, round(max(image_HWC.shape[:2]) / 320))
    cv2.drawContours(image_HWC, outlines, -1, (0, 0, 0), width + 2, cv2.LINE_AA)
    cv2.drawContours(image_HWC, outlines, -1, (255, 255, 255), width, cv2.LINE_AA)


def legend_colors(count: int = 6) -> list[str]:
    """The colors from weak to strong, as CSS writes them."""
    values = np.linspace(0, 255, count).round().astype(np.uint8)[None]
    colors = cv2.cvtColor(cv2.applyColorMap(values, COLORS), cv2.COLOR_BGR2RGB)[0]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()]
