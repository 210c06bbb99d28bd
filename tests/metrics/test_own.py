"""Metrics of the user's own: counted, named and refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from classwise.errors import ConfigError
from classwise.metrics.collection import MetricCollection, flat_scores, score_of
from classwise.metrics.names import higher_is_better, resolve_metric
from classwise.metrics.own import OwnMetric, check_own_metric
from classwise.metrics.scores import HIGHER_IS_BETTER, is_own_metric, score_range
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead
from tests.helpers.own_parts import guide_files, own_part

KEY = "targets.label.metrics[0]"
HITS = guide_files()["my_metrics.py"].replace("class Hits", "class Part")
FUNCTION = (
    "def Part(predictions, targets):\n    return (predictions.argmax(1) == targets).double().mean().item()\n"
)
HEADS: dict[str, Head] = {
    "class": ClassHead(3),
    "ordinal": OrdinalHead(4),
    "multilabel": MultilabelHead(3),
    "regression": RegressionHead(10.0, 2.0),
    "ranking": RankingHead(),
}


@pytest.mark.parametrize("code", [FUNCTION, HITS])
def test_unlabeled_rows_are_left_out(tmp_path: Path, code: str) -> None:
    """Of a function and of a class; the value is that of all rows, however they came."""
    metric = OwnMetric(own_part(tmp_path, code), KEY, ClassHead(3))
    logits_BK = torch.eye(3)[[0, 1, 2, 0, 1]]
    labels_B = torch.tensor([0, 1, 0, -1, 2])
    for rows in (slice(0, 2), slice(2, 5)):
        metric.update(logits_BK[rows], labels_B[rows])
    assert metric.compute() == 2 / 4
    metric.reset()
    metric.update(logits_BK[:1], labels_B[:1])
    assert metric.compute() == 1.0


SEEN = "def Part(predictions, targets):\n    return {expression}\n"


@pytest.mark.parametrize(
    ("kind", "decoded", "targets", "expression", "value"),
    [
        ("class", [[0.0, 0.0], [9.0, 0.0]], [1, -1], "float(predictions[0, 1]) + 10 * len(targets)", 10.5),
        (
            "multilabel",
            [[0.0], [3.0]],
            [[1.0], [float("nan")]],
            "float(predictions.sum() + targets.sum())",
            1.5,
        ),
        ("regression", [1.0, 4.0], [3.0, float("nan")], "float((targets - predictions).sum())", 2.0),
        (
            "ranking",
            [0.5, 2.0],
            [[1, 7], [-1, 7]],
            "float(predictions[0] + targets[0, 1]) + len(targets)",
            8.5,
        ),
    ],
)
def test_what_a_metric_sees(
    tmp_path: Path, kind: str, decoded: Any, targets: Any, expression: str, value: float
) -> None:
    """Probabilities, or values in the column's unit; the rows with a label."""
    metric = OwnMetric(own_part(tmp_path, SEEN.format(expression=expression)), KEY, HEADS[kind])
    metric.update(torch.tensor(decoded), torch.tensor(targets))
    assert metric.compute() == value


def test_a_value_that_is_not_finite_is_none(tmp_path: Path) -> None:
    """A correlation of constant predictions, for example: nothing was measured."""
    metric = OwnMetric(own_part(tmp_path, "def Part(p, t):\n    return float('nan')\n"), KEY, ClassHead(3))
    metric.update(torch.eye(3), torch.arange(3))
    assert metric.compute() is None


def test_a_class_gets_the_labels_if_it_asks(tmp_path: Path) -> None:
    """By the name of its parameter."""
    code = "def Part(p, t, labels):\n    return len(labels) + labels.index('b')\n"
    metric = OwnMetric(own_part(tmp_path, code), KEY, ClassHead(3), labels=["a", "b", "c"])
    metric.update(torch.eye(3), torch.arange(3))
    assert metric.compute() == 4


def collected(tmp_path: Path, code: str = FUNCTION) -> MetricCollection:
    """The metrics of two targets, one of which has one of the user's own."""
    heads = {"label": ClassHead(3), "other": ClassHead(3)}
    labels = {name: ["a", "b", "c"] for name in heads}
    metrics = MetricCollection(
        heads, labels, own={"label": (own_part(tmp_path, code),)}, selected="label.Part"
    )
    outputs = torch.eye(3)[[0, 1, 2, 0]]
    metrics.update(dict.fromkeys(heads, outputs), {name: torch.tensor([0, 1, 0, 0]) for name in heads})
    return metrics


def test_it_is_a_score_of_its_target(tmp_path: Path) -> None:
    """Under `own`, and by its name beside the others."""
    results = collected(tmp_path).compute()
    assert results["targets"]["label"]["own"] == {"Part": 0.75}
    assert "own" not in results["targets"]["other"]
    assert flat_scores(results)["label.Part"] == 0.75
    assert score_of(results, "label.Part") == 0.75
    assert score_of(results, "0.5*label.Part + 0.5*label.accuracy") == 0.75


