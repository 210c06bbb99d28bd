"""From the config to the criterion and the heads: one loss and one head for each target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.compose.prior import prior_adjustment
from classwise.compose.splits import DatasetSplits, drawn_counts, label_counts, weighted_counts
from classwise.config.conflicts import loss_key, losses_of
from classwise.config.schema import Config
from classwise.errors import ConfigError, DataError
from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.class_weights import class_weights, scaled_to_mean_one
from classwise.losses.corn import Corn
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment, log_prior
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.own import check_own_loss, own_loss
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import AbsoluteError, Huber, SmoothL1, SquaredError, Standardized
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead
from classwise.own_parts.reference import is_own, short
from classwise.own_parts.source import admitted, load, made_by


@dataclass(frozen=True)
class LossInputs:
    """What a loss is built from besides its section of the config."""

    key: str
    """Where the section stands in the config, for messages."""
    counts: Sequence[float]
    """Training rows with each of the K labels, or the sum of their weights."""
    labeled: Sequence[float]
    """Multilabel: the same of training rows whose cell for each of the K labels is filled; an empty cell is no
    negative."""
    drawn: Sequence[float]
    """Rows of each of the K classes that an epoch draws on average: `counts`, unless sampling prefers some classes."""
    type: str = "class"
    """Of the target."""

    def class_weights(self, section: Any) -> Tensor | None:
        """The class weights (K,) that the section asks for; None for none. Raises ConfigError."""
        try:
            weight_K = class_weights(section.class_weights, self.counts, section.beta)
            if weight_K is None or section.normalize_by == "weights":
                return weight_K
            return scaled_to_mean_one(weight_K, self.drawn)
        except ConfigError as error:
            raise ConfigError(f"{self.key}.class_weights: {error}") from None

    def pos_weight(self, section: Any) -> Tensor | None:
        """Negatives over positives of each label (K,), None for none; 1 for a label that no row or every row has."""
        if section.pos_weight == "none":
            return None
        ratios = [
            (labeled - positives) / positives if 0 < positives < labeled else 1.0
            for positives, labeled in zip(self.counts, self.labeled, strict=True)
        ]
        return torch.tensor(ratios, dtype=torch.float64)


def build_criterion(config: Config, splits: DatasetSplits) -> Criterion:
    """One loss for each target, joined. Raises ConfigError."""
    losses: dict[str, nn.Module] = {}
    for name, target in config.targets.items():
        key = loss_key(config, name)
        loss = _build(config.loss_of(name), _loss_inputs(config, splits, name))
        if not loss.additive and config.training.accumulate > 1:
            raise ConfigError(
                f"{key}: soft F1 is not a sum over samples, so it cannot be accumulated exactly;"
                f" training.accumulate: found {config.training.accumulate}, allowed: 1"
            )
        if target.type == "regression":
            mean, std = _mean_and_std(splits, name)
            loss = Standardized(loss, mean, std)
        if (config.data.mixup or config.data.cutmix) and not loss.soft_targets:
            # Ours are refused without being built; of the user's own only the module knows.
            mixing = "mixup" if config.data.mixup else "cutmix"
            raise ConfigError(
                f"data.{mixing}: found {getattr(config.data, mixing)}, but {key} of {name!r} has soft_targets = False,"
                " so it needs hard labels; allowed: 0"
            )
        if splits.train.weights is not None and not loss.soft_targets:
            raise ConfigError(
                f"data.weight: found {config.data.weight!r}, but {key} of {name!r} is {config.loss_of(name).name!r},"
                " which has no part of the loss for each row; allowed: losses that are a sum over the rows"
            )
        losses[name] = loss
    weights = {name: target.weight for name, target in config.targets.items()}
    return Criterion(losses, weights, uncertainty=config.training.target_weights == "uncertainty")


def _loss_inputs(config: Config, splits: DatasetSplits, name: str) -> LossInputs:
    """What the loss of a target is built from."""
    return LossInputs(
        key=loss_key(config, name),
        counts=weighted_counts(splits, name),
        labeled=_labeled_cells(splits, name),
        drawn=drawn_counts(splits, config.data.sampling, name) if splits.target(name).is_class_like else (),
        type=config.targets[name].type,
    )


def check_own_losses(config: Config, splits: DatasetSplits, heads: Mapping[str, int]) -> None:
    """Raise ConfigError unless the user's own losses are exact. `heads`: the number of outputs by target."""
    for name, target in config.targets.items():
        section, inputs = config.loss_of(name), _loss_inputs(config, splits, name)
        terms = enumerate(section.terms) if section.name == "sum" else [(None, section)]
        for number, term in terms:
            key = inputs.key if number is None else f"{inputs.key}.terms[{number}]"
            if is_own(term.name):
                check_own_loss(
                    _own(term, replace(inputs, key=key)),
                    target.type,
                    outputs=heads[name],
                    classes=len(splits.target(name).labels),
                    where=f"{key}.name: {short(term.name)}",
                    source=admitted(term.name, key),
                )


