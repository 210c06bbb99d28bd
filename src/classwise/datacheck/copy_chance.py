"""How well images agree that are no copies: what decides how well copies must, measured on the data themselves.

Two images that are no copies agree better in what is fine, the nearer they are in what is coarse: trousers on a black
ground agree well. On the data measured (photographs of tiles, of blood cells, of clothes, drawn faces), the score of
classwise.datacheck.copy_confirm was on a line in the nearness of the pair, scattered as a normal distribution is, with
nearly the same spread everywhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

LEAST_PAIRS = 100
"""Pairs to measure on; of fewer, the typical values are used."""
INTERCEPT, SLOPE, SPREAD = 0.0, 1.0, 0.18
"""Typical of the data measured, on the careful side."""
SCORES = 3.5
"""The scores of copies are taken to lie anywhere between 0 and this."""
CERTAIN = 2.2
"""A score that makes two images copies whatever the others are: all but 0.6 % of the fine structure agrees."""
FALSE_PER_IMAGE = 1e-4
"""False pairs expected for each image. The tail of the distribution is extrapolated, so this is ten times less than
what is promised, one in a thousand images."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chance:
    """The scores of pairs that are no copies: normal with the mean intercept + slope * nearness and the spread.
    `pairs` were measured; 0 for typical values. A pair is of copies from `deviations` spreads above the mean on, or
    from CERTAIN on."""

    intercept: float
    slope: float
    spread: float
    pairs: int
    deviations: float

    def threshold(self, nearness_P: Floats) -> Floats:
        """The score from which on pairs of this nearness are copies."""
        expected_P = self.intercept + self.slope * nearness_P
        return np.minimum(expected_P + self.deviations * self.spread, CERTAIN)


def measure_chance(nearness_P: Floats, score_P: Floats, images: int, tested: int) -> Chance:
    """The distribution of scores, from pairs of which at most half are copies; and how far above it a pair of
    `tested` ones among `images` must be for FALSE_PER_IMAGE.

    The pairs are a mixture: those that are no copies are on the line, copies lie anywhere. Expectation and
    maximization (Dempster, Laird and Rubin, 1977) finds the line, its spread, and the share of copies.
    """
    deviations = float(norm.isf(min(0.5, FALSE_PER_IMAGE * images / max(1, tested))))
    if len(score_P) < LEAST_PAIRS:
        return Chance(INTERCEPT, SLOPE, SPREAD, 0, deviations)
    design_P2 = np.stack([np.ones_like(nearness_P), nearness_P], axis=1)
    line_2, share = np.array([np.median(score_P), 0.0]), 0.7
    spread = 1.5 * float(np.median(np.abs(score_P - line_2[0]))) + 0.01
    for _ in range(100):
        density_P = share * norm.pdf(score_P, design_P2 @ line_2, spread)
        weight_P = density_P / (density_P + (1 - share) / SCORES)
        weighted_2P = design_P2.T * weight_P
        # A trace of the typical values keeps the line where all pairs are equally near.
        line_2 = np.linalg.solve(
            weighted_2P @ design_P2 + 0.1 * np.eye(2),
            weighted_2P @ score_P + 0.1 * np.array([INTERCEPT, SLOPE]),
        )
        residual_P = score_P - design_P2 @ line_2
        spread = max(0.05, float(np.sqrt((weight_P * residual_P**2).sum() / weight_P.sum())))
        share = float(np.clip(weight_P.mean(), 0.01, 0.999))
    return Chance(float(line_2[0]), float(line_2[1]), spread, len(score_P), deviations)
