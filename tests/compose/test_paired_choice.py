"""The choice between two models: paired, in the better direction of the metric, and only where it is clear."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor

from classwise.compose import paired_choice as module
from classwise.compose.paired_choice import CONFIDENCE, PairedDifference, paired_difference
from classwise.metrics.bootstrap import resampled_weights
from tests.helpers.noisy_images import AREA, KIND, LEVEL, TAGS, Scene

Build = Callable[..., Scene]


def outputs_of(s: Scene, seed: int) -> dict[str, Tensor]:
    """Drawn outputs of the validation rows."""
    draw = torch.Generator().manual_seed(seed)
    rows = len(s.splits.valid.samples)
    return {name: torch.randn(rows, head.outputs, generator=draw) for name, head in s.heads.items()}


def right(s: Scene, name: str, certainty: float = 8.0) -> dict[str, Tensor]:
    """Outputs that are right about a class target wherever there is a label."""
    labels = torch.from_numpy(s.splits.valid.labels[name])
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), s.heads[name].outputs)
    return {name: certainty * one_hot.float()}


def compared(
    s: Scene, first: dict[str, Tensor], second: dict[str, Tensor], optimism: float = 0.0
) -> PairedDifference:
    return paired_difference(s.config, s.splits, s.heads, first, second, optimism)


def test_a_model_is_not_better_than_itself(scene: Build) -> None:
    """Equal on all resamples: half of them count, which is not enough."""
    s = scene({"kind": KIND})
    outputs = outputs_of(s, 0)
    found = compared(s, outputs, outputs)
    assert found == PairedDifference(0.0, 0.0, [0.0, 0.0], 0.5)
    assert not found.is_better


def test_a_better_model_is_better(scene: Build) -> None:
    """On all resamples, and the other way round on none."""
    s = scene({"kind": KIND})
    found = compared(s, outputs_of(s, 0), right(s, "kind"))
    assert found.share == 1.0
    assert found.is_better
    assert found.difference > 0
    back = compared(s, right(s, "kind"), outputs_of(s, 0))
    assert back.share == 0.0
    assert not back.is_better
    assert back.difference == -found.difference


def test_the_resamples_are_those_of_rows(scene: Build) -> None:
    """With accuracy and log loss, against scikit-learn on the rows as they are drawn; for a loss, less is better."""
    for metric, sign in (("accuracy", 1), ("log_loss", -1)):
        s = scene({"kind": KIND | {"labels": ["a", "b", "c"]}}, selection={"metric": metric})
        labels = s.splits.valid.labels["kind"]
        first, second = outputs_of(s, 0), outputs_of(s, 1)

        def score(outputs: dict[str, Tensor], rows: Any, metric: str = metric, labels: Any = labels) -> float:
            chosen = rows[labels[rows] >= 0]
            probabilities = outputs["kind"].double().softmax(dim=1).numpy()[chosen]
            if metric == "accuracy":
                return float(accuracy_score(labels[chosen], probabilities.argmax(axis=1)))
            return float(log_loss(labels[chosen], probabilities, labels=[0, 1, 2]))

        draws = []
        for weights_UR in resampled_weights(len(labels), s.config.seed, module.RESAMPLES, rows=len(labels)):
            for weights in weights_UR.T:
                rows = np.repeat(np.arange(len(labels)), weights.astype(int))
                draws.append(sign * (score(second, rows) - score(first, rows)) - 0.01)
        found = compared(s, first, second, optimism=0.01)
        everything = np.arange(len(labels))
        assert found.difference == pytest.approx(
            sign * (score(second, everything) - score(first, everything)) - 0.01, abs=1e-6
        )
        assert len(draws) == module.RESAMPLES
        assert found.share == pytest.approx(np.mean(np.array(draws) > 0), abs=0.004)
        low, high = np.percentile(draws, (2.5, 97.5))
        assert found.interval == pytest.approx([low, high], abs=1e-4)


def test_what_the_choice_of_the_epoch_has_gained_is_taken_off(scene: Build) -> None:
    """A lead that is no larger than it is no lead."""
    s = scene({"kind": KIND})
    lead = compared(s, outputs_of(s, 0), right(s, "kind"))
    found = compared(s, outputs_of(s, 0), right(s, "kind"), optimism=2 * lead.difference)
    assert found.difference == pytest.approx(-lead.difference)
    assert found.optimism == 2 * lead.difference
    assert found.share < CONFIDENCE
    assert not found.is_better


def test_rows_of_a_group_are_drawn_together(scene: Build, tmp_path: Any) -> None:
    """Ten copies of a row say no more than one: with two groups, of which the model is better on one and worse on the
    other, it is better on about half of the resamples where it leads in most rows."""
    s = scene({"kind": KIND | {"labels": ["a", "b", "c"]}}, selection={"metric": "accuracy"})
    rows = len(s.splits.valid.samples)
    truth, wrong = right(s, "kind")["kind"], right(s, "kind")["kind"].roll(1, dims=1)
    is_lead = torch.arange(rows) < 0.7 * rows
    first = {"kind": torch.where(is_lead[:, None], wrong, truth)}
    second = {"kind": torch.where(is_lead[:, None], truth, wrong)}
    alone = compared(s, first, second)
    assert alone.share > 0.9

    groups = tuple("lead" if lead else "rest" for lead in is_lead)
    samples = dataclasses.replace(s.splits.valid.samples, groups=groups)
    valid = dataclasses.replace(s.splits.valid, samples=samples)
    grouped = s._replace(splits=dataclasses.replace(s.splits, valid=valid))
    found = compared(grouped, first, second)
    assert found.difference == alone.difference
    assert 0.6 < found.share < 0.85  # one group twice, or both: a quarter of the draws lack the lead
    assert found.interval[0] == pytest.approx(-1.0)


def test_a_query_that_is_drawn_twice_counts_twice(scene: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as one query with each row twice, which would weigh as much as any other."""
    ranked = {"column": "area", "type": "ranking", "query": "tags"}
    s = scene({"match": ranked}, data={"valid": 0.5}, selection={"metric": "ndcg"})
    labels = s.splits.valid.labels["match"]
    queries = np.unique(labels[:, 1])
    assert len(queries) > 1
    perfect = torch.from_numpy(labels[:, :1]).float()
    second = torch.where(torch.from_numpy(labels[:, 1:] == queries[0]), perfect, -perfect)
    first = {"match": -perfect}

    def only(units: int, seed: int, resamples: int, rows: int = 0) -> Any:
        weights = np.ones((units, 1))
        weights[0] = 5
        yield weights

    monkeypatch.setattr(module, "resampled_weights", only)
    found = compared(s, first, {"match": second})
    whole = found.difference * len(queries)  # what the first query gains
    assert found.interval == pytest.approx(
        sorted([found.difference, 5 * whole / (len(queries) + 4)]), rel=0.05
    )


