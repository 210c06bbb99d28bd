"""The weights of the training rows (row_weights.py) in the labels that the loss sees."""

import torch

from classwise.compose.splits import DatasetSplits, Split
from classwise.data.weighting import RowWeighting


def row_weighting(splits: DatasetSplits) -> RowWeighting | None:
    """What puts the weights into the labels of the training rows; None where all rows count the same."""
    if splits.train.weights is None:
        return None
    classes = {
        target.name: len(target.labels) for target in splits.targets if target.type in ("class", "ordinal")
    }
    return RowWeighting(splits.train.weights, classes)


def weighted_targets(splits: DatasetSplits, fitted: Split, name: str) -> torch.Tensor:
    """The labels of a target of all rows of a split, weighted where there are weights."""
    labels = torch.from_numpy(fitted.labels[name])
    weighting = row_weighting(splits)
    if weighting is None or fitted.weights is None:
        return labels
    return weighting.labels({name: labels}, torch.from_numpy(fitted.weights))[name]
