"""The first answer of a run: heads fitted to the features of the pretrained backbone, before anything is fine-tuned.

Every image goes through the frozen backbone once (and mirrored once more, if training may mirror it). Then the linear
head of each target minimizes the target's own loss (training/probe.py). Cross-validation within the training rows, in
which no group is on both sides, chooses the penalty and whether mirrored images are fitted too (they do harm where the
mirror image of one class looks like another); it also gives a score besides that of the validation rows.

Fine-tuning starts from these heads (LP-FT: Kumar et al. 2022): random heads would first pull the features out of shape.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.compose.contents import split_groups
from classwise.compose.features import Computing, training_features
from classwise.compose.linear_probe import probe_rows
from classwise.compose.loaders import augmentation
from classwise.compose.losses import build_criterion
from classwise.compose.prior import class_shares
from classwise.compose.settings import build_settings, own_metrics_of, selection_metric
from classwise.compose.splits import DatasetSplits, Split, taken
from classwise.compose.weighted_labels import weighted_targets
from classwise.config.conflicts import losses_of
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import Interrupted, NonFiniteError
from classwise.losses.criterion import Criterion
from classwise.metrics.collection import MetricCollection, flat_scores, score_of
from classwise.metrics.mean import main_score
from classwise.metrics.names import split_metric
from classwise.metrics.scores import AT_PRIOR
from classwise.model.classifier import Classifier
from classwise.model.heads import Head
from classwise.training.probe import PENALTIES, LinearHead, Numbers, fitted_head, held_out_outputs
from classwise.training.tuning import torch_threads

FOLDS = 3
"""Of the cross-validation. Its fits cost as much as the features of some hundred images, so there are few."""
DEFAULT_PENALTY = 0.01
"""Where there are too few groups for a cross-validation."""
CLEAR_LOSS = 0.05
"""Mirrored images, which usually help, are left out where they cost more of the cross-validated score."""
WORK = 1e11
"""Multiplications that the fits of a target may take: some 20 s on one core, and up to half as much again to see
whether mirrored images help. Of more rows some are fitted."""


@dataclass(frozen=True)
class FirstAnswer:
    """The fitted heads and what they come to. `cross_validated`: the selection metric over the training rows, each
    predicted by heads that were fitted without its fold; None without a cross-validation. `rows`: how many training
    rows were fitted, in how many `views` (2: also mirrored, for some target). `outputs`: raw outputs of the validation
    rows, by target."""

    heads: dict[str, LinearHead]
    penalties: dict[str, float]
    cross_validated: float | None
    rows: int
    views: int
    outputs: dict[str, Tensor]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint, without the heads, which are in the model."""
        return {
            "penalties": self.penalties,
            "cross_validated": self.cross_validated,
            "rows": self.rows,
            "views": self.views,
        }


def wants_first_answer(config: Config) -> bool:
    """Whether the plan begins with a linear probe."""
    return config.plan in ("probe", "probe_then_finetune")


