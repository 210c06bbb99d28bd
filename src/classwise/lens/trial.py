"""Forward and backward passes beside the update: a copy of the model with the weights from before or after it."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from classwise.data.batch import Batch
from classwise.distributed import SINGLE_PROCESS
from classwise.lens.recorder import Recording
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer
from classwise.model.classifier import Classifier
from classwise.run.assembly import Parts
from classwise.training import loop
from classwise.training.update import update_normalizer

Tensors = dict[str, Tensor]


class Trial:
    """A model and a criterion that nobody else uses, with the weights from before the step."""

    def __init__(self, parts: Parts, recording: Recording) -> None:
        self.model: Classifier = copy.deepcopy(parts.state.model)
        self.criterion: Criterion = copy.deepcopy(recording.criterion)
        self.settings = parts.settings
        self.recording = recording
        self.reset(recording.before)

    def reset(self, tensors: Mapping[str, Tensor]) -> None:
        """These weights and statistics, in training mode."""
        split: tuple[Tensors, Tensors] = ({}, {})
        for name, value in tensors.items():
            is_criterion = name.startswith("criterion.")
            split[is_criterion][name.removeprefix("criterion.")] = value
        self.model.load_state_dict(split[0])
        self.criterion.load_state_dict(split[1])
        self.model.train()
        self.criterion.train()

    @property
    def batches(self) -> list[Batch]:
        """The micro-batches of the update."""
        return self.recording.batches

    def without_dropout(self) -> list[str]:
        """Turn dropout off, which would draw other numbers for other batches; returns the names of its layers."""
        found = [name for name, module in self.model.named_modules() if is_active_dropout(module)]
        for name in found:
            self.model.get_submodule(name).eval()
        return found

    def outputs(self, images: Tensor) -> Tensors:
        """The forward pass, in the run's precision."""
        return self.settings.in_precision(self.model)(images)

    def update_outputs(self) -> Iterator[tuple[Batch, Tensors]]:
        """The forward passes of the update again, chunk by chunk, with its dropout."""
        update = self.recording.number - 1
        for micro_batch_idx, batch in enumerate(self.batches):
            for chunk_idx, chunk in enumerate(batch.parts(self.recording.chunk_size)):
                loop.seed_dropout(self.settings, update, micro_batch_idx, chunk_idx)
                yield chunk, self.outputs(chunk.images)

    def gradients(
        self, batches: Sequence[Batch], reductions: Sequence[tuple[Normalizer | None, float]]
    ) -> list[Tensors]:
        """For each reduction the gradient that the batches add up to, by the name of the parameter: each batch's loss
        divided by the normalizer (None: its own) and times the factor. Statistics of batch norm are then as they
        were."""
        named = {**dict(self.model.named_parameters()), **_of_criterion(self.criterion)}
        named = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        found: list[Tensors] = [{} for _ in reductions]
        statistics = [(buffer, buffer.clone()) for buffer in self.model.statistics]
        for batch in batches:
            outputs = self.outputs(batch.images)
            for place, (normalizer, factor) in enumerate(reductions):
                loss = factor * self.criterion(outputs, batch.targets, normalizer)
                again = place + 1 < len(reductions)
                parts = torch.autograd.grad(loss, list(named.values()), retain_graph=again, allow_unused=True)
                _add(found[place], named, parts)
        for buffer, value in statistics:
            buffer.copy_(value)
        return found

    def normalizer(self, batches: Sequence[Batch]) -> Normalizer:
        """That of an update of these batches, as the loop adds it up."""
        return update_normalizer(self.criterion, batches, 0, SINGLE_PROCESS)


def _of_criterion(criterion: Criterion) -> dict[str, nn.Parameter]:
    return {f"criterion.{name}": value for name, value in criterion.named_parameters()}


def _add(total: Tensors, names: Iterable[str], parts: Sequence[Tensor | None]) -> None:
    """What one batch adds to a gradient; parameters that it does not lead to add nothing."""
    for name, part in zip(names, parts, strict=True):
        if part is not None:
            total[name] = total[name] + part if name in total else part


def is_active_dropout(module: nn.Module) -> bool:
    """Whether a module drops something at random in training: torch's dropout, and what drops whole paths (timm)."""
    rate = getattr(module, "p", None) if isinstance(module, nn.modules.dropout._DropoutNd) else None
    rate = getattr(module, "drop_prob", rate)
    return bool(rate)


def concatenated(batches: Sequence[Batch]) -> Batch:
    """All rows of some batches as one."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        targets={name: torch.cat([batch.targets[name] for batch in batches]) for name in batches[0].targets},
        rows=np.concatenate([batch.rows for batch in batches]),
        complete=all(batch.complete for batch in batches),
    )


def taken(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch."""
    targets = {name: labels[rows] for name, labels in batch.targets.items()}
    return Batch(batch.images[rows], targets, batch.rows[rows], batch.complete)
