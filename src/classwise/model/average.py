"""The average of the weights over the updates, which predicts better than the last weights mostly do."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class NoAverage:
    """No average: `model`, which is evaluated and kept, is the model itself. Else as WeightAverage."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def update(self, model: nn.Module) -> None:
        """Nothing is averaged."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for the state of a real average, which would be lost."""
        if state:
            raise ValueError("it holds averaged weights, but this run averages none")


class WeightAverage:
    """Exponential moving average: after update n (from 1), average <- d * average + (1 - d) * weights, with
    d = min(decay, (1 + n) / (10 + n)), so that the first, random weights are soon forgotten (the rule of
    TensorFlow's tf.train.ExponentialMovingAverage with num_updates). `warmup=False`: d = decay from the start.

    Averaging: Polyak and Juditsky 1992; for networks as here: Tarvainen and Valpola 2017, section 2.

    What is averaged:
    - Weights, in their own precision. One that is frozen does not move, so its average is exactly it.
    - Buffers of floating-point numbers, with the same d. A batch norm's running mean and variance are those of
      what the layer below puts out, and so belong to its weights: beside averaged weights, statistics of the last
      weights, or of the first, are those of another network. Either mistake is known to have cost an F1 of 60
      its third (pytorch/ignite, 2590). Averaged over the same updates, both lag alike.
    - Whole numbers (how many batches a norm has seen) are copied: their mean is no count. So are buffers that
      hold infinities from the start (masks of attention), since inf - inf is no number.

    `model` is a copy for evaluation only, in eval mode, with the memory layout of the original; its weights want
    no gradient. It starts as the model is; the model must not change its parameters' number or order after that.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: found {decay}, allowed: from 0 to below 1")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._blended = [_is_blended(tensor) for tensor in _tensors(self.model)]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model after an update into account."""
        self.updates += 1
        blended: tuple[list[Tensor], list[Tensor]] = [], []
        for ours, theirs, blend in zip(_tensors(self.model), _tensors(model), self._blended, strict=True):
            if blend:
                blended[0].append(ours)
                blended[1].append(theirs)
            else:
                ours.copy_(theirs)
        if blended[0]:
            torch._foreach_lerp_(*blended, 1 - self._decay())

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, and how many updates they have seen."""
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on, bit for bit, where `state` was taken. Raises KeyError or RuntimeError if it does not fit."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])

    def _decay(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _is_blended(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return isinstance(tensor, nn.Parameter) or bool(tensor.isfinite().all())
