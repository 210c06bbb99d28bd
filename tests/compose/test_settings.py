"""The device and the number of workers of a process."""

import pytest
import torch

from classwise.compose.settings import core_count, device_of, worker_count
from classwise.errors import ConfigError
from tests.helpers.noisy_images import CPU


@pytest.mark.parametrize("name", ["tpu", "mps", "cpu:1", "cuda:99", "no device", ""])
def test_a_device_that_there_is_not(name: str) -> None:
    """Whatever torch may think of the name: only auto, cpu and GPUs that are there."""
    with pytest.raises(ConfigError, match=r"training\.device: found"):
        device_of(name)


def test_worker_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is taken as it is; auto is one a core up to 16 for a GPU, a quarter of the cores up to 8 for a CPU."""
    gpu = torch.device("cuda")
    for cores, on_cpu, on_gpu in ((1, 0, 1), (2, 0, 2), (8, 2, 8), (128, 8, 16)):
        monkeypatch.setattr("classwise.compose.settings.core_count", lambda cores=cores: cores)
        assert (worker_count("auto", CPU), worker_count("auto", gpu)) == (on_cpu, on_gpu)
        assert worker_count(5, CPU) == worker_count(5, gpu) == 5


def test_processes_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 cores a process alone may use all, each of four that torchrun has started there four, and always one."""
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert core_count() == 16
    for processes, cores in (("1", 16), ("4", 4), ("32", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert core_count() == cores
