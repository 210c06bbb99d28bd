"""Learning rates as functions of the update, with warm-up before any of them.

A learning rate is computed from the update's number, so a schedule has no state and a resumed run cannot go
astray; only `plateau` looks at results and remembers them. What a key means is what torch's scheduler of that
name means by it, with lengths in epochs; `cosine`, `restarts` and `polynomial` move with every update, and stand
at the starts of epochs where torch's do.

A run may begin with a frozen phase (only the heads learn), at the base rates. Warm-up and schedule begin when it is
over, and count from there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch.optim import Optimizer

from classwise.errors import ConfigError, nearest

# (base lr, updates since the frozen phase and the warm-up) -> lr
Curve = Callable[[float, int], float]


@dataclass(frozen=True)
class Span:
    """How long a run is: updates in an epoch, in the warm-up, after it, and in the frozen phase before both."""

    per_epoch: int
    warmup: int
    rest: int
    frozen: int = 0

    @property
    def start(self) -> int:
        """The update with which the schedule itself begins."""
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
    lowest = min(eta_min, base)  # a rate that is below it already stays: 0 is a part that is not to learn
    return lowest + (base - lowest) * (1 + math.cos(math.pi * update / length)) / 2


def restarts(
    base: float, update: int, span: Span, T_0: float = 10, T_mult: int = 1, eta_min: float = 0.0
) -> float:
    """CosineAnnealingWarmRestarts: from the base down to `eta_min` over `T_0` epochs, then again from the base,
    each time `T_mult` times as long (Loshchilov and Hutter 2017, equation 5)."""
    length = max(1, round(T_0 * span.per_epoch))
    if T_mult == 1:
        update %= length
    while update >= length:  # in whole updates: torch's logarithm may take the first of a cycle for the last
        update, length = update - length, length * T_mult
    lowest = min(eta_min, base)  # a rate that is below it already stays: 0 is a part that is not to learn
    return lowest + (base - lowest) * (1 + math.cos(math.pi * update / length)) / 2


def polynomial(
    base: float, update: int, span: Span, power: float = 1.0, total_epochs: float | None = None
) -> float:
    """PolynomialLR: base * (1 - share of `total_epochs` that is over) ** power, 0 from their end on; without
    `total_epochs`, over all epochs after the warm-up."""
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
    """OneCycleLR over all updates after the warm-up: up from max_lr / div_factor, down to that divided by
    `final_div_factor` (Smith and Topin 2018). `scale` is max_lr over optimizer.lr."""
    highest = base * scale
    first = highest / div_factor
    top, last = pct_start * span.rest - 1, span.rest - 1
    anneal = _ANNEAL[anneal_strategy]
    if 0 < top >= update:  # without room for a rise the first update stands at the top
        return anneal(first, highest, update / top)
    return anneal(highest, first / final_div_factor, (update - top) / max(last - top, 1e-9))


def _linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


def _cos(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)


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


@dataclass
class Plateau:
    """torch.optim.lr_scheduler.ReduceLROnPlateau: times `factor` after `patience` epochs without improvement."""

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
        """Take an epoch's result into account."""
        if self._better(value):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            self.reductions += 1
            self.cooling, self.bad_epochs = self.cooldown, 0

    def lr(self, base: float) -> float:
        """The learning rate after the reductions so far; one that is below `min_lr` already stays."""
        lowest = min(self.min_lr, base)
        for _ in range(self.reductions):
            reduced = max(base * self.factor, lowest)
            if base - reduced <= 1e-8:  # torch's `eps`: too small a step is not taken
                break
            base = reduced
        return base

    def _better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        sign = 1 if self.higher_is_better else -1
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1)
        return sign * (value - self.best) > margin


@dataclass
class Schedule:
    """The learning rate of every parameter group at every update."""

    bases: tuple[float, ...]
    span: Span
    curve: Curve
    plateau: Plateau | None = field(default=None)

    def lrs(self, update: int) -> list[float]:
        """One learning rate a group for the update with this number, counted from 0."""
        if update < self.span.frozen:
            return list(self.bases)
        if update < self.span.start:
            share = (update - self.span.frozen + 1) / (self.span.warmup + 1)
            return [share * self.curve(base, 0) for base in self.bases]
        after = update - self.span.start
        lrs = [self.curve(base, after) for base in self.bases]
        return [self.plateau.lr(lr) for lr in lrs] if self.plateau else lrs

    def set(self, optimizer: Optimizer, update: int) -> float:
        """Give every group its learning rate; returns that of the last group (the heads)."""
        lrs = self.lrs(update)
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        return lrs[-1]

    def end_epoch(self, value: float, update: int) -> None:
        """Tell the validation result after so many updates; only `plateau` cares, and only for what it has
        itself had a hand in: results of the frozen phase and of the warm-up say nothing about its rate."""
        if self.plateau and update > self.span.start:
            self.plateau.see(value)

    def state_dict(self) -> dict[str, Any]:
        """What results have taught it, as plain values."""
        p = self.plateau
        return {} if p is None else {key: getattr(p, key) for key in _REMEMBERED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        for key in _REMEMBERED if self.plateau else ():
            setattr(self.plateau, key, state[key])


_REMEMBERED = ("best", "bad_epochs", "cooling", "reductions")


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
    **options: Any,
) -> Schedule:
    """The schedule `name` for groups with these base learning rates.

    During the first `frozen_updates` updates they stay as they are; warm-up and schedule begin after those.
    `options` are the keys of torch's scheduler (see the functions above); `max_lr` (one cycle) is for the
    group whose base is `lr`, the others keep their proportion. Raises ConfigError.
    """
    if name not in CURVES:
        raise ConfigError(f"schedule.name: found {name!r}; {nearest(name, CURVES)}")
    warmup = round(warmup_epochs * updates_per_epoch)
    rest = updates_per_epoch * epochs - frozen_updates - warmup
    if frozen_updates and rest == warmup == 0:
        rest = 1  # a linear probe is frozen to its end: the schedule never begins
    span = Span(updates_per_epoch, warmup, rest, frozen_updates)
    if span.rest < 1:
        frozen = f", of which {frozen_updates / updates_per_epoch:g} are frozen" if frozen_updates else ""
        raise ConfigError(
            f"schedule.warmup_epochs: found {warmup_epochs}, but training.epochs is {epochs}{frozen}: nothing is"
            " left for the schedule; allowed: less than the other epochs, or 0 for none"
        )
    if name == "plateau":
        plateau = Plateau(higher_is_better=higher_is_better, **options)
        return Schedule(tuple(bases), span, partial(constant, span=span), plateau)
    if max_lr is not None and lr is not None:
        options["scale"] = max_lr / lr
    return Schedule(tuple(bases), span, partial(CURVES[name], span=span, **options))
