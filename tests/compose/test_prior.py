"""The class shares of selection.prior: which target has which, and what is added to the logits for them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from classwise.compose.losses import build_heads
from classwise.compose.prior import absent_at_prior, class_shares, prior_adjustment
from classwise.compose.settings import selection_metric
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.targets import ClassTarget
from classwise.errors import ConfigError
from classwise.model.heads import ClassHead

COUNTS = np.array([60, 30, 10])
TRAIN = np.repeat([0, 1, 2, -1], [60, 30, 10, 4])
VALID = np.repeat([0, 1, 2], [1, 1, 6])
LABELS = ("a", "b", "c")
LOG_N = np.log(COUNTS / COUNTS.sum())
Q = {"a": 1, "b": 2.0, "c": 5}
LOG_Q = np.log(np.array([1, 2, 5]) / 8)


def config_of(prior: Any = None, loss: Any = None, target: Any = None, **sections: Any) -> Config:
    tree: dict[str, Any] = {
        "data": {"source": "train.csv"} | sections.pop("data", {}),
        "targets": {"it": {"column": "kind", **(target or {})}},
        "loss": loss or {"name": "cross_entropy"},
        "selection": {} if prior is None else {"prior": prior},
    }
    return make_config(tree | sections)


def split_of(labels: dict[str, Any]) -> Split:
    ids = tuple(map(str, range(len(next(iter(labels.values()))))))
    return Split(Samples("train.csv", Path(), ids, ids, groups=None, frame=pl.DataFrame({"id": ids})), labels)


def splits_of(train: Any = TRAIN, valid: Any = VALID) -> DatasetSplits:
    target = ClassTarget("it", "class", "kind", LABELS)
    return DatasetSplits((target,), (), split_of({"it": train}), split_of({"it": valid}), (), ())


def offset(config: Config, splits: DatasetSplits | None = None) -> Any:
    """What the head adds to the logits, without the constant."""
    head = build_heads(config, splits or splits_of())["it"]
    assert isinstance(head, ClassHead)
    return np.array(head.adjustment)


def centred(values: Any) -> Any:
    return np.asarray(values) - np.mean(values)


# Shares


def test_shares_by_name_and_by_label() -> None:
    """Equal ones, and given ones in the order of the labels, divided by their sum; none for rows as they are."""
    assert class_shares(config_of("balanced"), {"it": LABELS}) == {"it": (1 / 3,) * 3}
    assert class_shares(config_of({"c": 5, "a": 1, "b": 2.0}), {"it": LABELS}) == {"it": (0.125, 0.25, 0.625)}
    for prior in (None, "as_validation"):
        assert class_shares(config_of(prior), {"it": LABELS}) == {}


def test_metric_is_scored_at_the_prior() -> None:
    """Where the shares are others, the score at these selects."""
    names = {prior: selection_metric(config_of(prior)) for prior in (None, "as_validation", "balanced")}
    assert names == {None: "macro_f1", "as_validation": "macro_f1", "balanced": "macro_f1_at_prior"}
    assert selection_metric(config_of(Q)) == "macro_f1_at_prior"


TWO = {"one": {"column": "one"}, "two": {"column": "two"}}
PAIR = {"one": ("a", "b"), "two": ("x", "y", "z")}


def test_shares_of_a_joint_class_are_those_of_its_targets_too() -> None:
    """Given by joint label; a target's share is the sum over the joint classes that it is part of."""
    names = [f"{one} / {two}" for one in PAIR["one"] for two in PAIR["two"]]
    prior = {name: share for share, name in enumerate(names, start=1)}
    config = config_of(prior, targets=TWO, joint={"targets": ["one", "two"]})
    shares = class_shares(config, PAIR)
    assert shares["joint"] == pytest.approx(np.arange(1, 7) / 21)
    assert shares["one"] == pytest.approx((6 / 21, 15 / 21))
    assert shares["two"] == pytest.approx((5 / 21, 7 / 21, 9 / 21))


