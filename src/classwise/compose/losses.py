"""From the config's loss sections to modules: one loss per target, joined into the criterion; and the heads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.compose.splits import DatasetSplits, label_counts
from classwise.config.conflicts import loss_key, losses_of
from classwise.config.schema import Config
from classwise.errors import ConfigError, DataError
from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.class_weights import class_weights
from classwise.losses.corn import Corn
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment, log_prior
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import AbsoluteError, Huber, SmoothL1, SquaredError, Standardised
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

Counts = list[int]
BuildLoss = Callable[[Any, Counts, Counts, str], nn.Module]
"""From the section of the config, the training rows with each label, the training rows that are labeled for it
(multilabel only), and the section's key for error messages."""


def build_criterion(config: Config, splits: DatasetSplits) -> Criterion:
    """One loss per target, joined. Raises ConfigError."""
    counts = label_counts(splits, splits.train)
    losses: dict[str, nn.Module] = {}
    for name, target in config.targets.items():
        key = loss_key(config, name)
        loss = _build_loss(
            section=config.loss_of(name),
            counts=counts.get(name, []),
            labeled=_labeled_cells(splits, name),
            key=key,
        )
        # Its statistics are of one batch: the sum over micro-batches would be another loss.
        if not loss.additive and config.training.accumulate > 1:
            raise ConfigError(
                f"{key}: soft F1 is not a sum over samples, so it cannot be accumulated exactly;"
                f" training.accumulate: found {config.training.accumulate}, allowed: 1"
            )
        # The head predicts standardised values, so the loss compares those.
        if target.type == "regression":
            loss = Standardised(loss, *_mean_and_std(splits, name))
        losses[name] = loss
    weights = {name: target.weight for name, target in config.targets.items()}
    return Criterion(losses, weights, uncertainty=config.training.target_weights == "uncertainty")


def build_heads(config: Config, splits: DatasetSplits) -> dict[str, Head]:
    """How the model's outputs are decoded, by target. Raises DataError if a regression has no two different values."""
    heads: dict[str, Head] = {}
    counts = label_counts(splits, splits.train)
    for target in splits.targets:
        name = target.name
        classes = len(target.labels)
        if target.type == "class":
            heads[name] = ClassHead(classes, _adjustment(config.targets[name].adjust, counts[name]))
        elif target.type == "ordinal":
            heads[name] = OrdinalHead(classes)
        elif target.type == "multilabel":
            heads[name] = MultilabelHead(classes)
        elif target.type == "regression":
            mean, std = _mean_and_std(splits, name)
            heads[name] = RegressionHead(mean, std, config.targets[name].edges or ())
        else:
            heads[name] = RankingHead()
    return heads


def cosine_scales(config: Config) -> dict[str, float]:
    """By target with LDAM among its losses: its scale. Such a head gives scale * cosine of features and weights."""
    return {
        name: loss.scale for name in config.targets for loss in losses_of(config, name) if loss.name == "ldam"
    }


def _adjustment(tau: float | None, counts: Counts) -> tuple[float, ...]:
    """Added to the logits after training: -tau * log prior (Menon et al. 2021, equation 9)."""
    if not tau:
        return ()
    return tuple((-tau * log_prior(torch.tensor(counts))).tolist())


def _mean_and_std(splits: DatasetSplits, name: str) -> tuple[float, float]:
    """Over the training rows alone: validation must not leak into the model."""
    values = splits.train.labels[name]
    values = values[np.isfinite(values)]
    if len(values) < 2 or not values.std() > 0:
        raise DataError(
            f"targets.{name}: the training rows hold {len(np.unique(values))} different values; at least two are"
            " needed"
        )
    return float(values.mean()), float(values.std())


def _labeled_cells(splits: DatasetSplits, name: str) -> Counts:
    """Training rows that are labeled for each label of a multilabel target: an empty cell is not a negative."""
    if splits.target(name).type != "multilabel":
        return []
    labeled: Counts = (~np.isnan(splits.train.labels[name])).sum(axis=0).tolist()
    return labeled


def _build_loss(section: Any, counts: Counts, labeled: Counts, key: str) -> Any:
    """A loss module from its section of the config; see `BuildLoss`. Raises ConfigError."""
    if section.name == "sum":
        terms = [
            _build_loss(term, counts, labeled, f"{key}.terms[{i}]") for i, term in enumerate(section.terms)
        ]
        return WeightedSum(terms, [term.weight for term in section.terms])
    return _LOSSES[section.name](section, counts, labeled, key)


def _class_weights(section: Any, counts: Counts, key: str) -> Tensor | None:
    try:
        return class_weights(section.class_weights, counts, section.beta)
    except ConfigError as error:
        raise ConfigError(f"{key}.class_weights: {error}") from None


def _pos_weight(section: Any, counts: Counts, labeled: Counts) -> Tensor | None:
    """Negatives over positives of every label, among its labeled cells; 1 for a label that no row or every row
    has."""
    if section.pos_weight == "none":
        return None
    ratios = [
        (cells - positives) / positives if 0 < positives < cells else 1.0
        for positives, cells in zip(counts, labeled, strict=True)
    ]
    return torch.tensor(ratios, dtype=torch.float64)


_LOSSES: dict[str, BuildLoss] = {
    "cross_entropy": lambda s, counts, labeled, key: CrossEntropy(
        _class_weights(s, counts, key), s.label_smoothing, s.weights_from_epoch
    ),
    "focal": lambda s, counts, labeled, key: Focal(
        s.gamma, _class_weights(s, counts, key), s.weights_from_epoch
    ),
    "balanced_softmax": lambda s, counts, labeled, key: BalancedSoftmax(torch.tensor(counts)),
    "logit_adjustment": lambda s, counts, labeled, key: LogitAdjustment(torch.tensor(counts), s.tau),
    # The head's logits are scale * cosine already (see cosine_scales), so the margins are scaled as well.
    "ldam": lambda s, counts, labeled, key: LDAM(
        torch.tensor(counts),
        s.scale * s.max_margin,
        1.0,
        _class_weights(s, counts, key),
        s.weights_from_epoch,
    ),
    "gce": lambda s, counts, labeled, key: GeneralizedCrossEntropy(s.q),
    "soft_f1": lambda s, counts, labeled, key: SoftMacroF1(len(counts)),
    "bce": lambda s, counts, labeled, key: BinaryCrossEntropy(_pos_weight(s, counts, labeled)),
    "multilabel_focal": lambda s, counts, labeled, key: MultilabelFocal(s.gamma, s.alpha),
    "asymmetric": lambda s, counts, labeled, key: Asymmetric(s.gamma_neg, s.gamma_pos, s.clip),
    "corn": lambda s, counts, labeled, key: Corn(len(counts)),
    "mse": lambda s, counts, labeled, key: SquaredError(),
    "mae": lambda s, counts, labeled, key: AbsoluteError(),
    "smooth_l1": lambda s, counts, labeled, key: SmoothL1(s.beta),
    "huber": lambda s, counts, labeled, key: Huber(s.delta),
    "pairwise_logistic": lambda s, counts, labeled, key: PairwiseLogistic(),
    "listnet": lambda s, counts, labeled, key: ListNet(),
}