def _build(section: Any, inputs: LossInputs) -> Any:
    """A loss module from its section of the config."""
    if is_own(section.name):
        return _own(section, inputs)
    if section.name != "sum":
        return _BUILDERS[section.name](section, inputs)
    terms = [
        _build(term, replace(inputs, key=f"{inputs.key}.terms[{index}]"))
        for index, term in enumerate(section.terms)
    ]
    return WeightedSum(terms, [term.weight for term in section.terms])


def _own(section: Any, inputs: LossInputs) -> nn.Module:
    """A loss of the user's own. One that asks for `counts` gets the training rows with each label."""
    part = load(section.name, f"{inputs.key}.name")
    offered = {"counts": torch.tensor(inputs.counts, dtype=torch.float64)}
    source = admitted(section.name, inputs.key)
    made = made_by(part, section.arguments, offered=offered, source=source, table=inputs.key)
    return own_loss(made, inputs.type, where=f"{inputs.key}.name: {short(section.name)}")


_BUILDERS: dict[str, Callable[[Any, LossInputs], nn.Module]] = {
    "cross_entropy": lambda section, inputs: CrossEntropy(
        weight=inputs.class_weights(section),
        label_smoothing=section.label_smoothing,
        weights_from_epoch=section.weights_from_epoch,
        normalize_by=section.normalize_by,
    ),
    "focal": lambda section, inputs: Focal(
        gamma=section.gamma,
        weight=inputs.class_weights(section),
        weights_from_epoch=section.weights_from_epoch,
        normalize_by=section.normalize_by,
    ),
    "balanced_softmax": lambda section, inputs: BalancedSoftmax(torch.tensor(inputs.counts)),
    "logit_adjustment": lambda section, inputs: LogitAdjustment(torch.tensor(inputs.counts), section.tau),
    # The head's logits are scale * cosine already (see cosine_scales), so the margins are scaled with them.
    "ldam": lambda section, inputs: LDAM(
        counts=torch.tensor(inputs.counts),
        max_margin=section.scale * section.max_margin,
        scale=1.0,
        weight=inputs.class_weights(section),
        weights_from_epoch=section.weights_from_epoch,
        normalize_by=section.normalize_by,
    ),
    "gce": lambda section, inputs: GeneralizedCrossEntropy(section.q),
    "soft_f1": lambda section, inputs: SoftMacroF1(classes=len(inputs.counts)),
    "bce": lambda section, inputs: BinaryCrossEntropy(inputs.pos_weight(section)),
    "multilabel_focal": lambda section, inputs: MultilabelFocal(section.gamma, section.alpha),
    "asymmetric": lambda section, inputs: Asymmetric(
        gamma_neg=section.gamma_neg,
        gamma_pos=section.gamma_pos,
        clip=section.clip,
        focusing_gradient=section.focusing_gradient,
    ),
    "corn": lambda section, inputs: Corn(levels=len(inputs.counts)),
    "mse": lambda section, inputs: SquaredError(),
    "mae": lambda section, inputs: AbsoluteError(),
    "smooth_l1": lambda section, inputs: SmoothL1(section.beta),
    "huber": lambda section, inputs: Huber(section.delta),
    "pairwise_logistic": lambda section, inputs: PairwiseLogistic(),
    "listnet": lambda section, inputs: ListNet(),
}
"""How each loss is built, by the name of its section in config/losses.py."""


def build_heads(config: Config, splits: DatasetSplits) -> dict[str, Head]:
    """How each target's outputs are read as predictions. Raises DataError for training rows without two values."""
    heads: dict[str, Head] = {}
    counts = label_counts(splits, splits.train)
    for target in splits.targets:
        name, size = target.name, len(target.labels)
        if target.type == "class":
            heads[name] = ClassHead(size, _adjustment(config, splits, name, counts[name]))
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
    """The scale of each target that is trained with LDAM: the logits of its head are cosines times this."""
    return {
        name: loss.scale for name in config.targets for loss in losses_of(config, name) if loss.name == "ldam"
    }


def _adjustment(config: Config, splits: DatasetSplits, name: str, counts: list[int]) -> tuple[float, ...]:
    """Added to the logits after training: -tau * log prior (Menon et al. 2021, equation 9) where `adjust` is given,
    else what the class shares of selection.prior ask for."""
    tau = config.targets[name].adjust
    if tau is None:
        return prior_adjustment(config, splits, name)
    return tuple((-tau * log_prior(torch.tensor(counts))).tolist()) if tau else ()


def _mean_and_std(splits: DatasetSplits, name: str) -> tuple[float, float]:
    """Of a regression target's training rows; the validation rows must not take part."""
    values = splits.train.labels[name]
    values = values[np.isfinite(values)]
    if len(values) < 2 or not values.std() > 0:
        raise DataError(
            f"targets.{name}: found {len(np.unique(values))} different values in the training rows; at least two are"
            " needed"
        )
    return float(values.mean()), float(values.std())


def _labeled_cells(splits: DatasetSplits, name: str) -> list[float]:
    """Training rows whose cell is filled, or the sum of their weights, for each label of a multilabel target; nothing
    for the other types."""
    if splits.target(name).type != "multilabel":
        return []
    filled_NK = ~np.isnan(splits.train.labels[name])
    weights_N = splits.train.weights
    counts: list[float] = (filled_NK.sum(axis=0) if weights_N is None else weights_N @ filled_NK).tolist()
    return counts
