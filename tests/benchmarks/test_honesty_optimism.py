"""The simulation of the optimism in its quick version, with generated epochs; and what it says of simpler estimates."""

import math

import numpy as np
import pytest

from classwise.metrics import optimism as package
from simulations import optimism


def test_the_estimate_is_right() -> None:
    """On 100 rows, of which three classes have one each: within .012 with few draws."""
    claims = optimism.simulate(quick=True)
    assert len(claims) == 4
    assert [claim for claim in claims if claim.holds is False] == []


def test_without_borrowed_rows_it_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three classes with a single row seem to have no variance."""
    monkeypatch.setattr(
        package,
        "_borrowed",
        lambda label, true_N, predicted_EN, resamples, rng: np.repeat(
            predicted_EN[:, np.flatnonzero(true_N == label)[:1]].T, resamples, axis=0
        ),
    )
    by_setting = {claim.setting: claim.holds for claim in optimism.simulate(quick=True)}
    failed = [setting for setting, holds in by_setting.items() if not holds]
    assert any("macro_f1, all epochs" in setting for setting in failed)


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
