"""Mixup and CutMix: every image of an update is mixed with another one, and so are their labels.

The partners are drawn over all images of an update, so the mixed rows are the same however the update is cut into
micro-batches, and accumulation stays exact. All random numbers come from (seed, update). With several processes, each
draws partners from its own share of the update, by (seed, update, rank): images are not sent between processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.data.batch import Batch, to_device_async
from classwise.data.weighting import RowWeighting, class_shares
from classwise.randomness import MIX, generator

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al. 2018, equation 1) and CutMix (Yun et al. 2019, equations 1 and 2).

    mixup, cutmix: the alphas of their Beta(alpha, alpha) distributions; 0 is off. With both on, half of the mixed
    updates are of each kind.
    share: the share of the updates that are mixed.
    classes: the number of classes of each target with class numbers, by name; its labels become shares (B, K).
    Multilabel and regression labels are mixed as they are, and unknown where one of the two is unknown.
    weighting: puts row weights into the labels of every update, mixed or not; None where all rows count the same.
    """

    mixup: float
    cutmix: float
    share: float
    seed: int
    classes: Mapping[str, int]
    rank: int = 0
    weighting: RowWeighting | None = None

    @property
    def is_on(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, batches: list[Batch], update: int) -> list[Batch]:
        """The micro-batches of update number `update`, mixed. Features of a frozen backbone are not mixed."""
        if self.weighting is not None:
            batches = self.weighting(batches)
        if not self.is_on or batches[0].images.ndim != 4:
            return batches
        rng = generator(self.seed, MIX, update)
        mix_draw, kind_draw = rng.random(2)
        if mix_draw >= self.share:
            return batches
        # Whether and how an update is mixed is the same in all processes; everything else differs between them.
        if self.rank:
            rng = generator(self.seed, MIX, update, self.rank)

        # All images of the update at once: the partners do not depend on how it is cut into micro-batches.
        sizes = [len(batch.images) for batch in batches]
        images = torch.cat([batch.images for batch in batches])
        partner_N = to_device_async(rng.permutation(len(images)), images.device)
        if self.cutmix and (not self.mixup or kind_draw < 0.5):
            images, lambda_N = _cutmix(images, partner_N, self.cutmix, rng)
        else:
            images, lambda_N = _mixup(images, partner_N, self.mixup, rng)
        targets = {
            name: self._mix_labels(
                name, torch.cat([batch.targets[name] for batch in batches]), partner_N, lambda_N
            )
            for name in batches[0].targets
        }

        # And back into micro-batches of the same sizes.
        chunks = {name: torch.split(labels, sizes) for name, labels in targets.items()}
        return [
            Batch(images_of_batch, {name: chunks[name][i] for name in chunks}, batches[i].rows)
            for i, images_of_batch in enumerate(torch.split(images, sizes))
        ]

    def _mix_labels(self, name: str, labels: Tensor, partner_N: Tensor, lambda_N: Tensor) -> Tensor:
        """lambda * label + (1 - lambda) * the partner's label."""
        if name in self.classes and labels.ndim == 1:  # weighted ones are shares already
            labels = class_shares(labels, self.classes[name])
        weight = lambda_N.to(labels.dtype).reshape(-1, *[1] * (labels.ndim - 1))
        return weight * labels + (1 - weight) * labels[partner_N]


def _mixup(
    images_NCHW: Tensor, partner_N: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(mixed images as float32, lambda_N): lambda is each image's weight against its partner's."""
    lambda_N = to_device_async(rng.beta(alpha, alpha, len(images_NCHW)), images_NCHW.device).float()
    partners_NCHW = images_NCHW[partner_N].float()
    mixed_NCHW = torch.lerp(partners_NCHW, images_NCHW.float(), lambda_N.view(-1, 1, 1, 1))
    return mixed_NCHW.contiguous(memory_format=torch.channels_last), lambda_N


def _cutmix(
    images_NCHW: Tensor, partner_N: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(mixed images, lambda_N): a rectangle of 1 - lambda of the area, centered anywhere, comes from the partner. It is
    cut off at the border, so lambda is the share that is really left of the image."""
    count, _, height, width = images_NCHW.shape
    side_N = np.sqrt(1 - rng.beta(alpha, alpha, count))
    top_N, bottom_N = _span(height, side_N, rng)
    left_N, right_N = _span(width, side_N, rng)
    lambda_N = 1 - (bottom_N - top_N) * (right_N - left_N) / (height * width)

    device = images_NCHW.device
    in_rows_NH = _is_inside(height, top_N, bottom_N, device)
    in_columns_NW = _is_inside(width, left_N, right_N, device)
    box_N1HW = (in_rows_NH.unsqueeze(2) & in_columns_NW.unsqueeze(1)).unsqueeze(1)
    mixed_NCHW = torch.where(box_N1HW, images_NCHW[partner_N], images_NCHW)
    mixed_NCHW = mixed_NCHW.contiguous(memory_format=torch.channels_last)
    return mixed_NCHW, to_device_async(lambda_N, device).float()


def _span(length: int, share_N: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """(start_N, end_N) of a rectangle along one axis: `share_N` of the length, centered anywhere, cut at the border."""
    centre_N = rng.random(len(share_N)) * length
    half_N = share_N * length / 2
    start_N = np.rint(centre_N - half_N).clip(0, length)
    end_N = np.rint(centre_N + half_N).clip(0, length)
    return start_N, end_N


def _is_inside(length: int, start_N: Array, end_N: Array, device: torch.device) -> Tensor:
    """(N, length) bool, on the device."""
    position = torch.arange(length, device=device)
    return (position >= to_device_async(start_N, device).unsqueeze(1)) & (
        position < to_device_async(end_N, device).unsqueeze(1)
    )
