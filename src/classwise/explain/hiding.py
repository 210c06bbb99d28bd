"""How far a heat map can be believed: what the model says once the part that it marks is hidden.

If the model finds its answer where the map says, hiding that part makes the answer less probable than hiding as much
of the image elsewhere does: the deletion test of Petsiuk et al. 2018 ('RISE'), at one size. What is hidden takes the
mean color of the image: blurred, it would keep its brightness and color, which is what many answers come from.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

SHARE = 0.2
"""Of the image that is hidden."""


def strongest(maps_BHW: Tensor, share: float = SHARE) -> Tensor:
    """(B, H, W) bool: the `share` of the pixels with the largest values; equal ones in reading order."""
    pixels = maps_BHW.shape[1] * maps_BHW.shape[2]
    order_BP = maps_BHW.flatten(1).argsort(dim=1, descending=True, stable=True)
    chosen_BP = torch.zeros(len(maps_BHW), pixels, dtype=torch.bool)
    chosen_BP.scatter_(1, order_BP[:, : max(1, round(share * pixels))], True)
    return chosen_BP.view_as(maps_BHW)


def random_parts(count: int, size: tuple[int, int], seed: int, share: float = SHARE) -> Tensor:
    """(count, H, W) bool: connected parts of the same area at random places, as coarse as heat maps are."""
    noise = np.random.default_rng(seed).random((count, 7, 7), dtype=np.float32)
    smooth = [cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR) for values in noise]
    return strongest(torch.from_numpy(np.stack(smooth)), share)


def hidden(images_BCHW: Tensor, parts_BHW: Tensor) -> Tensor:
    """images_BCHW (uint8), with the mean color of the image where the parts are."""
    mean_BC11 = images_BCHW.float().mean(dim=(2, 3), keepdim=True).round().to(torch.uint8)
    return torch.where(parts_BHW[:, None], mean_BC11, images_BCHW)
