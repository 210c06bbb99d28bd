"""Parameter groups: no decay on norms and biases, a factor for the backbone, nothing frozen."""

import pytest
import torch
from torch import nn

from classwise.optim.groups import parameter_groups


def parts() -> tuple[nn.Module, nn.Module]:
    """A backbone with convolution, batch norm and layer norm, and a list of two heads."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(5), nn.Linear(5, 6))
    return backbone, nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 3)])


def test_norms_and_biases_are_not_decayed() -> None:
    """Exactly the weights of convolutions and linear layers are decayed."""
    backbone, heads = parts()
    groups = parameter_groups(backbone, heads, 0.1, 0.01, 1.0)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    wanted = {
        id(module.weight)
        for part in (backbone, heads)
        for module in part.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert decayed == wanted
    assert {group["weight_decay"] for group in groups} == {0.01, 0.0}


def test_every_parameter_stands_in_one_group() -> None:
    """No parameter is left out and none is updated twice."""
    backbone, heads = parts()
    members = [p for group in parameter_groups(backbone, heads, 0.1, 0.01, 1.0) for p in group["params"]]
    assert sorted(map(id, members)) == sorted(id(p) for part in (backbone, heads) for p in part.parameters())


def test_the_backbone_has_its_own_rate() -> None:
    """The backbone learns at lr times the factor, the heads at lr, and the heads' groups come last."""
    backbone, heads = parts()
    groups = parameter_groups(backbone, heads, 0.2, 0.01, 0.25)
    rates = {group["part"]: group["lr"] for group in groups}
    assert rates == {"backbone": pytest.approx(0.05), "heads": 0.2}
    assert groups[-1]["part"] == "heads"
    owned = {id(p) for p in heads.parameters()}
    assert all((id(p) in owned) == (g["part"] == "heads") for g in groups for p in g["params"])


def test_frozen_parameters_stand_in_no_group() -> None:
    """requires_grad=False keeps a parameter out; a part that is frozen whole gives no empty group."""
    backbone, heads = parts()
    backbone.requires_grad_(False)
    heads[0].bias.requires_grad_(False)
    groups = parameter_groups(backbone, heads, 0.1, 0.01, 1.0)
    assert {group["part"] for group in groups} == {"heads"}
    assert all(group["params"] for group in groups)
    members = {id(p) for group in groups for p in group["params"]}
    assert id(heads[0].bias) not in members
    torch.optim.SGD(groups)  # torch refuses an empty list of parameters
