"""What the validation rows come to: outputs in, scores out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from classwise.data.loader import ValidationData
from classwise.distributed import Processes
from classwise.errors import NonFiniteError
from classwise.losses.criterion import Criterion
from classwise.metrics.collection import MetricCollection, flat_scores

ROWS_AT_ONCE = 4096


class ValidationResults:
    """The outputs of the validation rows, collected batch by batch, and counted ROWS_AT_ONCE at a time: counting many
    batches at once costs as much as counting one.

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
        self.criterion = criterion
        self.metrics = metrics
        self.processes = processes
        self._labels = valid.targets(device)
        self._normalizer = criterion.normalizer(self._labels)
        self._loss = torch.zeros((), device=device, dtype=torch.float64)
        self._collected: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._row_count = 0
        metrics.reset()

    def update(self, outputs: dict[str, Tensor], rows_by_rank: Sequence[Tensor]) -> None:
        """Add this process's outputs, by head, and those of all other processes; `rows_by_rank` are the row numbers
        that each process has computed."""
        sizes = [len(rows) for rows in rows_by_rank]
        self._collected += zip(rows_by_rank, self.processes.gather_outputs(outputs, sizes), strict=True)
        self._row_count += sum(sizes)
        if self._row_count >= ROWS_AT_ONCE:
            self._count()

    def compute(self) -> dict[str, float]:
        """Every score by name (see `flat_scores`), and `loss`. Raises NonFiniteError where a score would leave rows
        out or the loss is not finite."""
        if self._collected:
            self._count()
        if self.metrics.invalid:
            raise NonFiniteError(f"validation: {self.metrics.invalid} rows have no finite prediction")
        if not torch.isfinite(self._loss):
            raise NonFiniteError(
                f"validation: the loss is {float(self._loss)}; predictions are finite, but too far off"
            )
        scores = flat_scores(self.metrics.compute())
        return scores | {"loss": float(self._loss)} if self.criterion.additive else scores

    def _count(self) -> None:
        """Add what has been collected to the metrics and to the loss."""
        rows = torch.cat([rows for rows, _ in self._collected])
        names = self._collected[0][1]
        outputs = {name: torch.cat([batch[name] for _, batch in self._collected]) for name in names}
        targets = {name: labels[rows] for name, labels in self._labels.items()}
        self.metrics.update(outputs, targets)
        if self.criterion.additive:
            self._loss += self.criterion(outputs, targets, self._normalizer)
        self._collected.clear()
        self._row_count = 0
