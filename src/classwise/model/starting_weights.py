"""The weights of an earlier run as the beginning of a new model: its backbone, and its heads as far as they mean the
same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classwise.errors import ModelError
from classwise.model.backbone import Backbone, load_backbone
from classwise.model.classifier import Classifier, CosineLinear, ModelMetadata
from classwise.model.heads import Head, RegressionHead
from classwise.own_parts.reference import is_own, short, split_reference

LISTED = 6  # labels named in a note


@dataclass(frozen=True)
class StartingWeights:
    """What a run has learned. `where`: its folder; `tensors`: its whole model; `heads` and `labels`: what the outputs
    of each target mean, and the label list of those that have one."""

    where: str
    metadata: ModelMetadata
    tensors: Mapping[str, Tensor]
    heads: Mapping[str, Head]
    labels: Mapping[str, Sequence[str]]

    def require_backbone(self, name: str) -> None:
        """ModelError unless the run has the backbone `name`. One of the user's own is built from the file that the
        config names, not from the code of the run; the tensors have to fit."""
        before = self.metadata.backbone
        is_same = (
            split_reference(before)[1] == split_reference(name)[1]
            if is_own(before) and is_own(name)
            else False
        )
        if before != name and not is_same:
            raise ModelError(
                f"model.weights: {self.where} was trained with the backbone {short(before)!r}, but model.backbone is"
                f" {short(name)!r}; allowed: the same"
            )

    def into_backbone(self, built: Backbone) -> Backbone:
        """The backbone with the run's weights, and the normalization that they expect. Raises ModelError."""
        prefix = "backbone."
        tensors = {key.removeprefix(prefix): x for key, x in self.tensors.items() if key.startswith(prefix)}
        load_backbone(built.module, tensors, self.where)
        return Backbone(
            module=built.module,
            features=built.features,
            mean=self.metadata.mean,
            std=self.metadata.std,
            levels=built.levels,
        )

    @torch.no_grad()
    def into_heads(
        self,
        model: Classifier,
        heads: Mapping[str, Head],
        labels: Mapping[str, Sequence[str]],
        fits: bool = False,
    ) -> tuple[list[str], list[str]]:
        """Give the model's heads what the run's mean as well, by the names of targets and labels; returns a note on
        each target, and the targets whose head is the run's as a whole. `fits`: heads that are not will be fitted to
        the features, and are left as they are."""
        begins = "is fitted anew" if fits else "starts at random"
        notes: list[str] = []
        kept: list[str] = []
        layers = dict(zip(self.metadata.heads, range(len(self.metadata.heads)), strict=True))
        for (name, head), layer in zip(heads.items(), model.heads, strict=True):
            reason = self._reason_against(name, head, layer)
            if head.type == "ordinal" and not reason and list(self.labels[name]) != list(labels[name]):
                reason = "the run has other levels"
            if not reason and head.type in ("class", "multilabel"):
                reason = _other_labels(self.labels[name], labels[name], fits)
            if reason:
                notes.append(f"{name}: the head {begins}, since {reason}")
                continue
            prefix = f"heads.{layers[name]}."
            found = {
                key: self.tensors[prefix + key] for key in ("weight", "bias") if prefix + key in self.tensors
            }
            fresh: list[str] = []
            of_labels = ""
            if head.type in ("class", "multilabel"):
                fresh = _copy_rows(layer, found, self.labels[name], labels[name])
                count = len(labels[name])
                of_labels = f" for {count - len(fresh)} of {count} labels"
                of_labels += f"; it starts at random for {_listed(fresh)}" if fresh else ""
            else:
                _copy_all(layer, _in_unit(found, self.heads[name], head))
            notes.append(f"{name}: the head goes on from the run's{of_labels}")
            kept += [] if fresh else [name]
        return notes, kept

    def _reason_against(self, name: str, head: Head, layer: nn.Module) -> str:
        """Why the run's head of that name cannot be gone on from; empty if it can."""
        if name not in self.heads:
            return f"{self.where} has no target of that name"
        if self.heads[name].type != head.type:
            return f"the run's target is of type {self.heads[name].type!r}"
        if (name in self.metadata.cosine) != isinstance(layer, CosineLinear):
            return "only one of the two computes cosines (ldam)"
        number = list(self.metadata.heads).index(name)
        if self.tensors[f"heads.{number}.weight"].shape[1] != _features_of(layer):
            return "it sees other features (model.pooling)"
        return ""


def _other_labels(before: Sequence[str], now: Sequence[str], fits: bool) -> str:
    """Why a head cannot be gone on from; empty if it can. Where heads are fitted, it needs all of the labels."""
    missing = [label for label in now if label not in before]
    if len(missing) == len(now):
        return f"the run has other labels ({_listed(before)})"
    return f"the run does not have {_listed(missing)}" if fits and missing else ""


def _copy_rows(
    layer: nn.Module, found: Mapping[str, Tensor], before: Sequence[str], now: Sequence[str]
) -> list[str]:
    """Copy the rows of the labels that both have; returns the others."""
    number_of = {label: k for k, label in enumerate(before)}
    kept = [label for label in now if label in number_of]
    rows = torch.tensor([now.index(label) for label in kept])
    from_rows = torch.tensor([number_of[label] for label in kept])
    for key, tensor in found.items():
        parameter = getattr(layer, key)
        parameter[rows] = tensor[from_rows].to(parameter.dtype)
    return [label for label in now if label not in number_of]


def _copy_all(layer: nn.Module, found: Mapping[str, Tensor]) -> None:
    for key, tensor in found.items():
        getattr(layer, key).copy_(tensor)


def _in_unit(found: Mapping[str, Tensor], before: Head, now: Head) -> dict[str, Tensor]:
    """A regression's weights for another mean and standard deviation of the training rows: the same predictions in the
    column's unit. Others are as they are."""
    if not (isinstance(before, RegressionHead) and isinstance(now, RegressionHead)):
        return dict(found)
    scale = before.std / now.std
    return {
        "weight": found["weight"] * scale,
        "bias": found["bias"] * scale + (before.mean - now.mean) / now.std,
    }


def _features_of(layer: nn.Module) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:LISTED]) + (f" and {len(labels) - LISTED} more" if len(labels) > LISTED else "")
