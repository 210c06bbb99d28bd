"""What the page and the terminal show of an update: numbers and texts, computed once from the recording."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from classwise.lens.assembly import NewRun
from classwise.lens.comparisons import Comparisons, compare
from classwise.lens.formulas import WorkedOut, worked_out
from classwise.lens.gradients import Part, gradient_parts
from classwise.lens.losses import Reduction, joined, reduction_of
from classwise.lens.outputs import OutputTable, output_table, truths
from classwise.lens.recorder import Recording, named_parameters
from classwise.report.svg import Point
from classwise.report.thumbnails import Thumbnail, encode

MOST_ROWS = 48
"""Rows that are shown one by one; all of them are computed with."""
MOST_POINTS = 300


@dataclass(frozen=True)
class RowView:
    """One row of the update: its id, its image as the model got it, its labels, and which micro-batch it was in."""

    id: str
    image: Thumbnail
    truths: list[tuple[str, str]]
    micro_batch: int


@dataclass(frozen=True)
class GroupView:
    """A group of parameters of the optimizer: which part of the model, how many numbers, and its options."""

    part: str
    parameters: int
    numbers: int
    rate: float
    decay: float


@dataclass(frozen=True)
class OptimizerView:
    """The optimizer: its groups, and what it keeps, as (name, tensors, bytes)."""

    name: str
    groups: tuple[GroupView, ...]
    kept: tuple[tuple[str, int, int], ...]
    worked: WorkedOut | None


@dataclass(frozen=True)
class View:
    """Everything of one update. `row_losses_after`: of each target, by its entries, like those of `reduction`."""

    name: str
    run: NewRun
    recording: Recording
    updates: int
    updates_per_epoch: int
    is_chosen: bool
    rows: tuple[RowView, ...]
    row_count: int
    outputs: tuple[OutputTable, ...]
    reduction: Reduction
    reduction_after: Reduction | None
    parts: tuple[Part, ...]
    optimizer: OptimizerView
    rates: tuple[Point, ...]
    comparisons: Comparisons

    @property
    def loss_after(self) -> float | None:
        """Of the same rows with the new weights."""
        return None if self.comparisons.after is None else self.comparisons.after.loss

    @property
    def clip_factor(self) -> float:
        """What every gradient was multiplied by."""
        return self.recording.clipped_norm / self.recording.norm if self.recording.norm else 1.0

    @property
    def clip_norm(self) -> float | None:
        """training.clip_norm."""
        return self.run.config.training.clip_norm


def view_of(run: NewRun, recording: Recording, is_chosen: bool) -> View:
    """From the recording of an update. `is_chosen`: whether the user has chosen its rows."""
    parts, splits = run.parts, run.splits
    targets = {target.name: target for target in splits.targets}
    labels = joined([chunk.targets for chunk in recording.chunks])
    outputs = joined([chunk.outputs for chunk in recording.chunks])
    comparisons = compare(parts, recording)
    after = comparisons.after
    return View(
        name=run.config.name,
        run=run,
        recording=recording,
        updates=parts.settings.epochs * parts.data.updates_per_epoch,
        updates_per_epoch=parts.data.updates_per_epoch,
        is_chosen=is_chosen,
        rows=tuple(_rows(run, recording, labels)),
        row_count=len(recording.rows),
        outputs=tuple(
            output_table(targets[name], head, outputs[name], labels[name], MOST_ROWS)
            for name, head in parts.heads.items()
        ),
        reduction=reduction_of(recording),
        reduction_after=None
        if after is None
        else reduction_of(with_outputs(recording, after.outputs, after.loss)),
        parts=gradient_parts(recording, named_parameters(parts.state), _reasons(run, recording)),
        optimizer=_optimizer_view(run, recording),
        rates=tuple(rate_points(run, recording)),
        comparisons=comparisons,
    )


def with_outputs(recording: Recording, outputs: Mapping[str, Tensor], total: float) -> Recording:
    """The recording as if its passes had given these outputs of all rows."""
    sizes = [len(chunk.rows) for chunk in recording.chunks]
    pieces = {name: torch.split(value, sizes) for name, value in outputs.items()}
    chunks = [
        dataclasses.replace(chunk, outputs={name: pieces[name][place] for name in pieces})
        for place, chunk in enumerate(recording.chunks)
    ]
    return dataclasses.replace(recording, chunks=chunks, total=total)


def _rows(run: NewRun, recording: Recording, labels: Mapping[str, Tensor]) -> list[RowView]:
    targets = {target.name: target for target in run.splits.targets}
    ids = run.splits.train.samples.ids
    found: list[RowView] = []
    for chunk in recording.chunks:
        for place, row in enumerate(chunk.rows):
            if len(found) == MOST_ROWS:
                return found
            found.append(
                RowView(
                    id=ids[int(row)],
                    image=_image(run, chunk.images, place, int(row)),
                    truths=truths(targets, labels, len(found)),
                    micro_batch=chunk.micro_batch_idx + 1,
                )
            )
    return found


def _image(run: NewRun, images: Tensor, place: int, row: int) -> Thumbnail:
    """As the model got it; where that was features, the image behind them."""
    if images.ndim == 4:
        image_HWC = images[place].detach().permute(1, 2, 0).float().round().clamp(0, 255).byte().cpu().numpy()
    else:
        dataset = run.parts.data.loader.dataset
        image_HWC = np.asarray(dataset.read(row))
    shown = [0, 1, 2] if image_HWC.shape[2] >= 3 else [0, 0, 0]
    return encode(np.ascontiguousarray(image_HWC[..., shown]))


def _reasons(run: NewRun, recording: Recording) -> dict[str, str]:
    """Why parameters have no gradient, by the beginning of their names."""
    training, optimizer = run.config.training, run.config.optimizer
    if optimizer.backbone_lr_factor == 0:
        return {"backbone.": "frozen: optimizer.backbone_lr_factor = 0 sets requires_grad=False"}
    if recording.epoch < training.freeze_epochs:
        return {
            "backbone.": "not reached: this epoch trains on features computed once (training.freeze_epochs)"
        }
    if optimizer.frozen_below:
        return {
            "backbone.": "frozen (requires_grad=False): layer_decay leaves less than optimizer.frozen_below"
        }
    return {}


def _optimizer_view(run: NewRun, recording: Recording) -> OptimizerView:
    optimizer = run.parts.state.optimizer
    names = {id(parameter): name for name, parameter in named_parameters(run.parts.state).items()}
    groups = tuple(
        GroupView(
            part=_parts_of(group["params"], names),
            parameters=len(group["params"]),
            numbers=sum(parameter.numel() for parameter in group["params"]),
            rate=rate,
            decay=float(group.get("weight_decay", 0.0)),
        )
        for group, rate in zip(optimizer.param_groups, recording.rates, strict=False)
    )
    kept: dict[str, list[int]] = {}
    for state in optimizer.state.values():
        for key, value in state.items():
            count = kept.setdefault(str(key), [0, 0])
            count[0] += 1
            count[1] += value.numel() * value.element_size() if isinstance(value, Tensor) else 8
    worked = None
    if recording.stepped and recording.weight is not None:
        worked = worked_out(optimizer, recording.weight)
    return OptimizerView(
        name=type(optimizer).__name__,
        groups=groups,
        kept=tuple((key, count, memory) for key, (count, memory) in kept.items()),
        worked=worked,
    )


def _parts_of(parameters: Sequence[nn.Parameter], names: Mapping[int, str]) -> str:
    """Which of backbone, heads and criterion they are in."""
    found = dict.fromkeys(names[id(parameter)].partition(".")[0] for parameter in parameters)
    return " and ".join(found)


def rate_points(run: NewRun, recording: Recording) -> list[Point]:
    """(epoch, learning rate of the heads) over the run: up to this update as it was, then as the schedule has it."""
    state, data, rates = run.parts.state, run.parts.data, recording.rates_before
    updates = run.parts.settings.epochs * data.updates_per_epoch
    step = max(1, updates // MOST_POINTS)
    chosen = sorted({*range(0, updates, step), recording.number - 1, updates - 1})
    return [
        (
            update / data.updates_per_epoch,
            rates[update] if update in rates else state.schedule.lrs(update)[-1],
        )
        for update in chosen
    ]
