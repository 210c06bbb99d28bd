"""The second half of augmentation for a whole batch, where the batch is: on a GPU.

The bytes are those that `augment_on_host` gives image by image, so the device that augments makes no difference to a
run's results. All arithmetic is in whole numbers, or in floating-point steps that are exact or made in the same order.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.data.augment import DeviceAugment

LUMA = (9798, 19235, 3735)  # OpenCV's weights of red, green and blue for gray, in 2**15ths


def augment_on_device(images_BHWC: Tensor, device_augment_BK: npt.NDArray[np.float64]) -> Tensor:
    """uint8 images, each mirrored, relit and erased as one row of `device_augment_BK`, a `DeviceAugment`, says.

    The rows are on the host, so that nobody has to wait for the device to know what is to be done there.
    """
    columns = dict(zip(DeviceAugment._fields, device_augment_BK.T, strict=True))

    def on_device(values_B: npt.NDArray[Any], dtype: torch.dtype = torch.float64) -> Tensor:
        """One number for each image, (B, 1)."""
        values_B1 = torch.from_numpy(values_B.copy()).to(dtype).unsqueeze(1)
        if images_BHWC.device.type != "cuda":
            return values_B1
        return values_B1.pin_memory().to(images_BHWC.device, non_blocking=True)

    # Each step is skipped where it would change no image of the batch.
    if columns["flip"].any():
        flip_B111 = on_device(columns["flip"], torch.bool)[..., None, None]
        images_BHWC = torch.where(flip_B111, images_BHWC.flip(2), images_BHWC)
    if (columns["brightness"] != 1).any() or (columns["contrast"] != 1).any():
        images_BHWC = _relight(images_BHWC, on_device(columns["brightness"]), on_device(columns["contrast"]))
    if (columns["saturation"] != 1).any():
        saturation_B111 = on_device(columns["saturation"], torch.float32)[..., None, None]
        images_BHWC = _saturate(images_BHWC, saturation_B111)
    if columns["erase_height"].any():
        box = [
            on_device(columns[side], torch.int32)[..., None]
            for side in ("erase_top", "erase_left", "erase_height", "erase_width")
        ]
        # torch has no unsigned 32-bit arithmetic: the same bits as a signed number.
        noise_seed_B = columns["noise_seed"].astype(np.uint32).view(np.int32)
        noise_seed_B111 = on_device(noise_seed_B, torch.int32)[..., None, None]
        inside_BHW1 = _inside(images_BHWC, *box).unsqueeze(3)
        images_BHWC = torch.where(inside_BHW1, _noise(images_BHWC, noise_seed_B111), images_BHWC)
    return images_BHWC


def _relight(images_BHWC: Tensor, brightness_B1: Tensor, contrast_B1: Tensor) -> Tensor:
    """As augment._relight, where a factor of 1 changes nothing; a table of 256 values for each image."""
    count, height, width, channels = images_BHWC.shape
    device = images_BHWC.device

    # The mean gray of each image, from exact sums.
    sums_BC = images_BHWC.sum((1, 2), dtype=torch.int64)
    if channels == 3:
        red_B, green_B, blue_B = sums_BC.unbind(1)
        gray_B = (299 * red_B + 587 * green_B + 114 * blue_B).double() / (1000 * height * width)
    else:
        gray_B = sums_BC.sum(1).double() / (height * width * channels)
    mean_B1 = brightness_B1 * gray_B.unsqueeze(1)

    # What each of the 256 values becomes, and then one look-up in the tables of all images, one behind the other.
    values_V = torch.arange(256, dtype=torch.float64, device=device)
    levels_BV = (values_V * brightness_B1 - mean_B1) * contrast_B1 + mean_B1
    tables = levels_BV.clamp(0, 255).round().to(torch.uint8).reshape(-1)
    table_start_B111 = 256 * torch.arange(count, dtype=torch.int32, device=device).view(-1, 1, 1, 1)
    return tables.index_select(0, (images_BHWC + table_start_B111).reshape(-1)).view(images_BHWC.shape)


def _saturate(images_BHWC: Tensor, saturation_B111: Tensor) -> Tensor:
    """As OpenCV's cvtColor and addWeighted; whole 4096ths times bytes are exact in float32."""
    red, green, blue = images_BHWC.int().unbind(3)
    gray_BHW = (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2] + (1 << 14)) >> 15
    gray_part_BHW1 = (gray_BHW * (1 - saturation_B111[..., 0])).unsqueeze(3)
    saturated_BHWC = images_BHWC * saturation_B111 + gray_part_BHW1
    return saturated_BHWC.clamp(0, 255).round().to(torch.uint8)


def _inside(images_BHWC: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(B, H, W) bool: the pixels of each image's erased rectangle, whose sides are given as (B, 1, 1)."""
    y = torch.arange(images_BHWC.shape[1], device=images_BHWC.device).view(1, -1, 1)
    x = torch.arange(images_BHWC.shape[2], device=images_BHWC.device).view(1, 1, -1)
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)


def _noise(images_BHWC: Tensor, noise_seed_B111: Tensor) -> Tensor:
    """As augment._noise, in int32, whose products wrap around as those of unsigned numbers do."""
    number = torch.arange(images_BHWC[0].numel(), dtype=torch.int32, device=images_BHWC.device)
    x = (number.view(images_BHWC.shape[1:]) ^ noise_seed_B111) * _as_int32(0x9E3779B1)
    # The masks make an arithmetic shift a logical one.
    x = (x ^ ((x >> 16) & 0xFFFF)) * _as_int32(0x85EBCA6B)
    x = (x ^ ((x >> 13) & 0x7FFFF)) * _as_int32(0xC2B2AE35)
    return ((x ^ (x >> 16)) & 255).to(torch.uint8)


def _as_int32(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number
