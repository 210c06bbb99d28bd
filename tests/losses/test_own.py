"""A loss of the user's own: what is made of the loss of each row, and what is refused."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.data.weighting import weighted_labels
from classwise.errors import ConfigError
from classwise.losses.base import Loss
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.multilabel import BinaryCrossEntropy
from classwise.losses.own import RowLoss, check_own_loss, own_loss
from classwise.losses.ranking import ListNet
from classwise.losses.regression import SquaredError
from classwise.own_parts.source import admitted, load
from tests.helpers.own_parts import guide_files, own_part

WEIGHT_K = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each row."""
    return F.cross_entropy(outputs, targets, reduction="none")


def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each cell."""
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each row."""
    return (outputs - targets) ** 2


class Weighted(nn.Module):
    """Cross entropy with class weights, divided by the summed weights of the rows."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return WEIGHT_K[targets] * cross_entropy(outputs, targets)

    def normalizer(self, targets: Tensor) -> Tensor:
        return WEIGHT_K[targets]


def drawn(*shape: int) -> Tensor:
    """Outputs in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABELS_B = torch.tensor([0, 2, -1, 1, 1, 2])
MIXED_BK = 0.3 * F.one_hot(LABELS_B.clamp(min=0), 3) + 0.7 * F.one_hot(LABELS_B.flip(0).clamp(min=0), 3)
WEIGHTS_B = torch.tensor([0.0, 2.0, 1.0, 0.5, 1.5, 1.0], dtype=torch.float64)
CELLS_BL = torch.tensor(
    [[1.0, 0.0], [0.0, float("nan")], [0.4, 1.0], [1.0, 1.0], [0.0, 0.0], [0.7, 0.2]]
).double()
VALUES_B = torch.tensor([0.5, float("nan"), -2.0, 1.0, 0.0, 3.0]).double()
SAME: dict[str, tuple[RowLoss, Loss, Tensor, Tensor]] = {
    "labels": (RowLoss(cross_entropy, "class"), CrossEntropy(), drawn(6, 3), LABELS_B),
    "mixed labels": (RowLoss(cross_entropy, "class"), CrossEntropy(), drawn(6, 3), MIXED_BK.double()),
    "row weights": (
        RowLoss(cross_entropy, "class"),
        CrossEntropy(),
        drawn(6, 3),
        weighted_labels(LABELS_B, WEIGHTS_B, 3).double(),
    ),
    "a normalizer": (RowLoss(Weighted(), "class"), CrossEntropy(WEIGHT_K), drawn(6, 3), LABELS_B),
    "a normalizer of mixed labels": (
        RowLoss(Weighted(), "class"),
        CrossEntropy(WEIGHT_K),
        drawn(6, 3),
        MIXED_BK.double(),
    ),
    "mixed cells": (RowLoss(bce, "multilabel"), BinaryCrossEntropy(), drawn(6, 2), CELLS_BL),
    "weighted cells": (
        RowLoss(bce, "multilabel"),
        BinaryCrossEntropy(),
        drawn(6, 2),
        weighted_labels(CELLS_BL, WEIGHTS_B, None),
    ),
    "values": (RowLoss(squared, "regression"), SquaredError(), drawn(6, 1), VALUES_B),
    "weighted values": (
        RowLoss(squared, "regression"),
        SquaredError(),
        drawn(6, 1),
        weighted_labels(VALUES_B, WEIGHTS_B, None),
    ),
}


