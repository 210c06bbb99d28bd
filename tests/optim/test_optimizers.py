"""Optimizers by name: they learn, AdamP and SGDP step by step as in their paper, and wrong options are named."""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.model.backbone import import_timm
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer, optimizer_names

Array = np.ndarray


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On models this small a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def group(*parameters: Tensor, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """One parameter group."""
    return [{"params": list(parameters), "lr": lr, "weight_decay": weight_decay}]


@pytest.mark.parametrize("name", ["adam", "adamw", "adamp", "sgd", "sgdp"])
def test_a_few_steps_lower_the_loss(name: str) -> None:
    """Each of the lecture's optimizers builds over our parameter groups and learns."""
    draw = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(32, 6, generator=draw), torch.randint(0, 3, (32,), generator=draw)
    body, head = nn.Linear(6, 8), nn.Linear(8, 3)
    with torch.no_grad():
        for parameter in [*body.parameters(), *head.parameters()]:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    lr = 0.1 if name.startswith("sgd") else 0.01
    optimizer = build_optimizer(name, parameter_groups(body, head, lr, 1e-2, 0.5), lr, 1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(body(inputs).relu()), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert [g["lr"] for g in optimizer.param_groups] == [lr / 2, lr / 2, lr, lr]


def test_timm_optimizers_need_no_other_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamP can be built where nobody has imported timm.optim yet: `import timm` alone leaves it out."""
    monkeypatch.delitem(sys.modules, "timm.optim", raising=False)
    monkeypatch.delattr(import_timm(), "optim", raising=False)
    parameter = nn.Parameter(torch.ones(2))
    optimizer = build_optimizer("adamp", group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)
    assert type(optimizer).__name__ == "AdamP"


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
def test_a_hundred_steps_as_in_the_paper(case: str, name: str, reference: Any, lr: float) -> None:
    """100 steps of AdamP and SGDP in float64 equal algorithms 1 and 2 in numpy to 1e-10."""
    shape, loss, views = losses()[case]
    start = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def gradients(weight: Array) -> Array:
        leaf = torch.from_numpy(weight.copy()).requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0].numpy()

    wanted, taken = reference(start.numpy(), gradients, lr, 0.05, 100)
    assert views <= set(taken)
    parameter = nn.Parameter(start.clone())
    optimizer = build_optimizer(name, group(parameter, lr=lr, weight_decay=0.05), lr, 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss(parameter).backward()
        optimizer.step()
    assert np.abs(parameter.detach().numpy() - wanted).max() <= 1e-10
    assert np.abs(wanted - start.numpy()).max() > 1e-2  # it went somewhere


def test_sgd_has_momentum_unless_told_otherwise() -> None:
    """`sgd` and `sgdp` come with momentum 0.9; a given momentum wins; None leaves it."""
    parameter = nn.Parameter(torch.ones(2, 2))
    for name in ("sgd", "sgdp"):
        for given, wanted in ((None, 0.9), (0.5, 0.5), (0.0, 0.0)):
            built = build_optimizer(
                name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, momentum=given, betas=None
            )
            assert built.param_groups[0]["momentum"] == wanted


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("adam", {"momentum": 0.9}, "optimizer.momentum"),
        ("sgd", {"betas": (0.9, 0.99)}, "optimizer.betas"),
        ("sgd", {"eps": 1e-6}, "optimizer.eps"),
        ("adamw", {"nesterov": True}, "optimizer.nesterov"),
        ("sgdp", {"betas": (0.9, 0.99)}, "optimizer.betas"),
    ],
)
def test_an_option_that_it_lacks_is_named(name: str, options: dict[str, Any], key: str) -> None:
    """The message names the key and the options that there are."""
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=f"^{key}: {name} has no such option; it has ") as caught:
        build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, **options)
    assert next(iter(options)) not in str(caught.value).partition("it has ")[2]


def test_values_that_it_refuses_are_config_errors() -> None:
    """Betas outside of [0, 1) and nesterov without momentum are the user's mistake, not a traceback."""
    parameter = nn.Parameter(torch.ones(2))
    for name, options in (("adamw", {"betas": (0.9, 1.5)}), ("sgd", {"momentum": 0.0, "nesterov": True})):
        with pytest.raises(ConfigError, match=f"^optimizer: {name} refuses"):
            build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, **options)


def test_an_unknown_name_offers_the_nearest() -> None:
    """`adampp` is offered adamp; second-order optimizers, which the loop cannot serve, are unknown."""
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=r"optimizer\.name: found 'adampp'; did you mean .*'adamp'"):
        build_optimizer("adampp", group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)
    assert "adahessian" not in optimizer_names()
    with pytest.raises(ConfigError, match="adahessian"):
        build_optimizer("adahessian", group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)


def test_an_optimizer_of_a_missing_package_is_a_config_error() -> None:
    """timm lists APEX's optimizers always; without APEX (or a GPU) the message says what is missing."""
    if torch.cuda.is_available():
        pytest.skip("with a GPU it depends on what is installed")
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=r"optimizer\.name: fusedadam cannot be used here: .*APEX"):
        build_optimizer("fusedadam", group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)
