"""Which number chooses a checkpoint, and whether more of it is better."""

import pytest

from classwise.errors import ConfigError
from classwise.metrics.collection import higher_is_better, resolve_metric


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
    """Lower is better for errors and losses, with and without the target's name; an unknown name is refused."""
    assert higher_is_better("macro_f1")
    assert higher_is_better("joint.macro_f1")
    assert not higher_is_better("age.mae")
    assert not higher_is_better("나이.대.log_loss")
    with pytest.raises(ValueError, match=r"found the metric 'age\.maf'; did you mean 'map' or 'mae'"):
        higher_is_better("age.maf")
