"""Class weights: is the ratio of the weights the ratio of what the rows add to the gradient?

A long-tailed training set is drawn epoch by epoch, cut into batches, and passed through the loss with logits of 0. The
gradient of a row is then its weight over the normalizer of its batch, times the same number for all rows, so that the
average over the rows of a class shows how much they really count. The last batch of an epoch is short, as it is in
training.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.data.sampling import batches_of, epoch_order, expected_draws
from classwise.losses.class_weights import class_weights, scaled_to_mean_one
from classwise.losses.cross_entropy import CrossEntropy
from simulations.claim import Claim, at_most, within

COUNTS = np.array([480, 288, 173, 104, 62, 38, 22, 14, 8, 5])
"""Rows of each class: the commonest has 96 times as many as the rarest."""
LABELS = np.repeat(np.arange(len(COUNTS)), COUNTS)
BATCH_SIZES = (8, 32, 128)
Values = npt.NDArray[np.float64]


def simulate(quick: bool) -> list[Claim]:
    """The ratio of the rarest class to the commonest; accumulation; the scale of the weighted loss."""
    epochs = 60 if quick else 600
    claims: list[Claim] = []
    for kind, weight_K in weights().items():
        asked = float(weight_K[-1] / weight_K[0])
        for batch_size in BATCH_SIZES:
            trained = ratio(CrossEntropy(weight_K, normalize_by="rows"), batch_size, epochs)
            claims.append(
                within(
                    f"{kind}, batches of {batch_size}: ratio trained / ratio asked ({asked:.1f})",
                    value=trained / asked,
                    low=0.95 if quick else 0.98,
                    high=1.05 if quick else 1.02,
                    count=epochs,
                )
            )

    # Torch's way, for comparison: the smaller the batch, the less of the ratio is left.
    weight_K = weights()["inverse"]
    for batch_size, limit in zip(BATCH_SIZES, (20, 60, 90), strict=True):
        trained = ratio(CrossEntropy(weight_K, normalize_by="weights"), batch_size, epochs)
        setting = f'inverse, normalize_by = "weights", batches of {batch_size}: ratio trained, of 96 asked'
        claims.append(at_most(setting, value=trained, limit=limit, count=epochs))

    claims.append(accumulation(quick))
    claims += [scale(sampling, epochs) for sampling in ("shuffle", "sqrt", "balanced")]
    return claims


def weights() -> dict[str, Tensor]:
    """The class weights of a run with shuffled rows, by what was asked for."""
    asked = {"inverse": class_weights("inverse", COUNTS), "effective": class_weights("effective", COUNTS)}
    return {
        kind: scaled_to_mean_one(weight_K, COUNTS) for kind, weight_K in asked.items() if weight_K is not None
    }


def ratio(loss: CrossEntropy, batch_size: int, epochs: int) -> float:
    """What a row of the rarest class adds to the gradient of its update, over what one of the commonest does."""
    added_K = np.zeros(len(COUNTS))
    for epoch in range(epochs):
        order = epoch_order("shuffle", LABELS, seed=0, epoch=epoch)
        for rows in batches_of(order, batch_size):
            gradient_B = own_gradients(loss, LABELS[rows])
            added_K += np.bincount(LABELS[rows], weights=gradient_B, minlength=len(COUNTS))
    per_row_K = added_K / COUNTS
    return float(per_row_K[-1] / per_row_K[0])


def own_gradients(loss: CrossEntropy, labels_B: npt.NDArray[np.int64]) -> Values:
    """The size of the gradient of each row (B,) with respect to the logit of its own class."""
    logits_BK = torch.zeros(len(labels_B), len(COUNTS), dtype=torch.float64, requires_grad=True)
    loss(logits_BK, torch.from_numpy(labels_B)).backward()
    assert logits_BK.grad is not None
    gradient_BK: Values = logits_BK.grad.numpy()
    return -gradient_BK[np.arange(len(labels_B)), labels_B]


def accumulation(quick: bool) -> Claim:
    """The gradient of 32 rows in micro-batches of 8 is that of the 32 rows at once."""
    updates = 100 if quick else 1000
    loss = CrossEntropy(weights()["inverse"], normalize_by="rows")
    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(updates):
        labels_B = torch.from_numpy(rng.choice(LABELS, 32, replace=False))
        logits_BK = torch.from_numpy(rng.normal(size=(32, len(COUNTS)))).requires_grad_()
        (at_once_BK,) = torch.autograd.grad(loss(logits_BK, labels_B), logits_BK)
        micro_batches = list(zip(logits_BK.split(8), labels_B.split(8), strict=True))
        first, *others = [loss.normalizer(labels) for _, labels in micro_batches]
        losses = [loss(logits, labels, sum(others, start=first)) for logits, labels in micro_batches]
        (added_up_BK,) = torch.autograd.grad(torch.stack(losses).sum(), logits_BK)
        largest = max(largest, float((at_once_BK - added_up_BK).abs().max() / at_once_BK.abs().max()))
    setting = "inverse, 4 micro-batches of 8: largest difference from a batch of 32, relative to the gradient"
    return at_most(setting, value=largest, limit=1e-14, count=updates)


def scale(sampling: str, epochs: int) -> Claim:
    """The weighted loss of an untrained model (all logits 0) over the unweighted one."""
    drawn = np.concatenate(
        [epoch_order(sampling, LABELS, seed=0, epoch=epoch) for epoch in range(epochs // 10)]
    )
    drawn_K = np.bincount(LABELS, weights=expected_draws(sampling, LABELS))
    asked = class_weights("inverse", COUNTS)
    assert asked is not None
    weight_K = scaled_to_mean_one(asked, drawn_K).numpy()
    setting = f'inverse, sampling "{sampling}": weighted over unweighted loss of equal logits'
    return within(
        setting, value=float(weight_K[LABELS[drawn]].mean()), low=0.99, high=1.01, count=epochs // 10
    )
