"""Learning-rate schedules as functions of the update, with a warm-up before any of them.

The learning rate is computed from the number of the update, so a schedule has no state and is exact after a resume;
only `plateau` depends on results, and remembers them. Options mean what they mean in torch's scheduler of the same
name, with lengths in epochs. `cosine`, `restarts` and `polynomial` change with every update, and agree with torch's at
the start of each epoch.

A run can begin with a frozen phase, in which only the heads are trained, with constant rates. Warm-up and schedule
begin after it, and count from there. A schedule may begin again later, with its warm-up: then it is one schedule after
the other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch.optim import Optimizer

from classwise.errors import ConfigError, nearest

Curve = Callable[[float, int], float]
"""The learning rate, from the base learning rate and the number of updates since the warm-up."""


@dataclass(frozen=True)
class Span:
    """The lengths of a run's phases, in updates."""

    per_epoch: int
    warmup: int
    rest: int
    """Updates after the warm-up: those of the schedule itself."""
    frozen: int = 0
    """Updates before the warm-up, in which only the heads are trained."""

    @property
    def start(self) -> int:
        """The update at which the schedule itself begins."""
        return self.frozen + self.warmup


def constant(base: float, update: int, span: Span) -> float:
    """Always the base learning rate."""
    return base


def step(base: float, update: int, span: Span, step_size: int = 10, gamma: float = 0.1) -> float:
    """torch.optim.lr_scheduler.StepLR: times `gamma` every `step_size` epochs."""
    return float(base * gamma ** (update // span.per_epoch // step_size))


def cosine(base: float, update: int, span: Span, T_max: float | None = None, eta_min: float = 0.0) -> float:
    """CosineAnnealingLR: from the base down to `eta_min` over `T_max` epochs (Loshchilov and Hutter 2017,
    equation 5); without `T_max`, over all epochs after the warm-up."""
    length = span.rest if T_max is None else T_max * span.per_epoch
    lowest = min(eta_min, base)  # a base below eta_min stays: 0 is the rate of a part that is not trained
    return lowest + (base - lowest) * (1 + math.cos(math.pi * update / length)) / 2


def restarts(
    base: float, update: int, span: Span, T_0: float = 10, T_mult: int = 1, eta_min: float = 0.0
) -> float:
    """CosineAnnealingWarmRestarts: from the base down to `eta_min` over `T_0` epochs, then again from the base,
    each time `T_mult` times as long (Loshchilov and Hutter 2017, equation 5)."""
    length = max(1, round(T_0 * span.per_epoch))
    if T_mult == 1:
        update %= length
    while (
        update >= length
    ):  # with integers: torch's logarithm can take the first update of a cycle for the last
        update -= length
        length *= T_mult
    lowest = min(eta_min, base)  # a base below eta_min stays: 0 is the rate of a part that is not trained
    return lowest + (base - lowest) * (1 + math.cos(math.pi * update / length)) / 2


def polynomial(
    base: float, update: int, span: Span, power: float = 1.0, total_epochs: float | None = None
) -> float:
    """PolynomialLR: base * (1 - fraction of `total_epochs`) ** power, then 0; without `total_epochs`, over all epochs
    after the warm-up."""
    length = span.rest if total_epochs is None else total_epochs * span.per_epoch
    return float(base * max(0.0, 1 - update / length) ** power)


def onecycle(
    base: float,
    update: int,
    span: Span,
    scale: float = 1.0,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> float:
    """OneCycleLR over all updates after the warm-up: from max_lr / div_factor up to max_lr, then down to the initial
    rate divided by `final_div_factor` (Smith and Topin 2018). `scale` is max_lr / optimizer.lr."""
    highest = base * scale
    initial = highest / div_factor
    peak = pct_start * span.rest - 1
    last = span.rest - 1
    anneal = _ANNEAL[anneal_strategy]
    if 0 < peak >= update:  # if the cycle is too short for a rise, the first update has the highest rate
        return anneal(initial, highest, update / peak)
    return anneal(highest, initial / final_div_factor, (update - peak) / max(last - peak, 1e-9))


def _linear(start: float, end: float, fraction: float) -> float:
    return (end - start) * fraction + start


def _cos(start: float, end: float, fraction: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * fraction) + 1)


_ANNEAL = {"linear": _linear, "cos": _cos}
CURVES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "restarts": restarts,
    "polynomial": polynomial,
    "onecycle": onecycle,
    "plateau": constant,
}
"""The function of each schedule; `plateau` reduces a constant rate."""


@dataclass
class Plateau:
    """ReduceLROnPlateau: times `factor` after more than `patience` epochs in a row without improvement."""

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    higher_is_better: bool = True
    best: float | None = None
    bad_epochs: int = 0
    cooling: int = 0
    reductions: int = 0

    def see(self, value: float) -> None:
        """Take the result of an epoch into account."""
        if self._is_better(value):
            self.best = value
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            self.reductions += 1
            self.cooling = self.cooldown
            self.bad_epochs = 0

    def lr(self, base: float) -> float:
        """The learning rate after the reductions so far; a base below `min_lr` stays."""
        lowest = min(self.min_lr, base)
        for _ in range(self.reductions):
            reduced = max(base * self.factor, lowest)
            if base - reduced <= 1e-8:  # torch's `eps`: smaller reductions are not made
                break
            base = reduced
        return base

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        sign = 1 if self.higher_is_better else -1
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1)
        return sign * (value - self.best) > margin


