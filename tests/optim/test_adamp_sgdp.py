"""AdamP and SGDP, step by step as in their paper."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classwise.optim.optimizers import build_optimizer

Array = np.ndarray

# The reference: Heo et al., 'AdamP: Slowing down the slowdown for momentum optimizers on scale-invariant
# weights', ICLR 2021, algorithms 1 (SGDP) and 2 (AdamP), with the projection of equation 11 and the defaults of
# appendix D (delta 0.1, weight decay times 0.1 where projected), first over channels, then over the layer.
DELTA, WD_RATIO, EPS = 0.1, 0.1, 1e-8


def projected(weight: Array, gradient: Array, update: Array) -> tuple[Array, float, str]:
    """The update without its radial part where the weight is orthogonal to the gradient; the factor of the
    weight decay; and which view was taken."""
    if weight.ndim < 2:
        return update, 1.0, "none"
    for view, rows in (("channel", weight.shape[0]), ("layer", 1)):
        w, g, u = (array.reshape(rows, -1) for array in (weight, gradient, update))
        cosines = [
            abs(float(a @ b)) / (math.sqrt(a @ a) * math.sqrt(b @ b)) for a, b in zip(w, g, strict=True)
        ]
        if max(cosines) < DELTA / math.sqrt(w.shape[1]):
            flat = np.empty_like(u)
            for row, (a, b) in enumerate(zip(w, u, strict=True)):
                unit = a / (math.sqrt(a @ a) + EPS)
                flat[row] = b - (unit @ b) * unit
            return flat.reshape(weight.shape), WD_RATIO, view
    return update, 1.0, "none"


def adamp(weight: Array, gradients: Callable[[Array], Array], lr: float, decay: float, steps: int) -> Any:
    """Algorithm 2 for one parameter: the weight after every step, and the views taken."""
    m, v, betas, views = np.zeros_like(weight), np.zeros_like(weight), (0.9, 0.999), []
    for t in range(1, steps + 1):
        g = gradients(weight)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        # The projection is linear in the update, so the bias correction may stand before it.
        update, ratio, view = projected(weight, g, m_hat / (np.sqrt(v_hat) + EPS))
        weight = weight * (1 - lr * decay * ratio) - lr * update
        views.append(view)
    return weight, views


def sgdp(weight: Array, gradients: Callable[[Array], Array], lr: float, decay: float, steps: int) -> Any:
    """Algorithm 1 with momentum 0.9; weight decay outside of the momentum is scaled as if inside, by 1 / (1 - 0.9),
    as in the authors' implementation."""
    momentum, buffer, views = 0.9, np.zeros_like(weight), []
    for _ in range(steps):
        g = gradients(weight)
        buffer = momentum * buffer + g
        update, ratio, view = projected(weight, g, buffer)
        weight = weight * (1 - lr * decay * ratio / (1 - momentum)) - lr * update
        views.append(view)
    return weight, views


def losses() -> dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor], set[str]]]:
    """Losses of one parameter by name: its shape, the loss, and the views that the projection must take."""
    draw = torch.Generator().manual_seed(7)
    goal_KF = torch.randn(4, 12, generator=draw, dtype=torch.float64)

    def unit(x: Tensor, dims: tuple[int, ...]) -> Tensor:
        return x / x.pow(2).sum(dim=dims, keepdim=True).sqrt()

    return {
        # Scale-invariant per output channel, like a convolution before a batch norm.
        "channel": ((4, 3, 2, 2), lambda w: (unit(w, (1, 2, 3)).flatten(1) * goal_KF).sum(), {"channel"}),
        # Scale-invariant as a whole only, like a layer before a layer norm.
        "layer": ((4, 12), lambda w: (unit(w, (0, 1)) * goal_KF).sum().exp(), {"layer"}),
        # Not invariant at all: the projection must keep its hands off, at least most of the time.
        "plain": ((4, 12), lambda w: ((w - goal_KF) ** 2).sum(), {"none"}),
        "bias": ((12,), lambda w: ((w / w.norm() - goal_KF[0]) ** 2).sum(), {"none"}),
    }


@pytest.mark.parametrize("case", ["channel", "layer", "plain", "bias"])
@pytest.mark.parametrize(("name", "reference", "lr"), [("adamp", adamp, 0.01), ("sgdp", sgdp, 0.02)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_hundred_steps_as_in_the_paper(
    case: str, name: str, reference: Any, lr: float, dtype: torch.dtype
) -> None:
    """100 steps of AdamP and SGDP equal algorithms 2 and 1 in numpy to 1e-12 in float64; in float32, from weights
    of the size that layers start with, to 1e-6."""
    shape, loss, views = losses()[case]
    start = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if dtype == torch.float32:
        start, lr = (0.1 * start).float().double(), lr / (10 if name == "adamp" else 100)

    def gradients(weight: Array) -> Array:
        leaf = torch.from_numpy(weight.copy()).requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0].numpy()

    wanted, taken = reference(start.numpy(), gradients, lr, 0.05, 100)
    assert views <= set(taken)
    parameter = nn.Parameter(start.to(dtype, copy=True))
    optimizer = build_optimizer(name, [{"params": [parameter], "lr": lr, "weight_decay": 0.05}], lr, 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(parameter.double()).backward()
        optimizer.step()
    found = parameter.detach().double().numpy()
    assert np.abs(found - wanted).max() <= (1e-12 if dtype == torch.float64 else 1e-6)
    assert np.abs(wanted - start.numpy()).max() > 1e-2  # it went somewhere
