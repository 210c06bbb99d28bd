"""Schedules: torch's own, update by update, after a frozen phase and a warm-up that are followed by exactly them."""

import inspect
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from classwise.config.schedules import OneCycle, Plateau
from classwise.errors import ConfigError
from classwise.optim.schedules import Schedule, build_schedule

CASES = 40
EVERY = ("constant", "step", "cosine", "restarts", "polynomial", "onecycle", "plateau")


def optimizer_with(bases: list[float]) -> Optimizer:
    """An optimizer with one group for each base learning rate; its weights never move."""
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": base} for base in bases], lr=1.0)


def torch_rates(
    bases: list[float], make: Callable[[Optimizer], Any], steps: int, every: int = 1
) -> list[list[float]]:
    """The learning rates of torch's scheduler at each of `steps` updates, stepped after every `every` of them."""
    optimizer = optimizer_with(bases)
    scheduler, rates = make(optimizer), []
    for update in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if (update + 1) % every == 0:
            scheduler.step()
    return rates


def worst(schedule: Schedule, wanted: list[list[float]], first: int = 0) -> float:
    """The largest relative difference from `wanted`, which starts at update `first`."""
    found = np.array([schedule.lrs(first + update) for update in range(len(wanted))])
    return float((np.abs(found - wanted) / np.maximum(np.abs(wanted), 1e-300)).max())


def drawn(seed: int) -> tuple[np.random.Generator, list[float], int, int]:
    """A generator, two base learning rates, updates in an epoch, and epochs."""
    rng = np.random.default_rng(seed)
    bases = (10 ** rng.uniform(-5, 0, 2)).tolist()
    return rng, bases, int(rng.integers(1, 8)), int(rng.integers(1, 30))


@pytest.mark.parametrize("seed", range(CASES))
def test_step_is_torchs(seed: int) -> None:
    """StepLR, stepped once an epoch, to 1e-12."""
    rng, bases, per_epoch, epochs = drawn(seed)
    options = {"step_size": int(rng.integers(1, 12)), "gamma": float(rng.uniform(0.05, 1.2))}
    schedule = build_schedule("step", bases, per_epoch, epochs, **options)
    wanted = torch_rates(bases, lambda o: StepLR(o, **options), per_epoch * epochs, per_epoch)
    assert worst(schedule, wanted) <= 1e-12


@pytest.mark.parametrize("seed", range(CASES))
def test_cosine_is_torchs(seed: int) -> None:
    """CosineAnnealingLR at the starts of epochs, beyond T_max too; and update by update over the whole run."""
    rng, bases, per_epoch, epochs = drawn(seed)
    T_max, eta_min = int(rng.integers(2, 12)), float(rng.uniform(1e-7, 0.5) * min(bases))
    schedule = build_schedule("cosine", bases, per_epoch, epochs, T_max=T_max, eta_min=eta_min)
    wanted = torch_rates(bases, lambda o: CosineAnnealingLR(o, T_max, eta_min), epochs)
    at_epochs = [schedule.lrs(epoch * per_epoch) for epoch in range(epochs)]
    np.testing.assert_allclose(at_epochs, wanted, rtol=1e-12, atol=1e-12 * max(bases))
    whole = build_schedule("cosine", bases, per_epoch, epochs, eta_min=eta_min)
    updates = per_epoch * epochs
    wanted = torch_rates(bases, lambda o: CosineAnnealingLR(o, updates, eta_min), updates)
    found = [whole.lrs(update) for update in range(updates)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(bases))


@pytest.mark.parametrize("seed", range(200))
def test_restarts_are_torchs(seed: int) -> None:
    """CosineAnnealingWarmRestarts over whole runs: update by update, and at the starts of epochs, to 1e-12."""
    rng, bases, per_epoch, _ = drawn(seed)
    T_0, T_mult, epochs = int(rng.integers(1, 9)), int(rng.integers(1, 4)), 40
    eta_min = float(rng.uniform(0, 0.5) * min(bases))
    schedule = build_schedule("restarts", bases, per_epoch, epochs, T_0=T_0, T_mult=T_mult, eta_min=eta_min)
    updates = per_epoch * epochs
    wanted = torch_rates(
        bases, lambda o: CosineAnnealingWarmRestarts(o, T_0 * per_epoch, T_mult, eta_min), updates
    )
    found = [schedule.lrs(update) for update in range(updates)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(bases))
    wanted = torch_rates(bases, lambda o: CosineAnnealingWarmRestarts(o, T_0, T_mult, eta_min), epochs)
    np.testing.assert_allclose(found[::per_epoch], wanted, rtol=1e-12, atol=1e-12 * max(bases))
    assert found[T_0 * per_epoch] == pytest.approx(bases, rel=1e-14)  # it did start again


