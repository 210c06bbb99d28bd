"""What a run has found out is not found out again by the next one, unless something has changed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from classwise.compose import autotune, remembered
from classwise.data.memory import FolderMemory
from classwise.run import api, beginning
from classwise.run.folder import RunFolder
from classwise.training.tuning import TuningResult
from tests.helpers.scenes import PLAIN, many_table, plain_table, write_config

FOUND = TuningResult(
    precision="bf16", threads=1, workers=0, seconds=0.1 + 0.2, memory_format="contiguous", fused=False
)
OPEN: dict[str, Any] = {
    "training__precision": "auto",
    "training__epochs": 1,
    "training__threads": "auto",
    "data__workers": "auto",
    "report__resamples": 0,
}


class Counted:
    """How often each thing was found out."""

    def __init__(self) -> None:
        self.measured = 0
        self.baselines = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counted:
    """A memory of its own, no run too short for it, and measurements that take no time."""
    counted = Counted()
    run_baselines = beginning.run_baselines

    def tune(*_: Any, **__: Any) -> list[TuningResult]:
        counted.measured += 1
        return [FOUND, dataclasses.replace(FOUND, precision="fp32", seconds=1.0)]

    def baselines(*arguments: Any, **options: Any) -> Any:
        counted.baselines += 1
        return run_baselines(*arguments, **options)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(autotune, "MIN_BATCHES", 1)
    monkeypatch.setattr(autotune, "tune", tune)
    monkeypatch.setattr(beginning, "run_baselines", baselines)
    return counted


@pytest.fixture
def folder(tmp_path: Path, counted: Counted) -> Path:
    """A table with labels of four types."""
    many_table(tmp_path, 48)
    return tmp_path


def train(folder: Path, values: dict[str, Any] = PLAIN, **changes: Any) -> Path:
    """The folder of a new run."""
    changes = {"data__unlabeled": "skip", **OPEN, **changes}
    return api.train(
        write_config(folder, values, **changes), folder / "runs" / _next(folder), quiet=True
    ).path


def _next(folder: Path) -> str:
    runs = folder / "runs"
    return f"{len(list(runs.iterdir())) if runs.exists() else 0:03}"


def test_the_second_run_finds_out_nothing(folder: Path, counted: Counted) -> None:
    """Its config, baselines and measurements are those of the first, to the byte, and its log says where from."""
    first, second = train(folder), train(folder)
    assert (counted.measured, counted.baselines) == (1, 1)
    assert (first / "config.toml").read_bytes() == (second / "config.toml").read_bytes()
    statuses = [RunFolder(run).status() for run in (first, second)]
    assert (
        statuses[0]["measured"]
        == statuses[1]["measured"]
        == [
            dataclasses.asdict(FOUND),
            dataclasses.asdict(dataclasses.replace(FOUND, precision="fp32", seconds=1.0)),
        ]
    )
    assert statuses[0]["baselines"] == statuses[1]["baselines"]
    assert "remembered" not in (first / "log.txt").read_text()
    log = (second / "log.txt").read_text()
    assert "remembered as the fastest here: bf16, 1 thread, 0 workers, contiguous, not fused" in log
    assert "remembered, as nothing has changed: macro_f1: the most frequent class" in log
    assert "scoring two baselines" not in log


@pytest.mark.parametrize(
    ("changes", "measured", "baselines"),
    [
        ({"training__batch_size": 4}, 2, 1),
        ({"model__image_size": [24, 16]}, 2, 2),
        ({"model__backbone": "small_cnn_gn"}, 2, 1),
        ({"optimizer": {"name": "sgd"}}, 2, 1),
        ({"training__threads": 1}, 2, 1),
        ({"data__augment": "strong"}, 2, 1),
        ({"selection": {"metric": "accuracy"}}, 1, 2),
        ({"selection": {"prior": "balanced"}}, 1, 2),
        ({"data__valid": 0.5}, 1, 2),
        ({"seed": 7}, 1, 2),  # another split
        ({"optimizer": {"lr": 0.01}}, 1, 1),
        ({"name": "other", "training__epochs": 2}, 1, 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_has_changed_is_found_out_again(
    folder: Path, counted: Counted, changes: dict[str, Any], measured: int, baselines: int
) -> None:
    """And nothing else."""
    train(folder)
    train(folder, **changes)
    assert (counted.measured, counted.baselines) == (measured, baselines)


def test_another_image_or_label_gives_other_baselines(folder: Path, counted: Counted) -> None:
    """The bytes of the images and the labels count, not their names."""
    train(folder)
    image = folder / "images/01.png"
    image.write_bytes((folder / "images/02.png").read_bytes())
    train(folder)
    assert (counted.measured, counted.baselines) == (1, 2)


@pytest.mark.parametrize("what", ["package_versions", "_processor", "core_count", "VERSION"])
def test_another_machine_or_version_finds_out_again(
    folder: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A cache may be on a disk that machines share, and packages are updated."""
    train(folder)
    other: Any = {
        "package_versions": lambda *names: {"torch": "99"},
        "_processor": lambda: "another",
        "core_count": lambda: 99,
        "VERSION": 99,
    }[what]
    monkeypatch.setattr(remembered, what, other)
    train(folder)
    assert (counted.measured, counted.baselines) == (2, 2)


