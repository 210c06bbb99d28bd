"""Which number chooses a checkpoint, and whether more of it is better."""

import pytest

from classwise.errors import ConfigError
from classwise.metrics.collection import score_of
from classwise.metrics.names import higher_is_better, resolve_metric


@pytest.mark.parametrize(
    ("metric", "targets", "joint", "wanted"),
    [
        ("macro_f1", ["a"], False, "macro_f1"),
        ("a.macro_f1", ["a"], False, "macro_f1"),
        ("macro_f1", ["a", "b"], True, "joint.macro_f1"),
        ("joint.macro_f1", ["a", "b"], True, "joint.macro_f1"),
        ("b.accuracy", ["a", "b"], True, "b.accuracy"),
        ("b.accuracy", ["a", "b"], False, "b.accuracy"),
        ("나이 대.macro_f1", ["나이 대", "b"], False, "나이 대.macro_f1"),
        ("mean", ["a", "b"], False, "mean"),
        ("mean", ["a", "b"], True, "mean"),
    ],
)
def test_what_the_selection_means(metric: str, targets: list[str], joint: bool, wanted: str) -> None:
    """The metric of [joint] if there is one, else of the only target, or of the named target."""
    assert resolve_metric(metric, dict.fromkeys(targets, "class"), joint) == wanted


@pytest.mark.parametrize(
    ("metric", "targets", "joint", "message"),
    [
        ("macro_f2", ["a"], False, r"found 'macro_f2'; did you mean 'macro_f1'"),
        ("a.macro_f2", ["a"], False, r"found 'a\.macro_f2'; did you mean 'macro_f1'"),
        ("confusion", ["a"], False, r"found 'confusion'; allowed: accuracy,"),
        (
            "macro_f1",
            ["a", "b"],
            False,
            r"'macro_f1' of which target\?.*allowed: a\.macro_f1, b\.macro_f1, mean",
        ),
        ("mean", ["a"], False, r"found 'mean', which is of several targets, .* only one; allowed: accuracy,"),
        ("meen", ["a", "b"], False, r"found 'meen'; did you mean 'mean'"),
        ("a.mean", ["a", "b"], False, r"found 'a\.mean'; did you mean 'mean'"),
        ("ages.macro_f1", ["age", "b"], False, r"no target 'ages'; did you mean 'age\.macro_f1'"),
        ("joint.macro_f1", ["a", "b"], False, r"no target 'joint'"),
        ("", ["a"], False, r"found ''"),
    ],
)
def test_what_cannot_be_selected(metric: str, targets: list[str], joint: bool, message: str) -> None:
    """The message names the key, what was found and what is allowed."""
    with pytest.raises(ConfigError, match=r"^selection\.metric: " + message):
        resolve_metric(metric, dict.fromkeys(targets, "class"), joint)


@pytest.mark.parametrize(
    ("metric", "types", "joint", "message"),
    [
        ("mae", {"a": "class"}, False, r"found 'mae'; "),
        ("macro_f1", {"age": "regression"}, False, r"found 'macro_f1'; allowed: mae, mse, rmse, r2$"),
        (
            "age.macro_f1",
            {"age": "regression", "b": "class"},
            False,
            r"'macro_f1' is not a score of the regression target 'age'; allowed: b\.macro_f1, or of the regression"
            r" target 'age': mae, mse, rmse, r2$",
        ),
        (
            "mae",
            {"age": "regression", "b": "class"},
            True,
            r"'mae' is not a score of \[joint\]; allowed: age\.mae, or",
        ),
        ("joint.log_loss", {"a": "class", "b": "class"}, True, r"'log_loss' is not a score of \[joint\]"),
        (
            "mae",
            {"age": "regression", "b": "class"},
            False,
            r"'mae' of which target\?.* allowed: age\.mae, mean",
        ),
        ("ndcg", {"a": "multilabel"}, False, r"found 'ndcg'; "),
        ("top5_accuracy", {"a": "class"}, False, r"found 'top5_accuracy'; did you mean 'top3_accuracy'"),
    ],
)
def test_a_metric_that_the_target_does_not_have_is_refused(
    metric: str, types: dict[str, str], joint: bool, message: str
) -> None:
    """The message names it and the scores of the target; a target of 5 classes has no top-5 accuracy."""
    with pytest.raises(ConfigError, match=r"^selection\.metric: " + message):
        resolve_metric(metric, types, joint, {"a": 5})