@pytest.mark.parametrize("seed", range(200))
def test_polynomial_is_torchs(seed: int) -> None:
    """PolynomialLR over whole runs, beyond `total_epochs` too, and over all epochs without it, to 1e-12."""
    rng, bases, per_epoch, epochs = drawn(seed)
    power, total = float(rng.uniform(0.2, 3)), int(rng.integers(1, epochs + 1))
    updates = per_epoch * epochs
    for given, length in ((total, total * per_epoch), (None, updates)):
        schedule = build_schedule("polynomial", bases, per_epoch, epochs, power=power, total_epochs=given)
        wanted = torch_rates(bases, lambda o, length=length: PolynomialLR(o, length, power), updates)
        found = [schedule.lrs(update) for update in range(updates)]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12 * max(bases))
    assert schedule.lrs(updates) == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(CASES))
def test_onecycle_is_torchs(seed: int) -> None:
    """OneCycleLR without momentum, each group with its own max_lr, to 1e-12."""
    rng, bases, per_epoch, epochs = drawn(seed)
    updates, scale = per_epoch * epochs, float(rng.uniform(0.5, 20))
    options = {
        "pct_start": float(rng.uniform(0.01, 0.99)),
        "anneal_strategy": str(rng.choice(["cos", "linear"])),
        "div_factor": float(rng.uniform(1, 50)),
        "final_div_factor": float(10 ** rng.uniform(0, 5)),
    }
    schedule = build_schedule(
        "onecycle", bases, per_epoch, epochs, max_lr=bases[1] * scale, lr=bases[1], **options
    )
    highest = [base * scale for base in bases]
    wanted = torch_rates(
        bases,
        lambda o: OneCycleLR(o, highest, total_steps=updates, cycle_momentum=False, **options),
        updates - 1,  # torch refuses a step beyond the last
    )
    last = [first / options["div_factor"] / options["final_div_factor"] for first in highest]
    np.testing.assert_allclose(schedule.lrs(updates - 1), last, rtol=1e-12, atol=1e-12 * max(highest))
    found = [schedule.lrs(update) for update in range(len(wanted))]
    np.testing.assert_allclose(
        np.reshape(found, (-1, 2)), np.array(wanted).reshape(-1, 2), rtol=1e-12, atol=1e-12 * max(highest)
    )


def test_onecycle_without_room_for_a_rise() -> None:
    """pct_start * updates = 1, where torch divides by zero: the first update stands at the top."""
    schedule = build_schedule("onecycle", [0.5], 10, 1, pct_start=0.1)
    rates = [schedule.lrs(update)[0] for update in range(10)]
    assert rates[0] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.5 / 25 / 1e4)


@pytest.mark.parametrize("seed", range(CASES))
def test_plateau_is_torchs(seed: int) -> None:
    """ReduceLROnPlateau over 60 epochs of drawn results, for a metric that rises and for one that falls."""
    rng, bases, per_epoch, _ = drawn(seed)
    higher = bool(rng.integers(2))
    options = {
        "factor": float(rng.uniform(0.1, 0.9)),
        "patience": int(rng.integers(0, 6)),
        "threshold": float(10 ** rng.uniform(-5, -1)),
        "threshold_mode": str(rng.choice(["rel", "abs"])),
        "cooldown": int(rng.integers(0, 4)),
        "min_lr": float(rng.uniform(0, 0.2) * max(bases)),
    }
    optimizer = optimizer_with(bases)
    reference = ReduceLROnPlateau(optimizer, mode="max" if higher else "min", **options)
    schedule = build_schedule("plateau", bases, per_epoch, 60, higher_is_better=higher, **options)
    update = 0
    for value in np.abs(0.5 + np.cumsum(rng.normal(0, 0.1, 60))):
        wanted = [group["lr"] for group in optimizer.param_groups]
        for _ in range(per_epoch):
            np.testing.assert_allclose(schedule.lrs(update), wanted, rtol=1e-12)
            update += 1
        optimizer.step()
        reference.step(float(value))
        schedule.end_epoch(float(value), update)
    assert schedule.plateau is not None