def test_without_a_cache_nothing_is_remembered(folder: Path, counted: Counted) -> None:
    """data.cache = "off" turns off reading and writing."""
    train(folder, data__cache="off")
    assert not (folder / "cache").exists()
    train(folder)
    train(folder, data__cache="off")
    assert (counted.measured, counted.baselines) == (3, 3)


DAMAGED_RESULTS: list[Any] = [
    None,
    3,
    [],
    ["x"],
    [{"precision": "bf16"}],
    [{**dataclasses.asdict(FOUND), "precision": "fp8"}],
    [{**dataclasses.asdict(FOUND), "precision": []}],
    [{**dataclasses.asdict(FOUND), "threads": 0}],
    [{**dataclasses.asdict(FOUND), "workers": True}],
    [{**dataclasses.asdict(FOUND), "seconds": "fast"}],
    [{**dataclasses.asdict(FOUND), "compile": 1}],
    [{**dataclasses.asdict(FOUND), "fused": 0}],
    [{**dataclasses.asdict(FOUND), "other": 0}],
]
DAMAGED_BASELINES: list[dict[str, Any] | None] = [
    None,
    {},
    {"metric": "accuracy"},
    {"most_frequent": None},
    {"linear_probe": "good"},
    {"probe_on": 1},
    {"kind": []},
    {"kind": "none"},
    {"notes": 3},
    {"notes": [3]},
    {"other": 1},
]


def test_damaged_findings_are_found_out_again(folder: Path, counted: Counted) -> None:
    """Whatever stands in the files, no run fails of it: it measures and scores, and then they are whole again."""
    train(folder)
    (memory,) = (folder / "cache/classwise").glob("remembered-*")
    measured, scored = (next(iter(memory.glob(f"{kind}-*"))) for kind in ("measured", "baselines"))
    entries = [json.loads(path.read_text()) for path in (measured, scored)]
    kept = FolderMemory(memory)
    for found in DAMAGED_RESULTS:
        kept.keep("measured", entries[0]["key"], found)
        assert remembered.recall_results(kept, entries[0]["key"]) == [], found
    for change in DAMAGED_BASELINES:
        entry = {**entries[1]["found"], **change} if change else change
        kept.keep("baselines", entries[1]["key"], entry)
        assert remembered.recall_baselines(kept, entries[1]["key"]) is None, change
    measured.write_bytes(b"{")
    train(folder)
    assert (counted.measured, counted.baselines) == (2, 2)
    train(folder)
    assert (counted.measured, counted.baselines) == (2, 2)


def test_pretrained_baselines_depend_on_the_weights(folder: Path, counted: Counted) -> None:
    """Features of other weights are others, also under the same file name."""
    from safetensors.torch import save_file

    from classwise.model.classifier import build_classifier

    def save_weights(seed: int) -> None:
        model = build_classifier(
            "small_cnn", "none", (16, 16), fit="squash", dropout=0.0, heads={"label": 3}, seed=seed
        )
        tensors = {name: tensor.contiguous() for name, tensor in model.backbone.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")

    save_weights(0)
    changes = {"model__weights": str(folder / "weights.safetensors"), "training__plan": "finetune"}
    train(folder, **changes)
    train(folder, **changes)
    assert counted.baselines == 1
    save_weights(1)
    train(folder, **changes)
    assert (counted.measured, counted.baselines) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({"training__epochs": 9}, 0),  # 5 batches of 8 rows an epoch are 45
        ({"training__epochs": 10}, 1),
        ({"training__epochs": 12, "training__freeze_epochs": 3}, 0),
        ({"training__epochs": 13, "training__freeze_epochs": 3}, 1),
        ({"training__epochs": 99, "training__freeze_epochs": 99}, 0),
        ({"training__epochs": 99, "training__precision": "fp32"}, 0),
    ],
    ids=["short", "long", "frozen first", "long after that", "a linear probe", "given"],
)
def test_only_runs_that_win_it_back_measure(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], measured: int
) -> None:
    """From MIN_BATCHES on that train the backbone; else a fixed choice, and a line in the log. Baselines are scored."""

    class EnoughError(Exception):
        """The run has got to its baselines."""

    def stop(config: Any, *_: Any, **__: Any) -> Any:
        assert (config.training.precision == "bf16") == bool(measured)
        raise EnoughError

    plain_table(tmp_path, 53)
    monkeypatch.setattr(autotune, "MIN_BATCHES", 50)
    monkeypatch.setattr(beginning, "run_baselines", stop)
    with pytest.raises(EnoughError):
        train(tmp_path, **{**changes, "data__valid": 0.25})
    assert counted.measured == measured
