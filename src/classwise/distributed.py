"""Several processes that train one model, started by `torchrun`: what they send each other.

Every process holds the whole model and knows the order of all rows, and computes its share of each update's
micro-batches. Gradients are summed, never averaged, because the criterion divides by the normalizer of all shares: the
sum is the gradient of one process with the same micro-batches. Why not DistributedDataParallel:
docs/decisions/0018-processes.md.

A process that is alone sends nothing: every method below then returns what it was given, and torch, which takes
seconds to import, is not needed. What several send with it is in collectives.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from classwise import errors
from classwise.errors import ClasswiseError, ImageError, OutOfMemory

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


class Processes:
    """Process number `rank` (from 0) of `world_size`; `local_rank` and `local_world_size` count those on this machine.
    Rank 0 is the main process: it alone writes files and prints."""

    def __init__(
        self, rank: int = 0, world_size: int = 1, local_rank: int = 0, local_world_size: int | None = None
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.local_world_size = world_size if local_world_size is None else local_world_size

    @property
    def is_main_process(self) -> bool:
        """Whether this process has rank 0, the only one that writes and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            from classwise import collectives

            collectives.sum_in_place(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; parameters without one are left out, the same ones
        in each process."""
        if self.world_size > 1:
            from classwise import collectives

            collectives.sum_gradients(parameters)

    def merge_statistics(
        self, model: nn.Module, buffers: Sequence[Tensor], before: Sequence[Tensor], batches: int
    ) -> None:
        """Set batch norm's running statistics to what one process would have got that computes all batches in turn.
        `before`: the model's `buffers` at the start of the update; `batches`: the forward passes (chunks) that this
        process has made since.

        With momentum m, k batches turn a statistic r into (1 - m)^k r + c. Processes that start from the same
        r each know their own c, and what comes after in turn makes it fade: r' = (1 - m)^K r + sum of
        (1 - m)^(batches of later processes) c. A norm without momentum (a mean over all time) is weighted by
        the counts. Synchronized norms agree already.
        """
        if self.world_size > 1:
            from classwise import collectives

            collectives.merge_statistics(model, buffers, before, batches)

    def require_same_weights(self, model: nn.Module) -> None:
        """ClasswiseError unless the sum of the weights is the same in every process, as it is if all start alike and
        take the same steps."""
        if self.world_size > 1:
            from classwise import collectives

            self.require_same(collectives.sum_of_weights(model).hex(), "the weights")

    def gather_outputs(
        self, outputs: Mapping[str, Tensor], sizes: Sequence[int]
    ) -> Iterator[dict[str, Tensor]]:
        """The outputs (B, K) by head of each process, in the order of ranks; `sizes`: the rows of each, for as many
        processes as have any."""
        if self.world_size == 1:
            yield dict(outputs)
            return
        from classwise import collectives

        yield from collectives.gather_outputs(outputs, sizes)

    def total(self, numbers: Tensor | list[float]) -> Tensor | list[float]:
        """The sums over all processes; plain numbers stay plain numbers."""
        if self.world_size == 1:
            return numbers
        from classwise import collectives

        return collectives.total(numbers)

    def count(self, number: int) -> int:
        """The sum over all processes of a whole number."""
        if self.world_size == 1:
            return number
        from classwise import collectives

        return collectives.count(number)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        if self.world_size == 1:
            return list(flags)
        from classwise import collectives

        return collectives.any_of(flags)

    def all_gather_object(self, value: Any) -> list[Any]:
        """The value of every process in the order of ranks; values are plain (JSON)."""
        if self.world_size == 1:
            return [value]
        from classwise import collectives

        return [json.loads(data) for data in collectives.gather_bytes(json.dumps(value).encode())]

    def on_all_ranks(self, work: Callable[[], T]) -> T:
        """Every process does `work` and gets its own result; if it fails in one of them, all raise."""
        error, found = None, None
        try:
            found = work()
        except Exception as problem:
            error = problem
        self._raise_any(error)
        return found  # type: ignore[return-value]

    @contextlib.contextmanager
    def sync_errors(self) -> Iterator[None]:
        """An error inside the block of one process is raised in all of them; too little memory as OutOfMemory."""
        error: Exception | None = None
        try:
            yield
        except Exception as problem:
            if _ran_out_of_memory(problem):
                error = OutOfMemory(str(problem).splitlines()[0])
            elif self.world_size == 1:
                raise
            else:
                error = problem
        self._raise_any(error)

    def from_rank_zero(self, work: Callable[[], T]) -> T:
        """Rank 0 does `work`; all processes get its result, a plain value (JSON), or raise its error."""
        if self.world_size == 1:
            return work()
        found = self.on_all_ranks(lambda: work() if self.is_main_process else None)
        result: T = self.all_gather_object(found)[0]
        return result

    def broadcast(self, data: bytes | None) -> bytes:
        """The bytes that rank 0 gives, in all processes; the others give None."""
        if self.world_size == 1:
            assert data is not None
            return data
        from classwise import collectives

        return collectives.broadcast(data)

    def in_lockstep(self, items: Iterable[T]) -> Iterator[T]:
        """The items, of which every process has the same number; an error in getting one is raised in all processes."""
        return iter(items) if self.world_size == 1 else self._in_lockstep(iter(items))

    def _in_lockstep(self, iterator: Iterator[T]) -> Iterator[T]:
        end = object()
        while (item := self.on_all_ranks(lambda: next(iterator, end))) is not end:
            yield item  # type: ignore[misc]

    def require_same(self, value: str, what: str) -> None:
        """ClasswiseError unless every process gives the same text; `what` names it in the message."""
        found = self.all_gather_object(value)
        other = [rank for rank, theirs in enumerate(found) if theirs != found[0]]
        if other:
            error = ClasswiseError(
                f"{what} of process {other[0]} of {self.world_size} differs from that of process 0; all need the same"
                " files and versions"
            )
            error.reported_by_rank_zero = not self.is_main_process
            raise error

    def _raise_any(self, error: Exception | None) -> None:
        """Raise in all processes if one of them has an error; rank 0 reports it."""
        if not self.any(error is not None)[0]:
            return
        if self.world_size == 1:
            assert error is not None
            raise error
        found = self.all_gather_object(error and _error_to_json(error))
        rank = next(rank for rank, problem in enumerate(found) if problem)
        if error is None:
            error = _error_from_json(found[rank], f"process {rank} of {self.world_size}: ")
        if isinstance(error, ClasswiseError):
            error.reported_by_rank_zero = not self.is_main_process
        raise error


SINGLE_PROCESS = Processes()


@contextlib.contextmanager
def process_group() -> Iterator[Processes]:
    """The processes that `torchrun` has started, joined; a single process without it."""
    if launched_world_size() == 1:
        yield SINGLE_PROCESS
        return
    from classwise import collectives

    with collectives.joined() as (rank, world_size):
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield Processes(rank, world_size, local_rank, local_world_size)


def launched_world_size() -> int:
    """How many processes `torchrun` has started, by its environment variable; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _ran_out_of_memory(error: Exception) -> bool:
    """Whether a device of torch's has no memory left. Who raises that error has imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _error_to_json(error: Exception) -> dict[str, Any]:
    if isinstance(error, ImageError):
        return {"type": "ImageError", "path": str(error.path), "text": error.reason}
    return {"type": type(error).__name__, "text": str(error)}


def _error_from_json(packed: Mapping[str, Any], where: str) -> Exception:
    if packed["type"] == "ImageError":
        return ImageError(Path(packed["path"]), f"{packed['text']} (found by {where.removesuffix(': ')})")
    kind = getattr(errors, packed["type"], None)
    if isinstance(kind, type) and issubclass(kind, ClasswiseError):
        return kind(f"{where}{packed['text']}")
    return RuntimeError(f"{where}{packed['type']}: {packed['text']}")