def test_directions() -> None:
    """Lower is better for errors and losses, with and without the target's name; another name is
    that of a metric of the user's own, of which higher is; what is no name is refused."""
    assert higher_is_better("macro_f1")
    assert higher_is_better("joint.macro_f1")
    assert not higher_is_better("age.mae")
    assert not higher_is_better("나이.대.log_loss")
    assert higher_is_better("age.cost")
    with pytest.raises(ValueError, match=r"found the metric 'age\.m-ae'; did you mean 'mae'"):
        higher_is_better("age.m-ae")


TWO = {"age": "class", "tags": "multilabel"}
LABELS = {"age": ["young", "3.5", "a+b [x]"], "tags": ["p", "q"], "joint": ["young / p"]}


@pytest.mark.parametrize(
    ("metric", "types", "joint", "wanted"),
    [
        ("auc", {"age": "class"}, False, "roc_auc"),
        ("auroc", {"age": "class"}, False, "roc_auc"),
        ("age.pr_auc", TWO, False, "age.average_precision"),
        ("tags.average_precision", TWO, False, "tags.map"),
        ("f1[young]", {"age": "class"}, False, "f1[young]"),
        ("age.f1[3.5]", {"age": "class"}, False, "f1[3.5]"),
        ("age.recall[a+b [x]]", TWO, False, "age.recall[a+b [x]]"),
        ("tags.ap[q]", TWO, True, "tags.ap[q]"),
        ("worst_f1", TWO, True, "joint.worst_f1"),
        ("f1[young / p]", TWO, True, "joint.f1[young / p]"),
        ("0.7*macro_f1+0.3 * f1[3.5]", {"age": "class"}, False, "0.7*macro_f1 + 0.3*f1[3.5]"),
        (".5*age.worst_f1 + .5*tags.auc", TWO, False, "0.5*age.worst_f1 + 0.5*tags.roc_auc"),
        ("0.5*f1[a+b [x]] + 0.5*f1[young]", {"age": "class"}, False, "0.5*f1[a+b [x]] + 0.5*f1[young]"),
    ],
)
def test_classes_worst_classes_and_shares(
    metric: str, types: dict[str, str], joint: bool, wanted: str
) -> None:
    """A score of one class, of the worst, and shares of several; labels with any characters."""
    assert resolve_metric(metric, types, joint, labels=LABELS) == wanted
    assert higher_is_better(wanted)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("f1[old]", "age has no label 'old'; allowed: young, 3.5"),
        ("f1[yuong]", "age has no label 'yuong'; did you mean 'young'"),
        ("f2[young]", "found 'f2\\[young\\]'; allowed: f1, precision"),
        ("0.5*macro_f1 + 0.3*worst_f1", "shares add up to 0.8; allowed: positive shares that add up to 1"),
        ("0.5*macro_f1 + 0.5*log_loss", "of 'log_loss' lower is better"),
        ("0.5*macro_f1 + 0.5*macro_f1", "found 'macro_f1' in two terms"),
        ("0.5*macro_f1 + 0.5*nothing", "found 'nothing'"),
    ],
)
def test_what_is_no_class_and_no_share(metric: str, message: str) -> None:
    """The message names what was found and what is allowed."""
    with pytest.raises(ConfigError, match=r"^selection\.metric: .*" + message):
        resolve_metric(metric, {"age": "class"}, joint=False, labels=LABELS)


def test_the_value_of_each() -> None:
    """What is selected by is what the table of classes says; the worst class is one that has rows."""
    rows = [("young", 0.9, 5), ("3.5", 0.4, 2), ("gone", 0.0, 0)]
    scores = {
        "samples": 7,
        "macro_f1": 0.65,
        "per_class": [{"label": label, "f1": f1, "support": support} for label, f1, support in rows],
    }
    results = {"targets": {"age": scores}}
    assert score_of(results, "f1[3.5]") == 0.4
    assert score_of(results, "worst_f1") == 0.4
    assert score_of(results, "f1[gone]") is None
    assert score_of(results, "0.75*macro_f1 + 0.25*worst_f1") == pytest.approx(0.75 * 0.65 + 0.1)
    assert score_of(results, "0.5*macro_f1 + 0.5*f1[gone]") is None
