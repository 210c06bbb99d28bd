"""Keys that undo each other are refused or said by name, and keys without an effect are refused."""

from typing import Any

import pytest

from classwise.config.conflicts import check_conflicts
from classwise.config.load import make_config
from classwise.errors import ConfigError
from classwise.suggest.config import FINETUNING

CLASS = {"column": "label"}
SIZE = {"column": "size", "type": "ordinal", "labels": ["s", "m", "l"]}
RANK = {"column": "rel", "type": "ranking", "query": "q"}
AGE = {"column": "age", "type": "regression"}


def warnings_of(**sections: Any) -> list[str]:
    """What is said of a config with these sections."""
    targets = sections.pop("targets", {"label": CLASS})
    return check_conflicts(
        make_config({"data": {"source": "t.csv"} | sections.pop("data", {}), "targets": targets} | sections)
    )


def test_an_ordinary_config_has_none() -> None:
    """Each means against imbalance on its own, mixing, freezing and averaging together: nothing to say."""
    assert warnings_of() == []
    assert warnings_of(loss={"name": "balanced_softmax"}) == []
    assert warnings_of(data={"sampling": "balanced"}) == []
    assert (
        warnings_of(
            data={"mixup": 0.2, "mix_share": 0.5},
            model={"weights": "pretrained", "backbone": "resnet18"},
            training={"epochs": 4, "freeze_epochs": 1, "ema": 0.99},
        )
        == []
    )


def test_a_prior_accounts_for_all_corrections() -> None:
    """What sampling and class weights have changed together is taken off after training, unless adjust is given."""
    twice: dict[str, Any] = {
        "data": {"sampling": "balanced"},
        "loss": {"name": "cross_entropy", "class_weights": "inverse"},
    }
    assert len(warnings_of(**twice)) == 1
    assert warnings_of(**twice, selection={"prior": "balanced"}) == []
    targets = {"label": CLASS | {"adjust": 0.0}}
    assert len(warnings_of(**twice, targets=targets, selection={"prior": "balanced"})) == 1


def test_a_name_that_only_marks_would_take_is_free_without_marks() -> None:
    """Without an abstention, and of a target without probabilities."""
    both = {"kind": CLASS, "kind_abstain": CLASS}
    assert warnings_of(targets=both) == []
    assert warnings_of(targets=both, decision={"abstain": 0.0}) == []
    assert warnings_of(targets={"age": AGE, "age_abstain": CLASS}, decision={"abstain": 0.5}) == []


