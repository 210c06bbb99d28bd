"""Parameter groups: what is decayed, and at what rate each part, and each layer, learns."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from torch import nn

from classwise.errors import ConfigError
from classwise.model.backbone import import_timm


def parameter_groups(
    backbone: nn.Module,
    heads: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_lr_factor: float,
    layer_decay: float = 1.0,
    extra: Iterable[nn.Parameter] = (),
    apart: bool = False,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: backbone, `extra` and heads in this order, with and without weight decay. Those that
    learn and decay alike are one group, since each costs a step of its own, unless they are to stay `apart`: torch's
    fused SGD cannot step a group of which a part begins to learn later. "part" names a group's last members.

    Norms and biases (every parameter with one dimension or none) are not decayed: shrinking a norm's scale
    regularises nothing, since the next norm undoes it (van Laarhoven 2017, section 2). Parameters with
    `requires_grad=False` stand in no group.

    The heads learn at lr, the backbone at lr * backbone_lr_factor. With `layer_decay` below 1 that is further
    multiplied by layer_decay ** (layers between it and the heads, its own counted): the last layer once, the
    stem most often (Clark et al. 2020, ELECTRA, appendix A; Bao et al. 2022, BEiT, appendix). What a layer is,
    is timm's `group_matcher`. `extra` are parameters that belong to no layer, such as a criterion's: lr, and no
    weight decay. Raises ConfigError for a backbone that gives no order of its layers.
    """
    groups = []
    for scale, members in _by_layer(backbone, layer_decay):
        groups += _decayed_and_not(members, lr * backbone_lr_factor * scale, weight_decay, "backbone")
    others = [parameter for parameter in extra if parameter.requires_grad]
    if others:
        groups.append({"params": others, "lr": lr, "weight_decay": 0.0, "part": "criterion"})
    groups += _decayed_and_not(heads.parameters(), lr, weight_decay, "heads")
    return groups if apart else _merged(groups)


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups with the same rate and decay as one, at the place of the last, so that the heads' stay behind."""
    merged: dict[tuple[float, float], dict[str, Any]] = {}
    for group in groups:
        key = group["lr"], group["weight_decay"]
        before = merged.pop(key)["params"] if key in merged else []
        merged[key] = group | {"params": before + group["params"]}
    return list(merged.values())


def _decayed_and_not(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, part: str
) -> list[dict[str, Any]]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = []
    for decayed in (True, False):
        members = [parameter for parameter in trained if (parameter.ndim > 1) == decayed]
        if members:
            decay = weight_decay if decayed else 0.0
            groups.append({"params": members, "lr": lr, "weight_decay": decay, "part": part})
    return groups


def _by_layer(backbone: nn.Module, layer_decay: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """(factor, parameters) of every layer from the stem on; all of the backbone at once without a decay."""
    if layer_decay == 1.0:
        yield 1.0, list(backbone.parameters())
        return
    distances = _distances(backbone, layer_decay)
    for distance in sorted(set(distances.values()), reverse=True):
        members = [p for name, p in backbone.named_parameters() if distances[name] == distance]
        yield layer_decay**distance, members


def _distances(backbone: nn.Module, layer_decay: float) -> dict[str, int]:
    """How many layers each parameter is from the heads, as timm.optim.param_groups_layer_decay counts them for
    the model with its classifier: what no rule of the matcher knows (a neck) stands with the heads, at 0."""
    what = f"optimizer.layer_decay: found {layer_decay}"
    if not 0 < layer_decay < 1:
        raise ConfigError(f"{what}, allowed: above 0 up to 1 (1 for none)")
    none = ConfigError(f"{what}, but {type(backbone).__name__} gives no order of its layers; allowed: 1")
    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is None:
        raise none
    names = [*dict(backbone.named_parameters()), _classifier(backbone)]
    # timm asks its module for nothing but names; the classifier, which we cut off, tells where the heads stand.
    complete = SimpleNamespace(named_parameters=lambda: [(name, None) for name in names])
    group = import_timm().models.group_parameters
    layers = group(complete, matcher(coarse=False), reverse=True)
    distances = {name: layers[names[-1]] - layers[name] for name in names[:-1]}
    if len(set(distances.values())) < 2:
        raise none
    return distances


def _classifier(backbone: nn.Module) -> str:
    """The name of a parameter of the classifier that timm's model would have."""
    known = getattr(backbone, "pretrained_cfg", None) or {}
    first = known.get("classifier") or "heads"
    return f"{first if isinstance(first, str) else first[0]}.weight"
