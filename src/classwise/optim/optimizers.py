"""Optimizers by name: torch's own, and every other that timm has (AdamP, SGDP, ...)."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from torch.optim import Optimizer

from classwise.errors import ConfigError, nearest
from classwise.model.backbone import import_timm

# torch.optim.Muon takes matrices only, no convolution and no bias; `muon` is timm's, which gives those to AdamW.
TORCH: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
}
# Without momentum these are seldom what anyone means; the lecture's and every paper's figures use 0.9, and so does
# timm's factory. AdamP and SGDP have their paper's values (appendix D), from which timm's factory departs.
_MOMENTUM = {"momentum": 0.9}
_ADAMP = {"wd_ratio": 0.1, "nesterov": False}
_SGDP = {"momentum": 0.9, "nesterov": False}
DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("sgd", "sgdw", "sgdc", "csgdw", "csgdc", "momentum", "nesterov", "nesterovw"), _MOMENTUM
    ),
    **dict.fromkeys(("lars", "larc", "nlars", "nlarc"), _MOMENTUM),
    **dict.fromkeys(("adamp", "cadamp"), _ADAMP),
    **dict.fromkeys(("sgdp", "csgdp"), _SGDP),
}
_KRON = "its steps are drawn and compiled while it runs, so that a resumed run would not be the same run"
_CANNOT = {
    "lbfgs": "it evaluates the loss several times a step, and the loop gives it one gradient",
    "sparseadam": "it takes sparse gradients only, and no layer of ours gives any",
    "kron": _KRON,
    "kronc": _KRON,
    "kronw": _KRON,
}
_CANNOT_FAMILIES = {
    "fused": "it needs NVIDIA's APEX, which no package index has; adam, adamw, sgd and adagrad are fused as they are",
    "bnb": "bitsandbytes keeps its state in a form that has not been shown to survive a checkpoint",
}
_SECOND_ORDER = "it needs the graph of the gradients, which the loop does not keep"
# Given elsewhere, or no user's choice.
_NOT_OPTIONS = {
    "params": "the model's",
    "lr": "it stands in [optimizer]",
    "weight_decay": "it stands in [optimizer]",
    "maximize": "a loss is to fall",
    "capturable": "the loop captures no graph",
    "differentiable": "nothing is differentiated through a step",
}
_LOOSE = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def build_optimizer(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    lr: float,
    weight_decay: float,
    options: Mapping[str, Any] | None = None,
    **common: Any,
) -> Optimizer:
    """The optimizer `name` over parameter groups (each with its own lr and weight_decay).

    `common` are the keys of [optimizer] (momentum, nesterov, betas, eps); those that are None are left to the
    optimizer. `options` are any further arguments that it has, the keys of [optimizer.options]; lists stand for
    tuples. What it lacks, and values that it refuses or cannot take a step with, are ConfigErrors.
    """
    create, fixed = _factory(name)
    accepted = inspect.signature(create).parameters
    if weight_decay and "weight_decay" not in accepted:
        raise ConfigError(f"optimizer.weight_decay: found {weight_decay}, but {name} has none; allowed: 0")
    given, keys = _given(name, accepted, common, options or {})
    for key, value in given.items():
        _refuse_wrong_value(name, keys[key], accepted[key], value)
    decay = {"weight_decay": weight_decay} if "weight_decay" in accepted else {}
    fixed = fixed | DEFAULTS.get(name, {})
    _refuse_impossible(name, create, fixed, given, decay, keys)
    arguments = fixed | given
    if (
        name in TORCH
        and "fused" in accepted
        and not {"fused", "foreach"} & given.keys()
        and _may_fuse(groups)
    ):
        arguments["fused"] = True  # one kernel for all parameters instead of several for each
    return create([dict(group) for group in groups], lr=lr, **decay, **arguments)


def optimizer_names() -> list[str]:
    """Every name that `optimizer.name` may have."""
    return sorted(name for name in {*TORCH, *_timm_optim().list_optimizers()} if _why_not(name) is None)


def _factory(name: str) -> tuple[Callable[..., Optimizer], dict[str, Any]]:
    """What builds it, and the arguments that its name stands for (`nadamw` and `cadamw` are one class)."""
    if name in TORCH:
        return TORCH[name], {}
    reason = _why_not(name)
    if reason is not None:
        raise ConfigError(f"optimizer.name: {name} cannot be used here: {reason}")
    from_timm = _timm_optim()
    if name not in from_timm.list_optimizers():
        raise ConfigError(f"optimizer.name: found {name!r}; {nearest(name, optimizer_names())}")
    known = from_timm.get_optimizer_info(name)
    return known.opt_class, dict(known.defaults or {})


def _why_not(name: str) -> str | None:
    """Why an optimizer that torch or timm has is not offered; None where it is, or where there is none."""
    for prefix, reason in _CANNOT_FAMILIES.items():
        if name.startswith(prefix):
            return reason
    from_timm = _timm_optim()
    if (
        name not in TORCH
        and name in from_timm.list_optimizers()
        and from_timm.get_optimizer_info(name).second_order
    ):
        return _SECOND_ORDER
    return _CANNOT.get(name)


def _timm_optim() -> Any:
    """timm.optim, which `import timm` alone leaves out."""
    import_timm()
    return importlib.import_module("timm.optim")


def _given(
    name: str, accepted: Mapping[str, Any], common: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """All given arguments by name, each one that the optimizer has, and the config's key of each."""
    given = {key: value for key, value in common.items() if value is not None}
    for key in given:
        if key not in accepted:
            raise ConfigError(f"optimizer.{key}: {name} has no such option; it has {_common(accepted)}")
        if key in options:
            raise ConfigError(f"optimizer.options.{key}: stands in [optimizer] too; give it once")
    allowed = [key for key in accepted if key not in _NOT_OPTIONS]
    for key in options:
        if key in _NOT_OPTIONS:
            raise ConfigError(f"optimizer.options.{key}: not an option ({_NOT_OPTIONS[key]})")
        if key not in accepted:
            raise ConfigError(f"optimizer.options.{key}: {name} has no such option; {nearest(key, allowed)}")
    keys = {key: f"optimizer.{key}" for key in given} | {key: f"optimizer.options.{key}" for key in options}
    return {key: _tupled(value) for key, value in {**given, **options}.items()}, keys


