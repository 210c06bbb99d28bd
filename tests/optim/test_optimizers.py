"""Optimizers by name: each learns and survives a checkpoint, and wrong options are named."""

import copy
import json
import math
import sys
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from classwise.errors import ConfigError
from classwise.model.timm_module import import_timm
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import PLANNED, TORCH, _timm_optim, build_optimizer, optimizer_names
from classwise.run.checkpoint import _lay_out_as_parameters, _plain
from classwise.run.tensor_tree import flatten, unflatten


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


def small_model() -> tuple[nn.Module, nn.Module]:
    """A body with convolutions (one of them depthwise) and norm, in channels_last, and a head."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return body.to(memory_format=torch.channels_last), nn.Linear(8, 3)


def take_steps(model: nn.Module, optimizer: Optimizer, count: int) -> None:
    """Steps on six random images, always the same."""
    draw = torch.Generator().manual_seed(1)
    images_BCHW, labels_B = torch.randn(6, 3, 8, 8, generator=draw), torch.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images_BCHW), labels_B).backward()
        optimizer.step()


def through_a_checkpoint(optimizer: Optimizer) -> dict[str, Any]:
    """Its state as a checkpoint writes and reads it: JSON and safetensors."""
    tensors: dict[str, Tensor] = {}
    tree = json.loads(json.dumps(flatten({"optimizer": optimizer.state_dict()}, "", tensors)))
    state: dict[str, Any] = unflatten(tree, load(save(_plain(tensors))))["optimizer"]
    return state


@pytest.mark.parametrize("name", optimizer_names())
def test_every_one_steps_and_survives_a_checkpoint(name: str) -> None:
    """Three steps move every parameter and keep it finite; three more after a checkpoint are, byte for byte, those
    without it."""
    decay = 0.0 if name == "rprop" else 0.01

    def build(body: nn.Module, head: nn.Module) -> Optimizer:
        return build_optimizer(name, parameter_groups(body, head, 0.01, decay, 0.5), 0.01, decay)

    body, head = small_model()
    before = [parameter.detach().clone() for parameter in nn.Sequential(body, head).parameters()]
    model = nn.Sequential(body, head)
    optimizer = build(body, head)
    take_steps(model, optimizer, 3)
    for old, new in zip(before, model.parameters(), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)
    again = copy.deepcopy(model)
    resumed = build(again[0], again[1])
    resumed.load_state_dict(through_a_checkpoint(optimizer))
    _lay_out_as_parameters(resumed)
    take_steps(model, optimizer, 3)
    take_steps(again, resumed, 3)
    for (key, one), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


def test_what_is_left_out_has_a_reason() -> None:
    """Every optimizer of torch and of timm is either offered or refused by name with why."""
    torchs = {
        name.lower()
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    known = torchs | set(_timm_optim().list_optimizers())
    refused = known - set(optimizer_names())
    assert set(optimizer_names()) <= known
    assert {name for name in refused if not name.startswith(("bnb", "fused"))} == {
        *("lbfgs", "sparseadam", "adahessian", "kron", "kronc", "kronw")
    }
    parameter = nn.Parameter(torch.ones(2))
    for name in refused:
        with pytest.raises(ConfigError, match=rf"^optimizer\.name: {name} cannot be used here: \w+"):
            build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)


def test_a_name_is_more_than_its_class() -> None:
    """timm's variants of one class differ by fixed arguments, which their names stand for; AdamP and its kin keep
    their paper's."""
    parameter = nn.Parameter(torch.ones(2, 2))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("cadamw", {"caution": True}),
        ("larc", {"trust_clip": True, "momentum": 0.9}),
        ("lars", {"trust_clip": False, "momentum": 0.9}),
        ("nesterov", {"nesterov": True, "momentum": 0.9}),
        ("nadamuon", {"algo": "adamuon", "nesterov": True}),
        ("adamp", {"wd_ratio": 0.1, "nesterov": False, "delta": 0.1}),
        ("csgdp", {"wd_ratio": 0.1, "nesterov": False, "caution": True}),
    ]
    for name, wanted in cases:
        built = build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)
        assert {key: built.param_groups[0][key] for key in wanted} == wanted, name
    one = build_optimizer(
        "cadamw", group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, options={"caution": False}
    )
    assert one.param_groups[0]["caution"] is False


def test_torchs_own_come_from_torch() -> None:
    """Where both have a name, it is torch's class."""
    parameter = nn.Parameter(torch.ones(2, 2))
    for name, kind in TORCH.items():
        built = build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)
        assert type(built) is PLANNED.get(name, kind)
        assert isinstance(built, kind)
        assert kind.__module__.startswith("torch.optim")


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


