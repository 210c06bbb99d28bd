"""Recipes that cannot be trained are refused before anything takes time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from classwise.compose.checks import check_recipe
from classwise.errors import ConfigError, DataError
from tests.helpers.noisy_images import AREA, KIND, LEVEL, Scene


def test_a_metric_that_the_classes_are_too_few_for(scene: Callable[..., Scene]) -> None:
    """top5_accuracy of three classes would always be 1: refused, and what there is is offered."""
    for metric in ("top5_accuracy", "top3_accuracy"):
        s = scene({"kind": KIND}, selection={"metric": metric})
        with pytest.raises(ConfigError, match=f"selection.metric.*{metric}.*accuracy"):
            check_recipe(s.config, s.splits, s.model)
    fitting = {"column": "area", "edges": [20, 110, 215]}
    s = scene({"area": fitting}, selection={"metric": "top3_accuracy"})
    check_recipe(s.config, s.splits, s.model)  # four classes


def test_what_has_no_label_is_neither_selected_by_nor_balanced(scene: Callable[..., Scene]) -> None:
    """A metric over validation rows without a label, and sampling by classes that never meet in a row."""
    s = scene({"kind": KIND, "area": AREA}, selection={"metric": "area.mae"})
    s.splits.valid.labels["area"][:] = np.nan
    with pytest.raises(DataError, match=r"selection\.metric: area\.mae cannot be computed"):
        check_recipe(s.config, s.splits, s.model)
    s = scene({"kind": KIND, "level": LEVEL}, data={"sampling": "balanced"}, selection={"metric": "kind.mcc"})
    s.splits.train.labels["kind"][::2] = -1
    s.splits.train.labels["level"][1::2] = -1
    with pytest.raises(ConfigError, match=r"data\.sampling: found 'balanced', but no training row"):
        check_recipe(s.config, s.splits, s.model)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimizer": {"name": "adamw", "options": {"nope": 1}}}, "optimizer.options.nope"),
        ({"schedule": {"name": "cosine", "warmup_epochs": 3.0}}, "schedule.warmup_epochs"),
        ({"loss": {"name": "focal", "class_weights": [1.0, 2.0]}}, "loss.class_weights"),
        ({"training": {"device": "tpu"}}, "training.device"),
    ],
)
def test_a_recipe_is_checked_before_anything_is_measured(
    scene: Callable[..., Scene], sections: dict[str, Any], message: str
) -> None:
    """Optimizer, schedule, loss and device: the error names the key."""
    s = scene({"kind": KIND}, **sections)
    with pytest.raises(ConfigError, match=message):
        check_recipe(s.config, s.splits, s.model)


def test_there_has_to_be_batch_norm_to_freeze(scene: Callable[..., Scene]) -> None:
    """A key without effect is refused, and the network is named; with batch norm it is not."""
    frozen = {"batch_norm": "frozen"}
    s = scene({"kind": KIND}, model={"backbone": "small_cnn_gn"}, training=frozen)
    with pytest.raises(
        ConfigError, match=r"training\.batch_norm: found 'frozen', but small_cnn_gn has no batch norm"
    ):
        check_recipe(s.config, s.splits, s.model)
    s = scene({"kind": KIND}, training=frozen)
    check_recipe(s.config, s.splits, s.model)
    assert s.model.has_frozen_batch_norm  # already here: single images can be timed, and train


def test_a_last_batch_of_one_image_is_refused_where_batch_norm_cannot_take_it(
    scene: Callable[..., Scene],
) -> None:
    """Known from the number of rows; a size that leaves no image over is named, and is accepted."""
    model = {"backbone": "resnet18", "image_size": [8, 8]}
    s = scene({"kind": KIND}, model=model)
    rows = len(s.splits.train.samples)
    lone = next(size for size in range(2, rows) if rows % size == 1)
    s = scene({"kind": KIND}, model=model, training={"batch_size": lone})
    before = {name: value.clone() for name, value in s.model.state_dict().items()}
    with pytest.raises(ConfigError, match=rf"training\.batch_size: found {lone}, .*; try (\d+)") as error:
        check_recipe(s.config, s.splits, s.model)
    assert all(before[name].equal(value) for name, value in s.model.state_dict().items())

    better = int(str(error.value).rpartition(" ")[2])
    s = scene({"kind": KIND}, model=model, training={"batch_size": better})
    check_recipe(s.config, s.splits, s.model)


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"backbone": "small_cnn_gn", "image_size": [8, 8]}, {}),  # no batch norm
        ({"backbone": "small_cnn", "image_size": [32, 32]}, {}),  # enough pixels at every layer
        ({"backbone": "resnet18", "image_size": [8, 8]}, {"batch_norm": "frozen"}),
        ({"backbone": "resnet18", "image_size": [8, 8]}, {"epochs": 2, "freeze_epochs": 2}),
    ],
)
def test_a_single_image_is_no_problem_without_statistics_of_the_batch(
    scene: Callable[..., Scene], model: dict[str, Any], training: dict[str, Any]
) -> None:
    """Only where the forward pass in training really fails is anything refused."""
    s = scene({"kind": KIND}, model=model)
    rows = len(s.splits.train.samples)
    lone = next(size for size in range(2, rows) if rows % size == 1)
    s = scene({"kind": KIND}, model=model, training={"batch_size": lone, **training})
    check_recipe(s.config, s.splits, s.model)


def test_chunks_of_one_image_are_refused_as_well(scene: Callable[..., Scene]) -> None:
    """training.micro_batch = 1 computes every image alone."""
    s = scene(
        {"kind": KIND},
        model={"backbone": "resnet18", "image_size": [8, 8]},
        training={"batch_size": 4, "micro_batch": 1},
    )
    with pytest.raises(ConfigError, match=r"training\.micro_batch: found 1"):
        check_recipe(s.config, s.splits, s.model)
