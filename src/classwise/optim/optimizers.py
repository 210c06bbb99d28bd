"""Optimizers by name: torch's own, all others that timm has (AdamP, SGDP, ...), and those of the user's own."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from torch.optim import Optimizer

from classwise.errors import ConfigError, nearest
from classwise.model.timm_module import import_timm
from classwise.optim import adamw
from classwise.optim.own import own_optimizer
from classwise.own_parts.reference import hint, is_own, short
from classwise.own_parts.source import admitted, failure_text

# Not torch.optim.Muon, which takes matrices only: `muon` is timm's, which leaves convolutions and biases to AdamW.
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
PLANNED: dict[str, type[Optimizer]] = {"adamw": adamw.AdamW}
"""Torch's fused optimizers whose steps are planned once, on the CPU."""
# Without momentum these are rarely what is meant: papers use 0.9, and so does timm's factory. AdamP and SGDP have the
# values of their paper (appendix D), where timm's factory has others.
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
_KRON = "it draws random numbers and compiles its steps while it runs, so a resumed run would differ"
_UNUSABLE = {
    "lbfgs": "it evaluates the loss several times per step, and the training loop computes one gradient",
    "sparseadam": "it needs sparse gradients, which none of the layers produce",
    "kron": _KRON,
    "kronc": _KRON,
    "kronw": _KRON,
}
_UNUSABLE_PREFIXES = {
    "fused": "it needs NVIDIA's APEX, which is not on PyPI; adam, adamw, sgd and adagrad are fused already",
    "bnb": "the state of bitsandbytes' optimizers is not known to survive a checkpoint",
}
_SECOND_ORDER = "it needs the graph of the gradients, which the training loop does not keep"
_NOT_OPTIONS = {
    "params": "these are the model's parameters",
    "lr": "it is a key of [optimizer]",
    "weight_decay": "it is a key of [optimizer]",
    "maximize": "the loss is minimized",
    "capturable": "the training loop captures no CUDA graphs",
    "differentiable": "nothing is differentiated through a step",
}
"""Arguments of optimizers that users cannot give in [optimizer.options], and why."""
_COMMON_KEYS = ("momentum", "nesterov", "betas", "eps")
_ANNOTATIONS = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def build_optimizer(
    name: str,
    groups: Sequence[Mapping[str, Any]],
    lr: float,
    weight_decay: float,
    options: Mapping[str, Any] | None = None,
    **common: Any,
) -> Optimizer:
    """The optimizer `name` over parameter groups (each with its own lr and weight_decay).

    `common` are the keys of [optimizer] (momentum, nesterov, betas, eps); with None the optimizer has its own default.
    `options` are the keys of [optimizer.options]: any further arguments of the optimizer, with lists for tuples.

    Raises ConfigError for an unknown optimizer, for arguments that it does not have, and for values that it refuses or
    cannot make a step with.
    """
    # What the optimizer has, and what is given.
    create, defaults = _factory(name)
    defaults = defaults | DEFAULTS.get(name, {})
    accepted = inspect.signature(create).parameters
    if weight_decay and "weight_decay" not in accepted:
        raise ConfigError(
            f"optimizer.weight_decay: found {weight_decay}, but {short(name)} has none; allowed: 0"
        )
    given, keys = _given(name, accepted, common, options or {})

    if (
        name in TORCH
        and "fused" in accepted
        and not {"fused", "foreach"} & given.keys()
        and _may_fuse(groups)
    ):
        defaults = defaults | {"fused": True}  # one kernel for all parameters, instead of several for each
        if _all_on(groups, ("cpu",)):
            create = PLANNED.get(name, create)

    # Wrong values are found before training starts: by their types, and by a few steps on a toy problem.
    for argument, value in given.items():
        _refuse_wrong_value(name, keys[argument], accepted[argument], value)
    decay = {"weight_decay": weight_decay} if "weight_decay" in accepted else {}
    _refuse_failing(name=name, create=create, defaults=defaults, given=given, decay=decay, keys=keys)
    return create([dict(group) for group in groups], lr=lr, **decay, **{**defaults, **given})


def optimizer_names() -> list[str]:
    """Every name that `optimizer.name` can have, sorted."""
    names = {*TORCH, *_timm_optim().list_optimizers()}
    return sorted(name for name in names if _why_unusable(name) is None)


def _factory(name: str) -> tuple[Callable[..., Optimizer], dict[str, Any]]:
    """The class of an optimizer and the arguments that its name implies: several of timm's names share a class."""
    if name in TORCH:
        return TORCH[name], {}
    if is_own(name):
        return own_optimizer(name), {}
    reason = _why_unusable(name)
    if reason is not None:
        raise ConfigError(f"optimizer.name: {name} cannot be used here: {reason}")
    timm_optim = _timm_optim()
    if name not in timm_optim.list_optimizers():
        raise ConfigError(f"optimizer.name: found {name!r}; {hint(name) or nearest(name, optimizer_names())}")
    info = timm_optim.get_optimizer_info(name)
    return info.opt_class, dict(info.defaults or {})


def _why_unusable(name: str) -> str | None:
    """Why an optimizer of torch or timm is not offered; None if it is, or if there is no such optimizer."""
    for prefix, reason in _UNUSABLE_PREFIXES.items():
        if name.startswith(prefix):
            return reason
    timm_optim = _timm_optim()
    from_timm = name not in TORCH and name in timm_optim.list_optimizers()
    if from_timm and timm_optim.get_optimizer_info(name).second_order:
        return _SECOND_ORDER
    return _UNUSABLE.get(name)