def test_balanced_is_for_every_class_target() -> None:
    """With a joint class and without one, beside targets of other types, which have no shares."""
    joint = class_shares(config_of("balanced", targets=TWO, joint={"targets": ["one", "two"]}), PAIR)
    assert joint == {"one": (0.5, 0.5), "two": (1 / 3,) * 3, "joint": (1 / 6,) * 6}
    targets = TWO | {"size": {"column": "size", "type": "regression"}}
    selection = {"prior": "balanced", "metric": "two.macro_f1"}
    alone = class_shares(config_of(targets=targets, selection=selection), PAIR)
    assert alone == {"one": (0.5, 0.5), "two": (1 / 3,) * 3}
    shares = {"x": 1, "y": 1, "z": 2}
    selection = {"prior": shares, "metric": "two.macro_f1"}
    assert class_shares(config_of(targets=targets, selection=selection), PAIR) == {"two": (0.25, 0.25, 0.5)}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"prior": {"a": 1, "b": 1}}, "selection.prior: no share for 'c'; every label of it needs one"),
        ({"prior": Q | {"d": 1}}, "selection.prior: it has no label 'd'; allowed: a, b, c"),
        ({"prior": "balanced", "metric": "log_loss"}, "but selection.metric is log_loss"),
        (
            {"prior": "balanced", "metric": "top3_accuracy"},
            "is not computed at other class shares",
        ),
    ],
)
def test_refused_shares(sections: dict[str, Any], message: str) -> None:
    """Each with the key, what was found and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        class_shares(config_of(selection=sections), {"it": LABELS})


@pytest.mark.parametrize("prior", ["balanced", {"low": 1, "high": 2}])
def test_other_types_are_refused(prior: Any) -> None:
    config = config_of(prior, target={"type": "ordinal"}, loss={"name": "corn"})
    with pytest.raises(
        ConfigError, match="target 'it' has type 'ordinal'; allowed: with metrics of targets of type"
    ):
        class_shares(config, {"it": ("low", "high")})


def test_classes_without_validation_rows_are_said() -> None:
    """How many, and how large their share is."""
    splits = splits_of(valid=np.array([0, 0, 2]))
    (warning,) = absent_at_prior(config_of(Q), splits)
    assert warning.startswith(
        "selection.prior: 1 classes of it, with 25.0% of the rows, have no validation row"
    )
    assert absent_at_prior(config_of("balanced"), splits_of()) == []
    assert absent_at_prior(config_of("as_validation"), splits) == []


# What is added to the logits


@pytest.mark.parametrize(
    ("loss", "learned"),
    [
        ({"name": "cross_entropy"}, LOG_N),
        ({"name": "cross_entropy", "class_weights": "inverse"}, np.zeros(3)),
        ({"name": "cross_entropy", "class_weights": [1, 2, 7]}, LOG_N + np.log([1, 2, 7])),
        ({"name": "balanced_softmax"}, np.zeros(3)),
        ({"name": "logit_adjustment", "tau": 0.25}, 0.75 * LOG_N),
        (
            {"name": "sum", "terms": [{"name": "cross_entropy"}, {"name": "cross_entropy", "weight": 2}]},
            LOG_N,
        ),
    ],
)
@pytest.mark.parametrize(("prior", "log_q"), [(Q, LOG_Q), ("balanced", np.zeros(3))])
def test_the_logits_get_the_ratio_of_wanted_and_learned_shares(
    loss: dict[str, Any], learned: Any, prior: Any, log_q: Any
) -> None:
    """log q - log pi, up to a constant; nothing where they are the same."""
    found, expected = offset(config_of(prior, loss)), centred(log_q - learned)
    if np.abs(expected).max() < 1e-12:
        assert found.size == 0
    else:
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_sampling_changes_the_learned_shares(sampling: str) -> None:
    """Rows are drawn in proportion to a power of the count, so that is what is learned."""
    power = {"balanced": 0.0, "sqrt": 0.5}[sampling]
    found = offset(config_of(Q, data={"sampling": sampling}))
    assert found == pytest.approx(centred(LOG_Q - power * np.log(COUNTS)), abs=1e-9)


def test_adjusted_posteriors_are_those_of_the_wanted_shares() -> None:
    """Bayes' rule by hand: likelihoods times the shares, from logits that were learned with others."""
    likelihood_NK = np.random.default_rng(3).random((20, 3))
    head = build_heads(config_of(Q), splits_of())["it"]
    logits = torch.from_numpy(np.log(likelihood_NK) + LOG_N)
    expected = likelihood_NK * np.exp(LOG_Q)
    found = head.decode(logits).softmax(dim=1).numpy()
    assert found == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-12)


