"""The class shares of selection.prior: what they are for each target, and what a model has to add to its logits.

A model learns the posterior at the class shares that it was trained with. At other shares q the posterior is
proportional to p(y | x) q_y / pi_y, with pi the prior that the loss has taught it (Saerens, Latinne and Decaestecker
2002, equation 2.4): log q - log pi is added to the logits. What pi is depends on the loss, its class weights and the
sampling of the rows.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from classwise.compose.settings import selection_metric
from classwise.compose.splits import DatasetSplits, label_counts
from classwise.config.conflicts import loss_key, losses_of
from classwise.config.schema import Config
from classwise.data.sampling import expected_draws
from classwise.errors import ConfigError, nearest
from classwise.losses.class_weights import class_weights
from classwise.losses.logit_adjustment import log_prior
from classwise.metrics.collection import joint_labels
from classwise.metrics.scores import AT_PRIOR, LABEL_SCORES

Shares = dict[str, tuple[float, ...]]
LABEL_LISTS = Mapping[str, Sequence[str]]

LEARNED_PRIORS = ("cross_entropy", "balanced_softmax", "logit_adjustment")
"""The losses of which it is known which prior the logits have learned: proper scoring rules of shifted logits."""


def class_shares(config: Config, labels: LABEL_LISTS) -> Shares:
    """The shares (K,), adding up to 1, of the target that selection.metric scores; if that is the joint class, also
    those of its targets, which follow. Empty for `as_validation`.

    `labels`: the label list of each target. Raises ConfigError for a metric without class shares, and for labels that
    the target does not have or that are left out.
    """
    prior = config.selection.prior
    if prior == "as_validation":
        return {}
    name = prior_target(config)
    parts = config.joint.targets if name == "joint" and config.joint else ()
    names = joint_labels(labels, parts) if parts else list(labels[name])
    share_K = np.ones(len(names)) if prior == "balanced" else _given_shares(prior, names, name)
    shares = {name: tuple((share_K / share_K.sum()).tolist())}

    # The shares of a part are sums over the joint classes.
    sizes = [len(labels[part]) for part in parts]
    share_of_cell = np.array(shares[name]).reshape(sizes or -1)
    for axis, part in enumerate(parts):
        others = tuple(i for i in range(len(parts)) if i != axis)
        shares[part] = tuple(share_of_cell.sum(axis=others).tolist())
    return shares


def prior_target(config: Config) -> str:
    """The target that selection.metric scores, or `joint`. Raises ConfigError where it has no class shares."""
    metric = selection_metric(config).removesuffix(AT_PRIOR)
    target, _, score = metric.rpartition(".")
    name = target or next(iter(config.targets))
    found = f"selection.prior: found {_text(config.selection.prior)}"
    parts = config.joint.targets if name == "joint" and config.joint else (name,)
    for part in parts:
        if config.targets[part].type != "class":
            raise ConfigError(
                f"{found}, but selection.metric {metric} scores {part!r}, a target of type"
                f" {config.targets[part].type!r}; allowed: as_validation, or a metric of targets of type 'class'"
            )
    if score not in LABEL_SCORES:
        raise ConfigError(
            f"{found}, but selection.metric is {metric}, which is not computed from the predicted classes alone;"
            f" allowed: as_validation, or one of {', '.join(LABEL_SCORES)}"
        )
    return name


def _given_shares(prior: Mapping[str, float], names: Sequence[str], target: str) -> np.ndarray:
    """The shares in the order of the labels."""
    for label in prior:
        if label not in names:
            raise ConfigError(f"selection.prior: {target} has no label {label!r}; {nearest(label, names)}")
    missing = [label for label in names if label not in prior]
    if missing:
        raise ConfigError(
            f"selection.prior: no share for {', '.join(map(repr, missing[:8]))}{', ...' if len(missing) > 8 else ''};"
            f" every label of {target} needs one (positive numbers; they are divided by their sum)"
        )
    return np.array([prior[label] for label in names], dtype=np.float64)


def _text(prior: str | Mapping[str, float]) -> str:
    return repr(prior) if isinstance(prior, str) else "a table of shares"


def absent_at_prior(config: Config, splits: DatasetSplits) -> list[str]:
    """A warning for classes that cannot be scored at the shares of selection.prior: no validation row can be weighted
    to stand for them."""
    counts = label_counts(splits, splits.valid)
    warnings = []
    for name, shares in class_shares(config, splits.label_lists).items():
        if name != prior_target(config):
            continue
        absent = [share for share, count in zip(shares, counts[name], strict=True) if not count]
        if absent:
            warnings.append(
                f"selection.prior: {len(absent)} classes of {name} have a share of {sum(absent):.3g} together, but no"
                " validation row; their F1 counts as 0, and the shares of the others are relative to each other"
            )
    return warnings


def prior_adjustment(config: Config, splits: DatasetSplits, name: str) -> tuple[float, ...]:
    """What is added to the logits (K,) of a class target so that they are posteriors at the shares of selection.prior,
    up to a constant; empty where nothing has to be added. Raises ConfigError where it is not known what to add."""
    shares = class_shares(config, splits.label_lists).get(name)
    if shares is None:
        return ()
    offset_K = torch.tensor(shares, dtype=torch.float64).log() - _learned_log_prior(config, splits, name)
    offset_K -= offset_K.max()
    return tuple(offset_K.tolist()) if float(offset_K.min()) < -1e-9 else ()


def _learned_log_prior(config: Config, splits: DatasetSplits, name: str) -> Tensor:
    """The log prior (K,) that the model of a class target learns, up to a constant: that of the rows as they are
    sampled and weighted, minus what the loss adds to the logits in training."""
    learned = [_learned_by(config, splits, name, loss) for loss in losses_of(config, name)]
    first = learned[0]
    if any(not torch.allclose(other - other.mean(), first - first.mean()) for other in learned[1:]):
        raise ConfigError(_unknown_prior(config, name, "whose terms learn different priors"))
    return first


def _learned_by(config: Config, splits: DatasetSplits, name: str, loss: object) -> Tensor:
    """The log prior of one loss, or of one term of a sum."""
    values = vars(loss)
    if values["name"] not in LEARNED_PRIORS:
        raise ConfigError(_unknown_prior(config, name, f"{values['name']!r}, which learns no known prior"))
    if values.get("label_smoothing"):
        raise ConfigError(
            _unknown_prior(config, name, f"{values['name']!r} with label_smoothing, which flattens the posterior")
        )
    if values.get("weights_from_epoch", 1) > 1:
        raise ConfigError(
            _unknown_prior(config, name, f"{values['name']!r} with weights that change (weights_from_epoch)")
        )

    counts = label_counts(splits, splits.train)[name]
    log_learned_K = log_prior(torch.from_numpy(_sampled_counts(config, splits, name)))
    weight_K = class_weights(values.get("class_weights", "none"), counts, values.get("beta", 0.0))
    if weight_K is not None:
        if not bool((weight_K > 0).all()):
            raise ConfigError(_unknown_prior(config, name, f"{values['name']!r} with a class weight of 0"))
        log_learned_K = log_learned_K + weight_K.log()
    tau = {"balanced_softmax": 1.0, "logit_adjustment": values.get("tau", 0.0)}.get(values["name"], 0.0)
    return log_learned_K - tau * log_prior(torch.tensor(counts))


def _sampled_counts(config: Config, splits: DatasetSplits, name: str) -> np.ndarray:
    """The rows of each class (K,) that an epoch draws on average."""
    number_N = splits.class_numbers(splits.train)[name]
    sampling_classes_N = splits.classes(splits.train)
    assert sampling_classes_N is not None
    draws_N = expected_draws(config.data.sampling, sampling_classes_N)
    is_labeled_N = number_N >= 0
    return np.bincount(
        number_N[is_labeled_N], weights=draws_N[is_labeled_N], minlength=len(splits.label_lists[name])
    )


def _unknown_prior(config: Config, name: str, loss: str) -> str:
    return (
        f"selection.prior: found {_text(config.selection.prior)}, but {loss_key(config, name)} of {name} is {loss}, so"
        f" it is not known what to add to the logits; allowed: {', '.join(LEARNED_PRIORS)} (plain or with class weights),"
        f" or targets.{name}.adjust = 0 to add nothing"
    )
