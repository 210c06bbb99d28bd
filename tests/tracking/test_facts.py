"""What trackers are told: lines that keep every value, flat names, the numbers of an epoch and of the end."""

from pathlib import Path

import pytest

from classwise.config.load import make_config
from classwise.errors import ConfigError
from classwise.tracking import packages
from classwise.tracking.facts import (
    Ending,
    Point,
    epoch_values,
    final_scores,
    flat_parameters,
    from_line,
    to_line,
)
from tests.helpers.tracked import facts_of


def test_messages_survive_their_way(tmp_path: Path) -> None:
    ending = Ending(
        "finished", 3, 2.5, scores={"final/f1": 0.1 + 0.2}, confusion_images={"confusion/a\nb": "x.png"}
    )
    for message in (facts_of(tmp_path), Point(7, 1.25, {"a/b": float("inf")}, ends_epoch=True), ending):
        line = to_line(message)
        assert line.count(b"\n") == 1
        assert from_line(line) == message


def test_a_config_becomes_one_plain_value_a_key() -> None:
    tree = {
        "seed": 1,
        "data": {"valid": 0.2, "group": None},
        "targets": {"a": {"labels": ["ja", "né"]}},
        "on": True,
    }
    assert flat_parameters(tree) == {
        "seed": 1,
        "data.valid": 0.2,
        "targets.a.labels": '["ja", "né"]',
        "on": True,
    }


def test_an_epoch_is_named_by_what_the_numbers_are_of() -> None:
    row = {"epoch": 2, "train_loss": 0.5, "lr": 0.1, "seconds": 3.0, "images_per_second": 9.0}
    row |= {"valid": {"mask.macro_f1": 0.75}, "target_weights": {"mask": 0.4}, "skipped_updates": 1}
    assert epoch_values(row) == {
        "epoch": 2,
        "train/epoch_loss": 0.5,
        "train/lr": 0.1,
        "train/skipped_updates": 1,
        "train/weight.mask": 0.4,
        "time/epoch_seconds": 3.0,
        "time/images_per_second": 9.0,
        "valid/mask.macro_f1": 0.75,
    }


def test_the_end_has_the_scores_of_all_targets_and_of_the_test() -> None:
    one = {"type": "class", "samples": 9, "macro_f1": 0.5, "per_class": [], "confusion": [[1]]}
    metrics = {
        "metric": "joint.macro_f1",
        "value": 0.25,
        "targets": {"a": one, "b": one},
        "joint": {"kappa": 0},
    }
    wanted = {"a.macro_f1": 0.5, "b.macro_f1": 0.5, "joint.kappa": 0.0, "joint.macro_f1": 0.25}
    assert final_scores(metrics) == {f"final/{name}": value for name, value in wanted.items()}
    metrics = {"metric": "macro_f1", "value": None, "targets": {"a": one}, "joint": None}
    assert final_scores(metrics | {"test": metrics}) == {"final/macro_f1": 0.5, "test/macro_f1": 0.5}


def test_a_missing_package_is_named_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    packages.check_trackers(["csv", "tensorboard", "mlflow", "wandb"])
    monkeypatch.setitem(packages.PACKAGES, "wandb", ("no_such_package",))
    with pytest.raises(
        ConfigError, match=r"report\.trackers: found 'wandb'.*pip install \"classwise\[trackers\]\""
    ):
        packages.check_trackers(["csv", "wandb"])


def test_mlflow_without_a_server_needs_more_than_its_small_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    find_spec = packages.importlib.util.find_spec
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name: None if name == "sqlalchemy" else find_spec(name)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    packages.check_trackers(["mlflow"])
    for address in ("", "sqlite:///mlflow.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(ConfigError, match=r"Set MLFLOW_TRACKING_URI"):
            packages.check_trackers(["mlflow"])


def test_only_known_trackers_are_allowed() -> None:
    config = {"data": {"source": "x.csv"}, "targets": {"a": {"column": "a"}}}
    assert make_config({**config, "report": {"trackers": ["csv", "mlflow"]}}).report.trackers == (
        "csv",
        "mlflow",
    )
    with pytest.raises(ConfigError, match=r"report\.trackers.*'comet'"):
        make_config({**config, "report": {"trackers": ["comet"]}})
