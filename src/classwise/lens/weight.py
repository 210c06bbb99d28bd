"""The weight that is looked at through the step: named by the user, or the weight of a layer with the largest
gradient."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from classwise.errors import ConfigError, nearest

_FORM = re.compile(r"(?P<name>[^\[\]]+?)\s*(?:\[(?P<index>[\d,\s]*)\])?")


@dataclass(frozen=True)
class WeightName:
    """A parameter and the place in it; an `index` of None is the one with the largest gradient."""

    name: str
    index: tuple[int, ...] | None


@dataclass
class ChosenWeight:
    """A weight in one step of the optimizer.

    `old`, `gradient` and `new` are those of this weight; `raw_gradient` is from before clipping. `group`: the options
    of its group of parameters. `state` and `state_after`: what the optimizer keeps for it, as plain numbers by name;
    `parameter`, `parameter_gradient` and `parameter_state` are those of the whole parameter from before the step.
    """

    name: str
    index: tuple[int, ...]
    old: float
    raw_gradient: float
    gradient: float
    group: dict[str, Any]
    state: dict[str, float]
    parameter: Tensor
    parameter_gradient: Tensor
    parameter_state: dict[str, Tensor]
    state_after: dict[str, float] = field(default_factory=dict)
    new: float = float("nan")

    def take_after(self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
        """The weight and the optimizer's state after the step."""
        parameter = parameters[self.name]
        self.new = float(parameter.detach()[self.index])
        self.state_after = _numbers(optimizer.state[parameter], parameter.shape, self.index)

    @property
    def title(self) -> str:
        """As `--weight` takes it."""
        return f"{self.name}[{', '.join(map(str, self.index))}]"


def parse_weight(text: str | None) -> WeightName | None:
    """`heads.0.weight[3, 17]`, or without a place. Raises ConfigError."""
    if text is None:
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"--weight: found {text!r}; allowed: the name of a parameter and a place, such as heads.0.weight[3,17]"
        )
    if match["index"] is None:
        return WeightName(match["name"], None)
    return WeightName(match["name"], tuple(int(part) for part in match["index"].split(",") if part.strip()))


def check_weight(wanted: WeightName | None, parameters: Mapping[str, nn.Parameter]) -> None:
    """Raise ConfigError unless there is such a parameter and such a place in it, and it is trained."""
    if wanted is None:
        return
    if wanted.name not in parameters:
        raise ConfigError(f"--weight: found {wanted.name!r}; {nearest(wanted.name, parameters)}")
    parameter = parameters[wanted.name]
    shape = tuple(parameter.shape)
    if wanted.index is not None and not (
        len(wanted.index) == len(shape) and all(i < size for i, size in zip(wanted.index, shape, strict=True))
    ):
        raise ConfigError(
            f"--weight: found [{', '.join(map(str, wanted.index))}], but {wanted.name} has the shape {list(shape)};"
            f" allowed: {len(shape)} numbers, each from 0 to below the size"
        )
    if not parameter.requires_grad:
        raise ConfigError(f"--weight: {wanted.name} is frozen (requires_grad=False): no step changes it")


def chosen_weight(
    wanted: WeightName | None,
    parameters: Mapping[str, nn.Parameter],
    raw_gradients: Mapping[str, Tensor],
    optimizer: Optimizer,
) -> ChosenWeight | None:
    """The weight right before the step; None if no parameter has a gradient. Raises ConfigError if the one that was
    asked for has none in this update."""
    if wanted is not None and wanted.name not in raw_gradients:
        raise ConfigError(
            f"--weight: {wanted.name} has no gradient in this update: the chain of grad_fn does not lead to it"
        )
    if not raw_gradients:
        return None
    name = wanted.name if wanted else _largest(raw_gradients)
    parameter, raw = parameters[name], raw_gradients[name]
    assert parameter.grad is not None
    index = wanted.index if wanted else None
    if index is None:
        place = torch.unravel_index(raw.abs().argmax(), raw.shape)
        index = tuple(int(i) for i in place)
    state = optimizer.state.get(parameter, {})
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    return ChosenWeight(
        name=name,
        index=index,
        old=float(parameter.detach()[index]),
        raw_gradient=float(raw[index]),
        gradient=float(parameter.grad[index]),
        group={key: value for key, value in group.items() if key != "params"},
        state=_numbers(state, parameter.shape, index),
        parameter=parameter.detach().clone(),
        parameter_gradient=parameter.grad.detach().clone(),
        parameter_state={
            key: value.clone()
            for key, value in state.items()
            if isinstance(value, Tensor) and value.numel() > 1
        },
    )


def _largest(gradients: Mapping[str, Tensor]) -> str:
    """The parameter with the largest number in its gradient: of layers' weights, if there are any among them, which
    biases, scales and tokens are not."""
    weights = {name: value for name, value in gradients.items() if sum(size > 1 for size in value.shape) > 1}
    return max(weights or gradients, key=lambda name: float(gradients[name].abs().max()))


def _numbers(state: Mapping[str, Any], shape: torch.Size, index: tuple[int, ...]) -> dict[str, float]:
    """What an optimizer keeps for one weight: its place in tensors of the parameter's shape, and single numbers."""
    found: dict[str, float] = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            found[key] = float(value[index])
        elif isinstance(value, Tensor | int | float) and _is_number(value):
            found[key] = float(value)
    return found


def _is_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else not isinstance(value, bool)