def _common(accepted: Mapping[str, Any]) -> str:
    known = ("momentum", "nesterov", "betas", "eps")
    return ", ".join(key for key in known if key in accepted) or "none of momentum, nesterov, betas, eps"


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value


def _refuse_wrong_value(name: str, key: str, parameter: inspect.Parameter, value: Any) -> None:
    """Against the annotation or, where there is none, the type of the default; and shares against 0 to 1."""
    default = parameter.default
    adapter: TypeAdapter[Any] = TypeAdapter(_kind(parameter), config=_LOOSE)
    complaints = []
    for candidate in (value, list(value) if isinstance(value, tuple) else value):
        try:
            adapter.validate_python(candidate, strict=True)
            break
        except ValidationError as error:
            complaints.append(error.errors()[0]["msg"])
    else:
        what = f"{key}: {name} refuses {value!r}: {complaints[0]}"
        raise ConfigError(f"{what} (its default is {default!r})")
    shares = value if isinstance(value, tuple) else (value,)
    if parameter.name in ("momentum", "betas") and not all(x is None or 0 <= x < 1 for x in shares):
        raise ConfigError(f"{key}: {name} refuses {value!r}, allowed: from 0 to below 1")


def _kind(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if parameter.annotation is not inspect.Parameter.empty and not isinstance(parameter.annotation, str):
        return parameter.annotation
    if isinstance(default, tuple):
        return tuple[(float,) * len(default)]  # type: ignore[misc]
    if default is None:
        return Any
    # A default of 0 is a 0.0 more often than a count, but a switch is a switch.
    return type(default) if isinstance(default, bool | str) else float


def _refuse_impossible(
    name: str,
    create: Callable[..., Optimizer],
    fixed: Mapping[str, Any],
    given: Mapping[str, Any],
    decay: Mapping[str, float],
    keys: Mapping[str, str],
) -> None:
    """Raise a ConfigError that names the argument without which it would work.

    Many of timm's optimizers check nothing when they are built, so they are tried.
    """
    complaint = _complaint(create, {**fixed, **given, **decay})
    if complaint is None:
        return
    for key in given:
        others = {other: value for other, value in given.items() if other != key}
        if _complaint(create, {**fixed, **others, **decay}) is None:
            beside = f" (beside {_listed(others)})" if others else ""
            raise ConfigError(f"{keys[key]}: {name} refuses {given[key]!r}{beside}: {complaint}")
    raise ConfigError(f"optimizer: {name} refuses {_listed(given)}: {complaint}")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items()) or "its defaults"


def _complaint(create: Callable[..., Optimizer], arguments: Mapping[str, Any]) -> str | None:
    """What goes wrong in three steps on parameters that nobody needs; None if nothing does."""
    parameters = [nn.Parameter(torch.ones(shape)) for shape in ((4, 2, 3, 3), (3, 4), (4,), ())]
    try:
        optimizer = create(parameters, lr=1e-3, **arguments)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
            optimizer.step()
    except Exception as error:  # it is timm's and torch's code: anything may come
        return str(error).strip().partition("\n")[0] or type(error).__name__
    finite = all(bool(parameter.isfinite().all()) for parameter in parameters)
    return None if finite else "the weights are not finite after three steps"


def _may_fuse(groups: Sequence[Mapping[str, Any]]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
