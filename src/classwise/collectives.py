"""What several processes send each other, with torch.distributed: the work behind `Processes` (distributed.py), which
calls these where there is more than one."""

import contextlib
import datetime
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from classwise.shared_sums import SharedSums

# Rank 0 may check images and score baselines for a long time while the others wait for the result.
TIMEOUT = datetime.timedelta(hours=2)
BUCKET = 1 << 24  # numbers that are sent together: 64 MB of float32


@contextlib.contextmanager
def joined() -> Iterator[tuple[int, int]]:
    """Rank and number of the processes that `torchrun` has started, joined for the block unless they are already."""
    begun = not dist.is_initialized()
    if begun:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        if begun:
            _shared_sums.cache_clear()
            dist.destroy_process_group()


def sum_in_place(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes; parameters without one are left out, the same ones in each
    process."""
    learning = [parameter for parameter in parameters if parameter.grad is not None]
    for dtype, device in dict.fromkeys((parameter.dtype, parameter.device) for parameter in learning):
        flat = [_flat_gradient(p) for p in learning if (p.dtype, p.device) == (dtype, device)]
        if device.type == "cpu" and _are_on_one_machine():
            _shared_sums().add_up(flat)
            continue
        for bucket in _buckets(flat):
            sizes = [len(gradient) for gradient in bucket]
            torch._foreach_copy_(bucket, torch.split(sum_in_place(torch.cat(bucket)), sizes))


@torch.no_grad()
def merge_statistics(
    model: nn.Module, buffers: Sequence[Tensor], before: Sequence[Tensor], batches: int
) -> None:
    """See `Processes.merge_statistics` (distributed.py)."""
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
    everyones = _all_gather(own)
    counts = [int(count) for count in torch.stack([flat[0] for flat in everyones]).tolist()]
    changed = [torch.split(flat[1:], [s.numel() for s in statistics]) for flat in everyones]
    for i, norm in enumerate(norms):
        seen = old[id(norm.num_batches_tracked)].double()
        for j, statistic in enumerate((norm.running_mean, norm.running_var), start=2 * i):
            found = [parts[j] for parts in changed]
            statistic.copy_(_merged(old[id(statistic)], found, counts, norm.momentum, seen))
        norm.num_batches_tracked.copy_(seen + sum(counts))


@torch.no_grad()
def sum_of_weights(model: nn.Module) -> float:
    """The sum of all parameters and buffers of this process's model, in float64."""
    tensors = [*model.parameters(), *model.buffers()]
    return float(torch.stack([tensor.sum(dtype=torch.float64) for tensor in tensors]).sum())


def gather_outputs(outputs: Mapping[str, Tensor], sizes: Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """See `Processes.gather_outputs`."""
    names, widths = list(outputs), [value.shape[1] for value in outputs.values()]
    flat_BK = torch.cat(list(outputs.values()), dim=1)
    padded_BK = flat_BK.new_zeros(max(sizes), flat_BK.shape[1])
    own = min(len(flat_BK), len(padded_BK))
    padded_BK[:own] = flat_BK[:own]
    for found_BK, size in zip(_all_gather(padded_BK), sizes, strict=False):
        yield dict(zip(names, torch.split(found_BK[:size], widths, dim=1), strict=True))


def total(numbers: Tensor | list[float]) -> Tensor | list[float]:
    """The sums over all processes; plain numbers stay plain numbers."""
    if isinstance(numbers, Tensor):
        return sum_in_place(numbers)
    found: list[float] = sum_in_place(torch.tensor(numbers, dtype=torch.float64)).tolist()
    return found


def count(number: int) -> int:
    """The sum over all processes of a whole number."""
    return int(sum_in_place(torch.tensor(number)))


def any_of(flags: Sequence[bool]) -> list[bool]:
    """For each flag, whether it is set in any process."""
    found = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def gather_bytes(data: bytes) -> list[bytes]:
    """The bytes of every process in the order of ranks."""
    own = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    sizes = [int(size) for size in _all_gather(torch.tensor([len(own)]))]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(own)] = own
    parts = zip(_all_gather(padded), sizes, strict=True)
    return [part[:size].numpy().tobytes() for part, size in parts]


def broadcast(data: bytes | None) -> bytes:
    """The bytes that rank 0 gives, in all processes; the others give None."""
    size = sum_in_place(torch.tensor([len(data or b"")]))
    sent = torch.zeros(int(size), dtype=torch.uint8)
    if data is not None:
        sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(sent, 0)
    return sent.numpy().tobytes()


def _all_gather(tensor: Tensor) -> list[Tensor]:
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(found, tensor)
    return found


def _flat_gradient(parameter: nn.Parameter) -> Tensor:
    """The numbers of a gradient in the order of the parameter's memory, which is the same in every process, as a view
    (N,): in another order, all of them would be copied once more (channels_last)."""
    assert parameter.grad is not None
    order = sorted(range(parameter.dim()), key=parameter.stride, reverse=True)
    gradient = parameter.grad.permute(order)
    if not gradient.is_contiguous():
        gradient = gradient.contiguous()
        parameter.grad = gradient.permute([order.index(dimension) for dimension in range(parameter.dim())])
    return gradient.view(-1)


def _are_on_one_machine() -> bool:
    """Whether `torchrun` has started all processes on this machine."""
    return os.environ.get("LOCAL_WORLD_SIZE") == str(dist.get_world_size())


@functools.cache
def _shared_sums() -> SharedSums:
    """The memory in which the processes of this machine add up gradients, made when they first do."""
    return SharedSums(
        dist.get_rank(),
        dist.get_world_size(),
        wait=lambda: sum_in_place(torch.zeros(1)),
        broadcast=broadcast,
        any_failed=lambda failed: any_of([failed])[0],
    )


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients together, up to BUCKET numbers at a time."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(map(len, bucket)) + len(gradient) > BUCKET:
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
