"""What every end-to-end test starts from."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Images this small are slower with several threads, above all on a busy machine; and whole runs are
    compared byte by byte, where the number of threads counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
