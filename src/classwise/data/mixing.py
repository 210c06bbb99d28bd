"""Mixup and CutMix: every image of an update is mixed with another one, and so are their answers.

The partners are drawn over the whole window of an update, so the mixed rows are the same however the window is
cut into micro-batches, and accumulation stays exact. All numbers come from (seed, update). Each of several processes
draws partners from its own share of the window, by (seed, update, rank): images do not travel.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.data.batch import Batch, to_device_async
from classwise.randomness import MIX, generator


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al. 2018, equation 1) and CutMix (Yun et al. 2019, equations 1 and 2).

    `mixup` and `cutmix` are the alphas of their Beta(alpha, alpha) distributions, 0 is off; with both on, half
    of the mixed updates are of each kind. `share` is the share of the updates that are mixed. `classes`: how
    many classes the targets with class numbers have; their labels become shares (B, K). Multilabel and
    regression answers are mixed as they are, and unknown where one of the two is.
    """

    mixup: float
    cutmix: float
    share: float
    seed: int
    classes: Mapping[str, int]
    rank: int = 0

    @property
    def is_on(self) -> bool:
        """Whether images are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0

    def __call__(self, window: list[Batch], update: int) -> list[Batch]:
        """The window of update number `update`, mixed; features of a frozen backbone are left as they are."""
        if not self.is_on or window[0].images.ndim != 4:
            return window
        rng = generator(self.seed, MIX, update)
        mixed, cut = rng.random(2)
        if mixed >= self.share:
            return window
        if (
            self.rank
        ):  # whether and how an update is mixed is the same in all processes, the rest is each one's own
            rng = generator(self.seed, MIX, update, self.rank)
        sizes = [len(batch.images) for batch in window]
        images = torch.cat([batch.images for batch in window])
        partner_N = to_device_async(rng.permutation(len(images)), images.device)
        if self.cutmix and (not self.mixup or cut < 0.5):
            images, own_N = _cutmix(images, partner_N, self.cutmix, rng)
        else:
            images, own_N = _mixup(images, partner_N, self.mixup, rng)
        targets = {
            name: self._mixed(name, torch.cat([batch.targets[name] for batch in window]), partner_N, own_N)
            for name in window[0].targets
        }
        parts = {name: torch.split(values, sizes) for name, values in targets.items()}
        return [
            Batch(part, {name: parts[name][i] for name in parts}, window[i].rows)
            for i, part in enumerate(torch.split(images, sizes))
        ]

    def _mixed(self, name: str, labels: Tensor, partner_N: Tensor, own_N: Tensor) -> Tensor:
        """own * answer + (1 - own) * the partner's."""
        if name in self.classes:
            labels = _shares(labels, self.classes[name])
        own = own_N.to(labels.dtype).reshape(-1, *[1] * (labels.ndim - 1))
        return own * labels + (1 - own) * labels[partner_N]


def _shares(labels_N: Tensor, classes: int) -> Tensor:
    """Hard labels as shares (N, K); an unknown label has none."""
    one_hot_NK = F.one_hot(labels_N.clamp(min=0), classes).float()
    return one_hot_NK * (labels_N >= 0).unsqueeze(1)


def _mixup(
    images_NCHW: Tensor, partner_N: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    own_N = to_device_async(rng.beta(alpha, alpha, len(images_NCHW)), images_NCHW.device).float()
    partners_NCHW = images_NCHW[partner_N].float()
    mixed_NCHW = torch.lerp(partners_NCHW, images_NCHW.float(), own_N.view(-1, 1, 1, 1))
    return mixed_NCHW.contiguous(memory_format=torch.channels_last), own_N


def _cutmix(
    images_NCHW: Tensor, partner_N: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A rectangle of 1 - lambda of the area, its centre anywhere, comes from the partner; what it lost at the
    border counts, so lambda is the share that is really left."""
    count, _, height, width = images_NCHW.shape
    side_N = np.sqrt(1 - rng.beta(alpha, alpha, count))
    spans = []
    for size in (height, width):
        centre_N, half_N = rng.random(count) * size, side_N * size / 2
        spans.append((np.rint(centre_N - half_N).clip(0, size), np.rint(centre_N + half_N).clip(0, size)))
    (top, bottom), (left, right) = spans
    own_N = 1 - (bottom - top) * (right - left) / (height * width)
    device = images_NCHW.device
    inside = [
        (torch.arange(size, device=device) >= to_device_async(first, device).unsqueeze(1))
        & (torch.arange(size, device=device) < to_device_async(last, device).unsqueeze(1))
        for size, (first, last) in ((height, spans[0]), (width, spans[1]))
    ]
    box_N1HW = (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)
    mixed_NCHW = torch.where(box_N1HW, images_NCHW[partner_N], images_NCHW)
    return mixed_NCHW.contiguous(memory_format=torch.channels_last), to_device_async(own_N, device).float()
