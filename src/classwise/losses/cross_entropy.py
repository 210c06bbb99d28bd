"""Cross entropy with class weights and label smoothing, on sums."""

import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.mass import IGNORED, as_weight, at_least_float32, check_batch, label_mass, over_mass


class CrossEntropy(nn.Module):
    """`torch.nn.functional.cross_entropy`, with the mass that its mean divides by in the caller's hands.

    `weight` (K,): one factor for each class. `label_smoothing` in [0, 1]: the share of the target that is
    spread evenly over all classes (Szegedy et al. 2016, section 7). As in torch, weights apply to the spread
    share class by class, while the mass stays the sum of the weights of the rows' own classes.
    """

    additive: bool = True
    terms: int = 1
    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing: found {label_smoothing}, allowed: 0 to 1")
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", as_weight(weight))

    def mass(self, labels_B: Tensor) -> Tensor:
        """The sum of the weights of the labelled rows: shape (1,), float64."""
        return label_mass(labels_B, self.weight)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, mass: Tensor | None = None) -> Tensor:
        """The sum over the rows of `logits_BK` (B, K) with `labels_B` (B,), divided by `mass` (1,)."""
        check_batch(logits_BK, labels_B, None if self.weight is None else len(self.weight))
        logits_BK = at_least_float32(logits_BK)
        total = F.cross_entropy(
            logits_BK,
            labels_B.long(),
            None if self.weight is None else self.weight.to(logits_BK.dtype),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return over_mass(total, self.mass(labels_B) if mass is None else mass)
