"""Losses of a multilabel target: every cell (row, label) is a binary question of its own.

In all of them a target t is 1 or 0, or in between after mixing: t loss(1) + (1 - t) loss(0). NaN is unknown. The sum
over the labeled cells is divided by their number. Weighted targets are (B, L, 2), value and weight; the weighted sum is
divided by the summed weights.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.losses.checks import as_number, as_weight
from classwise.losses.labels import at_least_float32, entry_normalizer, values_and_weights
from classwise.losses.normalizer import Normalizer


class BinaryCrossEntropy(nn.Module):
    """-(w t log p + (1 - t) log(1 - p)) with p the sigmoid of the logit: torch's `BCEWithLogitsLoss`.

    `pos_weight` (L,): the w of each label, finite and >= 0; as in torch, these weights do not enter the normalizer.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    pos_weight: Tensor | None

    def __init__(self, pos_weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("pos_weight", as_weight(pos_weight, "pos_weight"))

    def normalizer(self, targets_BL: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled cells."""
        return entry_normalizer(targets_BL, 2)

    def forward(self, logits_BL: Tensor, targets_BL: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of the labeled cells, divided by `normalizer` (default: that of this batch); a scalar.

        Raises ValueError for shapes that do not fit.
        """
        check_cells(logits_BL, targets_BL, None if self.pos_weight is None else len(self.pos_weight))
        logits_BL = at_least_float32(logits_BL)
        positive_BL = -F.logsigmoid(logits_BL)
        negative_BL = -F.logsigmoid(-logits_BL)
        if self.pos_weight is not None:
            positive_BL = positive_BL * self.pos_weight.to(positive_BL.dtype)
        normalizer = self.normalizer(targets_BL) if normalizer is None else normalizer
        return normalizer.divide(cell_sum(positive_BL, negative_BL, targets_BL))


class MultilabelFocal(nn.Module):
    """-a (1 - q)^gamma log q with q the probability of the true answer: p for a 1, 1 - p for a 0.

    Lin et al. 2017, 'Focal loss for dense object detection', equations 4 and 5. `gamma` >= 0; `alpha` in [0, 1]
    is the a of a 1, and 1 - alpha that of a 0; without it a is 1.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        self.gamma = as_number(gamma, "gamma", low=0)
        self.alpha = None if alpha is None else as_number(alpha, "alpha", low=0, high=1)

    def normalizer(self, targets_BL: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled cells."""
        return entry_normalizer(targets_BL, 2)

    def forward(self, logits_BL: Tensor, targets_BL: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of the labeled cells, divided by `normalizer` (default: that of this batch); a scalar.

        Raises ValueError for shapes that do not fit.
        """
        check_cells(logits_BL, targets_BL)
        logits_BL = at_least_float32(logits_BL)
        log_p_BL = F.logsigmoid(logits_BL)
        log_not_p_BL = F.logsigmoid(-logits_BL)

        # The powers as exponentials of logarithms: finite gradients at p = 0 and 1, for every gamma.
        positive_BL = -(self.gamma * log_not_p_BL).exp() * log_p_BL
        negative_BL = -(self.gamma * log_p_BL).exp() * log_not_p_BL
        if self.alpha is not None:
            positive_BL = self.alpha * positive_BL
            negative_BL = (1 - self.alpha) * negative_BL

        normalizer = self.normalizer(targets_BL) if normalizer is None else normalizer
        return normalizer.divide(cell_sum(positive_BL, negative_BL, targets_BL))


class Asymmetric(nn.Module):
    """-(1 - p)^gamma_pos log p for a 1, -m^gamma_neg log(1 - m) for a 0 with m = max(p - clip, 0).

    Ridnik et al. 2021, 'Asymmetric loss for multi-label classification', equations 4 to 7; the default gammas and clip
    are those of the class in the authors' code. `gamma_pos`, `gamma_neg` >= 0; `clip` in [0, 0.99]: a 0 with a
    probability below it adds no loss, since images have far more absent labels than present ones. The authors' code
    takes the plain sum; here it is divided by the number of labeled cells.

    `focusing_gradient`: whether the gradient includes that of the focusing factors (1 - p)^gamma_pos and m^gamma_neg.
    It does in the paper, whose gradient analysis is that of the formula as a whole, and in timm. The authors' training
    script holds the factors constant (`disable_torch_grad_focal_loss=True`, with gamma_pos = 0): the value is the same,
    the gradient smaller, since it lacks the part that comes from the factors.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        focusing_gradient: bool = True,
    ) -> None:
        super().__init__()
        self.focusing_gradient = focusing_gradient
        self.gamma_neg = as_number(gamma_neg, "gamma_neg", low=0)
        self.gamma_pos = as_number(gamma_pos, "gamma_pos", low=0)
        self.clip = as_number(clip, "clip", low=0, high=0.99)

    def normalizer(self, targets_BL: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled cells."""
        return entry_normalizer(targets_BL, 2)

    def forward(self, logits_BL: Tensor, targets_BL: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of the labeled cells, divided by `normalizer` (default: that of this batch); a scalar.

        Raises ValueError for shapes that do not fit.
        """
        check_cells(logits_BL, targets_BL)
        logits_BL = at_least_float32(logits_BL)
        log_not_p_BL = F.logsigmoid(-logits_BL)
        factor_BL = self._focusing((self.gamma_pos * log_not_p_BL).exp())
        positive_BL = -factor_BL * F.logsigmoid(logits_BL)
        negative_BL = self._negative(logits_BL, log_not_p_BL)
        normalizer = self.normalizer(targets_BL) if normalizer is None else normalizer
        return normalizer.divide(cell_sum(positive_BL, negative_BL, targets_BL))

    def _negative(self, logits_BL: Tensor, log_not_p_BL: Tensor) -> Tensor:
        """The loss of a 0 (B, L)."""
        # Replaced before the power: for an exponent below 1 its derivative at 0 is infinite, and infinity times the 0
        # of a clipped cell is NaN.
        shifted_BL = logits_BL.sigmoid() - self.clip
        unclipped_BL = shifted_BL > torch.finfo(shifted_BL.dtype).eps
        power_BL = self._focusing(torch.where(unclipped_BL, shifted_BL, 1) ** self.gamma_neg)

        # log(1 - m) = log((1 - p) + clip), added in logarithms since 1 - p may be 0 in this precision.
        log_clip = log_not_p_BL.new_full((), math.log(self.clip) if self.clip else -math.inf)
        return torch.where(unclipped_BL, -power_BL * torch.logaddexp(log_not_p_BL, log_clip), 0)

    def _focusing(self, factor_BL: Tensor) -> Tensor:
        """The focusing factor as it enters the gradient."""
        return factor_BL if self.focusing_gradient else factor_BL.detach()


def check_cells(logits_BL: Tensor, targets_BL: Tensor, labels: int | None = None) -> None:
    """ValueError unless logits and targets are both (B, L), the targets floating, and L is `labels`."""
    shape = tuple(logits_BL.shape)
    targets_BL, _ = values_and_weights(targets_BL, 2)
    if logits_BL.ndim != 2 or tuple(targets_BL.shape) != shape or not targets_BL.is_floating_point():
        actual = f"logits {shape}, targets {tuple(targets_BL.shape)} of {targets_BL.dtype}"
        raise ValueError(
            f"found {actual}; allowed: logits (B, L), targets (B, L) of 1, 0, or NaN where unknown"
        )
    if labels is not None and shape[1] != labels:
        raise ValueError(f"found logits for {shape[1]} labels; this loss was made for {labels}")


def cell_sum(positive_BL: Tensor, negative_BL: Tensor, targets_BL: Tensor) -> Tensor:
    """The weighted sum over the labeled cells of t positive + (1 - t) negative, a scalar."""
    values_BL, weights_BL = values_and_weights(targets_BL, 2)
    labeled_BL = ~values_BL.isnan()
    share_BL = torch.where(labeled_BL, values_BL, 0).to(positive_BL.dtype)
    loss_BL = labeled_BL * (share_BL * positive_BL + (1 - share_BL) * negative_BL)
    return (loss_BL if weights_BL is None else loss_BL * weights_BL.to(loss_BL.dtype)).sum()
