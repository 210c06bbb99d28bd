"""Averages of the weights over the updates, which usually predict better than the last weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class NoAverage:
    """The null object of WeightAverage: `model`, which is evaluated and saved, is the model itself."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def update(self, model: nn.Module) -> None:
        """Nothing is averaged."""

    def state_dict(self) -> dict[str, Any]:
        """Empty: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for the state of a WeightAverage, which would be lost."""
        if state:
            raise ValueError("it holds averaged weights, but this run averages none")


class WeightAverage:
    """Exponential moving average of the weights.

    After update n (from 1), average <- d * average + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)), so
    that the random initial weights are soon forgotten (the rule of TensorFlow's tf.train.ExponentialMovingAverage with
    num_updates). With `warmup=False`, d = decay from the start.

    Averaging: Polyak and Juditsky 1992; for networks as here: Tarvainen and Valpola 2017, section 2.

    What is averaged:
    - Weights, in their own precision. A frozen weight does not change, so its average is exactly equal to it.
    - Floating-point buffers, with the same d. A batch norm's running mean and variance describe the outputs of the
      layer below, and so belong to its weights: next to averaged weights, the statistics of the last weights, or of the
      first, are those of another network. Either mistake is known to have cost a third of an F1 of 60 (pytorch/ignite,
      2590). Averaged over the same updates, weights and statistics lag equally.
    - Integers (the number of batches that a norm has seen) are copied: their mean is not a count. So are buffers that
      contain infinities from the start (attention masks), since inf - inf is NaN.

    `model` is a copy for evaluation only, in eval mode, with the memory layout of the original and without gradients.
    It starts equal to the model, whose parameters must keep their number and order. Raises ValueError for a decay
    outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: found {decay}, allowed: from 0 to below 1")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._is_averaged = [_is_averaged(tensor) for tensor in _tensors(self.model)]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of `model`, after an update, to the average."""
        self.updates += 1
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        pairs = zip(_tensors(self.model), _tensors(model), self._is_averaged, strict=True)
        for average, weight, is_averaged in pairs:
            if is_averaged:
                averages.append(average)
                weights.append(weight)
            else:
                average.copy_(weight)

        # One call for all tensors: a call for each would take longer than the arithmetic.
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - self._decay())

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, and the number of their updates."""
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit from `state`. Raises KeyError or RuntimeError if it does not fit."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])

    def _decay(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _is_averaged(tensor: Tensor) -> bool:
    """Whether `tensor` has a mean: see the docstring of WeightAverage."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return isinstance(tensor, nn.Parameter) or bool(tensor.isfinite().all())
