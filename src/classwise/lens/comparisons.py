"""What would have been: the update as micro-batches or as one batch, in eval mode, without gradients; and after it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.lens.gradients import part_names
from classwise.lens.graph import count_nodes
from classwise.lens.losses import joined
from classwise.lens.recorder import Recording
from classwise.lens.trial import Tensors, Trial, concatenated, flat, is_active_dropout, taken
from classwise.losses.normalizer import Normalizer
from classwise.model.batch_norm import batch_norms
from classwise.run.assembly import Parts
from classwise.training import loop

T = TypeVar("T")
MOST_ROWS = 32
MOST_PIXELS = 32 * 112 * 112
"""What is compared with several passes has at most so many rows, and of large images fewer: it should take no longer
than the update, and fit the memory where the update has to be cut up for that."""
LEAST_ROWS = 8
SAMPLED = 400
"""Numbers of the gradient that are drawn one against the other."""


@dataclass(frozen=True)
class PartDifference:
    """The gradient of a part of the model: its norm by one batch, by two micro-batches with the normalizer of the
    update, and by the mean of two means; and the norms of the differences of these two from the first."""

    name: str
    one: float
    two: float
    means: float
    two_difference: float
    means_difference: float


@dataclass(frozen=True)
class Accumulation:
    """Two micro-batches against one batch. `sizes`: rows of the two, `of_rows`: of the update; `parts`, and `whole` for
    all of them; `points`: (one batch, two micro-batches, mean of means) of some numbers. `norms`: layers of batch norm
    that see other images in the two; `whole_frozen`: with these at their running statistics, None without such layers.
    `dropout`: its layers, which are off. `why`: why there is no comparison, else empty."""

    sizes: tuple[int, int] = (0, 0)
    parts: tuple[PartDifference, ...] = ()
    whole: PartDifference | None = None
    points: tuple[tuple[float, float, float], ...] = ()
    dropout: tuple[str, ...] = ()
    norms: int = 0
    whole_frozen: PartDifference | None = None
    of_rows: int = 0
    why: str = ""


@dataclass(frozen=True)
class Modes:
    """train() against eval() on the same rows. `differences`: the mean absolute difference of a raw output, by target.
    `statistic`: of the first batch norm that updates its statistics, (name, momentum, before, after) of its first
    channel's running mean."""

    train_loss: float
    eval_loss: float
    differences: dict[str, float]
    dropout: tuple[str, ...]
    norms: int
    frozen_norms: bool
    statistic: tuple[str, float | None, float, float] | None = None


@dataclass(frozen=True)
class GradMode:
    """A forward pass with and without gradients. `nodes`: of the graph; `kept`: bytes that it keeps for the backward
    pass, beside weights."""

    rows: int
    nodes: int
    kept: int
    nodes_without: int
    kept_without: int
    equal: bool


@dataclass(frozen=True)
class After:
    """The same rows once more, with the weights after the step, everything else as in the update."""

    loss: float
    outputs: Tensors


@dataclass(frozen=True)
class Comparisons:
    """All of them. None where memory did not suffice."""

    accumulation: Accumulation | None
    modes: Modes | None
    grad_mode: GradMode | None
    after: After | None
    missing: tuple[str, ...] = ()


def compare(parts: Parts, recording: Recording) -> Comparisons:
    """All comparisons, on copies of the model. Torch's random state and the run's state stay as they are."""
    missing: list[str] = []

    def attempt(what: str, work: Callable[[Trial], T], tensors: Tensors) -> T | None:
        try:
            return work(Trial(parts, recording, tensors))
        except torch.OutOfMemoryError:
            missing.append(what)
            return None

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return Comparisons(
            accumulation=attempt("two micro-batches", lambda t: accumulation(t, parts), recording.before),
            modes=attempt("train and eval", lambda t: modes(t, recording), recording.before),
            grad_mode=attempt("no_grad", grad_mode, recording.before),
            after=attempt("after the step", after_step, recording.after),
            missing=tuple(missing),
        )


def accumulation(trial: Trial, parts: Parts) -> Accumulation:
    """One batch, two micro-batches as the loop accumulates them, and the mean of two means."""
    if not trial.criterion.additive:
        return Accumulation(why="This loss is no sum over rows, so it cannot be accumulated.")
    whole = concatenated(trial.batches)
    rows = len(whole)
    limited = taken(whole, slice(0, most_rows(whole.images)))
    cut = _cut(limited, parts)
    if cut is None:
        return Accumulation(why="There is nothing to divide: the update has a single row, or a single query.")
    halves = [taken(limited, slice(0, cut)), taken(limited, slice(cut, None))]
    dropout = trial.without_dropout()

    # Not a row count, which only a batch that is computed whole may use: the sums are the same in all three.
    total = Normalizer(trial.normalizer(halves).values)

    def gradients() -> tuple[Tensors, Tensors, Tensors]:
        return (
            trial.gradient([limited], [total]),
            trial.gradient(halves, [total, total]),
            trial.gradient(halves, [None, None], scale=0.5),
        )

    one, two, means = gradients()
    names = list(one)
    norms = trial.model.batch_dependent_norms if limited.images.ndim == 4 else []
    frozen = None
    if norms:
        # The same without what batch norm does, which is another question.
        for norm in norms:
            norm.eval()
        frozen = _difference("all", names, *gradients())
    found: dict[str, list[str]] = {}
    for name, part in part_names(names).items():
        found.setdefault(part, []).append(name)
    return Accumulation(
        sizes=(len(halves[0]), len(halves[1])),
        parts=tuple(_difference(part, of, one, two, means) for part, of in found.items()),
        whole=_difference("all", names, one, two, means),
        points=_points(one, two, means),
        dropout=tuple(dropout),
        norms=len(norms),
        whole_frozen=frozen,
        of_rows=rows,
    )