def test_a_target_without_a_labeled_row_has_none(tmp_path: Path) -> None:
    """The user's function is not asked about nothing."""
    metrics = MetricCollection(
        {"label": ClassHead(3)}, {"label": ["a", "b", "c"]}, own={"label": (own_part(tmp_path, FUNCTION),)}
    )
    metrics.update({"label": torch.eye(3)}, {"label": torch.full((3,), -1)})
    results = metrics.compute()
    assert "own" not in results["targets"]["label"]
    assert score_of(results, "Part") is None


def test_selection_takes_it_by_its_name() -> None:
    """Of the only target that has it, also beside a joint class; of two, the target has to be named."""
    types = {"mask": "class", "age": "class"}
    assert resolve_metric("cost", {"mask": "class"}, False, own={"mask": ("cost",)}) == "cost"
    assert resolve_metric("cost", types, True, own={"mask": ("cost",)}) == "mask.cost"
    assert resolve_metric("cost", types, False, own={"mask": ("cost",)}) == "mask.cost"
    assert (
        resolve_metric("0.5*age.accuracy + 0.5*cost", types, False, own={"mask": ("cost",)})
        == "0.5*age.accuracy + 0.5*mask.cost"
    )
    with pytest.raises(ConfigError, match=r"'cost' of which target.*mask\.cost, age\.cost"):
        resolve_metric("cost", types, False, own={"mask": ("cost",), "age": ("cost",)})


def test_a_misspelled_name_finds_it() -> None:
    """Among the scores that there are."""
    with pytest.raises(ConfigError, match="found 'costs'; did you mean 'cost'"):
        resolve_metric("costs", {"mask": "class"}, False, own={"mask": ("cost",)})
    with pytest.raises(ConfigError, match="'cost' is not a score of the class target 'age'"):
        resolve_metric("age.cost", {"mask": "class", "age": "class"}, False, own={"mask": ("cost",)})


def test_higher_is_better_and_there_are_no_limits() -> None:
    """A cost is returned as its negative."""
    assert higher_is_better("label.cost")
    assert score_range("cost") == (-float("inf"), float("inf"))
    assert not any(map(is_own_metric, [*HIGHER_IS_BETTER, "worst_f1", "f1[old]", "macro_f1_at_prior"]))


@pytest.mark.parametrize("kind", HEADS)
def test_a_metric_of_the_whole_set_passes(tmp_path: Path, kind: str) -> None:
    """For every type of target."""
    code = "def Part(predictions, targets):\n    return -float(predictions.nan_to_num().mean())\n"
    check_own_metric(own_part(tmp_path, code), KEY, HEADS[kind], (), ())


@pytest.mark.parametrize("name", ["cost", "Hits"])
def test_the_guides_metrics_pass(tmp_path: Path, name: str) -> None:
    """The examples of docs/guide/own-parts.md."""
    check_own_metric(
        own_part(tmp_path, guide_files()["my_metrics.py"], name), KEY, ClassHead(2), ["a", "b"], ()
    )


def hits(*change: str) -> str:
    """The guide's class with a fault."""
    assert change[0] in HITS
    return HITS.replace(*change)


WRONG = {
    "no reset": (
        hits("self.hits = self.rows = 0", "self.hits = getattr(self, 'hits', 0); self.rows = 1"),
        r"other\s+batches or another order, after reset",
    ),
    "mean of means": (
        hits(
            "self.hits += (predictions.argmax(1) == targets).sum().item()",
            "self.hits += (predictions.argmax(1) == targets).double().mean().item() * self.rows",
        ),
        "a value of the whole set: count in `update`, divide in `compute`",
    ),
    "order": (
        "def Part(predictions, targets):\n    return float(targets[0])\n",
        "in other batches or another order",
    ),
    "not finite": (
        "def Part(predictions, targets):\n    return float('inf')\n",
        "is not a finite number for drawn predictions",
    ),
    "no number": ("def Part(predictions, targets):\n    return 'good'\n", "returned str, allowed: a number"),
    "methods": (hits("def compute", "def result"), r"has no compute; allowed: a class with update"),
    "fails": (
        "def Part(predictions, targets):\n    return targets.foo\n",
        r"fails: AttributeError: .* \(line 2: return targets\.foo\)",
    ),
}


@pytest.mark.parametrize(("code", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_metric_is_refused_with_the_reason(tmp_path: Path, code: str, message: str) -> None:
    """Before any epoch is trained."""
    with pytest.raises(ConfigError, match=rf"^targets\.label\.metrics\[0\]: my_part\.py:Part .*{message}"):
        check_own_metric(own_part(tmp_path, code), KEY, ClassHead(3), (), ())


def test_the_name_of_one_of_our_scores_is_refused(tmp_path: Path) -> None:
    """Else nobody could tell which is meant."""
    reference = own_part(tmp_path, FUNCTION.replace("Part", "kappa"), "kappa")
    with pytest.raises(ConfigError, match="has the name of a score of classwise, 'kappa'; give it another"):
        check_own_metric(reference, KEY, ClassHead(3), (), tuple(HIGHER_IS_BETTER))
