"""training.minutes: as many epochs as fit, and no fewer than what else is counted in epochs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from classwise.compose import budget as module
from classwise.compose.budget import ROWS_TO_CHOOSE, epochs_in_time, plan_for
from classwise.compose.splits import taken
from classwise.console import Console
from tests.helpers.noisy_images import AREA, CPU, KIND, LEVEL, TAGS, Scene
from tests.helpers.tiny_runs import copy_of, same

Build = Callable[..., Scene]
SECONDS = 1.5
"""That an image takes, in these tests."""


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every image takes SECONDS; the batch sizes that this was asked for."""
    asked: list[int] = []

    def seconds(model: Any, splits: Any, config: Any, device: Any, batch_size: int) -> float:
        asked.append(batch_size)
        return SECONDS

    monkeypatch.setattr(module, "_seconds_per_image", seconds)
    return asked


def epochs_of(s: Scene, processes: int = 1) -> int:
    return epochs_in_time(s.config, s.splits, s.model, CPU, processes, Console(quiet=True))


def test_without_minutes_nothing_is_measured(scene: Build, timed: list[int]) -> None:
    """And training.epochs stays."""
    assert epochs_of(scene({"kind": KIND}, training={"epochs": 7})) == 7
    assert timed == []


def test_as_many_epochs_as_fit(scene: Build, timed: list[int]) -> None:
    """Of 34 rows an epoch takes 51 s: three in 2.6 minutes; twice as many with two processes; at least one, and never
    more than training.epochs."""
    s = scene({"kind": KIND}, training={"epochs": 30, "minutes": 2.6})
    assert len(s.splits.train.samples) * SECONDS == 51
    assert epochs_of(s) == 3
    assert epochs_of(s, processes=2) == 6
    assert epochs_of(scene({"kind": KIND}, training={"epochs": 30, "minutes": 0.1})) == 1
    assert epochs_of(scene({"kind": KIND}, training={"epochs": 2, "minutes": 2.6})) == 2
    assert timed == [8] * 4  # a batch of at most TIMED_IMAGES
    assert epochs_of(scene({"kind": KIND}, training={"epochs": 9, "minutes": 2.6, "batch_size": 4})) == 3
    assert timed[-1] == 4


@pytest.mark.parametrize(
    ("epochs", "minutes", "says"),
    [(30, 2.6, "for 3 of 30 epochs"), (2, 2.6, "for all 2 epochs"), (1, 2.6, "for the one epoch")],
)
def test_it_says_how_many_there_is_time_for(
    epochs: int,
    minutes: float,
    says: str,
    scene: Build,
    timed: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    s = scene({"kind": KIND}, training={"epochs": epochs, "minutes": minutes})
    epochs_in_time(s.config, s.splits, s.model, CPU, 1, Console())
    assert capsys.readouterr().err == (
        f"an epoch takes about 51 s here: training.minutes = {minutes} leaves time {says}\n"
    )


@pytest.mark.parametrize(
    ("sections", "least"),
    [
        ({"selection": {"first_epoch": 5}}, 5),
        ({"training": {"freeze_epochs": 3}}, 4),
        ({"training": {"freeze_epochs": 30}}, 30),
        ({"schedule": {"name": "cosine", "warmup_epochs": 1.5}}, 2),
        ({"loss": {"name": "cross_entropy", "class_weights": "inverse", "weights_from_epoch": 6}}, 6),
        ({"selection": {"first_epoch": 0.5}}, 1),
    ],
)
def test_what_else_is_counted_in_epochs_stays_possible(
    scene: Build, timed: list[int], sections: dict[str, Any], least: int
) -> None:
    """The epoch from which one is selected, frozen ones and a warm-up lie within all epochs, or the config would be
    refused; class weights that begin late do apply."""
    training = {"epochs": 30, "minutes": 0.1} | sections.get("training", {})
    s = scene({"kind": KIND}, **(sections | {"training": training}))
    assert epochs_of(s) == least


def test_the_measurement_changes_nothing(scene: Build) -> None:
    """Neither weights nor statistics of the model; with a target of every type it gives a positive time."""
    every = {"kind": KIND, "level": LEVEL, "tags": TAGS, "area": AREA}
    s = scene(every, training={"minutes": 1e6, "epochs": 4}, selection={"metric": "kind.macro_f1"})
    before = copy_of(s.model)
    assert epochs_of(s) == 4
    assert same(copy_of(s.model), before)
    assert all(parameter.grad is None for parameter in s.model.parameters())
    seconds = module._seconds_per_image(s.model, s.splits, s.config, torch.device("cpu"), 8)
    assert seconds > 0


def plan_of(s: Scene, plan: str = "auto", weights: str = "pretrained", rows: int | None = None) -> str:
    """The plan of a run with the first `rows` of the validation rows."""
    config = s.config.model_copy(
        update={
            "model": s.config.model.model_copy(update={"weights": weights}),
            "training": s.config.training.model_copy(update={"plan": plan}),
        }
    )
    valid = s.splits.valid if rows is None else taken(s.splits.valid, np.arange(rows))
    return plan_for(config, dataclasses.replace(s.splits, valid=valid), Console())


def test_too_few_rows_to_choose_by(scene: Build, capsys: pytest.CaptureFixture[str]) -> None:
    """17 labeled rows cannot show which of two models is better, and none at all choose nothing."""
    s = scene({"kind": KIND})
    assert plan_of(s) == "probe"
    assert "not fine-tuned: 17 validation rows could not show" in capsys.readouterr().err
    assert plan_of(s, rows=0) == "probe_then_finetune"
    assert plan_of(s, weights="none") == "finetune"
    assert capsys.readouterr().err == ""


def test_enough_rows_to_choose_by(scene: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_TO_CHOOSE", 17)
    assert ROWS_TO_CHOOSE == 30
    assert plan_of(scene({"kind": KIND})) == "probe_then_finetune"


def test_a_plan_asked_for_by_name_is_followed(scene: Build) -> None:
    s = scene({"kind": KIND})
    for plan in ("probe_then_finetune", "probe", "finetune"):
        assert plan_of(s, plan) == plan
