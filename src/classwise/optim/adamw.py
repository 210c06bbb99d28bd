"""torch's fused AdamW with its step planned once: the same kernel on the same tensors, found in a quarter of the time.

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
class _StepPlan:
    """What stays the same between steps, for as long as the optimizer's state is this `state`."""

    state: Any
    groups: list[_GroupTensors]
    steps: Tensor
    """(parameters,): the step counts of all of them."""


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` with `fused=True` on the CPU, bit for bit.

    Wherever a step is anything but plain (hooks, a profiler, a closure, a loss scale, AMSGrad, a GPU, a learning rate
    that is a tensor) it is torch's own. What a group says of that is read at the first step and after
    `load_state_dict`, which alone replaces moments in `state`; between steps, only a group's numbers may change.
    """

    _plan: _StepPlan | None = None

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
        if closure is not None or self._is_observed():
            return _torch_step(self, closure)
        plan = self._plan
        gradients = None if plan is None else self._gradients(plan)
        if plan is None or gradients is None:
            self._plan = plan = _plan_of(self)
            gradients = None if plan is None else self._gradients(plan)
            if plan is None or gradients is None:
                return _torch_step(self, closure)

        # What torch's `_fused_adam` does with the same lists.
        with torch.no_grad():
            plan.steps.add_(1)
            for tensors, gradients_of_group in zip(plan.groups, gradients, strict=True):
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

    def _is_observed(self) -> bool:
        """Whether somebody is to see the step, or a loss scale has a part in it."""
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or getattr(self, "grad_scale", None) is not None
            or getattr(self, "found_inf", None) is not None
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        )

    def _gradients(self, plan: _StepPlan) -> list[list[Tensor]] | None:
        """The gradients by group; None where that is not what the plan has."""
        if plan.state is not self.state or len(plan.groups) != len(self.param_groups):
            return None
        found = []
        for tensors in plan.groups:
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


def _plan_of(optimizer: AdamW) -> _StepPlan | None:
    """What steps take for as long as the same parameters have a gradient; None where they have to be torch's own."""
    if not all(_is_plain(group) for group in optimizer.param_groups):
        return None
    groups = [_tensors_of(optimizer, group) for group in optimizer.param_groups]
    kinds = {(p.device.type, p.dtype) for tensors in groups for p in tensors.parameters}
    if len(kinds) != 1 or next(iter(kinds))[0] != "cpu":
        return None

    # The step counts move together into one tensor, of which each parameter's state has its own number.
    steps = torch.stack([step for tensors in groups for step in tensors.steps])
    numbers = iter(steps.unbind())
    for tensors in groups:
        for i, parameter in enumerate(tensors.parameters):
            optimizer.state[parameter]["step"] = tensors.steps[i] = next(numbers)
    return _StepPlan(optimizer.state, groups, steps)


def _is_plain(group: Group) -> bool:
    """Whether the kernel takes the group as it is."""
    return (
        bool(group["fused"])
        and not (group["amsgrad"] or group["capturable"] or group["differentiable"])
        and not any(isinstance(value, Tensor) for value in (group["lr"], *group["betas"]))
        and all(p.is_floating_point() for p in group["params"])
    )


def _tensors_of(optimizer: AdamW, group: Group) -> _GroupTensors:
    """The tensors of one group, as torch collects them; parameters in their first step get their moments."""
    lists: list[list[Tensor]] = [[] for _ in range(6)]
    optimizer._init_group(group, *lists)  # type: ignore[no-untyped-call]
    parameters, _, exp_avgs, exp_avg_sqs, _, steps = lists
    return _GroupTensors(
        group=group,
        parameters=parameters,
        others=[p for p in group["params"] if p.grad is None],
        exp_avgs=exp_avgs,
        exp_avg_sqs=exp_avg_sqs,
        steps=steps,
    )
