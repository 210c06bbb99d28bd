"""Soft macro F1: the metric with probabilities in the place of counts."""

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.checks import check_batch
from classwise.losses.labels import at_least_float32, is_labeled, label_index, label_normalizer
from classwise.losses.normalizer import Normalizer


class SoftMacroF1(nn.Module):
    """1 - the mean over classes of 2 TP / (2 TP + FP + FN), the counts taken from the probabilities p.

    With y the one-hot labels and sums over the labeled rows: TP = sum p y, FP = sum p (1 - y), FN = sum (1 - p) y.

    The mean is over the classes that occur in the batch's labels. An absent class has TP = 0 and so F1 = 0 whatever the
    model predicts: it would add a constant to the value and shrink the gradient of all others by the share of absent
    classes, which changes from batch to batch. Probability given to an absent class is penalized nevertheless, since it
    is missing from the TP of the present ones.

    Not additive: F1 is not a sum over rows, so the values of micro-batches do not add up to that of the whole batch.
    Nor is it linear in the labels, so it accepts hard ones only.
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
        """The number of labeled rows; it only serves to recognize a batch."""
        return label_normalizer(labels_B)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The loss of `logits_BK` and `labels_B`, a scalar.

        Raises ValueError for a `normalizer` that differs from this batch's, which is then one of several micro-batches,
        and for shapes that do not fit.
        """
        check_batch(logits_BK, labels_B, self.classes, soft=False)
        self._check_normalizer(labels_B, normalizer)

        # Unlabeled rows have neither a label nor a probability, and so are in no count.
        labeled_B1 = is_labeled(labels_B).unsqueeze(1)
        p_BK = at_least_float32(logits_BK).softmax(dim=1).masked_fill(~labeled_B1, 0)
        y_BK = torch.zeros_like(p_BK).scatter(
            1, label_index(labels_B).unsqueeze(1), labeled_B1.to(p_BK.dtype)
        )

        # 2 TP + FP + FN is the sum of p plus the sum of y; 1 keeps absent classes from dividing 0 by 0.
        support_K = y_BK.sum(dim=0)
        present_K = support_K > 0
        denominator_K = torch.where(present_K, p_BK.sum(dim=0) + support_K, 1)
        loss_K = (1 - 2 * (p_BK * y_BK).sum(dim=0) / denominator_K) * present_K
        return loss_K.sum() / present_K.sum().clamp(min=1)

    def _check_normalizer(self, labels_B: Tensor, normalizer: Normalizer | None) -> None:
        if normalizer is None:
            return
        normalizer.require_terms(1)
        # The only comparison on the host in any loss: a silently different gradient would be worse.
        batch_rows = self.normalizer(labels_B).tolist()[0]
        update_rows = normalizer.tolist()[0]
        if batch_rows != update_rows:
            raise ValueError(
                "soft F1 is not a sum over samples and cannot be accumulated: this batch has"
                f" {batch_rows:g} labeled rows, but the normalizer is {update_rows:g}. Use one batch per update and one"
                " process"
            )
