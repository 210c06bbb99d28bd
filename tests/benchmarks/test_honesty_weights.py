"""The simulation of docs/results/honesty.md about class weights, in its quick version."""

from simulations.weights import simulate


def test_class_weights_act_as_given() -> None:
    """Ratios, accumulation and scale, and what torch's normalizer would leave of the ratio."""
    claims = simulate(quick=True)
    assert [claim for claim in claims if claim.holds is False] == []
