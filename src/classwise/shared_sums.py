"""Sums over processes of one machine, in memory that they share: each adds up its part of the numbers, and reads the
parts of the others.

Sockets, over which gloo sends numbers on one machine too, copy every number through the kernel several times, on the
cores that are to train: for a ResNet-18 that took a fifth of an update. See docs/decisions/0070-shared-sums.md.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from classwise.errors import ClasswiseError

BUCKET_BYTES = 1 << 24
"""Of each process, and once more for the sums: 48 MB for two. The usual /dev/shm of a container has 64."""


class SharedSums:
    """Memory that `world_size` processes of one machine share; all of them have to make it and to use it alike.

    `wait`: returns once every process has called it. `broadcast`: the bytes that rank 0 gives, in all processes.
    `any_failed`: whether any process gives True. Raises ClasswiseError, in all of them, if there is no such memory.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        wait: Callable[[], object],
        broadcast: Callable[[bytes | None], bytes],
        any_failed: Callable[[bool], bool],
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.wait = wait
        size = (world_size + 1) * bucket_bytes
        path, problem = _new_file(size) if rank == 0 else (None, "")
        path = Path(os.fsdecode(broadcast(None if rank else os.fsencode(path or ""))))
        memory = None
        try:
            if path.is_absolute():
                memory = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
        except (OSError, RuntimeError) as error:
            problem = str(error)
        failed = any_failed(memory is None)
        # Its pages live as long as a process maps them; without a name, nothing is left if all processes are killed.
        if rank == 0 and path.is_absolute():
            path.unlink()
        if failed or memory is None:
            raise ClasswiseError(
                f"torchrun: {world_size} processes of one machine need {size:,} bytes of memory that they share, in"
                f" /dev/shm or the temporary folder {tempfile.gettempdir()}"
                + (f" ({problem})" if problem else "")
                + "; free some, or give a container more (docker: --shm-size)"
            )
        # A row for each process, and one for the sums.
        self._rows = memory.view(world_size + 1, bucket_bytes)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace flat tensors (N,) of one type by their sums over all processes, added in the order of ranks."""
        rows = self._rows.view(tensors[0].dtype)
        for pieces in _buckets(tensors, rows.shape[1]):
            sizes = [len(piece) for piece in pieces]
            count = sum(sizes)
            torch._foreach_copy_(torch.split(rows[self.rank, :count], sizes), pieces)
            self.wait()  # until every process has written its numbers

            # This process's part of the sums.
            part = slice(self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size)
            result = torch.add(rows[0, part], rows[1, part], out=rows[-1, part])
            for other in range(2, self.world_size):
                result += rows[other, part]
            self.wait()  # until every process has added up its part
            torch._foreach_copy_(pieces, torch.split(rows[-1, :count], sizes))


def _new_file(size: int) -> tuple[Path | None, str]:
    """A new file of so many bytes, which are there: writing to one that is only said to be so long ends the process
    where the file system is full. Without room anywhere: None, and why."""
    problem = ""
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        if not folder.is_dir():
            continue
        try:
            handle, name = tempfile.mkstemp(prefix="classwise-sums-", dir=folder)
        except OSError as error:  # no right to write there
            problem = f"{folder}: {error.strerror}"
            continue
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, size)
            else:  # macOS
                os.truncate(handle, size)
            return Path(name), ""
        except OSError as error:
            problem = f"{folder}: {error.strerror}"
            Path(name).unlink()
        finally:
            os.close(handle)
    return None, problem


def _buckets(tensors: Sequence[Tensor], capacity: int) -> list[list[Tensor]]:
    """Pieces of flat tensors, in order, of together at most `capacity` numbers."""
    buckets: list[list[Tensor]] = [[]]
    room = capacity
    for tensor in tensors:
        while len(tensor):
            if not room:
                buckets.append([])
                room = capacity
            piece, tensor = tensor[:room], tensor[room:]
            buckets[-1].append(piece)
            room -= len(piece)
    return [bucket for bucket in buckets if bucket]
