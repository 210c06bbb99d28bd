"""Soft macro F1: the metric that ranks, with probabilities in the place of counts."""

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.checks import check_batch
from classwise.losses.labels import at_least_float32, is_known, label_index, label_normalizer
from classwise.losses.normalizer import Normalizer


class SoftMacroF1(nn.Module):
    """1 - the mean over classes of 2 TP / (2 TP + FP + FN), the counts taken from the probabilities p.

    With y the one-hot labels and sums over the labeled rows: TP = sum p y, FP = sum p (1 - y), FN = sum (1 - p) y.

    The mean runs over the classes that occur in the batch's labels. An absent class has TP = 0 and so F1 = 0
    whatever the model says: it would add a constant to the value and shrink the gradient of all others by
    the share of absent classes, which changes from batch to batch. Probability given to an absent class is
    punished all the same, since the present ones lack it in their TP.

    Not additive: F1 is no sum over rows, so the parts of a larger batch cannot be added to that batch's value.
    Nor is it linear in the labels, so it takes hard ones only.
    """

    additive: bool = False
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ConfigError(f"classes: found {classes}, allowed: 1 or more")
        self.classes = classes

    def normalizer(self, labels_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows: it only tells one batch from another."""
        return label_normalizer(labels_B)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The loss of `logits_BK` (B, K) with `labels_B` (B,).

        A `normalizer` that is not this batch's own raises ValueError: the batch is then a part of a larger one.
        """
        check_batch(logits_BK, labels_B, self.classes, soft=False)
        self._refuse_another_normalizer(labels_B, normalizer)
        known_B1 = is_known(labels_B).unsqueeze(1)
        p_BK = at_least_float32(logits_BK).softmax(dim=1).masked_fill(~known_B1, 0)
        y_BK = torch.zeros_like(p_BK).scatter(1, label_index(labels_B).unsqueeze(1), known_B1.to(p_BK.dtype))
        support_K = y_BK.sum(dim=0)
        present_K = support_K > 0
        # 2 TP + FP + FN is the sum of p plus the sum of y; 1 keeps absent classes from dividing 0 by 0.
        size_K = torch.where(present_K, p_BK.sum(dim=0) + support_K, 1)
        miss_K = (1 - 2 * (p_BK * y_BK).sum(dim=0) / size_K) * present_K
        return miss_K.sum() / present_K.sum().clamp(min=1)

    def _refuse_another_normalizer(self, labels_B: Tensor, normalizer: Normalizer | None) -> None:
        if normalizer is None:
            return
        normalizer.require_terms(1)
        own, given = self.normalizer(labels_B).tolist()[0], normalizer.tolist()[0]
        # The only comparison on the host in any loss: a silently different gradient would be worse.
        if own != given:
            raise ValueError(
                "soft F1 is not a sum over samples and cannot be accumulated: this batch has"
                f" {own:g} labeled rows, but the normalizer given is {given:g}. Use one batch an update, in one process"
            )
