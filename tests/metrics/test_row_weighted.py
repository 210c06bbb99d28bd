"""Scores with row weights: a row of weight 2 counts like two rows."""

import numpy as np
import pytest
import sklearn.metrics as reference
import torch

from classwise.metrics.collection import MetricCollection
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RegressionHead

HEADS: dict[str, Head] = {
    "kind": ClassHead(3),
    "level": OrdinalHead(4),
    "tags": MultilabelHead(2),
    "price": RegressionHead(mean=5.0, std=2.0),
}
LABELS = {"kind": ["a", "b", "c"], "level": ["0", "1", "2", "3"], "tags": ["x", "y"]}
ROWS = 40


def rows() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random outputs and labels, some of them unknown."""
    draw = torch.Generator().manual_seed(3)
    outputs = {name: torch.randn(ROWS, head.outputs, generator=draw) for name, head in HEADS.items()}
    targets = {
        "kind": torch.randint(-1, 3, (ROWS,), generator=draw),
        "level": torch.randint(0, 4, (ROWS,), generator=draw),
        "tags": torch.randint(0, 2, (ROWS, 2), generator=draw).float(),
        "price": torch.randn(ROWS, generator=draw, dtype=torch.float64) * 2 + 5,
    }
    targets["tags"][:5] = float("nan")
    targets["price"][7] = float("nan")
    return outputs, targets


def scores(
    outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor], weights: np.ndarray | None = None
) -> dict[str, dict]:
    """The scores of all targets and of the joint class."""
    metrics = MetricCollection(HEADS, LABELS, joint=("kind", "level"), keep_rows=True)
    metrics.update(outputs, targets)
    results = metrics.compute(row_weights=weights)
    return results["targets"] | {"joint": results["joint"]}


def test_whole_weights_are_repeated_rows() -> None:
    """Every score of every type and of the joint class, with weights of 0 to 3; those without weights do not change."""
    outputs, targets = rows()
    weights = np.random.default_rng(0).integers(0, 4, ROWS)
    repeat = torch.from_numpy(np.repeat(np.arange(ROWS), weights))
    found = scores(outputs, targets, weights.astype(float))
    repeated = scores(
        {name: values[repeat] for name, values in outputs.items()},
        {name: values[repeat] for name, values in targets.items()},
    )
    plain = scores(outputs, targets)
    for name, target in found.items():
        weighted = target.pop("row_weighted")
        assert len(weighted) >= 4
        assert weighted == pytest.approx({key: repeated[name][key] for key in weighted}, abs=1e-12)
        assert target == plain[name]


def test_the_same_as_scikit_learns_sample_weight() -> None:
    """With weights that are no whole numbers."""
    outputs, targets = rows()
    weights = np.random.default_rng(1).uniform(0, 2, ROWS)
    found = {name: target["row_weighted"] for name, target in scores(outputs, targets, weights).items()}
    known = (targets["kind"] >= 0).numpy()
    true = targets["kind"].numpy()[known]
    predicted = outputs["kind"].argmax(1).numpy()[known]
    f1 = reference.f1_score(true, predicted, average="macro", sample_weight=weights[known])
    assert found["kind"]["macro_f1"] == pytest.approx(f1, abs=1e-12)
    known = targets["price"].isfinite().numpy()
    values = HEADS["price"].decode(outputs["price"]).numpy()[known]
    r2 = reference.r2_score(targets["price"].numpy()[known], values, sample_weight=weights[known])
    assert found["price"]["r2"] == pytest.approx(r2, abs=1e-12)


def test_without_weight_there_are_no_scores() -> None:
    """Where all rows with a label weigh 0; and where rows are not kept, nothing can be weighted."""
    outputs, targets = rows()
    known = (targets["kind"] >= 0).numpy()
    assert scores(outputs, targets, np.where(known, 0.0, 1.0))["kind"]["row_weighted"] == {}
    metrics = MetricCollection(HEADS, LABELS)
    metrics.update(outputs, targets)
    with pytest.raises(ValueError, match="rows were not kept"):
        metrics.compute(row_weights=np.ones(ROWS))
