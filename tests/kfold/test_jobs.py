"""How many folds are trained at a time, and what each process gets."""

import pytest
import torch

from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.kfold import jobs


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