@pytest.mark.parametrize("name", ["cosine", "restarts"])
def test_a_rate_below_the_lowest_stays(name: str) -> None:
    """A part that is not to learn (rate 0) does not rise to eta_min."""
    schedule = build_schedule(name, [0.0, 1e-3], 10, 12, eta_min=1e-4)
    assert {schedule.lrs(update)[0] for update in range(120)} == {0.0}
    assert min(schedule.lrs(update)[1] for update in range(120)) >= 1e-4


def test_plateau_remembers_over_a_restart() -> None:
    """Its state, taken at any epoch and loaded into a fresh one, gives the same learning rates from there on."""
    values = np.random.default_rng(1).uniform(0, 1, 30).tolist()

    def fresh() -> Schedule:
        return build_schedule("plateau", [1.0], 2, 30, patience=1, factor=0.5, cooldown=1)

    whole, rates = fresh(), []
    for epoch, value in enumerate(values):
        whole.end_epoch(value, 2 * (epoch + 1))
        rates.append(whole.lrs(2 * (epoch + 1)))
    assert rates[-1][0] < rates[0][0] / 4
    for cut in range(30):
        before, after = fresh(), fresh()
        for epoch in range(cut):
            before.end_epoch(values[epoch], 2 * (epoch + 1))
        after.load_state_dict(before.state_dict())
        for epoch in range(cut, 30):
            after.end_epoch(values[epoch], 2 * (epoch + 1))
            assert after.lrs(2 * (epoch + 1)) == rates[epoch]


def test_the_others_have_no_state() -> None:
    """A learning rate that is a function of the update needs nothing remembered."""
    for name in EVERY[:-1]:
        schedule = build_schedule(name, [1.0], 3, 4)
        schedule.end_epoch(0.1, 3)
        assert schedule.state_dict() == {}
        schedule.load_state_dict({})


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("warmup_epochs", [0.5, 1, 2.4])
def test_warmup_rises_linearly_and_then_comes_the_schedule(name: str, warmup_epochs: float) -> None:
    """Equal steps from 0 that reach the schedule's first value when the warm-up ends, and then the schedule
    of a run that is shorter by the warm-up."""
    per_epoch, epochs, bases = 5, 7, [0.3, 0.01]
    warmup = round(warmup_epochs * per_epoch)
    schedule = build_schedule(name, bases, per_epoch, epochs, warmup_epochs)
    first = np.array(schedule.lrs(warmup))
    for update in range(warmup + 1):
        share = (update + 1) / (warmup + 1)
        np.testing.assert_allclose(schedule.lrs(update), share * first, rtol=1e-12)
    rest = per_epoch * epochs - warmup
    plain = build_schedule(name, bases, per_epoch, epochs)
    if name in ("cosine", "polynomial", "onecycle"):  # their length is that of what is left
        plain = build_schedule(name, bases, 1, rest)
    found = [schedule.lrs(warmup + update) for update in range(rest)]
    assert found == [plain.lrs(update) for update in range(rest)]


def test_plateau_does_not_look_at_the_warmup() -> None:
    """Bad results while the rate still rises are no reason to lower it."""
    schedule = build_schedule("plateau", [1.0], 2, 10, 3, patience=0)
    for epoch, value in enumerate([0.9, 0.1, 0.1]):
        schedule.end_epoch(value, 2 * epoch + 1)
    assert schedule.lrs(6) == [1.0]
    schedule.end_epoch(0.5, 8)
    schedule.end_epoch(0.4, 10)
    assert schedule.lrs(10) == [pytest.approx(0.1)]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("warmup_epochs", [0.0, 1.6])
