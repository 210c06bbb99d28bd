"""Parameter groups: no decay on norms and biases, a factor for the backbone, a rate for each layer, nothing frozen."""

import pytest
import timm
import timm.optim
import torch
from torch import nn

from classwise.errors import ConfigError
from classwise.model.small_cnn import SmallCNN
from classwise.optim.groups import freeze_slow_layers, parameter_groups, undecayed


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


# By model: its parameters of two and more dimensions that have no weight decay, by the last part of their names. Those
# of convolutions and linear layers are in it only where the model itself lists them.
EXEMPT: dict[str, set[str]] = {
    "vit_tiny_patch16_224": {"cls_token", "pos_embed"},
    "vit_small_patch14_reg4_dinov2": {"cls_token", "reg_token", "pos_embed"},
    "deit_tiny_distilled_patch16_224": {"cls_token", "dist_token", "pos_embed"},
    "deit3_small_patch16_224": {"cls_token", "pos_embed"},
    "cait_xxs24_224": {"cls_token", "pos_embed"},
    "beit_base_patch16_224": {"cls_token", "relative_position_bias_table"},
    "swin_tiny_patch4_window7_224": {"relative_position_bias_table"},
    "swinv2_tiny_window8_256": {"logit_scale", "cpb_mlp.0.weight", "cpb_mlp.2.weight"},
    "coatnet_nano_rw_224": {"relative_position_bias_table"},
    "botnet26t_256": {"height_rel", "width_rel"},
    "levit_128": {"attention_biases"},
    "samvit_base_patch16": {"pos_embed", "rel_pos_h", "rel_pos_w"},
    "hiera_small_abswin_256": {"pos_embed", "pos_embed_win"},
    "xcit_nano_12_p8_224": {"cls_token", "temperature", "pos_embed.token_projection.weight"},
    "fastvit_t8": {"gamma"},
    "nf_regnet_b0": {"gain"},
    "convnext_atto": set(),
    "resnet18": set(),
    "tf_efficientnet_lite0": set(),
}


@pytest.mark.parametrize("name", EXEMPT)
def test_positions_tokens_and_scales_are_not_decayed(name: str) -> None:
    """Nothing else of two and more dimensions is exempt, and all that timm exempts is."""
    with torch.device("meta"):  # only names and shapes matter
        model = timm.create_model(name, num_classes=0)
    exempt = undecayed(model)
    ends = {key: key.split(".")[-3:] if key.endswith(".weight") else key.split(".")[-1:] for key in exempt}
    assert {".".join(ends[key]) for key, parameter in exempt.items() if parameter.ndim > 1} == EXEMPT[name]

    groups = timm.optim.param_groups_weight_decay(model, 0.1, no_weight_decay_list=model_list(model))
    timms = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert {id(parameter) for parameter in exempt.values()} >= timms

    groups = parameter_groups(model, nn.Linear(4, 2), 0.1, 0.01, 1.0)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed.isdisjoint(id(parameter) for parameter in exempt.values())
    assert len(decayed) == len(list(model.parameters())) - len(exempt) + 1


def model_list(model: nn.Module) -> set[str]:
    """What a timm model lists itself."""
    return set(getattr(model, "no_weight_decay", set)())


def test_a_layer_of_a_single_output_is_decayed() -> None:
    """Its weight has one dimension of more than one entry, as a scale has; but it is a layer's weight."""
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 1, 1), nn.Linear(1, 1))
    assert set(undecayed(model)) == {"0.bias", "1.bias", "2.bias"}
    assert set(undecayed(SmallCNN(width=4))) == {
        key for key, parameter in SmallCNN(width=4).named_parameters() if parameter.ndim == 1
    }


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


def test_what_learns_alike_is_one_group() -> None:
    """A group costs a step of its own; none is lost, none stands twice."""
    backbone, heads = parts()
    groups = parameter_groups(backbone, heads, 0.2, 0.01, 1.0)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.2, 0.01), (0.2, 0.0)]
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for part in (backbone, heads) for p in part.parameters())
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert len(parameter_groups(backbone, heads, 0.2, 0.0, 1.0)) == 1
    assert len(parameter_groups(backbone, heads, 0.2, 0.01, 1.0, apart=True)) == 4


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


def rates(backbone: nn.Module, factor: float, layer_decay: float) -> dict[str, float]:
    """The learning rate of every parameter of the backbone by name, as groups with lr 0.2 give it."""
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    groups = parameter_groups(backbone, nn.Linear(4, 2), 0.2, 0.01, factor, layer_decay)
    return {names[id(p)]: g["lr"] for g in groups if g["part"] == "backbone" for p in g["params"]}


