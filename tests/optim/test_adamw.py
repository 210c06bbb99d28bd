"""The planned AdamW is torch's fused one, bit for bit, whatever happens between two steps."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classwise.optim import adamw
from classwise.optim.adamw import AdamW

SHAPES = ((4, 3, 3, 3), (4,), (5, 4), (5,), ())
Change = Callable[[torch.optim.Optimizer, list[nn.Parameter], int], None]


def drawn(number: int) -> list[Tensor]:
    """A number of each parameter's shape, drawn anew for each `number`."""
    draw = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=draw) for shape in SHAPES]


def trained(
    kind: type[torch.optim.AdamW], steps: int, change: Change | None = None, **options: Any
) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Parameters in two groups after steps on drawn gradients; `change` is called before each step, with its number."""
    parameters = [nn.Parameter(value) for value in drawn(0)]
    groups = [
        {"params": parameters[:2], "lr": 0.03},
        {"params": parameters[2:], "weight_decay": 0.0},
    ]
    optimizer = kind(groups, lr=0.1, weight_decay=0.2, fused=True, **options)
    for number in range(steps):
        optimizer.zero_grad()
        for parameter, gradient in zip(parameters, drawn(number + 1), strict=True):
            parameter.grad = gradient
        if change is not None:
            change(optimizer, parameters, number)
        optimizer.step()
    return parameters, optimizer


def as_numbers(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[Any]:
    """The parameters and all that the optimizer keeps of them."""
    kept = [
        {name: value.tolist() for name, value in optimizer.state.get(parameter, {}).items()}
        for parameter in parameters
    ]
    return [parameter.tolist() for parameter in parameters] + kept


def require_equal(steps: int = 6, change: Change | None = None, **options: Any) -> None:
    """AssertionError unless both optimizers come to the same bits."""
    ours, theirs = (
        as_numbers(*trained(kind, steps, change, **options)) for kind in (AdamW, torch.optim.AdamW)
    )
    assert ours == theirs


def counted_torch_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each step that is torch's own."""
    calls: list[int] = []
    torch_step = adamw._torch_step

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return torch_step(*arguments)

    monkeypatch.setattr(adamw, "_torch_step", counted)
    return calls


@pytest.mark.parametrize(
    "options", [{}, {"maximize": True}, {"betas": (0.5, 0.7), "eps": 1e-3}, {"amsgrad": True}]
)
def test_it_comes_to_the_same_bits(options: dict[str, Any]) -> None:
    require_equal(**options)


def test_no_plain_step_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_torch_steps(monkeypatch)
    trained(AdamW, 5)
    assert not calls


def test_amsgrad_is_always_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_torch_steps(monkeypatch)
    trained(AdamW, 5, amsgrad=True)
    assert len(calls) == 5


def test_a_learning_rate_may_change_before_every_step() -> None:
    def change(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 0.7
            group["weight_decay"] += 0.01

    require_equal(change=change)


def test_parameters_may_be_without_a_gradient_for_some_steps() -> None:
    """Each then keeps its own count of steps."""

    def change(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
        for index, absent in enumerate([(), (1, 2), (0, 1, 4), (3,), (0, 3)]):
            if number in absent:
                parameters[index].grad = None

    require_equal(steps=8, change=change)


def test_a_group_may_be_frozen_at_first() -> None:
    def change(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
        for parameter in parameters[:2] if number < 3 else []:
            parameter.grad = None

    require_equal(change=change)


def test_a_group_may_be_added() -> None:
    def change(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
        if number == 2:
            parameters.append(nn.Parameter(torch.ones(3)))
            optimizer.add_param_group({"params": parameters[-1:]})
        if number >= 2:
            parameters[-1].grad = torch.full((3,), 0.1 * number)

    ours, theirs = (
        as_numbers(*trained(kind, 3, change)) + as_numbers(*trained(kind, 3, change))
        for kind in (AdamW, torch.optim.AdamW)
    )
    assert ours == theirs


def test_a_state_that_is_loaded_is_gone_on_with() -> None:
    """Also one of torch's own, and its own is loaded by torch's."""

    def change(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
        if number == 3:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer.step()
            optimizer.load_state_dict(saved)

    require_equal(change=change)
    ours, theirs = (trained(kind, 4) for kind in (AdamW, torch.optim.AdamW))
    assert ours[1].state_dict()["param_groups"] == theirs[1].state_dict()["param_groups"]
    states = [copy.deepcopy(optimizer.state_dict()) for _, optimizer in (ours, theirs)]
    for (parameters, optimizer), state in zip((ours, theirs), states[::-1], strict=True):
        optimizer.load_state_dict(state)
        for number in (7, 8):
            for parameter, gradient in zip(parameters, drawn(number), strict=True):
                parameter.grad = gradient
            optimizer.step()
    assert as_numbers(*ours) == as_numbers(*theirs)


def test_a_copy_goes_its_own_way() -> None:
    parameters, optimizer = trained(AdamW, 3)
    copied = copy.deepcopy(optimizer)
    before = as_numbers(parameters, optimizer)
    for parameter in copied.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    copied.step()
    copied.step()
    assert as_numbers(parameters, optimizer) == before
    steps = [int(state["step"]) for state in copied.state.values()]
    assert steps == [5, 5, 3, 3, 3]


@pytest.mark.parametrize("skipped", [(0,), (2, 3)])
def test_a_step_that_the_device_skips_changes_nothing_and_is_not_counted(skipped: tuple[int, ...]) -> None:
    def change(optimizer: Any, parameters: list[nn.Parameter], number: int) -> None:
        optimizer.found_inf = torch.tensor(float(number in skipped))
        if number in skipped:
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, torch.nan)

    require_equal(change=change)
    parameters, optimizer = trained(AdamW, 6, change)
    assert all(parameter.isfinite().all() for parameter in parameters)
    assert {int(state["step"]) for state in optimizer.state.values()} == {6 - len(skipped)}


def test_hooks_are_called_once_a_step() -> None:
    seen: list[str] = []

    def change(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int) -> None:
        if number == 2:
            optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
            optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    trained(AdamW, 5, change)
    assert seen == ["before", "after"] * 3


def test_torchs_profiler_sees_every_step() -> None:
    _, optimizer = trained(AdamW, 3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        optimizer.step()
    assert "Optimizer.step#AdamW.step" in {event.key for event in profiler.key_averages()}


def test_a_closure_is_called() -> None:
    _, optimizer = trained(AdamW, 3)
    assert optimizer.step(lambda: 1.5) == 1.5


def test_gradients_are_set_to_none_or_to_zero() -> None:
    parameters, optimizer = trained(AdamW, 2)
    optimizer.zero_grad(set_to_none=False)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in parameters)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in parameters)