REFUSED = [
    ({"data": {"mix_share": 0.5}}, "data.mix_share: found 0.5, but data.mixup and data.cutmix are 0"),
    ({"data": {"mixup": 0.2}, "loss": {"name": "ldam"}}, "data.mixup: found 0.2, but loss.name is 'ldam'"),
    (
        {"data": {"cutmix": 1.0}, "loss": {"name": "soft_f1"}},
        "data.cutmix: found 1.0, but loss.name is 'soft_f1'",
    ),
    (
        {"data": {"mixup": 0.2}, "targets": {"label": CLASS, "match": RANK}},
        "data.mixup: found 0.2, but targets.match.loss.name is 'listnet', which needs hard labels",
    ),
    (
        {"data": {"mixup": 0.2}, "loss": {"name": "sum", "terms": [{"name": "focal"}, {"name": "ldam"}]}},
        "which needs hard labels",
    ),
    (
        {"data": {"mixup": 0.2}, "training": {"epochs": 2, "freeze_epochs": 2}},
        "data.mixup: found 0.2, but training.freeze_epochs freezes the backbone in all epochs",
    ),
    (
        {"data": {"sampling": "balanced"}, "targets": {"age": AGE}},
        "data.sampling: found 'balanced', but no target has classes to balance",
    ),
    (
        {"data": {"sampling": "sqrt"}, "targets": {"label": CLASS, "match": RANK}},
        "a ranking target keeps the rows of a query together",
    ),
    (
        {"targets": {"age": AGE}, "selection": {"metric": "mae", "prior": "as_validation"}},
        "selection.prior: found 'as_validation', but no target has classes with shares (types: regression); allowed",
    ),
    (
        {"targets": {"size": SIZE, "match": RANK}, "selection": {"metric": "match.ndcg", "prior": {"s": 1}}},
        "selection.prior: found a table of shares, but no target has classes with shares (types: ordinal, ranking)",
    ),
    (
        {"loss": {"name": "balanced_softmax"}, "targets": {"label": CLASS | {"adjust": 1.0}}},
        "targets.label.adjust: found 1.0, but loss.name is 'balanced_softmax', which adjusts the logits already",
    ),
    (
        {"targets": {"label": CLASS | {"adjust": 1.0, "loss": {"name": "logit_adjustment"}}}},
        "targets.label.loss.name is 'logit_adjustment'",
    ),
    ({"loss": {"name": "focal", "beta": 0.9}}, "loss.beta: found 0.9, which only class_weights"),
    (
        {"loss": {"name": "ldam", "weights_from_epoch": 5}},
        "loss.weights_from_epoch: found 5, but class_weights is 'none'",
    ),
    (
        {
            "loss": {"name": "ldam", "weights_from_epoch": 5, "class_weights": "effective"},
            "training": {"epochs": 4},
        },
        "loss.weights_from_epoch: found 5, but training.epochs is 4",
    ),
    (
        {"loss": {"name": "focal", "normalize_by": "weights"}},
        "loss.normalize_by: found 'weights', but class_weights is 'none'",
    ),
    (
        {"training": {"target_weights": "uncertainty"}},
        "training.target_weights: found 'uncertainty', but there is only one target",
    ),
    (
        {"training": {"epochs": 2, "freeze_epochs": 2}, "optimizer": {"layer_decay": 0.8}},
        "optimizer.layer_decay: found 0.8, but training.freeze_epochs freezes the backbone in all epochs",
    ),
    (
        {"training": {"epochs": 2, "freeze_epochs": 2}, "optimizer": {"backbone_lr_factor": 0.1}},
        "optimizer.backbone_lr_factor: found 0.1",
    ),
    (
        {"optimizer": {"frozen_below": 0.6, "layer_decay": 0.5}},
        "optimizer.frozen_below: found 0.6, which freezes every layer whose rate is lowered",
    ),
    (
        {"training": {"batch_norm": "frozen", "sync_batch_norm": True}},
        "training.sync_batch_norm: found true, but training.batch_norm is 'frozen'",
    ),
    (
        {"training": {"epochs": 2, "freeze_epochs": 2, "batch_norm": "frozen"}},
        "training.batch_norm: found 'frozen', but training.freeze_epochs freezes the whole backbone",
    ),
    (
        {"targets": {"a": RANK, "b": RANK | {"query": "other"}}},
        "targets.a.query = 'q', targets.b.query = 'other'",
    ),
    (
        {"targets": {"kind": CLASS, "kind_abstain": CLASS}, "decision": {"abstain": 0.5}},
        "targets.kind_abstain: found beside decision.abstain = 0.5, which marks the answers of 'kind' in a column of",
    ),
    (
        {
            "targets": {"a": CLASS, "b": CLASS, "joint_abstain": CLASS},
            "joint": {"targets": ["a", "b"]},
            "decision": {"abstain": 0.5},
        },
        "targets.joint_abstain: found beside decision.abstain = 0.5, which marks the answers of 'joint' in a column",
    ),
]


@pytest.mark.parametrize(("sections", "message"), REFUSED, ids=[m[:50] for _, m in REFUSED])
def test_refused_by_name(sections: dict[str, Any], message: str) -> None:
    """The message names the keys that contradict each other."""
    with pytest.raises(ConfigError) as caught:
        warnings_of(**sections)
    assert message in str(caught.value)