def most_rows(images: Tensor) -> int:
    """Rows that are compared with several passes."""
    pixels = images.shape[-1] * images.shape[-2] if images.ndim == 4 else 1
    return max(LEAST_ROWS, min(MOST_ROWS, MOST_PIXELS // pixels))


def _cut(batch: Batch, parts: Parts) -> int | None:
    """Where the first micro-batch ends: after two thirds of the rows, so that the two differ in size as the last one of
    an epoch differs from the others; at the end of a query where these stay whole. None if there is no such place."""
    rows = len(batch)
    if parts.data.queries is None:
        return None if rows < 2 else max(1, round(rows * 2 / 3))
    queries = parts.data.queries[batch.rows]
    ends = [row for row in range(1, rows) if queries[row] != queries[row - 1]]
    return min(ends, key=lambda end: abs(end - rows * 2 / 3), default=None)


def _difference(name: str, names: list[str], one: Tensors, two: Tensors, means: Tensors) -> PartDifference:
    first, second, third = (flat(found[key] for key in names) for found in (one, two, means))
    return PartDifference(
        name=name,
        one=float(first.norm()),
        two=float(second.norm()),
        means=float(third.norm()),
        two_difference=float((second - first).norm()),
        means_difference=float((third - first).norm()),
    )


def _points(one: Tensors, two: Tensors, means: Tensors) -> tuple[tuple[float, float, float], ...]:
    """The same numbers of the three gradients: evenly spaced among the largest, where differences can be seen."""
    first, second, third = (flat(found[key] for key in one) for found in (one, two, means))
    largest = first.abs().topk(min(20 * SAMPLED, len(first))).indices
    chosen = largest[:: max(1, len(largest) // SAMPLED)]
    columns = (found[chosen].tolist() for found in (first, second, third))
    return tuple(zip(*columns, strict=True))


@torch.no_grad()
def modes(trial: Trial, recording: Recording) -> Modes:
    """The recorded outputs, which are those of training mode, against those of eval mode."""
    model = trial.model
    dropout = [name for name, module in model.named_modules() if is_active_dropout(module)]
    norms = model.batch_dependent_norms
    model.eval()
    found = joined([trial.outputs(chunk.images) for chunk in recording.chunks])
    trained = joined([chunk.outputs for chunk in recording.chunks])
    targets = joined([chunk.targets for chunk in recording.chunks])
    normalizer = recording.normalizer
    return Modes(
        train_loss=recording.total,
        eval_loss=float(trial.criterion(found, targets, Normalizer(normalizer.values)))
        if trial.criterion.additive
        else float(trial.criterion(found, targets)),
        differences={name: float((found[name] - trained[name]).abs().mean()) for name in found},
        dropout=tuple(dropout),
        norms=len(norms),
        frozen_norms=bool(batch_norms(model)) and not norms,
        statistic=_statistic(trial, recording),
    )


def _statistic(trial: Trial, recording: Recording) -> tuple[str, float | None, float, float] | None:
    changing = set(map(id, trial.model.batch_dependent_norms))
    for name, module in trial.model.named_modules():
        key = f"{name}.running_mean"
        if id(module) not in changing or key not in recording.before:
            continue
        before, after = recording.before[key].flatten()[0], recording.after[key].flatten()[0]
        if before != after:
            return name, getattr(module, "momentum", None), float(before), float(after)
    return None


def grad_mode(trial: Trial) -> GradMode:
    """The forward pass of some rows twice: what a graph for the backward pass costs."""
    images = trial.recording.chunks[0].images
    images = images[: most_rows(images)]
    statistics = [(buffer, buffer.clone()) for buffer in trial.model.statistics]

    def forward(has_grad: bool) -> tuple[Tensors, int]:
        loop.seed_dropout(trial.settings, trial.recording.number - 1, 0, 0)
        kept: dict[int, int] = {}
        own = {
            tensor.untyped_storage().data_ptr()
            for tensor in itertools.chain(trial.model.parameters(), trial.model.buffers())
        }

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.set_grad_enabled(has_grad), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            outputs = trial.outputs(images)
        for buffer, value in statistics:
            buffer.copy_(value)
        return outputs, sum(kept.values())

    with_grad, kept = forward(True)
    nodes = count_nodes(list(with_grad.values()))
    without, kept_without = forward(False)
    return GradMode(
        rows=len(images),
        nodes=nodes,
        kept=kept,
        nodes_without=count_nodes(list(without.values())),
        kept_without=kept_without,
        equal=all(torch.equal(with_grad[name], without[name]) for name in without),
    )


@torch.no_grad()
def after_step(trial: Trial) -> After:
    """The update's forward passes with the new weights: the same images, dropout and batches."""
    outputs, loss = [], 0.0
    for chunk, found in trial.update_outputs():
        normalizer = trial.recording.normalizer
        loss += float(trial.criterion(found, chunk.targets, normalizer))
        outputs.append(found)
    return After(loss=loss, outputs=joined(outputs))
