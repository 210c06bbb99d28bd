"""How many folds are trained at a time, and what each process gets."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from classwise.compose.dataset import ReadData
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import CheckpointError
from classwise.kfold import jobs, training
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.plan import fold_runs
from classwise.run.predictor import preserve_torch_state
from classwise.run.unattended import Outcome
from classwise.training.loop import never


def config_of(device: str = "cpu", **folds: object) -> Config:
    return make_config(
        {
            "data": {"source": "samples.csv"},
            "targets": {"label": {"column": "label"}},
            "training": {"device": device},
            "folds": folds,
        }
    )


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has four; nothing runs on them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(jobs, "device_of", lambda name, processes: torch.device(name))
    monkeypatch.delenv(jobs.VISIBLE, raising=False)


def test_a_cpu_trains_one_fold_at_a_time() -> None:
    assert jobs.jobs_of(config_of()) == 1


def test_never_more_than_there_are_runs() -> None:
    assert jobs.jobs_of(config_of(count=3, repeats=2, jobs=50)) == 6


@pytest.mark.usefixtures("four_gpus")
def test_auto_is_one_for_each_gpu() -> None:
    assert jobs.jobs_of(config_of("cuda", count=5)) == 4
    assert jobs.environments(config_of("cuda")) == [{jobs.VISIBLE: str(number)} for number in range(4)]


@pytest.mark.usefixtures("four_gpus")
def test_a_named_gpu_is_the_only_one() -> None:
    assert jobs.jobs_of(config_of("cuda:1", count=5)) == 1
    assert jobs.environments(config_of("cuda:1")) == [{}]


@pytest.mark.usefixtures("four_gpus")
def test_the_gpus_of_the_environment_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jobs.VISIBLE, "2,GPU-7")
    assert jobs.environments(config_of("cuda")) == [{jobs.VISIBLE: "2"}, {jobs.VISIBLE: "GPU-7"}]


def test_cores_are_shared_unless_the_config_gives_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "core_count", lambda: 8)
    shared = jobs.with_shared_cores(config_of(), 2)
    assert (shared.training.threads, shared.data.workers) == (4, 1)
    assert jobs.with_shared_cores(config_of(), 1).training.threads == "auto"
    given = make_config(config_of().to_dict() | {"training": {"threads": 3, "device": "cpu"}})
    assert jobs.with_shared_cores(given, 2).training.threads == 3


def test_shared_features_are_computed_with_the_threads_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when folds are resumed, whose process has torch's own number until then: the key of the features in the
    cache has that of the config."""
    seen = []
    read: Any = None
    monkeypatch.setattr(jobs, "wants_first_answer", lambda config: True)
    monkeypatch.setattr(jobs, "prepare", lambda *_, **__: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(jobs, "new_model", lambda *_: SimpleNamespace(model=None, heads=None))
    monkeypatch.setattr(jobs, "compute_features", lambda *_, **__: seen.append(torch.get_num_threads()))
    config = make_config(config_of().to_dict() | {"training": {"threads": 2, "device": "cpu"}})
    with preserve_torch_state():
        torch.set_num_threads(1)
        jobs.share_features(config, read, Console(quiet=True), never)
    assert seen == [2, 2]


def test_an_error_between_two_folds_ends_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here metrics.json of a fold that has ended cannot be read; the error, still at hand, holds the generator."""
    ended = []

    def endings(runs: list[Any], *_: object, **__: object) -> Iterator[tuple[Any, Outcome]]:
        try:
            yield runs[0], Outcome("finished")
        finally:
            ended.append(True)

    monkeypatch.setattr(training, "share_features", lambda *_: None)
    monkeypatch.setattr(training, "in_processes", endings)
    config, read = config_of(count=2), ReadData.__new__(ReadData)
    runs = fold_runs(config)
    status = training.FoldsStatus(FoldsFolder(tmp_path), {}, runs)
    with pytest.raises(CheckpointError) as error:
        list(training._in_processes(status, runs, 2, config, read, Console(quiet=True), never))
    assert ended, error
