"""An optimizer in the user's own file, and the test that it has to pass before a run begins.

It is a subclass of torch.optim.Optimizer, made as torch's own are: `MyOptimizer(groups, lr=..., weight_decay=...)` and
the further keys of [optimizer] that it has parameters for.

    class MyOptimizer(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3, weight_decay=0.0):
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * p.grad.sign())
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from inspect import isclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from classwise.errors import ConfigError
from classwise.own_parts.reference import short
from classwise.own_parts.source import admitted, failure_text, load

KEY = "optimizer.name"
SHAPES = ((4, 2, 3, 3), (3, 4), (4,))
LR = 1e-3
LARGER = 10.0
"""Of two learning rates that must make a difference, how many times the one is the other."""

Make = Callable[[Sequence[Mapping[str, Any]]], Optimizer]
"""From parameter groups to the optimizer, with the arguments of the config."""


def own_optimizer(reference: str) -> type[Optimizer]:
    """The user's class. Raises ConfigError."""
    part = load(reference, KEY)
    if not (isclass(part) and issubclass(part, Optimizer)):
        raise ConfigError(
            f"{KEY}: {short(reference)} is no subclass of torch.optim.Optimizer, which it has to be"
        )
    return part


def check_own_optimizer(reference: str, make: Make) -> None:
    """Raise ConfigError unless the user's optimizer follows the schedule, leaves parameters without a gradient alone,
    and can be saved and restored. `make` builds it with the config's arguments."""
    source = admitted(reference, KEY)
    try:
        complaint = _complaint(make)
    except ConfigError:
        raise
    except Exception as error:  # the user's code raises anything
        raise ConfigError(f"{KEY}: {short(reference)} fails: {failure_text(error, source)}") from error
    if complaint:
        raise ConfigError(f"{KEY}: {short(reference)}: {complaint}")


def _complaint(make: Make) -> str:
    """What is wrong with the optimizers that `make` builds; empty if nothing is."""
    start = _weights(*_stepped(make, steps=0))
    weights = _weights(*_stepped(make, steps=2))
    if all(torch.equal(before, after) for before, after in zip(start[:-1], weights[:-1], strict=True)):
        return "its step changes no weight; does it change the parameters in place?"
    if not torch.equal(start[-1], weights[-1]):
        return "it changes a parameter that has no gradient (p.grad is None); allowed: to leave it as it is"
    if not _same(weights, _weights(*_stepped(make, steps=2))):
        return "the same steps lead to other weights the second time, so a resumed run would differ"
    if _same(weights, _weights(*_stepped(make, steps=2, lr=LARGER * LR))):
        return (
            "the learning rate of the schedule makes no difference: `step` has to read group['lr'] of each of"
            " self.param_groups, which the schedule sets before every update"
        )
    return _wrong_state(make)


def _wrong_state(make: Make) -> str:
    """Whether an optimizer that has loaded the state dict of another goes on as that one would have."""
    optimizer, parameters = _stepped(make, steps=2)
    state = optimizer.state_dict()
    if wrong := _not_plain(state["state"], "state") or _not_plain(state["param_groups"], "param_groups"):
        return (
            f"its state_dict has {wrong}, which a checkpoint cannot hold; allowed: tensors, numbers and text"
        )
    restored, others = _stepped(make, steps=0)
    for other, parameter in zip(others, parameters, strict=True):
        other.data.copy_(parameter.data)
    restored.load_state_dict(copy.deepcopy(state))  # or the two would share their tensors
    _step(optimizer, parameters, number=2)
    _step(restored, others, number=2)
    if not _same(_weights(optimizer, parameters), _weights(restored, others)):
        return (
            "an optimizer that has loaded its state_dict goes on differently, so a resumed run would differ: what it"
            " keeps between steps has to be in self.state[p] or in self.param_groups, not in attributes of its own"
        )
    return ""


def _stepped(make: Make, steps: int, lr: float = LR) -> tuple[Optimizer, list[nn.Parameter]]:
    """A new optimizer after so many steps, at a learning rate that was set after it was made, and its parameters. The
    last one has no gradient."""
    parameters = [nn.Parameter(torch.ones(shape)) for shape in (*SHAPES, (2,))]
    optimizer = make([{"params": parameters, "lr": LR, "weight_decay": 0.0}])
    for group in optimizer.param_groups:
        group["lr"] = lr
    for number in range(steps):
        _step(optimizer, parameters, number)
    return optimizer, parameters


def _step(optimizer: Optimizer, parameters: Sequence[nn.Parameter], number: int) -> None:
    for parameter in parameters[:-1]:
        slope = torch.linspace(-1, 1 + number, parameter.numel())
        parameter.grad = slope.view(parameter.shape).clone()
    optimizer.step()


def _weights(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def _same(weights: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def _not_plain(value: Any, path: str) -> str:
    """`a set at state.0.seen`: the first thing that is neither a tensor nor a plain value; empty if there is none."""
    if isinstance(value, dict):
        inner = [_not_plain(item, f"{path}.{key}") for key, item in value.items()]
    elif isinstance(value, list | tuple):
        inner = [_not_plain(item, f"{path}.{number}") for number, item in enumerate(value)]
    else:
        is_plain = value is None or isinstance(value, Tensor | bool | int | float | str | torch.dtype)
        return "" if is_plain else f"a {type(value).__name__} at {path}"
    return next((found for found in inner if found), "")