def _timm_optim() -> Any:
    """timm.optim, which `import timm` alone does not import."""
    import_timm()
    return importlib.import_module("timm.optim")


def _given(
    name: str, accepted: Mapping[str, Any], common: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The given arguments by name, and the config's key of each. Raises ConfigError for one that there is not."""
    # The keys of [optimizer].
    given = {key: value for key, value in common.items() if value is not None}
    has = ", ".join(key for key in _COMMON_KEYS if key in accepted) or f"none of {', '.join(_COMMON_KEYS)}"
    for key in given:
        if key not in accepted:
            raise ConfigError(f"optimizer.{key}: {short(name)} has no such option; it has {has}")
        if key in options:
            raise ConfigError(f"optimizer.options.{key}: found beside optimizer.{key}; allowed: one of them")

    # Those of [optimizer.options].
    allowed = [key for key in accepted if key not in _NOT_OPTIONS]
    for key in options:
        if key in _NOT_OPTIONS:
            raise ConfigError(f"optimizer.options.{key}: not an option ({_NOT_OPTIONS[key]})")
        if key not in accepted:
            raise ConfigError(
                f"optimizer.options.{key}: {short(name)} has no such option; {nearest(key, allowed)}"
            )

    keys = {key: f"optimizer.{key}" for key in given} | {key: f"optimizer.options.{key}" for key in options}
    return {key: _as_tuples(value) for key, value in {**given, **options}.items()}, keys


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _refuse_wrong_value(name: str, key: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise ConfigError for a value that does not have the type of the parameter, or for a momentum of 1 or more."""
    adapter: TypeAdapter[Any] = TypeAdapter(_type_of(parameter), config=_ANNOTATIONS)
    complaints = []
    for candidate in (value, list(value) if isinstance(value, tuple) else value):
        try:
            adapter.validate_python(candidate, strict=True)
            break
        except ValidationError as error:
            complaints.append(error.errors()[0]["msg"])
    else:
        raise ConfigError(
            f"{key}: {short(name)} refuses {value!r}: {complaints[0]} (its default is {parameter.default!r})"
        )
    if parameter.name not in ("momentum", "betas"):
        return
    factors = value if isinstance(value, tuple) else (value,)
    if not all(factor is None or 0 <= factor < 1 for factor in factors):
        raise ConfigError(f"{key}: {short(name)} refuses {value!r}, allowed: from 0 to below 1")


def _type_of(parameter: inspect.Parameter) -> Any:
    """The parameter's annotation or, without one, the type of its default."""
    default = parameter.default
    if parameter.annotation is not inspect.Parameter.empty and not isinstance(parameter.annotation, str):
        return parameter.annotation
    if isinstance(default, tuple):
        return tuple[(float,) * len(default)]  # type: ignore[misc]
    if default is None:
        return Any
    # Most defaults of 0 mean 0.0, so an int is taken for a float; a bool is a subclass of int, and stays one.
    return type(default) if isinstance(default, bool | str) else float


def _refuse_failing(
    name: str,
    create: Callable[..., Optimizer],
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    decay: Mapping[str, float],
    keys: Mapping[str, str],
) -> None:
    """Raise ConfigError for arguments with which the optimizer fails; the message names the one to blame.

    Many of timm's optimizers check nothing when they are built, so they have to be tried.
    """
    failure = _try_steps(name, create, {**defaults, **given, **decay})
    if failure is None:
        return
    for argument, value in given.items():
        others = {other: given[other] for other in given if other != argument}
        if _try_steps(name, create, {**defaults, **others, **decay}) is None:
            beside = f" (beside {_listed(others)})" if others else ""
            raise ConfigError(f"{keys[argument]}: {short(name)} refuses {value!r}{beside}: {failure}")
    raise ConfigError(f"optimizer: {short(name)} refuses {_listed(given)}: {failure}")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items()) or "its defaults"


def _try_steps(name: str, create: Callable[..., Optimizer], arguments: Mapping[str, Any]) -> str | None:
    """What goes wrong in three steps on throwaway parameters; None if nothing does."""
    parameters = [nn.Parameter(torch.ones(shape)) for shape in ((4, 2, 3, 3), (3, 4), (4,), ())]
    try:
        optimizer = create(parameters, lr=1e-3, **arguments)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
            optimizer.step()
    except Exception as error:  # timm's and torch's code, and the user's own, can raise anything
        if is_own(name):
            return failure_text(error, admitted(name, "optimizer.name"))
        return str(error).strip().partition("\n")[0] or type(error).__name__
    finite = all(bool(parameter.isfinite().all()) for parameter in parameters)
    return None if finite else "the weights are not finite after three steps"


def _may_fuse(groups: Sequence[Mapping[str, Any]]) -> bool:
    floating = all(p.is_floating_point() for group in groups for p in group["params"])
    return floating and _all_on(groups, ("cpu", "cuda"))


def _all_on(groups: Sequence[Mapping[str, Any]], devices: Sequence[str]) -> bool:
    """Whether all parameters are on devices of these types."""
    return all(p.device.type in devices for group in groups for p in group["params"])
