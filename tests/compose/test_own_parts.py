"""From names of the user's own parts to losses: what they are built from, and where they stand."""

from pathlib import Path
from typing import Any

import pytest
import torch

from classwise.compose.checks import TAKEN_NAMES
from classwise.compose.losses import build_criterion, check_own_losses
from classwise.compose.remembered import code_key
from classwise.config.schema import Config
from classwise.errors import ConfigError
from classwise.losses.own import RowLoss
from classwise.losses.regression import Standardized
from classwise.losses.weighted_sum import WeightedSum
from classwise.metrics.names import WORST
from classwise.metrics.scores import HIGHER_IS_BETTER
from tests.compose.test_losses import TARGETS, config_of, prepared_of
from tests.helpers.own_parts import own_part

CODE = """
import torch
import torch.nn.functional as F

class Part:
    def __init__(self, counts, tau=1.0):
        self.prior = tau * (counts / counts.sum()).log()

    def __call__(self, outputs, targets):
        return F.cross_entropy(outputs + self.prior.to(outputs), targets, reduction="none")

def squared(outputs, targets, scale=1.0):
    return scale * (outputs - targets) ** 2

def mean(outputs, targets):
    return F.cross_entropy(outputs, targets)

class Hard(torch.nn.Module):
    additive, terms, soft_targets, likelihood_scale = True, 1, False, 1.0

    def normalizer(self, targets, complete=False):
        return Normalizer([float(len(targets))])

    def forward(self, outputs, targets, normalizer=None):
        return outputs.sum()
"""


def config(tmp_path: Path, type: str, loss: dict[str, Any], **sections: Any) -> Config:
    """One target of a type, trained with parts of a new file; `@` stands for it."""
    file = own_part(tmp_path, CODE).rpartition(":")[0]

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [placed(item) for item in value]
        return value.replace("@", f"{file}:") if isinstance(value, str) else value

    return config_of({"it": TARGETS[type]}, loss=placed(loss), **sections)


def test_a_loss_that_asks_for_counts_gets_those_of_the_training_rows(tmp_path: Path) -> None:
    """So that it can balance the classes; the result is our logit adjustment."""
    own = config(tmp_path, "class", {"name": "@Part", "tau": 0.5})
    ours = config(tmp_path, "class", {"name": "logit_adjustment", "tau": 0.5})
    splits = prepared_of(own)
    outputs = {"it": torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    targets = {"it": torch.tensor([0, 1, 2, -1, 1])}
    values = [build_criterion(each, splits)(outputs, targets) for each in (own, ours)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-12)


def test_a_regression_is_standardized_for_it(tmp_path: Path) -> None:
    """As for the built-in losses."""
    own = config(tmp_path, "regression", {"name": "@squared", "scale": 3.0})
    loss = build_criterion(own, prepared_of(own)).losses[0]
    assert isinstance(loss, Standardized)
    assert isinstance(loss.loss, RowLoss)


def test_it_may_be_a_term_of_a_sum(tmp_path: Path) -> None:
    """With a weight; it is tried there as well, and the message names the term."""
    terms = [{"name": "focal"}, {"name": "@Part", "weight": 0.5}]
    own = config(tmp_path, "class", {"name": "sum", "terms": terms})
    loss = build_criterion(own, prepared_of(own)).losses[0]
    assert isinstance(loss, WeightedSum)
    assert loss.weights == (1.0, 0.5)
    wrong = config(tmp_path, "class", {"name": "sum", "terms": [terms[0], {"name": "@mean"}]})
    with pytest.raises(ConfigError, match=r"^loss\.terms\[1\]\.name: my_part\.py:mean: returned one number"):
        check_own_losses(wrong, prepared_of(wrong), {"it": 3})


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_a_loss_of_hard_labels_is_refused_with_mixing(tmp_path: Path, key: str) -> None:
    """Only the module knows, so it is found when it is built."""
    data = {"source": "samples.csv", "workers": 0, key: 0.2}
    own = config(tmp_path, "class", {"name": "@Hard"}, data=data)
    with pytest.raises(
        ConfigError, match=rf"^data\.{key}: found 0\.2, but loss of 'it' has soft_targets = False"
    ):
        build_criterion(own, prepared_of(own))


def test_what_is_remembered_depends_on_the_code(tmp_path: Path) -> None:
    """On its bytes, wherever the file is; without any, on nothing."""
    key = code_key(config(tmp_path, "class", {"name": "@Part"}))
    assert list(key["code"]) == ["loss.name"]
    (tmp_path / "other").mkdir()
    assert code_key(config(tmp_path / "other", "class", {"name": "@Part"})) == key
    assert code_key(config(tmp_path, "class", {"name": "focal"})) == {}


def test_every_name_of_ours_is_taken() -> None:
    """Also those of the worst class, and the loss of the history."""
    assert {*HIGHER_IS_BETTER, *WORST, "auc", "loss", "mean"} <= set(TAKEN_NAMES)
