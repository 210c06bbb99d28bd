"""The step of one weight, worked out by hand: the optimizer's formula, line by line, with the numbers put in.

The lines follow what torch and timm compute, in float64; the model holds the same in float32, so that both differ by
rounding. Sources: SGD with momentum as torch.optim.SGD documents it (Sutskever et al. 2013); Adam: Kingma and Ba 2015,
algorithm 1; AdamW: Loshchilov and Hutter 2019, algorithm 2; AdamP: Heo et al. 2021, algorithm 2.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from classwise.lens.weight import ChosenWeight


@dataclass(frozen=True)
class Line:
    """One line: what is computed, with symbols and with numbers, and the result."""

    what: str
    symbols: str
    numbers: str
    result: float


@dataclass(frozen=True)
class WorkedOut:
    """The lines of a step and the weight that they end with; `lines` are empty where no formula is worked out."""

    optimizer: str
    lines: tuple[Line, ...]
    new: float


def worked_out(optimizer: Optimizer, weight: ChosenWeight) -> WorkedOut:
    """The step of this weight."""
    kind = type(optimizer)
    steps = _STEPS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
    if steps is None or (kind.__name__ == "AdamP" and weight.group.get("caution")):
        return WorkedOut(kind.__name__, (), math.nan)
    lines = steps(weight)
    return WorkedOut(kind.__name__, tuple(lines), lines[-1].result)


def number(value: float) -> str:
    """Six significant digits: as many as float32 tells apart."""
    return f"{value:.6g}"


def _line(what: str, symbols: str, numbers: str, result: float) -> Line:
    """A line in which negative numbers behind a sign are in brackets."""
    numbers = re.sub(r"(?<=[·+−/] )-[\d.]+(e[-+]\d+)?", r"(\g<0>)", numbers)
    return Line(what, symbols, numbers.replace("-", "−"), result)


def _sgd(w: ChosenWeight) -> list[Line]:
    lr, decay, momentum = w.group["lr"], w.group["weight_decay"], w.group["momentum"]
    lines: list[Line] = []
    gradient = _decayed_gradient(w, decay, lines)
    step = gradient
    if momentum:
        buffer = w.state.get("momentum_buffer")
        damping = 1 - w.group["dampening"]
        if buffer is None:
            step = gradient
            lines.append(
                _line("momentum, begun with the first gradient", "b = g", f"b = {number(gradient)}", step)
            )
        else:
            step = momentum * buffer + damping * gradient
            numbers = f"b = {momentum:g} · {number(buffer)} + {_factor(damping)}{number(gradient)}"
            lines.append(_line("momentum", f"b ← μ b + {'(1 − d) ' if damping != 1 else ''}g", numbers, step))
        if w.group["nesterov"]:
            ahead = gradient + momentum * step
            numbers = f"u = {number(gradient)} + {momentum:g} · {number(step)}"
            lines.append(_line("Nesterov: one step ahead", "u = g + μ b", numbers, ahead))
            step = ahead
    symbol = "u" if w.group["nesterov"] and momentum else "b" if momentum else "g"
    new = w.old - lr * step
    numbers = f"w = {number(w.old)} − {number(lr)} · {number(step)}"
    lines.append(_line("the step", f"w ← w − η {symbol}", numbers, new))
    return lines


def _adam(w: ChosenWeight) -> list[Line]:
    group = w.group
    decoupled = bool(group.get("decoupled_weight_decay"))
    lines: list[Line] = []
    gradient = _decayed_gradient(w, 0.0 if decoupled else group["weight_decay"], lines)
    m, v, t = _moments(w, gradient, lines)
    beta1, beta2 = group["betas"]
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    lines.append(_corrected("m", m, beta1, t, m_hat, "first"))
    if group.get("amsgrad"):
        v_max = max(w.state.get("max_exp_avg_sq", 0.0), v)
        numbers = f"v = max({number(w.state.get('max_exp_avg_sq', 0.0))}, {number(v)})"
        lines.append(_line("AMSGrad: the largest so far", "v ← max(v_max, v)", numbers, v_max))
        v, v_hat = v_max, v_max / (1 - beta2**t)
    lines.append(_corrected("v", v, beta2, t, v_hat, "second"))
    old = _shrunk(w, 1.0, lines) if decoupled else w.old
    lines.append(_adam_step(old, group, m_hat / (math.sqrt(v_hat) + group["eps"]), m_hat, v_hat))
    return lines


def _adamp(w: ChosenWeight) -> list[Line]:
    group = w.group
    lines: list[Line] = []
    m, v, t = _moments(w, w.gradient, lines)
    beta1, beta2 = group["betas"]
    denominator = math.sqrt(v) / math.sqrt(1 - beta2**t) + group["eps"]
    numbers = f"n = √({number(v)}) / √(1 − {beta2:g}^{t:.0f}) + {group['eps']:g}"
    lines.append(_line("its root, corrected", "n = √v / √(1 − β₂^t) + ε", numbers, denominator))
    if group["nesterov"]:
        raw = (beta1 * m + (1 - beta1) * w.gradient) / denominator
        numbers = (
            f"p = ({beta1:g} · {number(m)} + {1 - beta1:g} · {number(w.gradient)}) / {number(denominator)}"
        )
        lines.append(_line("the direction, one step ahead", "p = (β₁ m + (1 − β₁) g) / n", numbers, raw))
    else:
        raw = m / denominator
        lines.append(_line("the direction", "p = m / n", f"p = {number(m)} / {number(denominator)}", raw))

    # The projection looks at the whole parameter: it takes out the part of the direction that points along the weights.
    direction, ratio = raw, 1.0
    if w.parameter.ndim > 1:
        projected = _projection(w, t)
        if projected.along is None:
            what = f"no projection: the gradient points along the weights (cosine {number(projected.cosine)}"
            lines.append(_line(f"{what} ≥ {number(projected.bound)})", "p stays", f"p = {number(raw)}", raw))
        else:
            direction, ratio = raw - projected.along, group["wd_ratio"]
            what = f"projection {projected.over}: cosine of gradient and weights {number(projected.cosine)}"
            numbers = f"p = {number(raw)} − {number(projected.along)}"
            lines.append(
                _line(f"{what} < {number(projected.bound)}", "p ← p − ŵ (ŵ · p)", numbers, direction)
            )
    old = _shrunk(w, ratio, lines)
    rate = group["lr"] / (1 - beta1**t)
    new = old - rate * direction
    numbers = f"w = {number(old)} − {number(group['lr'])} / (1 − {beta1:g}^{t:.0f}) · {number(direction)}"
    lines.append(_line("the step", "w ← w − η / (1 − β₁^t) · p", numbers, new))
    return lines


@dataclass(frozen=True)
class _Projection:
    """What AdamP's projection takes from one weight's direction, None where it does not project."""

    along: float | None
    cosine: float
    bound: float
    over: str = ""


def _projection(w: ChosenWeight, t: float) -> _Projection:
    """Over each output channel where gradient and weights are nearly orthogonal in all of them; else over the whole
    layer, if they are there."""
    group = w.group
    beta1, beta2 = group["betas"]
    gradient, values = w.parameter_gradient.double(), w.parameter.double()
    zero = torch.zeros_like(gradient)
    m = beta1 * w.parameter_state.get("exp_avg", zero).double() + (1 - beta1) * gradient
    v = beta2 * w.parameter_state.get("exp_avg_sq", zero).double() + (1 - beta2) * gradient**2
    denominator = v.sqrt() / math.sqrt(1 - beta2**t) + group["eps"]
    p = ((beta1 * m + (1 - beta1) * gradient) if group["nesterov"] else m) / denominator
    cosine = bound = 0.0
    views: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
        ("over each output", lambda x: x.reshape(x.shape[0], -1)),
        ("over the whole layer", lambda x: x.reshape(1, -1)),
    )
    for over, view in views:
        rows = view(values)
        similar = torch.nn.functional.cosine_similarity(view(gradient), rows, dim=1, eps=group["eps"]).abs()
        cosine, bound = float(similar.max()), group["delta"] / math.sqrt(rows.shape[1])
        if cosine < bound:
            unit = rows / (rows.norm(dim=1, keepdim=True) + group["eps"])
            along = unit * (unit * view(p)).sum(dim=1, keepdim=True)
            return _Projection(float(along.reshape(values.shape)[w.index]), cosine, bound, over)
    return _Projection(None, cosine, bound)


def _moments(w: ChosenWeight, gradient: float, lines: list[Line]) -> tuple[float, float, float]:
    """The new first and second moment and the number of this step."""
    beta1, beta2 = w.group["betas"]
    m_before, v_before = w.state.get("exp_avg", 0.0), w.state.get("exp_avg_sq", 0.0)
    t = w.state.get("step", 0.0) + 1
    m = beta1 * m_before + (1 - beta1) * gradient
    v = beta2 * v_before + (1 - beta2) * gradient**2
    numbers = f"m = {beta1:g} · {number(m_before)} + {1 - beta1:.6g} · {number(gradient)}"
    lines.append(_line("first moment: mean of the gradients", "m ← β₁ m + (1 − β₁) g", numbers, m))
    numbers = f"v = {beta2:g} · {number(v_before)} + {1 - beta2:.6g} · {_base(gradient)}²"
    lines.append(_line("second moment: mean of their squares", "v ← β₂ v + (1 − β₂) g²", numbers, v))
    return m, v, t


def _corrected(symbol: str, value: float, beta: float, t: float, result: float, which: str) -> Line:
    """Early means are too small, since they begin at 0."""
    place = {"first": "₁", "second": "₂"}[which]
    numbers = f"{symbol}̂ = {number(value)} / (1 − {beta:g}^{t:.0f})"
    what = f"corrected for having begun at 0, step t = {t:.0f}"
    return _line(what, f"{symbol}̂ = {symbol} / (1 − β{place}^t)", numbers, result)


def _adam_step(old: float, group: dict[str, Any], ratio: float, m_hat: float, v_hat: float) -> Line:
    numbers = (
        f"w = {number(old)} − {number(group['lr'])} · {number(m_hat)} / (√{number(v_hat)} + {group['eps']:g})"
    )
    return _line("the step", "w ← w − η m̂ / (√v̂ + ε)", numbers, old - group["lr"] * ratio)


def _decayed_gradient(w: ChosenWeight, decay: float, lines: list[Line]) -> float:
    """Weight decay as a part of the gradient."""
    if not decay:
        return w.gradient
    gradient = w.gradient + decay * w.old
    numbers = f"g = {number(w.gradient)} + {decay:g} · {number(w.old)}"
    lines.append(_line("weight decay, added to the gradient", "g ← g + λ w", numbers, gradient))
    return gradient


def _shrunk(w: ChosenWeight, ratio: float, lines: list[Line]) -> float:
    """Weight decay beside the gradient."""
    decay, lr = w.group["weight_decay"], w.group["lr"]
    if not decay:
        return w.old
    old: float = w.old * (1 - lr * decay * ratio)
    extra = f" · {ratio:g}" if ratio != 1 else ""
    symbol = " r" if ratio != 1 else ""
    numbers = f"w = {number(w.old)} · (1 − {number(lr)} · {decay:g}{extra})"
    lines.append(_line("weight decay, apart from the gradient", f"w ← w (1 − η λ{symbol})", numbers, old))
    return old


def _factor(value: float) -> str:
    return "" if value == 1 else f"{value:g} · "


def _base(value: float) -> str:
    """In brackets where a power follows a sign."""
    return f"({number(value)})" if value < 0 else number(value)


_STEPS: dict[str, Callable[[ChosenWeight], list[Line]]] = {
    "torch.SGD": _sgd,
    "torch.Adam": _adam,
    "torch.AdamW": _adam,
    "classwise.AdamW": _adam,
    "timm.AdamP": _adamp,
}