@dataclass
class Schedule:
    """The learning rate of every parameter group at every update. `following`: the schedule that takes over after
    `length` updates, and counts from there."""

    bases: tuple[float, ...]
    span: Span
    curve: Curve
    plateau: Plateau | None = field(default=None)
    following: "Schedule | None" = None
    length: int = 0

    def lrs(self, update: int) -> list[float]:
        """The learning rate of each group for an update, counted from 0."""
        if self.following is not None and update >= self.length:
            return self.following.lrs(update - self.length)
        if update < self.span.frozen:
            return list(self.bases)
        if update < self.span.start:
            fraction = (update - self.span.frozen + 1) / (self.span.warmup + 1)
            return [fraction * self.curve(base, 0) for base in self.bases]
        lrs = [self.curve(base, update - self.span.start) for base in self.bases]
        return [self.plateau.lr(lr) for lr in lrs] if self.plateau else lrs

    def set(self, optimizer: Optimizer, update: int) -> float:
        """Set the learning rate of every group; returns that of the last one, which is the heads'."""
        lrs = self.lrs(update)
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        return lrs[-1]

    def end_epoch(self, value: float, update: int) -> None:
        """Report the validation result after `update` updates.

        Only `plateau` uses it, and only after the warm-up: earlier results say nothing about its learning rate.
        """
        if self.following is not None and update > self.length:
            self.following.end_epoch(value, update - self.length)
            return
        if self.plateau and update > self.span.start:
            self.plateau.see(value)

    def state_dict(self) -> dict[str, Any]:
        """What `plateau` remembers of the results, as plain values; empty for the other schedules."""
        if self.plateau is None:
            return {}
        state = {key: getattr(self.plateau, key) for key in _PLATEAU_STATE}
        return state if self.following is None else {**state, "following": self.following.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; a schedule that follows since then keeps its beginning."""
        for key in _PLATEAU_STATE if self.plateau else ():
            setattr(self.plateau, key, state[key])
        if self.following is not None and "following" in state:
            self.following.load_state_dict(state["following"])


_PLATEAU_STATE = ("best", "bad_epochs", "cooling", "reductions")


def build_schedule(
    name: str,
    bases: Sequence[float],
    updates_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
    higher_is_better: bool = True,
    max_lr: float | None = None,
    lr: float | None = None,
    frozen_updates: int = 0,
    restart_after: Sequence[int] | None = None,
    **options: Any,
) -> Schedule:
    """The schedule `name` for parameter groups with the base learning rates `bases`.

    The base rates hold during the first `frozen_updates` updates; warm-up and schedule begin after those, and again
    after each of the epochs `restart_after`.
    `options` are those of torch's scheduler (see the functions above). `max_lr` (one cycle only) is for a group with
    the base `lr`; the other groups keep their ratio to it.

    Raises ConfigError for an unknown name, and for a warm-up that leaves no updates for the schedule.
    """
    if name not in CURVES:
        raise ConfigError(f"schedule.name: found {name!r}; {nearest(name, CURVES)}")
    if restart_after:
        # Each part is a schedule of its own; the first one may begin frozen.
        first_end, *later_ends = restart_after
        arguments = {**options, "warmup_epochs": warmup_epochs, "higher_is_better": higher_is_better}
        arguments |= {"max_lr": max_lr, "lr": lr}
        following = build_schedule(
            name,
            bases,
            updates_per_epoch,
            epochs - first_end,
            restart_after=[end - first_end for end in later_ends] or None,
            **arguments,
        )
        schedule = build_schedule(
            name, bases, updates_per_epoch, first_end, frozen_updates=frozen_updates, **arguments
        )
        schedule.following, schedule.length = following, first_end * updates_per_epoch
        return schedule

    # The phases of the run.
    warmup = round(warmup_epochs * updates_per_epoch)
    rest = updates_per_epoch * epochs - frozen_updates - warmup
    if frozen_updates and rest == warmup == 0:
        rest = 1  # a linear probe is frozen to its end, so the schedule never begins
    if rest < 1:
        frozen = f", of which {frozen_updates / updates_per_epoch:g} are frozen" if frozen_updates else ""
        raise ConfigError(
            f"schedule.warmup_epochs: found {warmup_epochs}, but training.epochs is {epochs}{frozen}, so no epochs are"
            " left for the schedule; allowed: less than the other epochs, or 0 for no warm-up"
        )
    span = Span(per_epoch=updates_per_epoch, warmup=warmup, rest=rest, frozen=frozen_updates)

    # The curve, and what lowers it on a plateau.
    if name == "plateau":
        plateau = Plateau(higher_is_better=higher_is_better, **options)
        return Schedule(tuple(bases), span=span, curve=partial(constant, span=span), plateau=plateau)
    if max_lr is not None and lr is not None:
        options["scale"] = max_lr / lr
    return Schedule(tuple(bases), span=span, curve=partial(CURVES[name], span=span, **options))
