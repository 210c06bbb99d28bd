"""Several processes that train one model, started by `torchrun`: what they send each other.

Every process holds the whole model and knows the order of all rows, and computes its share of each update's
micro-batches. Gradients are summed, never averaged, because the criterion divides by the normalizer of all shares: the
sum is the gradient of one process with the same micro-batches. Why not DistributedDataParallel:
docs/decisions/0018-processes.md.

A process that is alone sends nothing: every method below then returns what it was given.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from classwise import errors
from classwise.errors import ClasswiseError, ImageError, OutOfMemory

T = TypeVar("T")
# Rank 0 may check images and score baselines for a long time while the others wait for the result.
TIMEOUT = datetime.timedelta(hours=2)
BUCKET = 1 << 24  # numbers that are sent together: 64 MB of float32


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
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; parameters without one are left out, the same ones
        in each process."""
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in _buckets(gradients):
            flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in bucket]))
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))

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
            self._merge_statistics(model, buffers, before, batches)

    @torch.no_grad()
    def _merge_statistics(
        self, model: nn.Module, buffers: Sequence[Tensor], before: Sequence[Tensor], batches: int
    ) -> None:
        # Those that have seen a batch: not those that are frozen, nor those of a backbone that was not called. Merging
        # would be right for them too, but for the last digits, which must not change.
        old = dict(zip((id(buffer) for buffer in buffers), before, strict=True))
        norms = [module for module in model.modules() if _has_own_statistics(module)]
        if not norms:
            return
        seen_by_norm = [norm.num_batches_tracked - old[id(norm.num_batches_tracked)] for norm in norms]
        is_used = torch.stack(seen_by_norm).tolist()
        norms = [norm for norm, used in zip(norms, is_used, strict=True) if used]
        if not norms:
            return
        statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var)]
        own = torch.cat([statistics[0].new_tensor([batches]), *(s.reshape(-1) for s in statistics)])
        everyones = self._all_gather(own)
        counts = [int(count) for count in torch.stack([flat[0] for flat in everyones]).tolist()]
        changed = [torch.split(flat[1:], [s.numel() for s in statistics]) for flat in everyones]
        for i, norm in enumerate(norms):
            seen = old[id(norm.num_batches_tracked)].double()
            for j, statistic in enumerate((norm.running_mean, norm.running_var), start=2 * i):
                found = [parts[j] for parts in changed]
                statistic.copy_(_merged(old[id(statistic)], found, counts, norm.momentum, seen))
            norm.num_batches_tracked.copy_(seen + sum(counts))

    @torch.no_grad()
    def require_same_weights(self, model: nn.Module) -> None:
        """ClasswiseError unless the sum of the weights is the same in every process, as it is if all start alike and
        take the same steps."""
        if self.world_size > 1:
            tensors = [*model.parameters(), *model.buffers()]
            total = torch.stack([tensor.sum(dtype=torch.float64) for tensor in tensors]).sum()
            self.require_same(float(total).hex(), "the weights")

    def gather_outputs(
        self, outputs: Mapping[str, Tensor], sizes: Sequence[int]
    ) -> Iterator[dict[str, Tensor]]:
        """The outputs (B, K) by head of each process, in the order of ranks; `sizes`: the rows of each, for as many
        processes as have any."""
        if self.world_size == 1:
            yield dict(outputs)
            return
        names, widths = list(outputs), [value.shape[1] for value in outputs.values()]
        flat_BK = torch.cat(list(outputs.values()), dim=1)
        padded_BK = flat_BK.new_zeros(max(sizes), flat_BK.shape[1])
        own = min(len(flat_BK), len(padded_BK))
        padded_BK[:own] = flat_BK[:own]
        for found_BK, size in zip(self._all_gather(padded_BK), sizes, strict=False):
            yield dict(zip(names, torch.split(found_BK[:size], widths, dim=1), strict=True))

    def total(self, numbers: Tensor | list[float]) -> Tensor | list[float]:
        """The sums over all processes; plain numbers stay plain numbers."""
        if self.world_size == 1:
            return numbers
        if isinstance(numbers, Tensor):
            return self.sum(numbers)
        found: list[float] = self.sum(torch.tensor(numbers, dtype=torch.float64)).tolist()
        return found

    def count(self, number: int) -> int:
        """The sum over all processes of a whole number."""
        return number if self.world_size == 1 else int(self.sum(torch.tensor(number)))

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        if self.world_size == 1:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def all_gather_object(self, value: Any) -> list[Any]:
        """The value of every process in the order of ranks; values are plain (JSON)."""
        if self.world_size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self._all_gather(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        parts = zip(self._all_gather(padded), sizes, strict=True)
        return [json.loads(part[:size].numpy().tobytes()) for part, size in parts]

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
        except torch.OutOfMemoryError as problem:
            error = OutOfMemory(str(problem).splitlines()[0])
        except Exception as problem:
            if self.world_size == 1:
                raise
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
        size = self.sum(torch.tensor([len(data or b"")]))
        sent = torch.zeros(int(size), dtype=torch.uint8)
        if data is not None:
            sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(sent, 0)
        return sent.numpy().tobytes()

    def in_lockstep(self, items: Iterable[T]) -> Iterator[T]:
        """The items, of which every process has the same number; an error in getting one is raised in all processes."""
        if self.world_size == 1:
            yield from items
            return
        iterator = iter(items)
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

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(found, tensor)
        return found

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
    begun = not dist.is_initialized()
    if begun:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    try:
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield Processes(dist.get_rank(), dist.get_world_size(), local_rank, local_world_size)
    finally:
        if begun:
            dist.destroy_process_group()


def launched_world_size() -> int:
    """How many processes `torchrun` has started, by its environment variable; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one precision together, up to BUCKET numbers at a time."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(g.numel() for g in bucket) + gradient.numel() > BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _has_own_statistics(module: nn.Module) -> TypeGuard[Any]:
    """Whether it is a batch norm whose running statistics are its process's own."""
    batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    synchronized = isinstance(module, nn.SyncBatchNorm)
    return batch_norm and not synchronized and module.running_mean is not None


def _merged(
    start: Tensor, found: Sequence[Tensor], counts: Sequence[int], momentum: float | None, seen: Tensor
) -> Tensor:
    """One statistic after the micro-batches of all processes in turn; `found` is where each has come on its own,
    `seen` the number of micro-batches before."""
    everyone = after = sum(counts)
    rest = 1 - (momentum or 0.0)

    def kept(count: int) -> float | Tensor:
        """The share of the old statistic that is left after so many micro-batches."""
        return seen / (seen + count) if momentum is None else rest**count

    result = kept(everyone) * start
    for count, flat in zip(counts, found, strict=True):
        after -= count
        if count:
            own = flat.view(start.shape) - kept(count) * start
            result += own * ((seen + count) / (seen + everyone) if momentum is None else rest**after)
    return result


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
