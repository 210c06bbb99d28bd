"""Settings that are measured once for all runs of a kind, and what makes a kind."""

from pathlib import Path
from typing import Any

import pytest

from classwise.compare.plan import PlannedRun
from classwise.compare.plan_file import PlanFile
from classwise.compare.tuning import SharedTuning
from classwise.config.load import make_config


def planned(folder: Path, **sections: Any) -> PlannedRun:
    """A run whose precision is to be measured."""
    values = {
        "data": {"source": "samples.csv"},
        "targets": {"label": {"column": "label"}},
        "model": {"image_size": [64, 64]},
        "training": {"precision": "auto"},
    }
    config = make_config(values | sections)
    return PlannedRun(variant=folder.name, seed=42, folder=folder, overrides=(), config=config)


@pytest.mark.parametrize(
    ("sections", "is_same_kind"),
    [
        ({"loss": {"name": "focal"}}, True),
        ({"optimizer": {"lr": 0.5}}, True),
        ({"model": {"image_size": [96, 64]}}, False),
        ({"model": {"image_size": [64, 64], "backbone": "resnet18"}}, False),
        ({"optimizer": {"name": "sgd"}}, False),
        ({"training": {"precision": "auto", "threads": 2}}, False),
    ],
)
def test_a_run_waits_only_for_a_measurement_of_its_own_kind(
    tmp_path: Path, sections: dict[str, Any], is_same_kind: bool
) -> None:
    """Another model, image size, optimizer or given setting is measured for itself; another loss or learning rate is
    trained as fast."""
    first = planned(tmp_path / "first")
    second = planned(tmp_path / "second", **sections)
    plan = PlanFile(tmp_path / "compare.json", variants={}, runs=[], plans={})
    tuning = SharedTuning(file=plan, runs=[first, second], jobs=1)
    assert tuning.resolve_auto(first) == first.config
    assert tuning.resolve_auto(second) == (None if is_same_kind else second.config)
