"""Optimizers by name: torch's own, and every other that timm has (AdamP, SGDP, ...)."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from classwise.errors import ConfigError, nearest
from classwise.model.backbone import import_timm

TORCH: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "asgd": torch.optim.ASGD,
}
# Without momentum these are seldom what anyone means; the lecture's and every paper's figures use 0.9.
DEFAULTS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9}, "sgdp": {"momentum": 0.9}}


def build_optimizer(
    name: str, groups: Sequence[Mapping[str, Any]], lr: float, weight_decay: float, **options: Any
) -> Optimizer:
    """The optimizer `name` over parameter groups (each with its own lr and weight_decay).

    `options` that are None are left to the optimizer; one that it does not have is a ConfigError.
    """
    create = _factory(name)
    accepted = inspect.signature(create).parameters
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in accepted:
            raise ConfigError(f"optimizer.{key}: {name} has no such option; it has {_options(accepted)}")
    given = DEFAULTS.get(name, {}) | given
    if name in TORCH and "fused" in accepted and _may_fuse(groups):
        given["fused"] = True  # one kernel for all parameters instead of several for each
    try:
        return create([dict(group) for group in groups], lr=lr, weight_decay=weight_decay, **given)
    except (ValueError, TypeError, ImportError, AssertionError) as error:
        raise ConfigError(f"optimizer: {name} refuses {given}: {error}") from None


def optimizer_names() -> list[str]:
    """Every name that `optimizer.name` may have."""
    from_timm = _timm_optim()
    usable = [name for name in from_timm.list_optimizers() if not _second_order(name)]
    return sorted({*TORCH, *usable})


def _factory(name: str) -> Callable[..., Optimizer]:
    if name in TORCH:
        return TORCH[name]
    from_timm = _timm_optim()
    if name not in from_timm.list_optimizers() or _second_order(name):
        raise ConfigError(f"optimizer.name: found {name!r}; {nearest(name, optimizer_names())}")
    try:
        factory: Callable[..., Optimizer] = from_timm.get_optimizer_class(name, bind_defaults=False)
    except AssertionError as error:  # APEX and bitsandbytes: not installed, or no GPU
        raise ConfigError(f"optimizer.name: {name} cannot be used here: {error}") from None
    return factory


def _timm_optim() -> Any:
    """timm.optim, which `import timm` alone leaves out."""
    import_timm()
    return importlib.import_module("timm.optim")


def _second_order(name: str) -> bool:
    """Such optimizers want a graph of the gradients, which the loop does not keep."""
    return bool(_timm_optim().get_optimizer_info(name).second_order)


def _may_fuse(groups: Sequence[Mapping[str, Any]]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


def _options(accepted: Mapping[str, Any]) -> str:
    known = ("momentum", "nesterov", "betas", "eps")
    return ", ".join(key for key in known if key in accepted) or "none of momentum, nesterov, betas, eps"
