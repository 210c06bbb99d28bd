"""Sums in shared memory, with threads in place of processes: each maps the file by itself."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classwise import collectives
from classwise.errors import ClasswiseError
from classwise.shared_sums import SharedSums, _new_file

THREE = 3


def in_three(work: Callable[[int, SharedSums], Any], bucket_bytes: int) -> list[Any]:
    """What `work` gives for each of three ranks at the same time."""
    barrier = threading.Barrier(THREE, timeout=60)
    flags = [False] * THREE
    path = [b""]

    def broadcast(data: bytes | None) -> bytes:
        if data is not None:
            path[0] = data
        barrier.wait()
        return path[0]

    def of(rank: int) -> Any:
        def any_failed(failed: bool) -> bool:
            flags[rank] = failed
            barrier.wait()
            return any(flags)

        return work(rank, SharedSums(rank, THREE, barrier.wait, broadcast, any_failed, bucket_bytes))

    with ThreadPoolExecutor(THREE) as pool:
        return list(pool.map(of, range(THREE)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bucket_bytes", [16, 64, 4096])
def test_sums_are_those_of_one_process_that_adds_in_the_order_of_ranks(
    dtype: torch.dtype, bucket_bytes: int
) -> None:
    sizes = [1, 0, 7, 30, 3]
    drawn = [
        [
            torch.randn(size, generator=torch.Generator().manual_seed(10 * rank + size)).to(dtype)
            for size in sizes
        ]
        for rank in range(THREE)
    ]

    def twice(rank: int, sums: SharedSums) -> list[Tensor]:
        tensors = [tensor.clone() for tensor in drawn[rank]]
        sums.add_up(tensors)
        sums.add_up(tensors)
        return tensors

    for found in in_three(twice, bucket_bytes):
        for number, tensor in enumerate(found):
            a, b, c = (drawn[rank][number] for rank in range(THREE))
            once = a + b + c
            assert torch.equal(tensor, once + once + once)


def test_the_file_of_the_memory_has_no_name_once_all_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tempfile.mkstemp
    names: list[Path] = []

    def noted(*args: Any, **options: Any) -> tuple[int, str]:
        handle, name = made(*args, **options)
        names.append(Path(name))
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", noted)
    there = in_three(lambda rank, sums: [name.exists() for name in names], 64)
    assert len(names) == 1
    assert there == [[False]] * THREE


def test_a_folder_that_cannot_be_written_to_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tempfile.mkstemp

    def refused(*args: Any, **options: Any) -> tuple[int, str]:
        if options["dir"] == Path("/dev/shm"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return made(*args, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    path, problem = _new_file(1000)
    assert path is not None
    assert not problem
    assert path.parent == Path(tempfile.gettempdir())
    assert path.stat().st_size == 1000
    path.unlink()


def test_without_room_every_process_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    barrier = threading.Barrier(THREE, timeout=60)

    def of(rank: int) -> str:
        def agreed(value: Any) -> Any:
            barrier.wait()
            return value or b""

        with pytest.raises(ClasswiseError) as error:
            SharedSums(rank, THREE, barrier.wait, agreed, agreed)
        return str(error.value)

    with ThreadPoolExecutor(THREE) as pool:
        said = list(pool.map(of, range(THREE)))
    assert all("67,108,864 bytes" in text and "--shm-size" in text for text in said)
    assert "No space left on device" in said[0]
    assert not list(Path(tempfile.gettempdir()).glob("classwise-sums-*"))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_flat_gradient_is_in_the_order_of_its_parameter(layout: torch.memory_format) -> None:
    parameter = nn.Parameter(torch.zeros(4, 3, 2, 5).to(memory_format=layout))
    for other in (torch.contiguous_format, torch.channels_last):
        gradient = torch.randn(4, 3, 2, 5).to(memory_format=other)
        parameter.grad = gradient.clone()
        flat = collectives._flat_gradient(parameter)
        as_parameter = torch.zeros_like(parameter).copy_(gradient)
        assert torch.equal(flat, as_parameter.as_strided((120,), (1,)))
        flat.mul_(2)  # a view: what is written to it is written to the gradient
        assert torch.equal(parameter.grad, 2 * gradient)
