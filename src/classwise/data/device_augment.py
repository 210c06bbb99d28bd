"""The second half of augmentation for a whole batch, where the batch is: on a GPU.

The bytes are those that `finish_image` gives image by image, so which device augments is no fact about a run. All
of it is in whole numbers, or in floating-point steps that are exact or made in the same order.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.data.augment import DeviceAugment

LUMA = (9798, 19235, 3735)  # OpenCV's weights of red, green and blue for grey, in 2**15ths


def augment_on_device(images_BHWC: Tensor, finish_BK: npt.NDArray[np.float64]) -> Tensor:
    """uint8 images mirrored, relit and erased as the rows of `finish_BK` say, each a `DeviceAugment`, on the host: so
    nobody has to wait for the device to know what is to be done there."""
    wanted = dict(zip(DeviceAugment._fields, finish_BK.T, strict=True))

    def of(values: npt.NDArray[Any], dtype: torch.dtype = torch.float64) -> Tensor:
        """A number for each image, (B, 1), on the device."""
        column_B1 = torch.from_numpy(values.copy()).to(dtype).unsqueeze(1)
        if images_BHWC.device.type != "cuda":
            return column_B1
        return column_B1.pin_memory().to(images_BHWC.device, non_blocking=True)

    if wanted["flip"].any():
        flip_B111 = of(wanted["flip"], torch.bool)[..., None, None]
        images_BHWC = torch.where(flip_B111, images_BHWC.flip(2), images_BHWC)
    if (wanted["brightness"] != 1).any() or (wanted["contrast"] != 1).any():
        images_BHWC = _relit(images_BHWC, of(wanted["brightness"]), of(wanted["contrast"]))
    if (wanted["saturation"] != 1).any():
        images_BHWC = _saturated(images_BHWC, of(wanted["saturation"], torch.float32)[..., None, None])
    if wanted["rows"].any():
        sides = ("top", "left", "rows", "columns")
        top, left, rows, columns = (of(wanted[side], torch.int32)[..., None] for side in sides)
        seed = of(wanted["noise"].astype(np.uint32).view(np.int32), torch.int32)
        y = torch.arange(images_BHWC.shape[1], device=images_BHWC.device).view(1, -1, 1)
        x = torch.arange(images_BHWC.shape[2], device=images_BHWC.device).view(1, 1, -1)
        inside_BHW = (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
        images_BHWC = torch.where(
            inside_BHW.unsqueeze(3), _noise(images_BHWC, seed[..., None, None]), images_BHWC
        )
    return images_BHWC


def _relit(images_BHWC: Tensor, brightness_B1: Tensor, contrast_B1: Tensor) -> Tensor:
    """As augment._relight, where a factor of 1 changes nothing; a table of 256 values for each image."""
    count, height, width, _ = images_BHWC.shape
    red, green, blue = images_BHWC.sum((1, 2), dtype=torch.int64).unbind(1)
    mean_B1 = brightness_B1 * (
        (299 * red + 587 * green + 114 * blue).double() / (1000 * height * width)
    ).unsqueeze(1)
    values = torch.arange(256, dtype=torch.float64, device=images_BHWC.device)
    levels_BV = (values * brightness_B1 - mean_B1) * contrast_B1 + mean_B1
    table = levels_BV.clamp(0, 255).round().to(torch.uint8).reshape(-1)
    first = 256 * torch.arange(count, dtype=torch.int32, device=images_BHWC.device).view(-1, 1, 1, 1)
    return table.index_select(0, (images_BHWC + first).reshape(-1)).view(images_BHWC.shape)


def _saturated(images_BHWC: Tensor, saturation: Tensor) -> Tensor:
    """As OpenCV's cvtColor and addWeighted; whole 4096ths times bytes are exact in float32."""
    red, green, blue = images_BHWC.int().unbind(3)
    grey_BHW = (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + (1 << 14)) >> 15
    found = images_BHWC * saturation + (grey_BHW * (1 - saturation[..., 0])).unsqueeze(3)
    return found.clamp(0, 255).round().to(torch.uint8)


def _noise(images_BHWC: Tensor, seed: Tensor) -> Tensor:
    """As augment._noise, in int32, whose products wrap as those of numbers without a sign."""
    number = torch.arange(images_BHWC[0].numel(), dtype=torch.int32, device=images_BHWC.device)
    x = (number.view(images_BHWC.shape[1:]) ^ seed) * _signed(0x9E3779B1)
    x = (x ^ ((x >> 16) & 0xFFFF)) * _signed(0x85EBCA6B)
    x = (x ^ ((x >> 13) & 0x7FFFF)) * _signed(0xC2B2AE35)
    return ((x ^ (x >> 16)) & 255).to(torch.uint8)


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number
