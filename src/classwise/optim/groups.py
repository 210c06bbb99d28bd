"""Parameter groups: what is decayed, and at what rate each part learns."""

from typing import Any

from torch import nn


def parameter_groups(
    backbone: nn.Module, heads: nn.Module, lr: float, weight_decay: float, backbone_lr_factor: float
) -> list[dict[str, Any]]:
    """Groups for an optimizer: backbone and heads, each with and without weight decay.

    Norms and biases (every parameter with one dimension or none) are not decayed: shrinking a norm's scale
    regularises nothing, since the next norm undoes it (van Laarhoven 2017, section 2). Parameters with
    `requires_grad=False` stand in no group.
    """
    groups = []
    for part, module, part_lr in (("backbone", backbone, lr * backbone_lr_factor), ("heads", heads, lr)):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decayed in (True, False):
            members = [parameter for parameter in trained if (parameter.ndim > 1) == decayed]
            if members:
                decay = weight_decay if decayed else 0.0
                groups.append({"params": members, "lr": part_lr, "weight_decay": decay, "part": part})
    return groups