@pytest.mark.parametrize(("own", "built_in", "outputs", "targets"), SAME.values(), ids=SAME)
def test_the_loss_of_each_row_gives_what_the_built_in_loss_gives(
    own: Loss, built_in: Loss, outputs: Tensor, targets: Tensor
) -> None:
    """Value, gradient and normalizer, to 1e-12: unlabeled rows, mixed images, row weights and class weights."""
    found = []
    for loss in (own, built_in):
        leaf = outputs.clone().requires_grad_()
        value = loss(leaf, targets)
        value.backward()
        found.append((value.detach(), leaf.grad, torch.tensor(loss.normalizer(targets).tolist())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_parameters_of_the_users_module_are_learned() -> None:
    """They are the criterion's, which the optimizer has."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return self.scale * cross_entropy(outputs, targets)

    assert [name for name, _ in RowLoss(Scaled(), "class").named_parameters()] == ["rows.scale"]


def test_a_module_that_follows_our_protocol_is_used_as_it_is() -> None:
    """Also for a ranking, whose rows have no loss of their own."""
    focal, listnet = Focal(), ListNet()
    assert own_loss(focal, "class", "loss") is focal
    assert own_loss(listnet, "ranking", "loss") is listnet


HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
RIGHT = {
    "function": (
        "class",
        "def Part(outputs, targets):\n    return F.cross_entropy(outputs, targets, reduction='none')\n",
    ),
    "module": (
        "ordinal",
        "class Part(nn.Module):\n"
        "    def forward(self, outputs, targets):\n"
        "        return (outputs.sum(1) - targets) ** 2\n",
    ),
    "cells": ("multilabel", "def Part(outputs, targets):\n    return (outputs.sigmoid() - targets) ** 2\n"),
    "values": (
        "regression",
        "def Part(outputs, targets):\n    return (outputs.float() - targets.float()).abs()\n",
    ),
    "protocol": ("ranking", "from classwise.losses.ranking import ListNet as Part\n"),
}
OUTPUTS = {"class": 3, "ordinal": 2, "multilabel": 4, "regression": 1, "ranking": 1}


def check(tmp_path: Path, type: str, code: str) -> None:
    """The test at the start of a run, of a loss that needs no keys."""
    reference = own_part(tmp_path, HEAD + code)
    part = load(reference, "loss.name")
    made = part() if isinstance(part, type_of_classes) else part
    source = admitted(reference, "loss.name")
    loss = own_loss(made, type, "loss.name: my_part.py:Part")
    check_own_loss(loss, type, OUTPUTS[type], classes=3, where="loss.name: my_part.py:Part", source=source)


type_of_classes = type


@pytest.mark.parametrize(("type", "code"), RIGHT.values(), ids=RIGHT)
def test_exact_losses_pass(tmp_path: Path, type: str, code: str) -> None:
    """For every type of target."""
    check(tmp_path, type, code)


def test_the_guides_loss_passes(tmp_path: Path) -> None:
    """The example of docs/guide/own-parts.md."""
    check(tmp_path, "class", guide_files()["my_losses.py"] + "\nPart = Poly\n")


BODY = "class Part(nn.Module):\n    n = 0\n    def forward(self, outputs, targets):\n        {body}\n"
WRONG = {
    "mean": (
        "return F.cross_entropy(outputs, targets)",
        r"returned one number for 7 rows; .*\(7,\).*reduction=\"none\"",
    ),
    "shape": ("return outputs", r"returned \(7, 3\); allowed: the loss of each row, \(7,\)"),
    "no tensor": ("return 3.0", "returned float; allowed: the loss of each row"),
    "over the batch": (
        "return F.cross_entropy(outputs, targets, reduction='none') / len(targets)",
        r"the gradients of two micro-batches \(2 and 5 rows\) differ from that of one batch by \d+\.\d%",
    ),
    "batch statistics": (
        "return F.cross_entropy(outputs - outputs.mean(0), targets, reduction='none')",
        "must not depend on the other rows",
    ),
    "state": (
        "self.n += 1; return self.n * F.cross_entropy(outputs, targets, reduction='none')",
        r"the same batch gives .* and then .*keeps nothing from one batch to the next",
    ),
    "chance": ("return torch.rand(len(targets)) * outputs[:, 0]", "draws no random numbers"),
    "detached": (
        "return F.cross_entropy(outputs.detach(), targets, reduction='none')",
        "its gradient is 0 everywhere; does it use the outputs, and not detach them",
    ),
    "not finite": ("return (outputs.sum(1) - 100).log()", "the loss of drawn outputs is nan"),
    "fails": (
        "return outputs.foo",
        r"AttributeError: 'Tensor' object has no attribute 'foo' \(line 7: return outputs\.foo",
    ),
}


@pytest.mark.parametrize(("body", "message"), WRONG.values(), ids=WRONG)
def test_a_loss_that_is_not_exact_is_refused_with_the_reason(tmp_path: Path, body: str, message: str) -> None:
    """Each of them would train without an error, to other numbers."""
    with pytest.raises(ConfigError, match=rf"^loss\.name: my_part\.py:Part: .*{message}"):
        check(tmp_path, "class", BODY.format(body=body))


PROTOCOL = """
from classwise.losses.normalizer import Normalizer

class Part(nn.Module):
    additive, terms, soft_targets, likelihood_scale = True, 1, False, 1.0

    def normalizer(self, targets, complete=False):
        return Normalizer([float(len(targets))])

    def forward(self, outputs, targets, normalizer=None):
        loss = F.cross_entropy(outputs, targets.clamp(min=0), reduction="sum")
        return (normalizer or self.normalizer(targets)).divide(loss)
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("additive,", "additive,"),
            "a row without a label changes it; rows whose target is -1 must count in neither",
        ),
        (("= True,", "= False,"), "additive is False, so it cannot be accumulated exactly"),
        (
            ("divide(loss)", "divide(loss).reshape(1)"),
            "TypeError: `forward` returned Tensor, allowed: a scalar",
        ),
    ],
)
def test_a_module_with_our_protocol_is_tried_too(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    """It masks its rows itself."""
    with pytest.raises(ConfigError, match=message):
        check(tmp_path, "class", PROTOCOL.replace(*change))


def test_a_row_of_a_ranking_has_no_loss_of_its_own(tmp_path: Path) -> None:
    """Only the protocol of losses/base.py will do."""
    with pytest.raises(
        ConfigError, match=r"a row of a ranking target has no loss of its own; .*losses\.base\.Loss"
    ):
        check(tmp_path, "ranking", RIGHT["function"][1])


def test_what_cannot_be_called_is_no_loss(tmp_path: Path) -> None:
    """A plain class without a `forward`."""
    with pytest.raises(ConfigError, match="makes something that cannot be called with outputs and targets"):
        check(tmp_path, "class", "class Part:\n    pass\n")