def test_layers_of_the_small_network() -> None:
    """lr * factor * layer_decay ** (layers from the heads): the last stage once, the stem four times."""
    found = rates(SmallCNN(width=4), factor=0.5, layer_decay=0.7)
    distances = {"stem": 4, "stage1": 3, "stage2": 2, "stage3": 1}
    assert set(found) == set(dict(SmallCNN(width=4).named_parameters()))
    for name, rate in found.items():
        assert rate == pytest.approx(0.2 * 0.5 * 0.7 ** distances[name.partition(".")[0]], rel=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050", "regnetx_002", "convnext_atto"),
        *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224"),
        *("beit_base_patch16_224", "inception_v3", "densenet121", "vgg11"),
    ],
)
def test_layers_of_timm_are_timms(name: str) -> None:
    """Every parameter of the backbone learns at the rate that timm.optim.param_groups_layer_decay gives it in the
    model with its classifier, where the classifier stands at 1."""
    with torch.device("meta"):  # only names and shapes matter
        complete, backbone = timm.create_model(name), timm.create_model(name, num_classes=0)
    scales = {
        id(parameter): group["lr_scale"]
        for group in timm.optim.param_groups_layer_decay(complete, layer_decay=0.75)
        for parameter in group["params"]
    }
    wanted = {key: 0.2 * 0.3 * scales[id(parameter)] for key, parameter in complete.named_parameters()}
    found = rates(backbone, factor=0.3, layer_decay=0.75)
    assert set(found) == set(dict(backbone.named_parameters()))
    assert found == {key: pytest.approx(wanted[key], rel=1e-12) for key in found}
    assert len(set(found.values())) > 4
    assert max(found.values()) <= 0.2 * 0.3


def test_a_backbone_without_order_is_refused() -> None:
    """The message names the key; without a decay such a backbone is as good as any. Factors above 1 are refused."""
    backbone, heads = parts()
    with pytest.raises(
        ConfigError, match=r"^optimizer\.layer_decay: found 0\.5, but Sequential gives no order"
    ):
        parameter_groups(backbone, heads, 0.1, 0.01, 1.0, layer_decay=0.5)
    backbone.group_matcher = lambda coarse: {"all": r"^"}  # type: ignore[assignment]
    with pytest.raises(
        ConfigError, match=r"^optimizer\.layer_decay: found 0\.5, but Sequential gives no order"
    ):
        parameter_groups(backbone, heads, 0.1, 0.01, 1.0, layer_decay=0.5)
    assert len(parameter_groups(backbone, heads, 0.1, 0.01, 1.0, layer_decay=1.0)) == 2
    assert len(parameter_groups(backbone, heads, 0.1, 0.01, 0.5, layer_decay=1.0)) == 4
    for wrong in (0.0, 1.1):
        with pytest.raises(
            ConfigError, match=rf"^optimizer\.layer_decay: found {wrong}, allowed: above 0 up to 1"
        ):
            parameter_groups(SmallCNN(), heads, 0.1, 0.01, 1.0, layer_decay=wrong)


def test_with_a_layer_decay_nothing_is_lost() -> None:
    """Each trained parameter stands in one group, decayed as without; frozen ones in none, and do not shift the
    rates of the others."""
    backbone, heads = SmallCNN(width=4), nn.ModuleList([nn.Linear(6, 2)])
    backbone.stem.requires_grad_(False)
    groups = parameter_groups(backbone, heads, 0.1, 0.01, 1.0, layer_decay=0.5)
    members = [p for group in groups for p in group["params"]]
    assert sorted(map(id, members)) == sorted(
        id(p) for part in (backbone, heads) for p in part.parameters() if p.requires_grad
    )
    assert all((p.ndim > 1) == (g["weight_decay"] == 0.01) for g in groups for p in g["params"])
    assert [group["lr"] for group in groups] == [0.0125, 0.0125, 0.025, 0.025, 0.05, 0.05, 0.1, 0.1]


def test_parameters_of_the_criterion() -> None:
    """They learn at lr without decay, beside the heads' biases, which learn so too; the heads stay the last."""
    backbone, heads = parts()
    learned, fixed = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3), requires_grad=False)
    groups = parameter_groups(backbone, heads, 0.2, 0.01, 0.5, extra=(learned, fixed))
    (own,) = [group for group in groups if any(p is learned for p in group["params"])]
    assert (own["lr"], own["weight_decay"]) == (0.2, 0.0)
    assert {id(p) for p in own["params"]} == {id(learned), *(id(head.bias) for head in heads)}
    assert not any(p is fixed for group in groups for p in group["params"])
    assert groups[-1]["part"] == "heads"


@pytest.mark.parametrize(
    ("below", "frozen"),
    [
        (0.0, ()),
        (0.2, ()),
        (0.25, ("stem",)),
        (0.5, ("stem", "stage1", "stage2")),
        (0.7, ("stem", "stage1", "stage2")),
    ],
)
def test_the_slowest_layers_are_frozen(below: float, frozen: tuple[str, ...]) -> None:
    """Those whose factor is below the limit (0.7 ** 4 = 0.24 for the stem, up to 0.7 for the last stage); the
    others have the rates that they have without."""
    backbone = SmallCNN(width=4)
    before = rates(backbone, 1.0, 0.7)
    assert freeze_slow_layers(backbone, 0.7, below) == (len(frozen), 4)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (name.partition(".")[0] not in frozen)
    after = rates(backbone, 1.0, 0.7)
    assert after == {name: rate for name, rate in before.items() if name.partition(".")[0] not in frozen}
