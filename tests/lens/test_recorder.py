"""The update that `classwise step` shows is the one that `train` makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from classwise.lens.command import step
from classwise.run.api import train
from classwise.run.checkpoint import RunCheckpointer
from classwise.training.state import TrainState
from tests.helpers.scenes import PEOPLE, people_table, write_config

TWO_HEADS = {
    "joint": None,
    "targets": {
        "mask": {"column": "mask", "loss": {"name": "cross_entropy", "class_weights": "inverse"}},
        "age": {"column": "age", "edges": [30, 60], "weight": 0.5},
    },
    "selection__metric": "mean",
    "training__accumulate": 3,
    "training__checkpoint_updates": 1,
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-3}},
    "adam": {"optimizer": {"name": "adam", "lr": 2e-3}},
    "adamp": {"optimizer": {"name": "adamp", "lr": 2e-3, "weight_decay": 1e-2}},
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Tensor]]:
    """Filled with the weights after each update that `train` saves."""
    found: dict[int, dict[str, Tensor]] = {}
    save = RunCheckpointer.save

    def noted(self: RunCheckpointer, state: TrainState, best: bool) -> None:
        found[state.progress.update] = {
            name: value.clone() for name, value in state.model.state_dict().items()
        }
        save(self, state, best)

    monkeypatch.setattr(RunCheckpointer, "save", noted)
    return found


def require_same(weights: dict[str, Tensor], trained: dict[str, Tensor]) -> None:
    """Every weight and buffer, to the bit."""
    for name, value in trained.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_weights_after_are_those_of_train(
    optimizer: str, tmp_path: Path, trained: dict[int, dict[str, Tensor]]
) -> None:
    """To the bit, with two heads, class weights, accumulation, dropout and a short last update: of the first update,
    one within the second epoch, and the last one."""
    people_table(tmp_path, 14)
    path = write_config(tmp_path, PEOPLE, **TWO_HEADS, **OPTIMIZERS[optimizer])
    train(path, run=tmp_path / "run", quiet=True)
    assert len(trained) == 5  # two epochs of two updates, and the beginning
    for update in (1, 3, 4):
        recording = step(path, update=update, out=tmp_path / f"{update}.html", quiet=True).recording
        require_same(recording.after, trained[update])
        require_same(recording.before, trained[update - 1])
        assert not torch.equal(recording.after["heads.0.weight"], recording.before["heads.0.weight"])
