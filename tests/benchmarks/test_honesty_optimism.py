"""The simulation of the optimism in its quick version, with generated epochs; and what it says of simpler estimates."""

import math

import numpy as np
import pytest

from classwise.metrics import optimism as package
from classwise.metrics.donors import Donors
from simulations import optimism


def test_the_estimate_is_right() -> None:
    """On 100 rows, of which three classes have one each, and on 40 groups, of which five classes have one each: within
    .012 with few draws."""
    claims = optimism.simulate(quick=True)
    assert len(claims) == 8
    assert [claim for claim in claims if claim.holds is False] == []


def test_without_donors_it_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes with a single unit seem to have no variance."""
    nobody = Donors(*[np.zeros(0, dtype=np.int64)] * 4)
    monkeypatch.setattr(package, "find_donors", lambda *arguments: nobody)
    monkeypatch.setattr(optimism, "reason_against_optimism", lambda *arguments: "")
    failed = [claim.setting for claim in optimism.simulate(quick=True) if not claim.holds]
    assert any("long tail, 100 rows, macro_f1, all epochs" in setting for setting in failed)


def test_the_plain_bootstrap_of_the_choice_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the factor of sqrt(2) the noise of the scores counts half."""
    original = package.optimism
    monkeypatch.setattr(
        "classwise.metrics.outcomes.optimism", lambda *arguments: original(*arguments) / math.sqrt(2)
    )
    assert not all(claim.holds for claim in optimism.simulate(quick=True))


def test_the_default_is_the_last_fifth() -> None:
    """The rule that the simulation calls the default is that of a config without the key."""
    assert optimism.first_epoch(optimism.DEFAULT, 30) == 25
    assert optimism.first_epoch("all epochs", 30) == 1
    assert optimism.first_epoch("the last epoch", 30) == 30
    assert optimism.select(np.array([0.9, 0.2, 0.4, 0.4]), first=2) == 2
