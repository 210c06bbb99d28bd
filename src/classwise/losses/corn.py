"""CORN: an ordinal target as the conditional questions 'higher than this level?'."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.labels import at_least_float32, is_soft, label_normalizer, label_sum
from classwise.losses.normalizer import Normalizer


class Corn(nn.Module):
    """The binary cross entropies of the K - 1 conditional tasks of `levels` K, each over its own subset of the rows.

    Shi, Cao and Raschka 2021, 'Deep neural networks for rank-consistent ordinal regression based on conditional
    probabilities', section 3 (conditional training subsets, loss). Output k, k = 0 .. K - 2, is the logit of
    P(y > k | y > k - 1); a row of level y takes part in task k if y >= k, with the binary label y > k. So a row of
    level y has min(y, K - 2) + 1 tasks, and the sum is divided by the number of tasks of all labeled rows.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    tasks: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ConfigError(f"levels: found {levels}, allowed: 2 or more")
        tasks_K = (torch.arange(levels, dtype=torch.float64) + 1).clamp(max=levels - 1)
        self.register_buffer("tasks", tasks_K, persistent=False)

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The number of tasks of the labeled rows."""
        return label_normalizer(labels, self.tasks)

    def forward(self, logits_BT: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BT` (B, K - 1) and `labels`, levels (B,) or soft (B, K), divided by `normalizer`
        (default: that of this batch); a scalar. Raises ValueError for shapes that do not fit."""
        self._check(logits_BT, labels)
        logits_BT = at_least_float32(logits_BT)
        # A row passes every level below its own and stops at its own; no task asks about passing the last level.
        passed_BK = F.pad(-F.logsigmoid(logits_BT), (1, 0)).cumsum(dim=1)
        stopped_BK = F.pad(-F.logsigmoid(-logits_BT), (0, 1))
        total = label_sum(passed_BK + stopped_BK, labels)
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)

    def _check(self, logits_BT: Tensor, labels: Tensor) -> None:
        levels = len(self.tasks)
        rows = tuple(labels.shape)[:1]
        fits_logits = tuple(logits_BT.shape) == (*rows, levels - 1)
        fits_labels = tuple(labels.shape) in (rows, (*rows, levels))
        fits_dtype = labels.is_floating_point() == is_soft(labels)
        if not (fits_logits and fits_labels and fits_dtype):
            actual = f"logits {tuple(logits_BT.shape)}, labels {tuple(labels.shape)} of {labels.dtype}"
            raise ValueError(
                f"found {actual}; allowed with {levels} levels: logits (B, {levels - 1}), labels (B,) of integers,"
                f" -1 where unknown, or soft labels (B, {levels})"
            )
