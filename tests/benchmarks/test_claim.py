"""The tables of claims, and what counts as a claim that does not hold."""

import sys

import pytest

import honesty
from simulations import compare, intervals
from simulations.claim import Claim, at_most, for_information, markdown, within

CLAIMS = [
    within("a", 0.5, 0, 1, count=2000),
    at_most("b", 2, 1, count=30, unit=" %"),
    for_information("c", 7, count=30),
]


def test_only_claims_hold() -> None:
    """A number that is compared with nothing is neither held nor broken, also if it is another method's."""
    assert markdown(CLAIMS).splitlines()[2:] == [
        "| a | 0.5 | 0 to 1 | 2,000 | yes |",
        "| b | 2 % | at most 1 % | 30 | NO |",
        "| c | 7 | (for information) | 30 | – |",
    ]
    assert [claim.holds for claim in intervals.compared(CLAIMS)] == [None, None, None]


@pytest.mark.parametrize(("claims", "failed"), [(CLAIMS, True), (CLAIMS[::2], False)], ids=["broken", "held"])
def test_only_claims_fail(
    claims: list[Claim], failed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script counts broken claims alone."""
    monkeypatch.setattr(compare, "simulate", lambda quick: claims)
    monkeypatch.setattr(sys, "argv", ["honesty.py", "compare"])
    assert honesty.main() == failed
    assert capsys.readouterr().out.endswith("1 claims do not hold\n" if failed else "every claim holds\n")
