"""Freed memory is kept while a model computes, and is not held when workers are forked."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from classwise.allocator import kept_memory, return_free_memory
from classwise.run.predictor import preserve_torch_state

BLOCK, COUNT = 64 * 1024, 3000  # too small for pages of their own; 188 MB together
LARGE = 2**26

has_malloc_info = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")
on_glibc = pytest.mark.skipif(not has_malloc_info, reason="glibc's malloc says how much it has mapped")


class MallocInfo(ctypes.Structure):
    """What mallinfo2 returns (malloc.h)."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def bytes_mapped_for(size: int) -> int:
    """The bytes that malloc maps for a block of this size alone; 0 where it takes the block from its heap."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallocInfo
    before = mallinfo().hblkhd
    block = torch.empty(size, dtype=torch.uint8)
    mapped: int = mallinfo().hblkhd - before
    assert len(block) == size
    return mapped


def resident_megabytes() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@on_glibc
def test_large_blocks_come_from_the_heap_within_a_block_and_within_blocks_in_it() -> None:
    with kept_memory():
        assert bytes_mapped_for(LARGE) == 0
        with kept_memory():
            assert bytes_mapped_for(LARGE) == 0
        assert bytes_mapped_for(LARGE) == 0


@on_glibc
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "100000"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=9")]
)
def test_options_of_the_environment_stay(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The heap may still have free addresses from another test: a block that is larger is mapped."""
    monkeypatch.setenv(name, value)
    with kept_memory():
        assert bytes_mapped_for(128 * LARGE) >= 128 * LARGE


def weights_after_updates() -> list[torch.Tensor]:
    """Of a small network, after three updates with blocks that malloc would map (38 MB and more)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 24, 3),
            torch.nn.BatchNorm2d(24),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(24, 2),
        )
        images = torch.rand(8, 3, 226, 226)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(images).logsumexp(1).sum().backward()
        optimizer.step()
    return [weight.detach() for weight in model.parameters()]


def test_nothing_that_is_computed_depends_on_it() -> None:
    usual = weights_after_updates()
    with kept_memory():
        kept = weights_after_updates()
    assert all(map(torch.equal, usual, kept))


@on_glibc
def test_prediction_and_training_keep_freed_memory() -> None:
    with preserve_torch_state():
        assert bytes_mapped_for(LARGE) == 0


def fail_with_a_block_of_512_megabytes() -> None:
    with kept_memory():
        torch.ones(8 * LARGE, dtype=torch.uint8)
        assert bytes_mapped_for(16 * LARGE) == 0
        raise ZeroDivisionError


@on_glibc
def test_afterwards_large_blocks_are_mapped_as_before_and_nothing_is_held() -> None:
    """Also where an error ends the block. The heap may still have free addresses: a block that is larger is mapped."""
    before = resident_megabytes()
    with pytest.raises(ZeroDivisionError):
        fail_with_a_block_of_512_megabytes()
    assert resident_megabytes() < before + 100
    assert bytes_mapped_for(128 * LARGE) >= 128 * LARGE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the resident size is read from /proc")
def test_what_malloc_has_free_goes_back_to_the_system() -> None:
    """Also where the last block is in use, behind which malloc cannot shorten its heap."""
    blocks = [np.ones(BLOCK, np.uint8) for _ in range(COUNT)]
    last = blocks[-1]
    del blocks
    before = resident_megabytes()
    return_free_memory()
    assert resident_megabytes() < before - 100
    assert last.all()
