"""From the config's loss sections to the modules: one loss a target, joined into the criterion."""

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
Build = Callable[[Any, Counts, Counts, str], nn.Module]  # section, rows of each label and with it known, key


def build_criterion(config: Config, splits: DatasetSplits) -> Criterion:
    """One loss a target, joined. Raises ConfigError."""
    counts = label_counts(splits, splits.train)
    losses: dict[str, nn.Module] = {}
    for name, target in config.targets.items():
        key = loss_key(config, name)
        loss = _loss(config.loss_of(name), counts.get(name, []), _known_cells(splits, name), key)
        if not loss.additive and config.training.accumulate > 1:
            raise ConfigError(
                f"{key}: soft F1 is not a sum over samples, so it cannot be accumulated exactly;"
                f" training.accumulate: found {config.training.accumulate}, allowed: 1"
            )
        if target.type == "regression":
            loss = Standardised(loss, *_mean_and_std(splits, name))
        losses[name] = loss
    weights = {name: target.weight for name, target in config.targets.items()}
    return Criterion(losses, weights, uncertainty=config.training.target_weights == "uncertainty")


def build_heads(config: Config, splits: DatasetSplits) -> dict[str, Head]:
    """What the model's outputs mean, by target. Raises DataError where the training rows say too little."""
    heads: dict[str, Head] = {}
    counts = label_counts(splits, splits.train)
    for target in splits.targets:
        name, size = target.name, len(target.labels)
        if target.type == "class":
            heads[name] = ClassHead(size, _adjustment(config.targets[name].adjust, counts[name]))
        elif target.type == "ordinal":
            heads[name] = OrdinalHead(size)
        elif target.type == "multilabel":
            heads[name] = MultilabelHead(size)
        elif target.type == "regression":
            mean, std = _mean_and_std(splits, name)
            heads[name] = RegressionHead(mean, std, config.targets[name].edges or ())
        else:
            heads[name] = RankingHead()
    return heads


def cosine_scales(config: Config) -> dict[str, float]:
    """The targets that LDAM is a loss of: their heads compare directions only, at this scale."""
    return {
        name: loss.scale for name in config.targets for loss in losses_of(config, name) if loss.name == "ldam"
    }


def _adjustment(tau: float | None, counts: Counts) -> tuple[float, ...]:
    """Added to the logits after training: -tau * log prior (Menon et al. 2021, equation 9)."""
    if not tau:
        return ()
    return tuple((-tau * log_prior(torch.tensor(counts))).tolist())


def _mean_and_std(splits: DatasetSplits, name: str) -> tuple[float, float]:
    """Of the training rows: validation must not take part in it."""
    values = splits.train.labels[name]
    known = values[np.isfinite(values)]
    if len(known) < 2 or not known.std() > 0:
        raise DataError(
            f"targets.{name}: the training rows hold {len(np.unique(known))} different values; at least two are"
            " needed"
        )
    return float(known.mean()), float(known.std())


def _known_cells(splits: DatasetSplits, name: str) -> Counts:
    """Training rows that each label of several is known of: a cell that is empty is no negative."""
    if splits.target(name).type != "multilabel":
        return []
    known: Counts = (~np.isnan(splits.train.labels[name])).sum(axis=0).tolist()
    return known


def _loss(section: Any, counts: Counts, known: Counts, key: str) -> Any:
    """A loss module from its section of the config."""
    if section.name == "sum":
        parts = [_loss(term, counts, known, f"{key}.terms[{i}]") for i, term in enumerate(section.terms)]
        return WeightedSum(parts, [term.weight for term in section.terms])
    return _LOSSES[section.name](section, counts, known, key)


def _weights(section: Any, counts: Counts, key: str) -> Tensor | None:
    try:
        return class_weights(section.class_weights, counts, section.beta)
    except ConfigError as error:
        raise ConfigError(f"{key}.class_weights: {error}") from None


def _pos_weight(section: Any, counts: Counts, known: Counts) -> Tensor | None:
    """Negatives over positives of every label, among its known cells; a label that no row or every
    row has keeps 1."""
    if section.pos_weight == "none":
        return None
    ratios = [(cells - n) / n if 0 < n < cells else 1.0 for n, cells in zip(counts, known, strict=True)]
    return torch.tensor(ratios, dtype=torch.float64)


_LOSSES: dict[str, Build] = {
    "cross_entropy": lambda s, counts, known, key: CrossEntropy(
        _weights(s, counts, key), s.label_smoothing, s.weights_from_epoch
    ),
    "focal": lambda s, counts, known, key: Focal(s.gamma, _weights(s, counts, key), s.weights_from_epoch),
    "balanced_softmax": lambda s, counts, known, key: BalancedSoftmax(torch.tensor(counts)),
    "logit_adjustment": lambda s, counts, known, key: LogitAdjustment(torch.tensor(counts), s.tau),
    # The head's logits are scale * cosine already (see cosine_scales), so the margins are scaled with them.
    "ldam": lambda s, counts, known, key: LDAM(
        torch.tensor(counts), s.scale * s.max_margin, 1.0, _weights(s, counts, key), s.weights_from_epoch
    ),
    "gce": lambda s, counts, known, key: GeneralizedCrossEntropy(s.q),
    "soft_f1": lambda s, counts, known, key: SoftMacroF1(len(counts)),
    "bce": lambda s, counts, known, key: BinaryCrossEntropy(_pos_weight(s, counts, known)),
    "multilabel_focal": lambda s, counts, known, key: MultilabelFocal(s.gamma, s.alpha),
    "asymmetric": lambda s, counts, known, key: Asymmetric(s.gamma_neg, s.gamma_pos, s.clip),
    "corn": lambda s, counts, known, key: Corn(len(counts)),
    "mse": lambda s, counts, known, key: SquaredError(),
    "mae": lambda s, counts, known, key: AbsoluteError(),
    "smooth_l1": lambda s, counts, known, key: SmoothL1(s.beta),
    "huber": lambda s, counts, known, key: Huber(s.delta),
    "pairwise_logistic": lambda s, counts, known, key: PairwiseLogistic(),
    "listnet": lambda s, counts, known, key: ListNet(),
}