@pytest.mark.parametrize("frozen", [1, 5, 12])
def test_a_frozen_phase_shifts_everything(name: str, warmup_epochs: float, frozen: int) -> None:
    """The base rates while the backbone is frozen, then to the last update what a run without that phase, and
    shorter by it, does: warm-up, schedule, and what plateau makes of its results."""
    per_epoch, bases = 5, [0.3, 0.01]
    rest = 23
    options = {"patience": 0} if name == "plateau" else {}

    def build(per: int, epochs: int, warmup: float, first: int) -> Schedule:
        return build_schedule(name, bases, per, epochs, warmup, frozen_updates=first, **options)

    whole = build(1, frozen + rest, round(warmup_epochs * per_epoch), frozen)
    plain = build(1, rest, round(warmup_epochs * per_epoch), 0)
    for update in range(frozen):
        assert whole.lrs(update) == bases
        whole.end_epoch(10.0 + update, update + 1)  # better than all that follows
    results = np.random.default_rng(0).uniform(0, 1, rest).tolist()
    for update in range(rest):
        assert whole.lrs(frozen + update) == plain.lrs(update)
        whole.end_epoch(results[update], frozen + update + 1)
        plain.end_epoch(results[update], update + 1)
    assert whole.state_dict() == plain.state_dict()
    if name not in ("constant", "step"):
        assert whole.lrs(frozen + rest - 1) != bases


@pytest.mark.parametrize("higher", [True, False])
def test_plateau_begins_when_its_own_rate_does(higher: bool) -> None:
    """Results of the frozen phase and of the warm-up, that at its very end included, are not seen; the first one
    after is the one to beat, for metrics where lower is better too."""
    sign = 1 if higher else -1
    schedule = build_schedule(
        "plateau", [1.0], 4, 12, 1.0, higher_is_better=higher, frozen_updates=8, patience=1, factor=0.5
    )
    for epoch, value in enumerate([9.0, 9.0, 9.0]):  # frozen, frozen, warm-up
        schedule.end_epoch(sign * value, 4 * (epoch + 1))
        assert schedule.state_dict()["best"] is None
    schedule.end_epoch(sign * 1.0, 16)
    assert schedule.state_dict()["best"] == sign * 1.0
    for update, value, reductions in ((20, 2.0, 0), (24, 1.9, 0), (28, 1.9, 1), (32, 2.5, 1)):
        schedule.end_epoch(sign * value, update)
        assert schedule.lrs(update) == [0.5**reductions]


@pytest.mark.parametrize("cut", range(1, 12))
def test_plateau_after_warmup_survives_a_checkpoint(cut: int) -> None:
    """Stopped after any epoch and loaded from JSON, with frozen phase and warm-up, it goes on as if it had not
    been."""
    values = [0.2, 0.3, 0.5, 0.4, 0.45, 0.41, 0.6, 0.1, 0.2, 0.3, 0.2, 0.1]

    def fresh() -> Schedule:
        return build_schedule("plateau", [1.0], 3, 12, 1.5, frozen_updates=2, patience=1, cooldown=1)

    whole, before, after = fresh(), fresh(), fresh()
    for epoch in range(cut):
        before.end_epoch(values[epoch], 3 * (epoch + 1))
        whole.end_epoch(values[epoch], 3 * (epoch + 1))
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for epoch in range(cut, 12):
        assert after.lrs(3 * epoch) == whole.lrs(3 * epoch)
        after.end_epoch(values[epoch], 3 * (epoch + 1))
        whole.end_epoch(values[epoch], 3 * (epoch + 1))
    assert after.state_dict() == whole.state_dict()
    assert whole.state_dict()["reductions"] >= 2


def test_plateau_and_no_number() -> None:
    """As torch's: a result that is no number is a bad epoch, never the one to beat."""
    optimizer = optimizer_with([1.0])
    reference = ReduceLROnPlateau(optimizer, mode="max", patience=1)
    schedule = build_schedule("plateau", [1.0], 1, 20, patience=1)
    for epoch, value in enumerate([math.nan, math.nan, 0.5, math.nan, 0.4, 0.6, 0.7]):
        reference.step(value)
        schedule.end_epoch(value, epoch + 1)
        assert schedule.lrs(epoch + 1) == pytest.approx([optimizer.param_groups[0]["lr"]], rel=1e-12)


