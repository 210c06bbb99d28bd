"""torch's fused AdamW with its step prepared once: the same kernel on the same tensors, found in a third of the time.

torch collects the parameters, gradients and moments of every group anew in each step, groups them by device and type,
and adds 1 to the step count of each parameter by an operation of its own. On a small network that takes six times
as long as the kernel. All of it but the gradients stays the same from step to step, so here it is looked up once.
See docs/decisions/0069-the-loop-again.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _GroupTensors:
    """What the kernel takes of one parameter group, all in the same order; `others` are the group's parameters that had
    no gradient. `steps` (scalars) lie beside those of all groups in one tensor, which is counted up at once."""

    group: Group
    parameters: list[Tensor]
    others: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]

    def gradients(self) -> list[Tensor] | None:
        """The gradients of `parameters`; None where others than those have one."""
        if len(self.group["params"]) != len(self.parameters) + len(self.others):
            return None
        found = []
        for parameter in self.parameters:
            if (gradient := parameter.grad) is None:
                return None
            found.append(gradient)
        for parameter in self.others:
            if parameter.grad is not None:
                return None
        return found


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What stays the same between steps, for as long as the optimizer's state is this `state`."""

    state: Any
    groups: list[_GroupTensors]
    steps: Tensor
    """(parameters,): the step counts of all of them."""


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` with `fused=True`, bit for bit.

    Wherever a step is anything but plain (the first one, other parameters with a gradient than before, hooks, a
    profiler, a closure, a loss scale, AMSGrad, a GPU), it is torch's own step, which is also what prepares the next. In
    between the moments must not be replaced in `state` but by `load_state_dict`.
    """

    _prepared: _Prepared | None = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; without its mark for profilers, which takes longer than all else of it."""
        if not set_to_none:
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, as torch's. Returns what `closure` returns."""
        prepared = self._prepared
        gradients = None if closure is not None or prepared is None else self._gradients(prepared)
        if prepared is None or gradients is None:
            loss = _torch_step(self, closure)
            self._prepared = _prepare(self)
            return loss

        # What torch's `_fused_adam` does with the same lists.
        with torch.no_grad():
            prepared.steps.add_(1)
            for tensors, gradients_of_group in zip(prepared.groups, gradients, strict=True):
                if not gradients_of_group:
                    continue
                group = tensors.group
                beta1, beta2 = group["betas"]
                torch._fused_adamw_(
                    tensors.parameters,
                    gradients_of_group,
                    tensors.exp_avgs,
                    tensors.exp_avg_sqs,
                    [],
                    tensors.steps,
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=group["maximize"],
                )
        return None

    def _gradients(self, prepared: _Prepared) -> list[list[Tensor]] | None:
        """The gradients by group if the step is a plain one of what is prepared, else None."""
        if (
            prepared.state is not self.state
            or len(prepared.groups) != len(self.param_groups)
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or getattr(self, "grad_scale", None) is not None
            or getattr(self, "found_inf", None) is not None
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        ):
            return None
        found = []
        for tensors in prepared.groups:
            gradients = tensors.gradients()
            if gradients is None:
                return None
            found.append(gradients)
        return found


def _with_hooks(step: Any) -> Any:
    """A step that calls the hooks, as torch wraps that of each class when it makes the first optimizer of it."""
    return step if getattr(step, "hooked", False) else Optimizer.profile_hook_step(step)


_torch_step = _with_hooks(torch.optim.AdamW.step)
AdamW.step.hooked = True  # type: ignore[attr-defined]  # else torch wraps it, and the hooks are called twice


def _prepare(optimizer: AdamW) -> _Prepared | None:
    """What the next step takes if it is like the one just made; None where it has to be torch's own."""
    groups = optimizer.param_groups
    learning = [[p for p in group["params"] if p.grad is not None] for group in groups]
    parameters = [p for of_group in learning for p in of_group]
    kinds = {(p.device.type, p.dtype, p.grad.layout) for p in parameters if p.grad is not None}
    is_plain = all(
        group["fused"]
        and not (group["amsgrad"] or group["capturable"] or group["differentiable"])
        and not any(isinstance(value, Tensor) for value in (group["lr"], *group["betas"]))
        for group in groups
    )
    if not is_plain or len(kinds) != 1:
        return None
    if parameters[0].device.type != "cpu" or not parameters[0].is_floating_point():
        return None

    # The step counts move together into one tensor, of which each parameter's state has its own number.
    state = optimizer.state
    steps = torch.stack([state[p]["step"] for p in parameters])
    for parameter, step in zip(parameters, steps.unbind(), strict=True):
        state[parameter]["step"] = step
    return _Prepared(
        state,
        [
            _GroupTensors(
                group=group,
                parameters=of_group,
                others=[p for p in group["params"] if p.grad is None],
                exp_avgs=[state[p]["exp_avg"] for p in of_group],
                exp_avg_sqs=[state[p]["exp_avg_sq"] for p in of_group],
                steps=[state[p]["step"] for p in of_group],
            )
            for group, of_group in zip(groups, learning, strict=True)
        ],
        steps,
    )