WARNED = [
    (
        {"data": {"sampling": "balanced"}, "loss": {"name": "cross_entropy", "class_weights": "inverse"}},
        ["data.sampling = 'balanced'", "loss.class_weights = 'inverse'"],
    ),
    (
        {"data": {"sampling": "balanced"}, "loss": {"name": "logit_adjustment"}},
        ["data.sampling = 'balanced'", "loss.name = 'logit_adjustment'"],
    ),
    (
        {"data": {"sampling": "balanced"}, "targets": {"label": CLASS | {"adjust": 1.0}}},
        ["data.sampling = 'balanced'", "targets.label.adjust = 1.0"],
    ),
    (
        {
            "loss": {
                "name": "sum",
                "terms": [{"name": "focal", "class_weights": "inverse"}, {"name": "balanced_softmax"}],
            }
        },
        ["class_weights = 'inverse'", "name = 'balanced_softmax'"],
    ),
    ({"training": {"epochs": 3, "freeze_epochs": 1}}, ["training.freeze_epochs = 1", "random features"]),
    ({"training": {"batch_norm": "frozen"}}, ["training.batch_norm = 'frozen'", "mean 0, variance 1"]),
    (
        {"loss": {"name": "focal"}, "targets": {"label": CLASS | {"loss": {"name": "gce"}}}},
        ["[loss]: every target has a loss of its own"],
    ),
]


@pytest.mark.parametrize(("sections", "parts"), WARNED, ids=[p[0] for _, p in WARNED])
def test_warned_of_by_name(sections: dict[str, Any], parts: list[str]) -> None:
    """One line that names both means."""
    found = warnings_of(**sections)
    assert len(found) == 1
    assert all(part in found[0] for part in parts)


PRETRAINED = {"weights": "pretrained", "backbone": "resnet18"}
PLANS = [
    (
        {"training": {"plan": "probe", "freeze_epochs": 1, "epochs": 3}},
        "training.freeze_epochs: found 1, but training.plan is 'probe'",
    ),
    (
        {"training": {"plan": "probe_then_finetune", "freeze_epochs": 2, "epochs": 3}},
        "training.freeze_epochs: found 2, but training.plan is 'probe_then_finetune'",
    ),
    (
        {"training": {"plan": "probe_then_finetune"}, "loss": {"name": "ldam"}},
        "training.plan: found 'probe_then_finetune', but a loss is 'ldam'",
    ),
    (
        {
            "training": {"plan": "probe"},
            "loss": {"name": "sum", "terms": [{"name": "cross_entropy"}, {"name": "ldam"}]},
        },
        "training.plan: found 'probe', but a loss is 'ldam'",
    ),
]


@pytest.mark.parametrize(("sections", "message"), PLANS)
def test_what_no_probe_can_have(sections: dict[str, Any], message: str) -> None:
    """The key, what was found, and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        warnings_of(model=PRETRAINED, **sections)
    assert str(caught.value).startswith(message)
    assert "allowed: " in str(caught.value)


def test_what_init_writes_for_fine_tuning_has_no_effect_on_a_probe() -> None:
    """Said in one line, so that `--training.plan probe` alone is enough."""
    (warning,) = warnings_of(
        model=PRETRAINED, **{**FINETUNING, "training": FINETUNING["training"] | {"plan": "probe"}}
    )
    assert warning == (
        "training.plan = 'probe': trains no epoch, so these have no effect: training.epochs, training.minutes,"
        " training.ema, optimizer"
    )


def test_no_layer_is_frozen_where_all_have_one_rate() -> None:
    """So that `--optimizer.layer_decay 1` alone is enough for a config of `init`."""
    (warning,) = warnings_of(optimizer={"frozen_below": 0.1})
    assert warning == (
        "optimizer.frozen_below = 0.1: has no effect, since optimizer.layer_decay is 1 and all layers have the same"
        " rate"
    )
    assert warnings_of(optimizer={"frozen_below": 0.1, "layer_decay": 0.5}) == []


def test_what_plans_may_have() -> None:
    """The plan `auto` follows freeze_epochs and LDAM; minutes go with whatever trains; a probe on random features is
    said to be one."""
    assert warnings_of(model=PRETRAINED, training={"plan": "probe_then_finetune", "minutes": 3.0}) == []
    assert warnings_of(model=PRETRAINED, training={"minutes": 3.0}) == []
    assert warnings_of(model=PRETRAINED, training={"freeze_epochs": 1, "epochs": 3}) == []
    assert warnings_of(model=PRETRAINED, loss={"name": "ldam"}) == []
    assert warnings_of(training={"minutes": 3.0}) == []
    for plan in ("probe", "probe_then_finetune"):
        (warning,) = warnings_of(training={"plan": plan})
        assert warning.startswith(f"training.plan = {plan!r}: the backbone has no pretrained weights")