def test_set_gives_every_group_its_rate() -> None:
    """The optimizer's groups get the rates in their order; the heads' (the last) is returned."""
    optimizer = optimizer_with([0.1, 0.2])
    schedule = build_schedule("step", [0.1, 0.2], 1, 10, step_size=2, gamma=0.5)
    assert schedule.set(optimizer, 5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.05])


def test_a_warmup_as_long_as_the_run_is_refused() -> None:
    """The message names both keys and both numbers."""
    for warmup in (3, 4.5):
        with pytest.raises(ConfigError, match=rf"schedule\.warmup_epochs: found {warmup}, .*epochs is 3"):
            build_schedule("cosine", [1.0], 10, 3, warmup)
    assert build_schedule("cosine", [1.0], 10, 3, 2.9).lrs(29) == [1.0]
    with pytest.raises(
        ConfigError, match=r"found 1, .*epochs is 3, of which 2 are frozen, so no epochs are left"
    ):
        build_schedule("cosine", [1.0], 10, 3, 1, frozen_updates=20)


def test_an_unknown_name_offers_the_nearest() -> None:
    """`cosin` is offered cosine."""
    with pytest.raises(ConfigError, match=r"schedule\.name: found 'cosin'; did you mean 'cosine'"):
        build_schedule("cosin", [1.0], 10, 3)


@pytest.mark.parametrize(
    ("section", "scheduler", "keys"),
    [
        (OneCycle, OneCycleLR, ("pct_start", "anneal_strategy", "div_factor", "final_div_factor")),
        (
            Plateau,
            ReduceLROnPlateau,
            ("factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr"),
        ),
    ],
)
def test_defaults_are_those_of_torch(section: type, scheduler: type, keys: tuple[str, ...]) -> None:
    """A schedule that is named as in torch starts, falls and waits as it does there."""
    torch_defaults = inspect.signature(scheduler).parameters
    for key in keys:
        assert section.model_fields[key].default == torch_defaults[key].default, key


@pytest.mark.parametrize("name", EVERY)
def test_a_schedule_begins_again(name: str) -> None:
    """Each part has the rates of a schedule of its own length and warm-up; only the first begins frozen."""
    options: dict[str, Any] = {"warmup_epochs": 1.0} | (
        {"max_lr": 1.0, "lr": 1.0} if name == "onecycle" else {}
    )
    whole = build_schedule(name, [1.0, 0.1], 4, 9, restart_after=[3, 5], frozen_updates=4, **options)
    parts = [build_schedule(name, [1.0, 0.1], 4, 3, frozen_updates=4, **options)]
    parts += [build_schedule(name, [1.0, 0.1], 4, epochs, **options) for epochs in (2, 4)]
    expected = [
        part.lrs(update)
        for part, epochs in zip(parts, (3, 2, 4), strict=True)
        for update in range(4 * epochs)
    ]
    assert [whole.lrs(update) for update in range(36)] == expected


def test_a_plateau_forgets_where_it_begins_again() -> None:
    """The rate is the base's again, and what is remembered survives a restart of the program."""
    options: dict[str, Any] = {"restart_after": [2], "patience": 0, "factor": 0.5}
    schedule = build_schedule("plateau", [1.0], 2, 5, **options)
    for epoch, value in enumerate([1.0, 0.5, 0.4, 0.3], start=1):
        schedule.end_epoch(value, 2 * epoch)
    assert schedule.lrs(3) == [0.5]
    assert schedule.lrs(8) == [0.5]  # one epoch without improvement since it began again
    restored = build_schedule("plateau", [1.0], 2, 5, **options)
    restored.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert [restored.lrs(update) for update in range(10)] == [schedule.lrs(update) for update in range(10)]
    # A run that is extended by such a part has not seen it yet.
    alone = build_schedule("plateau", [1.0], 2, 2, patience=0, factor=0.5)
    alone.end_epoch(1.0, 2)
    alone.end_epoch(0.5, 4)
    restored = build_schedule("plateau", [1.0], 2, 5, **options)
    restored.load_state_dict(alone.state_dict())
    assert restored.lrs(3) == [0.5]
    assert restored.lrs(4) == [1.0]