def fit_first_answer(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: Mapping[str, Head],
    device: torch.device,
    console: Console,
    should_stop: Callable[[], bool],
    kept: Collection[str] = (),
) -> FirstAnswer:
    """Fit a head for each target but those that are `kept`, whose heads in the model are those of the run that it
    starts from. `model` is moved to `device`; its weights do not change. Raises ImageError, Interrupted if asked to
    stop, and NonFiniteError for features that are not finite."""
    features = compute_features(
        config, splits, model, heads=heads, device=device, console=console, should_stop=should_stop
    )
    rows, fitted, views, valid_NF = features.rows, features.fitted, features.views, features.valid
    labels = _labels(splits)

    # One problem for each target: its own loss, its own penalty.
    targets = {name: values[torch.from_numpy(rows)] for name, values in labels.items()}
    criterion = build_criterion(config, dataclasses.replace(splits, train=fitted))
    criterion.set_epoch(config.training.epochs)  # weights that are deferred count in the end
    folds_N = _folds(splits, fitted)
    fitted_heads: dict[str, LinearHead] = {}
    penalties: dict[str, float] = {}
    held_out: dict[str, Tensor] = {}
    most_views = 1
    for (name, head), layer in zip(heads.items(), model.heads, strict=True):
        if name in kept:
            fitted_heads[name] = _head_of(layer)
            continue
        single = _of_one_target(criterion, name)

        def loss_of(
            outputs_NO: Tensor, values: Tensor, name: str = name, single: Criterion = single
        ) -> Tensor:
            loss: Tensor = single({name: outputs_NO}, {name: values})
            return loss

        weighted = weighted_targets(splits, fitted, name)
        if should_stop():
            raise Interrupted("stopped while the heads of the first answer were fitted")
        # The products are small: two threads that wait for each other take four times as long on a busy machine.
        with torch_threads(1):
            penalties[name] = DEFAULT_PENALTY
            # Mirrored images would be further rows of their query.
            seen = views[:1] if head.type == "ranking" else views
            if folds_N is not None:
                scores_of = functools.partial(_scores, config, splits, name, head, targets[name])
                outputs_PNO = held_out_outputs(views[:1], weighted, loss_of, head.outputs, folds_N)
                scores = scores_of(outputs_PNO)
                best = int(np.argmax(scores))  # of equal ones the strongest
                penalties[name], held_out[name] = PENALTIES[best], outputs_PNO[best]
                if len(seen) > 1:
                    # By way of the stronger penalties, as the fits without: neither is nearer to its minimum.
                    tried = PENALTIES[: best + 1]
                    mirrored_NO = held_out_outputs(views, weighted, loss_of, head.outputs, folds_N, tried)[-1]
                    loss_by_mirror = scores[best] - scores_of([mirrored_NO])[0]
                    if loss_by_mirror > CLEAR_LOSS:
                        seen = views[:1]
                        console.line(_mirror_note(config, name, scores[best], loss_by_mirror))
                    else:
                        held_out[name] = mirrored_NO
            most_views = max(most_views, len(seen))
            fitted_heads[name] = fitted_head(seen, weighted, loss_of, head.outputs, penalties[name])

    return FirstAnswer(
        heads=fitted_heads,
        penalties=penalties,
        cross_validated=_score(config, splits, heads, held_out, targets) if held_out and not kept else None,
        rows=len(rows),
        views=most_views,
        outputs={name: head(valid_NF) for name, head in fitted_heads.items()},
    )


@dataclass(frozen=True)
class Features:
    """Of the training rows that are fitted (`rows`, as numbers; `fitted`, as a split): features_NF for each view of
    their images; and `valid`, valid_NF, of the validation rows."""

    rows: Numbers
    fitted: Split
    views: list[Tensor]
    valid: Tensor


def compute_features(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: Mapping[str, Head],
    device: torch.device,
    console: Console,
    should_stop: Callable[[], bool],
) -> Features:
    """What the heads are fitted to; kept on the disk (compose/features.py). Arguments and errors are those of
    `fit_first_answer`."""
    # As many rows as the time allows.
    labels = _labels(splits)
    mirror = augmentation(config).flip > 0
    rows = _rows_to_fit(config, heads, labels, model.feature_count * (2 if mirror else 1))
    fitted = splits.train if len(rows) == len(splits.train.samples) else taken(splits.train, rows)

    # The backbone sees every image of training and validation, in eval mode and not augmented.
    autocast = build_settings(config, device).autocast
    is_float32 = config.training.precision == "fp32"
    computing = Computing(model, device, autocast, is_float32, console, should_stop)
    views, valid_NF = training_features(fitted, splits, config, computing, mirror)
    for features_NF, what in ((views[0], "training"), (valid_NF, "validation")):
        if not bool(features_NF.isfinite().all()):
            raise NonFiniteError(f"the features of some {what} rows are not finite: {config.model.backbone}")
    return Features(rows, fitted, views, valid_NF)


def _labels(splits: DatasetSplits) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in splits.train.labels.items()}


