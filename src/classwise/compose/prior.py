"""The class shares of selection.prior: what they are for each target, and what a model has to add to its logits.

A model learns the posterior at the class shares that it was trained with. At other shares q the posterior is
proportional to p(y | x) q_y / pi_y, with pi the prior that the loss has taught it (Saerens, Latinne and Decaestecker
2002, equation 2.4): log q - log pi is added to the logits. What pi is depends on the loss, its class weights and the
sampling of the rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.settings import selection_metric
from classwise.compose.splits import DatasetSplits, drawn_counts, label_counts, weighted_counts
from classwise.config.conflicts import loss_key, losses_of
from classwise.config.schema import Config
from classwise.errors import ConfigError, nearest
from classwise.losses.class_weights import class_weights
from classwise.losses.logit_adjustment import log_prior
from classwise.metrics.joint import joint_labels
from classwise.metrics.mean import is_mean
from classwise.metrics.names import is_sum, split_metric
from classwise.metrics.scores import AT_PRIOR, LABEL_SCORES

Floats = npt.NDArray[np.float64]
LISTED_LABELS = 8  # named in a message

# Proper scoring rules of the logits plus a known shift, so that it is known which prior the logits learn.
KNOWN_LOSSES = ("cross_entropy", "balanced_softmax", "logit_adjustment")


def class_shares(config: Config, labels: Mapping[str, Sequence[str]]) -> dict[str, tuple[float, ...]]:
    """The shares (K,), adding up to 1, at which targets, and `joint`, are scored. Empty where rows count as they are.

    `balanced` is for every class target and for the joint class. A table of shares is for what selection.metric scores;
    if that is the joint class, the shares of its targets follow from it; the mean of all targets allows none.

    `labels`: the label list of each target. Raises ConfigError for a metric that has no class shares, and for labels
    that the target does not have or that are left out.
    """
    prior = config.selection.prior
    if prior is None or prior == "as_validation":
        return {}
    scored = _scored_target(config)
    joint = config.joint.targets if config.joint else ()
    if isinstance(prior, str):
        sizes = {name: len(labels[name]) for name in _class_targets(config)}
        if scored == "joint":
            sizes["joint"] = len(joint_labels(labels, joint))
        return {name: (1 / size,) * size for name, size in sizes.items()}

    names = joint_labels(labels, joint) if scored == "joint" else list(labels[scored])
    share_K = _shares_in_order(prior, names, scored)
    shares = {scored: tuple(share_K.tolist())}
    if scored == "joint":
        share_of_cell = share_K.reshape([len(labels[name]) for name in joint])
        for axis, name in enumerate(joint):
            others = tuple(i for i in range(len(joint)) if i != axis)
            shares[name] = tuple(share_of_cell.sum(axis=others).tolist())
    return shares


def absent_at_prior(config: Config, splits: DatasetSplits) -> list[str]:
    """A warning for the classes that cannot be scored at the shares of selection.prior, since no validation row can be
    weighted to stand for them."""
    counts = label_counts(splits, splits.valid)
    warnings = []
    for name, shares in class_shares(config, splits.label_lists).items():
        absent = [share for share, count in zip(shares, counts[name], strict=True) if not count]
        if absent:
            warnings.append(
                f"selection.prior: {len(absent)} classes of {name}, with {sum(absent):.1%} of the rows, have no"
                " validation row: their F1 counts as 0, and only the shares of the other classes are taken into account"
            )
    return warnings


def prior_adjustment(config: Config, splits: DatasetSplits, name: str) -> tuple[float, ...]:
    """What is added to the logits (K,) of a class target so that they are posteriors at the shares of selection.prior,
    up to a constant; empty where nothing has to be added. Raises ConfigError where it is not known what to add."""
    share_K = _wanted_shares(config, splits, name)
    if share_K is None:
        return ()
    learned = [_learned_log_prior(config, splits, name, loss) for loss in losses_of(config, name)]
    offsets = [torch.from_numpy(np.log(share_K)) - log_learned_K for log_learned_K in learned]
    # A constant makes no difference; without it, terms of a sum can be compared, and a shift by nothing is seen.
    offsets = [offset_K - offset_K.mean() for offset_K in offsets]
    if not all(torch.allclose(offset_K, offsets[0], atol=1e-9) for offset_K in offsets):
        raise ConfigError(_unknown_prior(config, name, "has terms that learn different priors"))
    return tuple(offsets[0].tolist()) if float(offsets[0].abs().max()) > 1e-9 else ()


def _class_targets(config: Config) -> list[str]:
    return [name for name, target in config.targets.items() if target.type == "class"]


def _scored_target(config: Config) -> str:
    """The target that selection.metric scores, or `joint`; empty for the mean of all targets. Raises ConfigError where
    it has no class shares, and for a table of shares beside the mean."""
    metric = selection_metric(config).removesuffix(AT_PRIOR)
    target, score = split_metric(metric)
    name = target or next(iter(config.targets))
    found = f"selection.prior: found {_text(config)}, but selection.metric is {metric}"
    if is_mean(metric):
        if isinstance(config.selection.prior, str):
            return ""
        raise ConfigError(
            f"{found}, and shares are those of one target; allowed: 'balanced', 'as_validation', or the metric of one"
            " target"
        )
    if is_sum(metric):
        raise ConfigError(
            f"{found}, and shares of several scores are computed for the rows as they are; allowed: as_validation"
        )
    parts = config.joint.targets if name == "joint" and config.joint else (name,)
    for part in parts:
        if config.targets[part].type != "class":
            raise ConfigError(
                f"{found}, and the target {part!r} has type {config.targets[part].type!r}; allowed: with metrics of"
                " targets of type 'class'"
            )
    if score not in LABEL_SCORES:
        raise ConfigError(
            f"{found}, which is not computed at other class shares; allowed: {', '.join(LABEL_SCORES)}"
        )
    return name


def _shares_in_order(prior: Mapping[str, float], names: Sequence[str], target: str) -> Floats:
    """The shares in the order of the labels, adding up to 1. Raises ConfigError unless every label has one."""
    for label in prior:
        if label not in names:
            raise ConfigError(f"selection.prior: {target} has no label {label!r}; {nearest(label, names)}")
    missing = [label for label in names if label not in prior]
    if missing:
        more = ", ..." if len(missing) > LISTED_LABELS else ""
        raise ConfigError(
            f"selection.prior: no share for {', '.join(map(repr, missing[:LISTED_LABELS]))}{more}; every label of"
            f" {target} needs one (a positive number; they are divided by their sum)"
        )
    share_K: Floats = np.array([prior[label] for label in names], dtype=np.float64)
    share_K /= share_K.sum()
    return share_K


def _wanted_shares(config: Config, splits: DatasetSplits, name: str) -> Floats | None:
    """The shares (K,) that a class target's predictions are meant for; None where the loss decides."""
    if config.selection.prior != "as_validation":
        shares = class_shares(config, splits.label_lists).get(name)
        return None if shares is None else np.array(shares)

    # A fraction of the rows is drawn so that it has the shares of the others. A table, or a split that the table gives,
    # may have its own: with one row more, spread like those in training, so that no share is 0.
    share_K: Floats = log_prior(torch.tensor(label_counts(splits, splits.train)[name])).exp().numpy()
    data = config.data
    if isinstance(data.valid, str) or data.split is not None or data.fold is not None:
        count_K = np.array(label_counts(splits, splits.valid)[name]) + share_K
        share_K = count_K / count_K.sum()
    return share_K


