"""What the validation rows come to: outputs in, scores out."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.data.epochs import ValidationData
from classwise.distributed import Processes
from classwise.errors import NonFiniteError
from classwise.losses.criterion import Criterion
from classwise.metrics.collection import MetricCollection, flat_scores


class ValidationResults:
    """Hands the outputs of all validation rows to the metrics, those of other processes too.

    The loss is the criterion's over the whole set: the sum over all rows, divided by the normalizer of them all. A
    criterion that is not additive has none.
    """

    def __init__(
        self,
        criterion: Criterion,
        valid: ValidationData,
        metrics: MetricCollection,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.metrics = metrics
        self.has_loss = criterion.additive
        self._processes = processes
        self._labels = valid.targets(device)
        normalizer = criterion.normalizer(self._labels)

        def loss_of(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
            loss: Tensor = criterion(outputs, targets, normalizer)
            return loss

        metrics.reset(loss_of if self.has_loss else None)

    def update(self, batch: Batch, outputs: dict[str, Tensor], rows_by_rank: Sequence[Tensor]) -> None:
        """Add a batch with its outputs, by head; `rows_by_rank`: the rows that each process has computed meanwhile."""
        for outputs_of_rank, targets in self._of_all_ranks(batch, outputs, rows_by_rank):
            self.metrics.update(outputs_of_rank, targets, copy=False)  # fresh tensors, which nobody changes

    def compute(self) -> dict[str, float]:
        """Every score by name (see `flat_scores`), and `loss`. Raises NonFiniteError where a score would leave rows
        out, or the loss is not finite."""
        invalid, loss = self.metrics.invalid, self.metrics.loss
        if invalid:
            raise NonFiniteError(f"validation: {invalid} rows have no finite prediction")
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"validation: the loss is {float(loss)}; predictions are finite, but too far off"
            )
        scores = flat_scores(self.metrics.compute(), self.metrics.selected)
        if self.metrics.selected and self.metrics.selected not in scores:
            raise NonFiniteError(f"validation: {self.metrics.selected} is not a finite number")
        if self.has_loss:
            scores["loss"] = float(loss)
        return scores

    def _of_all_ranks(
        self, batch: Batch, outputs: dict[str, Tensor], rows_by_rank: Sequence[Tensor]
    ) -> Iterator[tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]:
        """(outputs, targets) of every process, in the order of ranks."""
        if self._processes.world_size == 1:
            yield outputs, batch.targets
            return
        sizes = [len(rows) for rows in rows_by_rank]
        gathered = self._processes.gather_outputs(outputs, sizes)
        for rows, outputs_of_rank in zip(rows_by_rank, gathered, strict=True):
            yield outputs_of_rank, {name: labels[rows] for name, labels in self._labels.items()}
