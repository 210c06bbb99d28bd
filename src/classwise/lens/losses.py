"""The loss of each row, and how the rows become one number: weights, normalizers, heads, micro-batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from classwise.lens.recorder import Recording
from classwise.losses.base import Loss
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer
from classwise.losses.own import RowLoss
from classwise.losses.weighted_sum import WeightedSum


@dataclass(frozen=True)
class Term:
    """A sum over the rows divided by a normalizer. `rows` (N,): what each row adds to the sum, weights included;
    `shares` (N,): what it adds to the normalizer. Of a ranking one entry a query. `weight`: the term's within its
    head."""

    name: str
    rows: tuple[float, ...]
    shares: tuple[float, ...]
    normalizer: float
    weight: float

    @property
    def total(self) -> float:
        """The sum over the rows."""
        return sum(self.rows)

    @property
    def value(self) -> float:
        """The sum divided by the normalizer."""
        return self.total / self.normalizer if self.normalizer else 0.0


@dataclass(frozen=True)
class HeadLoss:
    """The loss of one target. `terms`: empty where it is no sum over rows (`why`). `value`: of the whole update, before
    `weight`; `learned`: the weight that is learned besides, None for none. `by`: what the entries of its terms are,
    "row" or "query"; `names`: of these entries, where they are no rows."""

    name: str
    loss: str
    terms: tuple[Term, ...]
    value: float
    weight: float
    learned: float | None
    by: str = "row"
    why: str = ""
    names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()

    def row_loss(self, row: int) -> float | None:
        """What a row (or query) adds to the loss of the update, before the target's weight."""
        if not self.terms:
            return None
        return sum(
            term.weight * term.rows[row] / term.normalizer if term.normalizer else 0.0 for term in self.terms
        )


@dataclass(frozen=True)
class ChunkLoss:
    """What was computed at once: its rows, what it adds to the loss of the update, and the mean over its own rows."""

    micro_batch: int
    chunk: int
    rows: int
    loss: float
    own_mean: float


@dataclass(frozen=True)
class Reduction:
    """How the loss of the update comes about. `mean_of_means`: what the mean of the chunks' own means would be, which
    is another number wherever they count differently."""

    heads: tuple[HeadLoss, ...]
    chunks: tuple[ChunkLoss, ...]
    total: float
    mean_of_means: float


@torch.no_grad()
def reduction_of(recording: Recording) -> Reduction:
    """From what was recorded, by the criterion as it was before the step."""
    criterion = recording.criterion
    targets = joined([chunk.targets for chunk in recording.chunks])
    outputs = joined([chunk.outputs for chunk in recording.chunks])
    heads = _head_losses(criterion, outputs, targets, recording.normalizer)
    chunks = []
    for chunk in recording.chunks:
        own = float(criterion(chunk.outputs, chunk.targets)) if len(recording.chunks) > 1 else chunk.loss
        chunks.append(
            ChunkLoss(chunk.micro_batch_idx + 1, chunk.chunk_idx + 1, len(chunk.rows), chunk.loss, own)
        )
    return Reduction(
        heads=heads,
        chunks=tuple(chunks),
        total=recording.total,
        mean_of_means=sum(chunk.own_mean for chunk in chunks) / len(chunks),
    )


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by name, one part after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _head_losses(
    criterion: Criterion,
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    normalizer: Normalizer,
) -> tuple[HeadLoss, ...]:
    losses = [cast(Loss, loss) for loss in criterion.losses]
    normalizers = normalizer.split([loss.terms for loss in losses])
    learned = criterion.learned_weights()
    found = []
    for name, loss, weight, own in zip(criterion.names, losses, criterion.weights, normalizers, strict=True):
        is_ranking = targets[name].ndim == 2 and targets[name].dtype == torch.int64
        pieces: list[Any] = [slice(row, row + 1) for row in range(len(targets[name]))]
        names: tuple[str, ...] = ()
        if is_ranking:
            query_of = targets[name][:, 1].tolist()
            numbers = list(dict.fromkeys(query_of))
            pieces = [[row for row, query in enumerate(query_of) if query == number] for number in numbers]
            names = tuple(f"query {number}" for number in numbers)
        found.append(
            HeadLoss(
                name=name,
                loss=_inner_name(loss),
                terms=_terms(loss, outputs[name], targets[name], own, pieces) if loss.additive else (),
                value=_value(loss, outputs[name], targets[name], own),
                weight=float(weight),
                learned=learned.get(name),
                by="query" if is_ranking else "row",
                why=""
                if loss.additive
                else "it is no sum over rows: the counts of all rows enter a fraction",
                names=names,
                class_weights=_class_weights(loss),
            )
        )
    return tuple(found)


def _value(loss: Loss, outputs: Tensor, targets: Tensor, normalizer: Normalizer) -> float:
    # Torch's own mean is only for a batch that is computed whole.
    whole = Normalizer(normalizer.values) if loss.additive else normalizer
    return float(loss(outputs, targets, whole))


def _terms(
    loss: Loss, outputs: Tensor, targets: Tensor, normalizer: Normalizer, pieces: Sequence[Any]
) -> tuple[Term, ...]:
    """The loss of each piece alone, undivided, term by term."""
    parts: list[tuple[Loss, float]] = [(loss, 1.0)]
    if isinstance(loss, WeightedSum):
        parts = [(cast(Loss, part), weight) for part, weight in zip(loss.losses, loss.weights, strict=True)]
    divisors = normalizer.split([part.terms for part, _ in parts])
    found = []
    for (part, weight), divisor in zip(parts, divisors, strict=True):
        if part.terms != 1:
            return ()  # a sum within a sum
        one = Normalizer([1.0])
        found.append(
            Term(
                name=_inner_name(part),
                rows=tuple(float(part(outputs[piece], targets[piece], one)) for piece in pieces),
                shares=tuple(part.normalizer(targets[piece]).tolist()[0] for piece in pieces),
                normalizer=divisor.tolist()[0],
                weight=float(weight),
            )
        )
    return tuple(found)


def _inner_name(loss: Any) -> str:
    """The class of a loss and of the one in it; of a loss of the user's own its NAME."""
    if isinstance(loss, RowLoss):
        rows = getattr(loss.rows, "func", loss.rows)  # a function with arguments is a partial
        return str(getattr(rows, "__name__", type(rows).__name__))
    inner = getattr(loss, "loss", None)
    return type(loss).__name__ if inner is None else f"{type(loss).__name__} {type(inner).__name__}"


def _class_weights(loss: Any) -> tuple[float, ...]:
    """Those that apply in this epoch; none where all classes weigh the same."""
    weight_K = getattr(loss, "active_weight", None)
    return () if weight_K is None else tuple(np.asarray(weight_K.cpu(), np.float64).tolist())
