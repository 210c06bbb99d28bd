"""One update: the micro-batches that it is made of, and what comes of them before the optimizer's step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from classwise.data.batch import Batch, Rows
from classwise.distributed import Processes
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer

NO_LOSS = torch.zeros(())
ScalarLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Normalizer], Tensor]


@dataclass(slots=True)
class Update:
    """The micro-batches of one update, and what their forward and backward passes have come to.

    `normalizer`: what the summed loss of all micro-batches is divided by, in all processes. `chunk_size`: the most
    images that are computed at once, 0 for whole micro-batches. `statistics_before`: batch norm's running statistics
    from before the update. `total`: the loss of the whole update, on the device (times the loss scale until it is
    checked); `norm`: the gradient's, where it is clipped; `samples`: images in all processes; `nonempty_chunks`:
    chunks in this one, without those of a process that has no share. `loss` is `total` on the host, 0 until the device
    reports it.
    """

    micro_batches: Sequence[Batch]
    first_micro_batch_idx: int
    chunk_size: int
    normalizer: Normalizer
    statistics_before: Sequence[Tensor]
    losses: list[Tensor] = field(default_factory=list)
    total: Tensor = NO_LOSS
    norm: Tensor | None = None
    samples: int = 0
    nonempty_chunks: int = 0
    loss: float = 0.0
    _rows: Sequence[Rows] = ()

    def chunks(self) -> Iterator[tuple[int, int, Batch]]:
        """(micro_batch_idx, chunk_idx, chunk) of everything that is computed at once, in order."""
        for micro_batch_idx, batch in enumerate(self.micro_batches, start=self.first_micro_batch_idx):
            for chunk_idx, chunk in enumerate(batch.parts(self.chunk_size)):
                self.nonempty_chunks += len(chunk) > 0
                yield micro_batch_idx, chunk_idx, chunk

    @property
    def rows(self) -> Sequence[Rows]:
        """The numbers of the rows of each micro-batch, in this process."""
        return self._rows or [batch.rows for batch in self.micro_batches]

    def free_batches(self) -> None:
        """Forget the images and losses, once the passes are over; the row numbers stay."""
        self._rows = self.rows
        self.micro_batches = ()
        self.losses = []

    def add(self, loss: Tensor) -> None:
        """Add the loss of one chunk to the update's."""
        self.losses.append(loss.detach())


def update_normalizer(
    criterion: Criterion, micro_batches: Sequence[Batch], chunk_size: int, processes: Processes
) -> Normalizer:
    """What the losses of an update are divided by: the sum over all its micro-batches, in all processes."""
    # Several processes have to take the same branch, and one of them may have no labeled rows: they always count.
    single = processes.world_size == 1
    if single and len(micro_batches) == 1 and not 0 < chunk_size < len(micro_batches[0]):
        # May still be a row count, for which a loss takes torch's own mean.
        return criterion.normalizer(micro_batches[0].targets, micro_batches[0].complete)
    parts = [criterion.normalizer(batch.targets, single and batch.complete) for batch in micro_batches]
    return Normalizer(processes.total(sum(parts[1:], start=parts[0]).values))


def total_loss(losses: Sequence[Tensor], in_float64: bool) -> Tensor:
    """The sum of the losses; a single one as it is, unless `in_float64`."""
    if len(losses) == 1 and not in_float64:
        return losses[0]
    return torch.stack(list(losses)).sum(dtype=torch.float64)


def restore(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Set every buffer to its value from before."""
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)


def scaled_loss(criterion: Criterion, scaler: torch.amp.GradScaler) -> ScalarLoss:
    """The criterion, in fp16 times the loss scale, so that small gradients do not vanish on their way back; without a
    loss scale it is the criterion itself."""
    if not scaler.is_enabled():
        return criterion

    def scaled(
        outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], normalizer: Normalizer
    ) -> Tensor:
        loss: Tensor = scaler.scale(criterion(outputs, targets, normalizer))
        return loss

    return scaled
