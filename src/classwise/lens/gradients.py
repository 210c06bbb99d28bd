"""The gradient of every parameter: how large, what share of the whole, how its numbers are spread; and why some have
none."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classwise.lens.recorder import Recording

BINS = 33
"""Of a histogram, an odd number, so that 0 is in the middle of one."""
MANY = 40
"""Parameters of a part from which on it is divided further."""
SPREAD = 3.0
"""Standard deviations from the middle of a histogram to its ends, whose bins also count what lies beyond."""


@dataclass(frozen=True)
class ParameterGradient:
    """One parameter. `norm` is that of its gradient before clipping, `share` that of its square in the square of the
    whole; None without a gradient, and `why` then says why. `change`: the norm of what the step has added to the
    parameter, `size` the norm of the parameter. `counts`: of a histogram from `-edge` to `edge`."""

    name: str
    shape: tuple[int, ...]
    count: int
    norm: float | None
    share: float
    change: float
    size: float
    counts: tuple[int, ...]
    edge: float
    why: str = ""
    frozen: bool = False


@dataclass(frozen=True)
class Part:
    """The parameters of one part of the model, such as `backbone.layer1`."""

    name: str
    parameters: tuple[ParameterGradient, ...]

    @property
    def count(self) -> int:
        """How many numbers they hold."""
        return sum(parameter.count for parameter in self.parameters)

    @property
    def share(self) -> float:
        """Of the square of the gradient's norm."""
        return sum(parameter.share for parameter in self.parameters)

    @property
    def norm(self) -> float:
        """Of the gradient."""
        return math.hypot(*(parameter.norm or 0.0 for parameter in self.parameters))

    @property
    def frozen(self) -> int:
        """How many of the parameters are frozen."""
        return sum(parameter.frozen for parameter in self.parameters)


def gradient_parts(
    recording: Recording, parameters: Mapping[str, nn.Parameter], reasons: Mapping[str, str]
) -> tuple[Part, ...]:
    """Every parameter, in the order of the model. `reasons`: why those that are frozen are, by the beginning of their
    names."""
    whole = recording.norm**2
    parts: dict[str, list[ParameterGradient]] = {}
    part_of = part_names(parameters)
    for name, parameter in parameters.items():
        found = _parameter_gradient(name, parameter, recording, whole, reasons)
        parts.setdefault(part_of[name], []).append(found)
    return tuple(Part(name, tuple(found)) for name, found in parts.items())


def part_names(parameters: Iterable[str]) -> dict[str, str]:
    """The part of the model that each parameter belongs to: `backbone.layer1` of `backbone.layer1.0.conv1.weight`, one
    step deeper where that would be many, and the head of a head's."""
    names = list(parameters)
    part_of = {name: _beginning(name, 2) for name in names}
    sizes = Counter(part_of.values())
    return {name: _beginning(name, 3 if sizes[part] > MANY else 2) for name, part in part_of.items()}


def _beginning(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:-1][:depth]) or name


@torch.no_grad()
def _parameter_gradient(
    name: str,
    parameter: nn.Parameter,
    recording: Recording,
    whole: float,
    reasons: Mapping[str, str],
) -> ParameterGradient:
    gradient = recording.gradients.get(name)
    before, after = recording.before[name], recording.after[name]
    norm = None if gradient is None else _norm(gradient)
    counts, edge = ((), 0.0) if gradient is None else histogram(gradient)
    why = ""
    if gradient is None and not parameter.requires_grad:
        why = next((text for start, text in reasons.items() if name.startswith(start)), "requires_grad=False")
    elif gradient is None:
        why = "the chain of grad_fn does not lead to it in this update"
    return ParameterGradient(
        name=name,
        shape=tuple(parameter.shape),
        count=parameter.numel(),
        norm=norm,
        share=norm**2 / whole if norm and whole else 0.0,
        change=_norm(after - before),
        size=_norm(before),
        counts=counts,
        edge=edge,
        why=why,
        frozen=not parameter.requires_grad,
    )


def histogram(values: Tensor) -> tuple[tuple[int, ...], float]:
    """Counts in BINS bins of equal width around 0, and the end of the outermost, which also count what lies beyond."""
    flat = values.detach().float().flatten().cpu()
    edge = SPREAD * float(flat.square().mean().sqrt())
    if not edge or not math.isfinite(edge):
        return (), 0.0
    inside = flat.clamp(-edge, edge)
    return tuple(int(count) for count in torch.histc(inside, bins=BINS, min=-edge, max=edge)), edge


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.detach().float()))


def largest(parts: Sequence[Part], count: int) -> list[ParameterGradient]:
    """The parameters with the largest share of the gradient."""
    everything = [parameter for part in parts for parameter in part.parameters if parameter.norm is not None]
    return sorted(everything, key=lambda parameter: -parameter.share)[:count]
