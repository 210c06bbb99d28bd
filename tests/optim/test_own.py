"""An optimizer of the user's own: built, tried and refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from classwise.errors import ConfigError
from classwise.optim.optimizers import build_optimizer
from classwise.optim.own import check_own_optimizer
from tests.helpers.own_parts import guide_files, own_part

SIGN = guide_files()["my_optim.py"].replace("class Sign", "class Part")


def check(reference: str, **arguments: Any) -> None:
    """The test at the start of a run."""

    def make(groups: Sequence[Mapping[str, Any]]) -> Optimizer:
        return build_optimizer(reference, groups, **{"lr": 0.1, "weight_decay": 0.0, **arguments})

    check_own_optimizer(reference, make)


def test_it_is_built_like_any_other(tmp_path: Path) -> None:
    """Over groups with their own rates; further arguments are options."""
    parameter = nn.Parameter(torch.ones(2))
    groups = [{"params": [parameter], "lr": 0.5, "weight_decay": 0.0}]
    optimizer = build_optimizer(own_part(tmp_path, SIGN, "Part"), groups, 0.1, 0.01, options={"beta": 0.5})
    assert type(optimizer).__name__ == "Part"
    assert optimizer.param_groups[0]["beta"] == 0.5
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "code", [SIGN, "from torch.optim import AdamW as Part\n", "from torch.optim import SGD as Part\n"]
)
def test_optimizers_that_resume_exactly_pass(tmp_path: Path, code: str) -> None:
    """The guide's example, and torch's own."""
    check(own_part(tmp_path, code))


def changed(*change: str) -> str:
    """The guide's example with a fault."""
    assert change[0] in SIGN
    return SIGN.replace(*change)


STEP = 'mean = self.state[p].setdefault("mean", torch.zeros_like(p))'
WRONG = {
    "no step": (
        changed('p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * mean.sign())', "pass"),
        "its step changes no weight",
    ),
    "rate": (
        changed('sub_(group["lr"]', 'sub_(self.defaults["lr"]'),
        "the learning rate of the schedule makes no difference: `step` has to read group",
    ),
    "attribute": (
        changed(
            STEP,
            'self.means = getattr(self, "means", {}); mean = self.means.setdefault(p, torch.zeros_like(p))',
        ),
        "goes on differently, so a resumed run would differ.*self.state",
    ),
    "state": (
        changed(STEP, STEP + '; self.state[p]["seen"] = {1}'),
        "its state_dict has a set at state.0.seen",
    ),
    "chance": (changed("mean.sign())", "torch.rand_like(p))"), "lead to other weights the second time"),
    "no gradient": (
        changed("if p.grad is not None:", "if p.grad is None: p.add_(1)\n                else:"),
        "changes a parameter that has no gradient",
    ),
    "fails": (
        changed("mean.sign()", "mean.foo()"),
        r"AttributeError: 'Tensor' object has no attribute 'foo' \(line \d+: ",
    ),
}


@pytest.mark.parametrize(("code", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_optimizer_is_refused_with_the_reason(tmp_path: Path, code: str, message: str) -> None:
    """Each of them would train without an error, to other numbers or to another end after a resume."""
    with pytest.raises(ConfigError, match=rf"^optimizer(\.name)?: .*my_part\.py:Part.*{message}"):
        check(own_part(tmp_path, code))


@pytest.mark.parametrize("code", ["class Part: pass\n", "def Part(params): pass\n"])
def test_only_subclasses_of_torchs_optimizer_will_do(tmp_path: Path, code: str) -> None:
    """The loop and the checkpoint rely on it."""
    with pytest.raises(
        ConfigError, match=r"^optimizer\.name: my_part\.py:Part is no subclass of torch\.optim\.Optimizer"
    ):
        check(own_part(tmp_path, code))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 0.9}, r"optimizer\.momentum: my_part\.py:Part has no such option"),
        (
            {"options": {"bata": 0.9}},
            r"optimizer\.options\.bata: my_part\.py:Part has no such option; did you mean 'beta'",
        ),
        ({"options": {"beta": "x"}}, r"optimizer\.options\.beta: my_part\.py:Part refuses 'x'"),
    ],
)
def test_arguments_are_checked_as_those_of_others(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    """By its signature."""
    with pytest.raises(ConfigError, match=message):
        check(own_part(tmp_path, SIGN), **arguments)


def test_weight_decay_needs_a_parameter(tmp_path: Path) -> None:
    """It is on by default, so the message has to say how it is turned off."""
    code = (
        "import torch\n"
        "class Part(torch.optim.SGD):\n"
        "    def __init__(self, params, lr):\n"
        "        super().__init__(params, lr)\n"
    )
    with pytest.raises(
        ConfigError, match=r"weight_decay: found 0\.01, but my_part\.py:Part has none; allowed: 0"
    ):
        check(own_part(tmp_path, code), weight_decay=0.01)


def test_a_bare_file_gets_a_hint() -> None:
    """It is taken for a name of timm otherwise."""
    with pytest.raises(ConfigError, match=r"found 'my_optim\.py'; a part of your own is named FILE\.py:NAME"):
        build_optimizer("my_optim.py", [], 0.1, 0.0)