@torch.no_grad()
def _head_of(layer: nn.Module) -> LinearHead:
    """A copy of one of the model's heads, on the host."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return LinearHead(weight.detach().cpu().clone(), bias.detach().cpu().clone())


@torch.no_grad()
def set_heads(model: nn.Module, heads: Mapping[str, LinearHead]) -> None:
    """Put fitted heads into a Classifier; `heads` in its order."""
    for layer, name in zip(model.heads, heads, strict=True):  # type: ignore[arg-type]
        layer.weight.copy_(heads[name].weight)
        layer.bias.copy_(heads[name].bias)


def _rows_to_fit(
    config: Config, heads: Mapping[str, Head], labels: Mapping[str, Tensor], features: int
) -> Numbers:
    """The rows that are fitted, ascending. If the time is too short for all: all rows of rare classes and fewer of
    frequent ones, where every loss makes up for the class frequencies; otherwise evenly spaced ones, since heads would
    learn other class shares than those of the data."""
    rows = probe_rows(heads, labels, features, work=WORK, iterates=True)
    count = len(next(iter(labels.values())))
    makes_up = all(
        config.targets[name].type == "class"
        and all(loss.balances_classes for loss in losses_of(config, name))
        for name in heads
    )
    if makes_up or len(rows) == count:
        return rows
    return np.linspace(0, count - 1, len(rows)).astype(np.int64)


def _of_one_target(criterion: Criterion, name: str) -> Criterion:
    """The loss of one target, with a weight of 1: it has the head to itself."""
    loss = criterion.losses[criterion.names.index(name)]
    return Criterion({name: loss}, {name: 1.0})


def _folds(splits: DatasetSplits, fitted: Split) -> Numbers | None:
    """The fold of each row, from 0: stratified by the classes, no group in two folds. None where that is impossible,
    since there are too few groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = split_groups(fitted.samples, fitted.labels, splits.targets) or list(fitted.samples.ids)
    if len(set(groups)) < 2 * FOLDS:
        return None
    classes_N = splits.classes(fitted)
    strata_N = np.zeros(len(groups), np.int64) if classes_N is None else classes_N
    # A class, or combination of labels, with fewer rows than folds cannot be shared out; all of those together can.
    _, number_N, counts = np.unique(strata_N, return_inverse=True, return_counts=True)
    strata_N = np.where(counts[number_N] < FOLDS, -1, number_N)
    folds_N = np.zeros(len(groups), np.int64)
    # Classes with fewer groups than folds are missing from some: a warning of scikit-learn's that nobody can act on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        for fold, (_, rows) in enumerate(splitter.split(strata_N, strata_N, groups)):
            folds_N[rows] = fold
    return folds_N


def _scores(
    config: Config,
    splits: DatasetSplits,
    name: str,
    head: Head,
    targets: Tensor,
    candidates: Iterable[Tensor],
) -> list[float]:
    """The held-out main score of the target for the raw outputs of each candidate; -inf without a labeled row."""
    scores = [
        _score(config, splits, {name: head}, {name: outputs_NO}, {name: targets}, of=name)
        for outputs_NO in candidates
    ]
    return [-np.inf if score is None else score for score in scores]


def _mirror_note(config: Config, name: str, score: float, loss: float) -> str:
    """What the user is told where mirrored images are left out, with the key that also decides for the fine-tuning."""
    which = f"{name}: " if len(config.targets) > 1 else ""
    text = (
        f"{which}mirrored images make the first answer worse ({score - loss:.4f} cross-validated with them,"
        f" {score:.4f} without), so it is fitted without them"
    )
    if config.plan == "probe_then_finetune":
        text += (
            "; where the mirror image of one class looks like another, data.augment.flip = 0 leaves them out of the"
            " fine-tuning as well"
        )
    return text


def _score(
    config: Config,
    splits: DatasetSplits,
    heads: Mapping[str, Head],
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    of: str = "",
) -> float | None:
    """The selection metric, or the main score of the target `of`; None if no row has a label."""
    metrics = MetricCollection(
        heads,
        labels={name: splits.label_lists[name] for name in heads if name in splits.label_lists},
        joint=() if of else splits.joint,
        selected="" if of else selection_metric(config),
        only_selected=True,
        priors={
            key: shares
            for key, shares in class_shares(config, splits.label_lists).items()
            if not of or key == of
        },
        own={} if of else own_metrics_of(config),
    )
    metrics.update(outputs, targets)
    results = metrics.compute()
    if not of:
        return score_of(results, selection_metric(config))
    scores = flat_scores(results)
    key = split_metric(main_score(of, heads[of].type))[1]
    return scores.get(f"{key}{AT_PRIOR}", scores.get(key))
