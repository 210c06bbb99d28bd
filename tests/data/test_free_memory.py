"""Memory that was freed is not held when workers are forked."""

from pathlib import Path

import numpy as np
import pytest

from classwise.data.workers import return_free_memory

BLOCK, COUNT = 64 * 1024, 3000  # too small for pages of their own; 188 MB together


def resident_megabytes() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


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
