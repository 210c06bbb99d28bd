"""The mean of several targets' main scores."""

from typing import Any

import pytest
import torch

from classwise.metrics.collection import MetricCollection, flat_scores
from classwise.metrics.main_scores import MAIN_SCORES
from classwise.metrics.mean import is_mean, mean_of, mean_parts, mean_scores
from classwise.metrics.scores import HIGHER_IS_BETTER, SCORES, score_range
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

HEADS: dict[str, Head] = {
    "mask": ClassHead(3),
    "blur": OrdinalHead(3),
    "things": MultilabelHead(2),
    "age": RegressionHead(mean=0.0, std=1.0),
    "taste": RankingHead(),
}
LABELS = {"mask": ["a", "b", "c"], "blur": ["low", "mid", "high"], "things": ["x", "y"]}


def results_of(priors: dict[str, tuple[float, ...]] | None = None, unlabeled: str = "") -> dict[str, Any]:
    """All types of target on 40 drawn rows."""
    draw = torch.Generator().manual_seed(1)
    outputs = {name: torch.randn(40, head.outputs, generator=draw) for name, head in HEADS.items()}
    true_age = outputs["age"][:, 0].double() + 0.5 * torch.randn(40, generator=draw)
    query = torch.arange(40) // 8
    targets = {
        "mask": torch.randint(0, 3, (40,), generator=draw),
        "blur": torch.randint(0, 3, (40,), generator=draw),
        "things": torch.randint(0, 2, (40, 2), generator=draw).double(),
        "age": true_age,
        "taste": torch.stack([torch.randint(0, 3, (40,), generator=draw), query], dim=1),
    }
    if unlabeled:
        targets[unlabeled] = torch.full_like(targets[unlabeled], -1)
    metrics = MetricCollection(HEADS, LABELS, priors=priors)
    metrics.update(outputs, targets)
    return metrics.compute()


def test_every_type_has_a_main_score_that_can_be_averaged() -> None:
    """It is a score of its type, higher is better, and 1 is perfect."""
    assert MAIN_SCORES.keys() == SCORES.keys()
    for type, name in MAIN_SCORES.items():
        assert name in SCORES[type]
        assert HIGHER_IS_BETTER[name]
        assert score_range(name)[1] == 1
    assert score_range("mean") == (0, 1)


def test_the_mean_is_that_of_the_targets_main_scores() -> None:
    """By hand, and by its name among all scores; the targets' scores stay beside it."""
    results = results_of()
    flat = flat_scores(results)
    names = ["mask.macro_f1", "blur.macro_f1", "things.macro_f1", "age.r2", "taste.ndcg"]
    assert mean_parts(results) == {name: flat[name] for name in names}
    assert 0 < flat["age.r2"] < 1
    assert flat["mean"] == pytest.approx(sum(flat[name] for name in names) / 5)
    assert "mean_at_prior" not in flat


def test_at_other_class_shares() -> None:
    """A class target enters with its score at the shares, the others with theirs; both means have a name."""
    results = results_of({"mask": (0.8, 0.1, 0.1)})
    flat = flat_scores(results)
    parts = mean_parts(results, at_prior=True)
    assert list(parts) == [
        "mask.macro_f1_at_prior",
        "blur.macro_f1",
        "things.macro_f1",
        "age.r2",
        "taste.ndcg",
    ]
    assert parts["mask.macro_f1_at_prior"] == flat["mask.macro_f1_at_prior"] != flat["mask.macro_f1"]
    assert flat["mean_at_prior"] == pytest.approx(sum(parts.values()) / 5)
    assert flat["mean"] == flat_scores(results_of())["mean"]
    assert is_mean("mean")
    assert is_mean("mean_at_prior")
    assert not is_mean("a.mean")


def test_an_r2_below_zero_counts_as_zero() -> None:
    """It has no lower limit: without this, one target would decide alone."""
    assert mean_of({"a.macro_f1": 0.5, "b.r2": -40.0}) == 0.25
    assert mean_of({"a.macro_f1": 0.5, "b.r2": 0.5}) == 0.5


def test_without_a_row_of_a_target_there_is_no_mean() -> None:
    """The mean of the others would be another score under the same name; so it is of a single target."""
    results = results_of(unlabeled="blur")
    assert "mean" not in flat_scores(results)
    assert mean_scores(results) == {}
    assert "blur.macro_f1" not in mean_parts(results)
    single = MetricCollection({"mask": HEADS["mask"]}, LABELS)
    single.update({"mask": torch.randn(4, 3)}, {"mask": torch.tensor([0, 1, 2, 0])})
    assert "mean" not in flat_scores(single.compute())
