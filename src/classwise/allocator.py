"""glibc's malloc while a model computes.

By default it maps every block of more than 32 MB anew and unmaps it when it is freed, and the system clears each page
of it once more when it is first written to. The output of an early layer for 32 images is larger than that, so a
forward pass of a small network spends more time on pages than on arithmetic: figures in
docs/decisions/0068-kept-memory.md. Nothing that is computed depends on where it lies.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence

# The numbers of glibc's malloc.h. A block is mapped from the threshold on, while fewer than M_MMAP_MAX are; free memory
# at the end of the heap goes back to the system from M_TRIM_THRESHOLD on.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4

KEEP = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))
# What a process has that has freed a large block, since the thresholds follow the blocks up to these sizes.
USUAL = ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**26))
# With one of these, the user has set some of the options.
USERS_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

_lock = threading.Lock()
_blocks = 0  # how many blocks of `kept_memory` this process is in


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """A block in which freed memory is kept for what comes next; at its end the system gets back what is free. Another
    C library's malloc stays as it is, and so do options that the environment sets."""
    global _blocks
    with _lock:
        _blocks += 1
        if _blocks == 1:
            _set_options(KEEP)
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                _set_options(USUAL)
                return_free_memory()


def return_free_memory() -> None:
    """Give the system back what malloc has free, where that is glibc's, which keeps gigabytes after a training step. A
    forked worker would hold the old copy of each such page that its parent writes to again."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library has no such function
            ctypes.CDLL(None).malloc_trim(0)


def _set_options(options: Sequence[tuple[int, int]]) -> None:
    if sys.platform == "linux" and not _are_set_by_user():
        with contextlib.suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in options:
                mallopt(option, value)


def _are_set_by_user() -> bool:
    return any(name in os.environ for name in USERS_OWN) or "glibc.malloc." in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
