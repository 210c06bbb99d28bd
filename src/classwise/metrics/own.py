"""A metric in the user's own file, and the test that it has to pass before a run begins.

It is a function of all predictions and targets of a split, or a class that is updated batch by batch:

    def cost(predictions, targets):
        wrong = predictions.argmax(1) != targets
        return -wrong.double().mean().item()

    class Cost:
        def reset(self): ...
        def update(self, predictions, targets): ...
        def compute(self): ...

Higher is better, as for scikit-learn's scorers: of an error return the negative. Rows without a label, and rows without
a finite prediction, are left out before. All are tensors on the host:

    type              predictions                targets
    class, ordinal    probabilities (N, K)       class numbers (N,), int64
    multilabel        probabilities (N, L)       0 and 1 (N, L), NaN where unknown
    regression        values (N,)                values (N,), in the unit of the column
    ranking           scores (N,)                relevance and number of the query (N, 2), int64
"""

import itertools
import math
from collections.abc import Sequence
from inspect import isclass
from typing import Any

import torch
from torch import Tensor

from classwise.errors import ConfigError
from classwise.model.heads import Head, probabilities
from classwise.own_parts.reference import short, split_reference
from classwise.own_parts.source import admitted, failure_text, load, made_by

TOLERANCE = 1e-6
"""By which the order of the rows may change a value: sums are rounded."""
DRAWN_ROWS = 64
CUTS = ((0, 64), (0, 5, 6, 40, 64), (0, 33, 64))
"""Batches that the drawn rows come in."""


class OwnMetric:
    """A metric of the user's own over one target, whose outputs are decoded by `head`.

    `key`: of the config; `labels`: the target's label list, for a part with such a parameter. Raises TrustError,
    ConfigError.
    """

    def __init__(self, reference: str, key: str, head: Head, labels: Sequence[str] = ()) -> None:
        self.name = split_reference(reference)[1]
        self.type = head.type
        self._where = f"{key}: {short(reference)}"
        self._source = admitted(reference, key)
        self._rows: list[tuple[Tensor, Tensor]] = []
        part = load(reference, key)
        made = made_by(part, {}, offered={"labels": list(labels)}, source=self._source, table=key)
        self._function = None if isclass(part) else made
        self._counted: Any = made if isclass(part) else None
        missing = [
            name for name in ("update", "compute", "reset") if isclass(part) and not hasattr(made, name)
        ]
        if missing:
            raise ConfigError(
                f"{self._where} has no {' and no '.join(missing)}; allowed: a class with update(predictions, targets),"
                " compute() and reset(), or a function of predictions and targets"
            )
        self.reset()

    def update(self, decoded: Tensor, targets: Tensor) -> None:
        """Count one batch of decoded outputs (heads.py) and targets; waits for the device. Raises ConfigError with the
        line that fails."""
        counted_B = counted_rows(decoded, targets, self.type)
        predictions = probabilities(decoded, self.type)[counted_B].cpu()
        targets = targets[counted_B].cpu()
        if self._function is not None:
            self._rows.append((predictions, targets))
        elif len(targets):
            self._attempt(self._counted.update, predictions, targets)

    def reset(self) -> None:
        """Start again from zero. Raises ConfigError."""
        self._rows.clear()
        if self._counted is not None:
            self._attempt(self._counted.reset)

    def compute(self) -> float | None:
        """The value; None where it is not a finite number. Raises ConfigError for anything else than a number."""
        if self._function is None:
            found = self._attempt(self._counted.compute)
        else:
            predictions, targets = (torch.cat(part) for part in zip(*self._rows, strict=True))
            found = self._attempt(self._function, predictions, targets)
        if isinstance(found, Tensor) and found.numel() == 1:
            found = found.item()
        try:
            value = float(found)
        except (TypeError, ValueError):
            raise ConfigError(f"{self._where} returned {type(found).__name__}, allowed: a number") from None
        return value + 0.0 if math.isfinite(value) else None  # no -0.0

    def _attempt(self, work: Any, *arguments: Tensor) -> Any:
        try:
            return work(*arguments)
        except Exception as error:  # the user's code raises anything
            raise ConfigError(f"{self._where} fails: {failure_text(error, self._source)}") from error


def counted_rows(decoded: Tensor, targets: Tensor, type: str) -> Tensor:
    """Which rows (B,) have a label and a finite prediction."""
    is_finite_B = decoded.reshape(len(decoded), -1).isfinite().all(dim=1)
    if type == "multilabel":
        return is_finite_B & ~targets.isnan().all(dim=1)
    if type == "regression":
        return is_finite_B & targets.isfinite()
    return is_finite_B & ((targets[:, 0] if type == "ranking" else targets) >= 0)


def check_own_metric(
    reference: str, key: str, head: Head, labels: Sequence[str], taken: Sequence[str]
) -> None:
    """Raise ConfigError unless the metric's value is one of the whole set, however its rows come, on drawn rows.

    `taken`: the names that scores of classwise have.
    """
    where = f"{key}: {short(reference)}"
    name = split_reference(reference)[1]
    if name in taken:
        raise ConfigError(f"{where} has the name of a score of classwise, {name!r}; give it another")
    metric = OwnMetric(reference, key, head, labels)
    decoded, targets = _drawn(head)
    values = []
    with torch.random.fork_rng(devices=[]):
        for cuts in CUTS:
            for order_N in (torch.arange(DRAWN_ROWS), _other_order(head.type)):
                metric.reset()
                for start, end in itertools.pairwise(cuts):
                    rows = order_N[start:end]
                    metric.update(decoded[rows], targets[rows])
                values.append(metric.compute())
    finite = [value for value in values if value is not None]
    if len(finite) < len(values):
        raise ConfigError(f"{where} is not a finite number for drawn predictions of {DRAWN_ROWS} rows")
    if max(finite) - min(finite) > TOLERANCE * max(1.0, abs(finite[0])):
        raise ConfigError(
            f"{where} is {finite[0]:.6g}, and {next(v for v in finite if v != finite[0]):.6g} for the same rows in"
            " other batches or another order, after reset(); allowed: a value of the whole set: count in `update`,"
            " divide in `compute`, and set everything back in `reset`"
        )


def _other_order(type: str) -> Tensor:
    """Of the drawn rows; those of one query stay together, in theirs."""
    if type == "ranking":
        return torch.arange(DRAWN_ROWS).view(-1, 8).flip(0).reshape(-1)
    return torch.randperm(DRAWN_ROWS, generator=torch.Generator().manual_seed(1))


def _drawn(head: Head) -> tuple[Tensor, Tensor]:
    """Decoded outputs and targets of some rows, a few of them without a label."""
    draw = torch.Generator().manual_seed(0)
    rows = DRAWN_ROWS
    decoded = head.decode(torch.randn(rows, head.outputs, generator=draw))
    if head.type == "multilabel":
        targets = torch.randint(0, 2, (rows, head.outputs), generator=draw).double()
        targets[::9] = torch.nan
    elif head.type == "regression":
        targets = decoded + torch.randn(rows, generator=draw, dtype=torch.float64)
        targets[::9] = torch.nan
    else:
        count = head.classes or 3
        targets = torch.randint(0, count, (rows,), generator=draw)
        targets[:count] = torch.arange(rows)[:count] % count
        targets[count + 1 :: 9] = -1
        if head.type == "ranking":
            targets = torch.stack([targets, torch.arange(rows) // 8], dim=1)
    return decoded, targets
