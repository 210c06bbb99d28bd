"""What `auto` takes: only what a paired comparison of the rows out of fold shows a gain for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from classwise.compose.splits import DatasetSplits, Split
from classwise.config.load import make_config
from classwise.console import Console
from classwise.data.sources import Samples
from classwise.data.targets import ClassTarget
from classwise.infer.ensemble import DecodedHead
from classwise.kfold import tta
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.members import Gathered
from classwise.kfold.out_of_fold import OutOfFold
from classwise.model.heads import ClassHead

ROWS, CLASSES = 120, 3
LABELS = np.arange(ROWS) % CLASSES
CONFIG: dict[str, Any] = {
    "data": {"source": "t.csv", "augment": "light"},
    "targets": {"kind": {"column": "kind"}},
    "folds": {"count": 2},
    "inference": {"tta": "auto"},
}


PREDICTOR: Any = SimpleNamespace(heads={"kind": DecodedHead(ClassHead(CLASSES))})
"""All that is asked of a predictor here: its heads."""


def gathered(outputs_NK: Tensor) -> Gathered:
    ids = tuple(f"r{row}" for row in range(ROWS))
    samples = Samples(
        where="t.csv", root=Path(), ids=ids, names=ids, groups=None, frame=pl.DataFrame({"id": list(ids)})
    )
    target = ClassTarget(name="kind", type="class", labels=("a", "b", "c"), column="kind")
    none = Split(samples.take([]), {"kind": LABELS[:0]})
    rows = OutOfFold(samples, {"kind": LABELS}, np.arange(ROWS) % 2, {"kind": outputs_NK.double()})
    splits = DatasetSplits((target,), (), train=none, valid=none, bad=(), warnings=())
    return Gathered(rows, PREDICTOR, splits, None)


def outputs(right: float, seed: int) -> Tensor:
    """Outputs that are right for this share of the rows, drawn."""
    rng = np.random.default_rng(seed)
    said_N = np.where(rng.random(ROWS) < right, LABELS, (LABELS + 1 + rng.integers(0, 2, ROWS)) % CLASSES)
    return torch.nn.functional.one_hot(torch.from_numpy(said_N), CLASSES) * 4.0


def chosen(
    monkeypatch: pytest.MonkeyPatch, by_tta: dict[str, Tensor], **changes: Any
) -> tuple[Gathered, dict[str, Any]]:
    def gather(*arguments: Any) -> Gathered:
        return gathered(by_tta[arguments[-1]])

    monkeypatch.setattr(tta, "gather", gather)
    config = make_config(CONFIG | changes)
    unused: Any = None
    return tta.gather_as_asked(FoldsFolder(Path("F")), config, unused, Console(quiet=True), unused)


def test_a_gain_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    by_tta = {"none": outputs(0.5, 1), "flip": outputs(0.9, 2), "flip+scale": outputs(0.4, 3)}
    rows, entry = chosen(monkeypatch, by_tta)
    assert entry["tta"] == "flip"
    assert [(step["tta"], step["against"], step["adopted"]) for step in entry["steps"]] == [
        ("flip", "none", True),
        ("flip+scale", "flip", False),
    ]
    assert torch.equal(rows.rows.outputs["kind"], by_tta["flip"].double())


def test_the_second_step_is_against_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    by_tta = {"none": outputs(0.6, 1), "flip": outputs(0.3, 2), "flip+scale": outputs(0.95, 3)}
    _, entry = chosen(monkeypatch, by_tta)
    assert entry["tta"] == "flip+scale"
    assert entry["steps"][1]["against"] == "none"


def test_a_difference_within_its_interval_is_not_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more rows of 120 are right."""
    before = outputs(0.7, 1)
    wrong = np.flatnonzero(before.argmax(1).numpy() != LABELS)[:2]
    after = before.clone()
    after[wrong] = torch.nn.functional.one_hot(torch.from_numpy(LABELS[wrong]), CLASSES) * 4.0
    _, entry = chosen(monkeypatch, {"none": before, "flip": after, "flip+scale": before})
    assert entry["steps"][0]["difference"] > 0
    assert entry["steps"][0]["interval"][0] <= 0
    assert entry["tta"] == "none"


def test_a_loss_that_is_to_be_low_gains_by_falling(monkeypatch: pytest.MonkeyPatch) -> None:
    by_tta = {"none": outputs(0.5, 1), "flip": outputs(0.9, 2), "flip+scale": outputs(0.5, 1)}
    _, entry = chosen(monkeypatch, by_tta, selection={"metric": "log_loss"})
    assert entry["tta"] == "flip"
    assert entry["steps"][0]["difference"] > 0


@pytest.mark.full
def test_of_nothing_to_be_gained_little_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentations that are as often right, of 100 draws; two steps of one in forty each are one in twenty."""
    taken = 0
    for draw in range(100):
        by_tta = {
            name: outputs(0.7, 3 * draw + number)
            for number, name in enumerate(("none", "flip", "flip+scale"))
        }
        taken += chosen(monkeypatch, by_tta)[1]["tta"] != "none"
    assert taken <= 10