@pytest.mark.parametrize(
    "target", [KIND, LEVEL, TAGS, AREA], ids=["class", "ordinal", "multilabel", "regression"]
)
def test_targets_of_every_type(scene: Build, target: dict[str, Any]) -> None:
    """Each has a selection metric, and its scores on resamples are finite."""
    metric = "r2" if target is AREA else "macro_f1"
    s = scene({"one": target}, selection={"metric": metric})
    found = compared(s, outputs_of(s, 0), outputs_of(s, 1))
    assert all(np.isfinite([found.difference, *found.interval]))
    assert 0 <= found.share <= 1


def test_resamples_without_a_label_count_half(scene: Build) -> None:
    """Where no row of a resample has a label, both are equal: there is nothing to divide by."""
    s = scene({"kind": KIND | {"labels": ["a", "b", "c"]}})
    labels = s.splits.valid.labels["kind"]
    labels[1:] = -1
    labels[0] = 0
    first = {"kind": torch.zeros(len(labels), 3)}
    first["kind"][:, 1] = 1
    found = compared(s, first, right(s, "kind"))
    # A resample holds the only row with a label in 1 - (1 - 1/n)^n of the draws.
    absent = (1 - 1 / len(labels)) ** len(labels)
    assert found.share == pytest.approx(1 - absent / 2, abs=0.06)


def test_rows_of_a_resample_are_those_of_its_units_and_copies() -> None:
    """As a plain loop draws them: unit by unit, copy by copy, row by row; some units several times, some never."""
    for seed in range(50):
        draw = np.random.default_rng(seed)
        units = int(draw.integers(1, 12))
        unit_N = draw.permutation(np.r_[np.arange(units), draw.integers(0, units, 20)])
        weights_U = draw.integers(0, 4, units)
        expected = [
            (row, copy)
            for unit in range(units)
            for copy in range(weights_U[unit])
            for row in np.flatnonzero(unit_N == unit)
        ]
        rows, copies = module._drawn_rows(unit_N, weights_U)
        assert list(zip(rows.tolist(), copies.tolist(), strict=True)) == expected
