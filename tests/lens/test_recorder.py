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
from tests.helpers.pretrained import probed_config
from tests.helpers.scenes import FORKS, PEOPLE, PLAIN, people_table, plain_table, write_config

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


@pytest.mark.parametrize(
    "changes",
    [
        {"training__freeze_epochs": 1, "training__ema": 0.9, "training__accumulate": 2},
        {"data__mixup": 0.4, "training__clip_norm": 0.1},
        {"data__workers": 2, "data__augment": "strong", "schedule": {"name": "plateau", "patience": 0}},
        {"training__micro_batch": 3, "training__target_weights": "uncertainty", "selection__metric": "mean"},
    ],
    ids=["features, average", "mixup", "workers, plateau", "chunks, learned weights"],
)
@FORKS
def test_other_recipes(
    changes: dict[str, Any], tmp_path: Path, trained: dict[int, dict[str, Tensor]]
) -> None:
    """The weights after each update of the second epoch are those of `train`, to the bit."""
    people_table(tmp_path, 14)
    path = write_config(tmp_path, PEOPLE, **({**TWO_HEADS, **changes}))
    train(path, run=tmp_path / "run", quiet=True)
    updates = max(trained)
    for update in (updates // 2 + 1, updates):
        recording = step(path, update=update, out=tmp_path / f"{update}.html", quiet=True).recording
        require_same(recording.after, trained[update])


def test_the_second_stage_of_a_plan(tmp_path: Path, trained: dict[int, dict[str, Tensor]]) -> None:
    """Of a plan of two stages it is an update of the fine-tuning, which starts from the fitted heads; this is said."""
    plain_table(tmp_path, 24)
    path = probed_config(tmp_path, training__checkpoint_updates=1)
    train(path, run=tmp_path / "run", quiet=True)
    found = step(path, update=2, out=tmp_path / "step.html", quiet=True)
    require_same(found.recording.before, trained[1])
    require_same(found.recording.after, trained[2])
    assert "Shown is an update of the second stage" in found.path.read_text()


def test_what_is_shown_are_the_numbers_of_the_loop(tmp_path: Path) -> None:
    """The loss, the gradient and its norm, and the step of SGD: by plain PyTorch, from the same images and weights."""
    plain_table(tmp_path, 20)
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    changes = {"optimizer": optimizer, "schedule": {"name": "constant"}, "training__epochs": 1}
    path = write_config(tmp_path, PLAIN, **changes)
    found = step(path, out=tmp_path / "step.html", quiet=True)
    recording, model = found.recording, found.view.run.parts.state.model
    model.load_state_dict(
        {name: v for name, v in recording.before.items() if not name.startswith("criterion.")}
    )
    model.train()
    model.zero_grad()
    batch = recording.batches[0]
    loss = torch.nn.functional.cross_entropy(model(batch.images)["label"], batch.targets["label"])
    loss.backward()
    assert recording.total == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(recording.gradients[name], parameter.grad)
        torch.testing.assert_close(recording.after[name], parameter.detach() - 0.1 * parameter.grad)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert recording.norm == pytest.approx(float(norm), rel=1e-5)
    rows = found.view.reduction.heads[0].terms[0].rows
    each = torch.nn.functional.cross_entropy(
        recording.chunks[0].outputs["label"], batch.targets["label"], reduction="none"
    )
    assert rows == pytest.approx(each.tolist(), rel=1e-5)
