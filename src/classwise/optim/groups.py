"""Parameter groups: which parameters have weight decay, and the learning rate of each part and each layer."""

import fnmatch
import itertools
import re
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from torch import nn

from classwise.errors import ConfigError
from classwise.model.timm_module import import_timm

# By the last part of their names: position embeddings (pos_embed, pos_embed_win), and tables of relative positions
# (relative_position_bias_table of Swin and BEiT, rel_pos_h of MViT and SAM, height_rel of BoTNet, attention_biases of
# LeViT).
_POSITIONS = re.compile(r"pos_embed|rel_pos|relative_position|^(height|width)_rel$|^attention_biases$")


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
    """Parameter groups for an optimizer, each with "params", "lr", "weight_decay" and the "part" of the model.

    The order is backbone, `extra`, heads, each with and then without weight decay. Groups with the same rate and decay
    are merged, since each group costs a step of its own; "part" is then that of the last. `apart` keeps them separate:
    torch's fused SGD cannot step a group in which some parameters start to learn later than others.

    Weight decay is for the weights of layers; see `undecayed` for the parameters that have none. Parameters with
    `requires_grad=False` are in no group.

    The heads have the rate lr, the backbone lr * backbone_lr_factor. With `layer_decay` below 1, a layer's rate is
    further multiplied by layer_decay ** distance, where the distance from the heads is 1 for the last layer and largest
    for the stem (Clark et al. 2020, ELECTRA, appendix A; Bao et al. 2022, BEiT, appendix). Layers are those of timm's
    `group_matcher`. `extra` are parameters outside the model, such as the criterion's: rate lr, no weight decay.

    Raises ConfigError for a backbone whose layers have no order, if `layer_decay` is below 1.
    """
    # The backbone, layer by layer.
    groups: list[dict[str, Any]] = []
    exempt = {id(parameter) for parameter in undecayed(backbone).values()}
    for scale, parameters in _by_layer(backbone, layer_decay):
        groups += _decayed_and_not(
            parameters,
            lr=lr * backbone_lr_factor * scale,
            weight_decay=weight_decay,
            part="backbone",
            exempt=exempt,
        )

    # What is beside the model, and the heads, whose groups come last: Schedule.set returns the last group's rate.
    trained = [parameter for parameter in extra if parameter.requires_grad]
    if trained:
        groups.append({"params": trained, "lr": lr, "weight_decay": 0.0, "part": "criterion"})
    groups += _decayed_and_not(
        heads.parameters(),
        lr=lr,
        weight_decay=weight_decay,
        part="heads",
        exempt={id(parameter) for parameter in undecayed(heads).values()},
    )
    return groups if apart else _merged(groups)


def freeze_slow_layers(backbone: nn.Module, layer_decay: float, frozen_below: float) -> tuple[int, int]:
    """Set `requires_grad` to False for the layers whose rate is less than `frozen_below` times the backbone's; how many
    these are, and of how many.

    They are the first ones, so the backward pass ends before them, and what the forward pass makes there is not kept.
    Their maps are the largest of all (docs/decisions/0072-the-default-run.md). Raises ConfigError for a backbone whose
    layers have no order, if `layer_decay` is below 1.
    """
    layers = list(_by_layer(backbone, layer_decay))
    # 0.7 ** 2 is a little less than 0.49: a layer at the limit is trained.
    slow = [parameters for scale, parameters in layers if scale < frozen_below * (1 - 1e-9)]
    for parameter in itertools.chain.from_iterable(slow):
        parameter.requires_grad_(False)
    return len(slow), len(layers)


def undecayed(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model that have no weight decay, by name; they hold no weights of a layer:

    - norms and biases, which are all parameters with at most one dimension. Shrinking the scale of a norm regularizes
      nothing, since the next norm undoes it (van Laarhoven 2017, section 2);
    - scales that have one number for each channel or head: layer scales, temperatures, gains. They have at least three
      dimensions, of which all but one have size 1. So do class, register and distillation tokens;
    - position embeddings and tables of relative positions, by their names;
    - what the model itself lists in `no_weight_decay()`, as timm's models do. Patterns are allowed, as in timm.
    """
    listed = set(getattr(model, "no_weight_decay", set)())
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if _is_scale_or_bias(name, parameter)
        or _POSITIONS.search(name.rpartition(".")[2])
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in listed)
    }


def _is_scale_or_bias(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter has at most one dimension, apart from those of size 1 in scales and tokens."""
    if parameter.ndim <= 1:
        return True
    is_vector = sum(size > 1 for size in parameter.shape) <= 1
    return parameter.ndim > 2 and is_vector and not name.endswith("weight")


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups with the same rate and decay as one, in the position of the last, so that the heads' stay at the end."""
    merged: dict[tuple[float, float], dict[str, Any]] = {}
    for group in groups:
        key = (group["lr"], group["weight_decay"])
        earlier = merged.pop(key)["params"] if key in merged else []
        merged[key] = group | {"params": earlier + group["params"]}
    return list(merged.values())


def _decayed_and_not(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, part: str, exempt: set[int]
) -> list[dict[str, Any]]:
    """Up to two groups: the parameters with weight decay, and those without, whose ids are in `exempt`."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in trained if id(parameter) not in exempt]
    others = [parameter for parameter in trained if id(parameter) in exempt]
    groups = [
        {"params": decayed, "lr": lr, "weight_decay": weight_decay, "part": part},
        {"params": others, "lr": lr, "weight_decay": 0.0, "part": part},
    ]
    return [group for group in groups if group["params"]]


def _by_layer(backbone: nn.Module, layer_decay: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """(factor of the rate, parameters) of each layer, from the stem on; the whole backbone at once without a decay."""
    if layer_decay == 1.0:
        yield 1.0, list(backbone.parameters())
        return
    distances = _distances(backbone, layer_decay)
    for distance in sorted(set(distances.values()), reverse=True):
        parameters = [
            parameter for name, parameter in backbone.named_parameters() if distances[name] == distance
        ]
        yield layer_decay**distance, parameters


def _distances(backbone: nn.Module, layer_decay: float) -> dict[str, int]:
    """The number of layers from each parameter to the heads, by the parameter's name.

    As timm.optim.param_groups_layer_decay counts them for the model with its classifier. Parameters that match none of
    the model's rules (such as a neck) are with the heads, at 0.
    """
    found = f"optimizer.layer_decay: found {layer_decay}"
    if not 0 < layer_decay < 1:
        raise ConfigError(f"{found}, allowed: above 0 up to 1 (1 for none)")
    matcher: Any = getattr(backbone, "group_matcher", None)
    distances: dict[str, int] = {}
    if matcher is not None:
        # timm needs only the names. Our backbones have no classifier: its name is added, to find where the heads are.
        classifier = _classifier(backbone)
        names = [*dict(backbone.named_parameters()), classifier]
        complete = SimpleNamespace(named_parameters=lambda: [(name, None) for name in names])
        group_parameters = import_timm().models.group_parameters
        layers = group_parameters(complete, matcher(coarse=False), reverse=True)
        distances = {name: layers[classifier] - layers[name] for name in names[:-1]}
    if len(set(distances.values())) < 2:
        raise ConfigError(f"{found}, but {type(backbone).__name__} gives no order of its layers; allowed: 1")
    return distances


def _classifier(backbone: nn.Module) -> str:
    """The name that the weight of timm's classifier would have in this model."""
    pretrained_cfg = getattr(backbone, "pretrained_cfg", None) or {}
    classifier = pretrained_cfg.get("classifier") or "heads"
    name = classifier if isinstance(classifier, str) else classifier[0]  # a distilled model has two
    return f"{name}.weight"