@pytest.mark.parametrize(
    ("name", "options", "key", "wanted"),
    [
        ("adamw", {"amsgrad": True}, "amsgrad", True),
        ("adadelta", {"rho": 0.5}, "rho", 0.5),
        ("sgd", {"dampening": 0.5}, "dampening", 0.5),
        ("adan", {"betas": [0.9, 0.8, 0.7]}, "betas", (0.9, 0.8, 0.7)),
        ("adafactor", {"eps": [1e-20, 1e-2]}, "eps", (1e-20, 1e-2)),
        ("muon", {"ns_coefficients": [[3, -4.7, 2.0]]}, "ns_coefficients", ((3, -4.7, 2.0),)),
        ("lamb", {"max_grad_norm": None}, "max_grad_norm", None),
        ("adamp", {"delta": 1, "wd_ratio": 0.5}, "wd_ratio", 0.5),
        ("adamw", {"foreach": True}, "fused", None),
        ("adamw", {"fused": False}, "fused", False),
        ("adamw", {}, "fused", True),
    ],
)
def test_any_argument_can_be_given(name: str, options: dict[str, Any], key: str, wanted: object) -> None:
    """[optimizer.options] reach the optimizer; lists arrive as tuples; a kernel that was chosen is left alone."""
    parameter = nn.Parameter(torch.ones(2, 2))
    built = build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, options=options)
    assert built.param_groups[0][key] == wanted
    parameter.grad = torch.ones(2, 2)
    built.step()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"amsgrd": True}, "amsgrd: adamw has no such option; did you mean 'amsgrad'?"),
        ("adamw", {"rho": 0.9}, "rho: adamw has no such option; allowed: betas, eps, amsgrad, "),
        ("adamw", {"amsgrad": "yes"}, "amsgrad: adamw refuses 'yes': Input should be a valid boolean"),
        ("adamp", {"delta": "x"}, "delta: adamp refuses 'x': Input should be a valid number"),
        ("adamp", {"delta": math.nan}, "delta: adamp refuses nan: Input should be a finite number"),
        ("adamp", {"nesterov": 1}, "nesterov: adamp refuses 1: Input should be a valid boolean"),
        (
            "adamp",
            {"betas": [0.9]},
            "betas: adamp refuses (0.9,): Field required (its default is (0.9, 0.999))",
        ),
        ("adamp", {"betas": [0.9, 1.5]}, "betas: adamp refuses (0.9, 1.5), allowed: from 0 to below 1"),
        ("sgdp", {"momentum": 1.0}, "momentum: sgdp refuses 1.0, allowed: from 0 to below 1"),
        ("muon", {"ns_steps": 2.5}, "ns_steps: muon refuses 2.5: Input should be a valid integer"),
        ("muon", {"conv_mode": "x"}, "conv_mode: muon refuses 'x': Invalid conv_mode: x"),
        ("adadelta", {"rho": 2.0}, "rho: adadelta refuses 2.0: Invalid rho value: 2.0"),
        ("mars", {"mars_type": "x"}, "mars_type: mars refuses 'x': MARS type not supported"),
        # Its constructor takes any string; only a step would fail.
        (
            "muon",
            {"ns_coefficients": "x"},
            "ns_coefficients: muon refuses 'x': Unknown coefficients preset 'x'",
        ),
        (
            "madgrad",
            {"decoupled_decay": True, "eps": -1.0},
            "eps: madgrad refuses -1.0 (beside decoupled_decay",
        ),
        ("adamw", {"lr": 0.1}, "lr: not an option (it is a key of [optimizer])"),
        ("adamw", {"maximize": True}, "maximize: not an option (the loss is minimized)"),
    ],
)
def test_an_argument_that_it_refuses_is_named(name: str, options: dict[str, Any], message: str) -> None:
    """Unknown, of the wrong type, out of range, or of no use: the message names the key, not a traceback."""
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError) as caught:
        build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, options=options)
    assert str(caught.value).startswith(f"optimizer.options.{message}")


def test_values_that_it_refuses_are_config_errors() -> None:
    """Betas outside of [0, 1), of another number, nesterov without momentum: the key of [optimizer] is named; a key
    given twice is refused, as is weight decay where there is none."""
    parameter = nn.Parameter(torch.ones(2))
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("adamw", {"betas": (0.9, 1.5)}, r"optimizer\.betas: adamw refuses \(0\.9, 1\.5\), allowed"),
        (
            "adan",
            {"betas": (0.9, 0.99)},
            r"optimizer\.betas: adan refuses .* \(its default is \(0\.98, 0\.92",
        ),
        (
            "adafactor",
            {"eps": 1e-8},
            r"optimizer\.eps: adafactor refuses 1e-08: Input should be a valid tuple",
        ),
        (
            "sgd",
            {"momentum": 0.0, "nesterov": True},
            r"optimizer\.momentum: sgd refuses 0\.0 \(beside nesterov",
        ),
        (
            "sgd",
            {"momentum": 0.5, "options": {"momentum": 0.5}},
            r"optimizer\.options\.momentum: .* allowed: one of them",
        ),
    ]
    for name, options, message in cases:
        with pytest.raises(ConfigError, match=f"^{message}"):
            build_optimizer(name, group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0, **options)
    with pytest.raises(
        ConfigError, match=r"^optimizer\.weight_decay: found 0\.01, but rprop has none; allowed: 0"
    ):
        build_optimizer("rprop", group(parameter, lr=0.1, weight_decay=0.01), 0.1, 0.01)


def test_an_unknown_name_offers_the_nearest() -> None:
    """`adampp` is offered adamp."""
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=r"optimizer\.name: found 'adampp'; did you mean .*'adamp'"):
        build_optimizer("adampp", group(parameter, lr=0.1, weight_decay=0.0), 0.1, 0.0)
