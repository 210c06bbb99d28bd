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
from classwise.lens.recorder import Recording, norm_of
from classwise.lens.trial import Tensors, Trial, concatenated, is_active_dropout, taken
from classwise.losses.normalizer import Normalizer
from classwise.model.batch_norm import batch_norms
from classwise.report.svg import Point
from classwise.run.assembly import Parts
from classwise.training import loop

T = TypeVar("T")
MOST_ROWS = 32
MOST_PIXELS = 32 * 48 * 48
LEAST_ROWS = 3
"""What takes several passes is compared on so many rows, of large images on few: all of it together should take less
time than the update, and fit the memory where the update has to be cut up for that."""
SAMPLED = 400
"""Numbers of the gradient that are drawn one against the other."""


@dataclass(frozen=True)
class PartDifference:
    """The gradient of a part of the model: its norm by one batch, by two micro-batches with the normalizer of both, as
    the loop computes it, and as the mean of two means; and the norms of the differences of these two from the first."""

    name: str
    one: float
    two: float
    two_difference: float
    means: float
    means_difference: float


@dataclass(frozen=True)
class Accumulation:
    """Two micro-batches against one batch, with dropout off and batch norm held at its running statistics.

    `sizes`: rows of the two, `of_rows`: of the update; `parts`, and `whole` for all of them; `two_points`,
    `means_points`: some numbers of the gradients, each with that of one batch first. `dropout`: its layers; `norms`:
    how many layers of batch norm are held still, and `norm_effect`: by what share of their size the raw outputs differ
    where they are not, None if that cannot be computed. `why`: why there is no comparison, else empty."""

    sizes: tuple[int, int] = (0, 0)
    parts: tuple[PartDifference, ...] = ()
    whole: PartDifference | None = None
    two_points: tuple[Point, ...] = ()
    means_points: tuple[Point, ...] = ()
    dropout: tuple[str, ...] = ()
    norms: int = 0
    norm_effect: float | None = None
    of_rows: int = 0
    why: str = ""


@dataclass(frozen=True)
class Modes:
    """train() against eval() on the same rows, with the loss over these alone. `differences`: the mean absolute
    difference of a raw output, by target. `statistic`: of the first batch norm that updates its statistics, (name,
    momentum, before, after) of its first channel's running mean."""

    rows: int
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
    trial = Trial(parts, recording)

    def attempt(what: str, work: Callable[[], T]) -> T | None:
        try:
            trial.reset(recording.before)
            return work()
        except torch.OutOfMemoryError:
            missing.append(what)
            return None

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return Comparisons(
            accumulation=attempt("two micro-batches", lambda: accumulation(trial, parts)),
            modes=attempt("train and eval", lambda: modes(trial, recording)),
            grad_mode=attempt("no_grad", lambda: grad_mode(trial)),
            after=attempt("after the step", lambda: after_step(trial)),
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

    # What batch norm does to the parts of a batch is another question than what the normalizer does.
    norms = trial.model.batch_dependent_norms if limited.images.ndim == 4 else []
    norm_effect = _norm_effect(trial, limited, halves) if norms else None
    for norm in norms:
        norm.eval()

    # Not a row count, which only a batch that is computed whole may use: the sums are the same in all three.
    total = Normalizer(trial.normalizer(halves).values)
    (one,) = trial.gradients([limited], [(total, 1.0)])
    two, means = trial.gradients(halves, [(total, 1.0), (None, 0.5)])
    found: dict[str, list[str]] = {}
    for name, part in part_names(one).items():
        found.setdefault(part, []).append(name)
    return Accumulation(
        sizes=(len(halves[0]), len(halves[1])),
        parts=tuple(_difference(part, of, one, two, means) for part, of in found.items()),
        whole=_difference("all", list(one), one, two, means),
        two_points=_points(one, two),
        means_points=_points(one, means),
        dropout=tuple(dropout),
        norms=len(norms),
        norm_effect=norm_effect,
        of_rows=rows,
    )


@torch.no_grad()
def _norm_effect(trial: Trial, whole: Batch, halves: list[Batch]) -> float | None:
    """By what share of their size the raw outputs of two micro-batches differ from those of one batch, in training
    mode. None where batch norm cannot take a part, which may be a single image."""
    statistics = [(buffer, buffer.clone()) for buffer in trial.model.statistics]
    try:
        one = trial.outputs(whole.images)
        two = joined([trial.outputs(half.images) for half in halves])
    except ValueError:
        return None
    finally:
        for buffer, value in statistics:
            buffer.copy_(value)
    size = norm_of(one.values())
    return norm_of(one[name] - two[name] for name in one) / size if size else None


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


def _difference(part: str, names: list[str], one: Tensors, two: Tensors, means: Tensors) -> PartDifference:
    return PartDifference(
        name=part,
        one=norm_of(one[name] for name in names),
        two=norm_of(two[name] for name in names),
        two_difference=norm_of(one[name] - two[name] for name in names),
        means=norm_of(means[name] for name in names),
        means_difference=norm_of(one[name] - means[name] for name in names),
    )


def _points(one: Tensors, other: Tensors) -> tuple[Point, ...]:
    """The same numbers of two gradients: some of each parameter, and of these the largest, where differences can be
    seen."""
    share = max(1, sum(gradient.numel() for gradient in one.values()) // (100 * SAMPLED))
    first = torch.cat([gradient.flatten()[::share] for gradient in one.values()])
    second = torch.cat([other[name].flatten()[::share] for name in one])
    largest = first.abs().topk(min(5 * SAMPLED, len(first))).indices
    chosen = largest[:: max(1, len(largest) // SAMPLED)]
    return tuple(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))


@torch.no_grad()
def modes(trial: Trial, recording: Recording) -> Modes:
    """The recorded outputs, which are those of training mode, against those of eval mode: of the first rows."""
    model, criterion = trial.model, trial.criterion
    dropout = [name for name, module in model.named_modules() if is_active_dropout(module)]
    norms = model.batch_dependent_norms
    model.eval()
    rows = most_rows(recording.chunks[0].images)
    images = torch.cat([chunk.images for chunk in recording.chunks])[:rows]
    found = trial.outputs(images)
    trained = {name: value[:rows] for name, value in joined([c.outputs for c in recording.chunks]).items()}
    targets = {name: value[:rows] for name, value in joined([c.targets for c in recording.chunks]).items()}
    return Modes(
        rows=len(images),
        train_loss=float(criterion(trained, targets)),
        eval_loss=float(criterion(found, targets)),
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
    trial.reset(trial.recording.after)
    outputs, loss = [], 0.0
    for chunk, found in trial.update_outputs():
        normalizer = trial.recording.normalizer
        loss += float(trial.criterion(found, chunk.targets, normalizer))
        outputs.append(found)
    return After(loss=loss, outputs=joined(outputs))