def test_as_validation_takes_off_what_a_loss_balances() -> None:
    """Cross entropy fits rows as they come; balanced losses are brought back to the shares of training."""
    assert offset(config_of("as_validation")).size == 0
    assert offset(config_of("as_validation", {"name": "balanced_softmax"})) == pytest.approx(centred(LOG_N))
    half = {"name": "logit_adjustment", "tau": 0.5}
    assert offset(config_of("as_validation", half)) == pytest.approx(centred(0.5 * LOG_N))


def test_as_validation_takes_the_shares_of_a_validation_table() -> None:
    """Which may be others than those of training; a class that it lacks keeps a small share."""
    valid = np.repeat([0, 2], [2, 6])
    count = np.array([2, 0, 6]) + COUNTS / COUNTS.sum()
    found = offset(config_of("as_validation", data={"valid": "valid.csv"}), splits_of(valid=valid))
    assert found == pytest.approx(centred(np.log(count) - LOG_N))


def test_without_a_prior_the_loss_decides() -> None:
    """Nothing is added, whatever the loss."""
    for name in ("cross_entropy", "balanced_softmax", "focal"):
        assert offset(config_of(None, {"name": name})).size == 0


def test_adjust_wins() -> None:
    """An explicit factor of the log prior, 0 as well, replaces what the shares ask for."""
    assert offset(config_of("balanced", target={"adjust": 0.0})).size == 0
    assert offset(config_of("balanced", {"name": "focal"}, target={"adjust": 0.0})).size == 0
    assert centred(offset(config_of("balanced", target={"adjust": 0.5}))) == pytest.approx(
        centred(-0.5 * LOG_N)
    )


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        ({"name": "focal"}, "is 'focal'"),
        ({"name": "ldam"}, "is 'ldam'"),
        ({"name": "soft_f1"}, "is 'soft_f1'"),
        ({"name": "gce"}, "is 'gce'"),
        ({"name": "cross_entropy", "label_smoothing": 0.1}, "has label_smoothing"),
        (
            {"name": "cross_entropy", "class_weights": "inverse", "weights_from_epoch": 5},
            "has weights_from_epoch",
        ),
        (
            {"name": "cross_entropy", "class_weights": "inverse", "normalize_by": "weights"},
            "has class weights with normalize_by = 'weights'",
        ),
        ({"name": "cross_entropy", "class_weights": [1, 0, 1]}, "has a class weight of 0"),
        (
            {"name": "sum", "terms": [{"name": "cross_entropy"}, {"name": "balanced_softmax"}]},
            "has terms that learn different priors",
        ),
    ],
)
def test_an_unknown_learned_prior_is_refused(loss: dict[str, Any], what: str) -> None:
    """With the loss, and what is allowed in its place."""
    with pytest.raises(ConfigError) as error:
        prior_adjustment(config_of(Q, loss), splits_of(), "it")
    assert f"loss of 'it' {what}, so that it is not known which class shares" in str(error.value)
    assert "allowed: cross_entropy, balanced_softmax, logit_adjustment" in str(error.value)
    assert "targets.it.adjust = 0" in str(error.value)
