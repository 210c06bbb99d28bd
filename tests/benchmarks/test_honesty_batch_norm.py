"""The simulation of batch norm under accumulation, in its quick version; and what it says once nothing is frozen."""

import pytest
from torch import nn

from classwise.model import backbone
from classwise.model.classifier import Classifier
from simulations import batch_norm


def test_what_is_promised_to_be_exact_is() -> None:
    """Group norm and frozen batch norm: every claim holds. Batch norm as it is is off by more than 5 %."""
    claims = batch_norm.simulate(quick=True)
    assert len(claims) == 5
    assert [claim.holds for claim in claims] == [None, True, True, True, True]
    assert min(batch_norm.errors(batch_norm.REPORTED[0], draws=2)) > 0.05


def test_without_freezing_the_claim_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before, with batch norm over each micro-batch."""
    monkeypatch.setattr(Classifier, "freeze_batch_norm", lambda self: None)
    assert [claim.holds for claim in batch_norm.simulate(quick=True)] == [None, True, True, True, False]


def test_without_group_norm_the_claims_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm in place of group norm."""
    monkeypatch.setattr(backbone, "group_norm", nn.BatchNorm2d)
    assert [claim.holds for claim in batch_norm.simulate(quick=True)] == [None, False, False, False, True]
