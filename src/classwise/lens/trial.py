"""Forward and backward passes beside the update: a copy of the model with the weights from before or after it."""

import copy
from collections.abc import Iterator, Mapping, Sequence

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
    """A model and a criterion that nobody else uses. `training`: whether they are in training mode."""

    def __init__(self, parts: Parts, recording: Recording, tensors: Mapping[str, Tensor]) -> None:
        self.model: Classifier = copy.deepcopy(parts.state.model)
        self.criterion: Criterion = copy.deepcopy(recording.criterion)
        self.settings = parts.settings
        self.recording = recording
        self._tensors = tensors
        self.reset()

    def reset(self) -> None:
        """The weights and statistics that it began with, and training mode."""
        split: tuple[Tensors, Tensors] = ({}, {})
        for name, value in self._tensors.items():
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

    def gradient(
        self, batches: Sequence[Batch], normalizers: Sequence[Normalizer | None], scale: float = 1.0
    ) -> Tensors:
        """The gradient that the batches add up to, each divided by its normalizer (None: its own) and times `scale`;
        by the name of the parameter. Statistics of batch norm are then as they were."""
        parameters = {
            **dict(self.model.named_parameters()),
            **{f"criterion.{name}": value for name, value in self.criterion.named_parameters()},
        }
        for parameter in parameters.values():
            parameter.grad = None
        statistics = [(buffer, buffer.clone()) for buffer in self.model.statistics]
        for batch, normalizer in zip(batches, normalizers, strict=True):
            loss = scale * self.criterion(self.outputs(batch.images), batch.targets, normalizer)
            loss.backward()
        for buffer, value in statistics:
            buffer.copy_(value)
        return {name: p.grad.detach() for name, p in parameters.items() if p.grad is not None}

    def normalizer(self, batches: Sequence[Batch]) -> Normalizer:
        """That of an update of these batches, as the loop adds it up."""
        return update_normalizer(self.criterion, batches, 0, SINGLE_PROCESS)


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