def _learned_log_prior(config: Config, splits: DatasetSplits, name: str, loss: Any) -> Tensor:
    """The log prior (K,) that a loss teaches, up to a constant: that of the rows as they are sampled and weighted, less
    what the loss adds to the logits in training."""
    if loss.name not in KNOWN_LOSSES:
        raise ConfigError(_unknown_prior(config, name, f"is {loss.name!r}"))
    if getattr(loss, "label_smoothing", 0):
        raise ConfigError(_unknown_prior(config, name, "has label_smoothing"))
    if getattr(loss, "weights_from_epoch", 1) > 1:
        raise ConfigError(_unknown_prior(config, name, "has weights_from_epoch"))

    # How often each class is seen.
    counts = weighted_counts(splits, name)
    drawn_K = drawn_counts(splits, config.data.sampling, name)
    log_learned_K = log_prior(torch.tensor(drawn_K, dtype=torch.float64))
    weight_K = class_weights(getattr(loss, "class_weights", "none"), counts, getattr(loss, "beta", 0.0))
    if weight_K is not None:
        # Divided by the weights of the same update, a rare class counts less than its weight says.
        if getattr(loss, "normalize_by", "rows") != "rows":
            raise ConfigError(_unknown_prior(config, name, "has class weights with normalize_by = 'weights'"))
        if not bool((weight_K > 0).all()):
            raise ConfigError(_unknown_prior(config, name, "has a class weight of 0"))
        log_learned_K = log_learned_K + weight_K.log()

    # What the loss explains, the logits do not learn.
    tau = 1.0 if loss.name == "balanced_softmax" else getattr(loss, "tau", 0.0)
    return log_learned_K - tau * log_prior(torch.tensor(counts))


def _text(config: Config) -> str:
    prior = config.selection.prior
    return repr(prior) if isinstance(prior, str) else "a table of shares"


def _unknown_prior(config: Config, name: str, what: str) -> str:
    return (
        f"selection.prior: found {_text(config)}, but {loss_key(config, name)} of {name!r} {what}, so that it is not"
        f" known which class shares the model learns; allowed: {', '.join(KNOWN_LOSSES)}, also with class weights, or"
        f" targets.{name}.adjust = 0 to leave the predictions as they are"
    )
