"""Stand-ins for a class with a single unit (a row, or a group of rows): what would another unit of it come to?

With one unit a class shows no variance of its own. Other classes show theirs, if they have two units or more: how much
the hit rate of one unit differs from that of its class, in each epoch. Such a difference stands in for the class with
the single unit, as a donor's value does in hot-deck imputation. (Survey statistics collapses strata with a single unit
to the same end: Cochran 1977, 'Sampling techniques', section 5A.12, where the difference between the strata themselves
is left in and makes the variance too large.)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]

MIN_DONORS = 5
"""Units of other classes from which a single unit's variance is estimated."""


@dataclass(frozen=True)
class Donors:
    """The units that may stand for those of one class.

    `rows` (M,): the rows that count; `donor` (M,): the number of each one's unit, 0 to C - 1; `label` (C,): the class
    of each unit, numbered from 0; `sizes` (C,): how many rows of each count.
    """

    rows: Numbers
    donor: Numbers
    label: Numbers
    sizes: Numbers

    def __len__(self) -> int:
        return len(self.label)

    def hit_rates(self, hit_EN: npt.NDArray[np.bool_]) -> Array:
        """(E, C): the mean over the classes, plus by how much the hit rate of each unit differs from its class's."""
        units_L = np.bincount(self.label)
        # The units of a class differ from their own mean less than from its expectation.
        factor_C = np.sqrt(units_L / (units_L - 1))[self.label]
        rates = []
        for hit_N in hit_EN:
            hits_C = np.bincount(self.donor, weights=hit_N[self.rows], minlength=len(self))
            rate_C = hits_C / self.sizes
            mean_L = np.bincount(self.label, weights=rate_C) / units_L
            rates.append(mean_L.mean() + (rate_C - mean_L[self.label]) * factor_C)
        return np.stack(rates)

    def draw(self, resamples: int, rng: np.random.Generator) -> Numbers:
        """(R,): units, each class as likely as another, since rare ones are more like a class with a single unit than
        frequent ones."""
        weight_C = 1 / np.bincount(self.label)[self.label]
        drawn_R: Numbers = rng.choice(len(self), size=resamples, p=weight_C / weight_C.sum())
        return drawn_R


def find_donors(label: int, true_N: Numbers, unit_N: Numbers, rng: np.random.Generator) -> Donors:
    """The units of other classes that can stand for the only one of class `label`: those with at least half as many
    rows, in classes that have two or more. Of larger ones as many rows count as the class has, chosen at random, since
    the mean of more rows would vary less. Units that hold several classes are one unit in each."""
    size = int((true_N == label).sum())
    shuffled_N = rng.permutation(np.flatnonzero(true_N != label))
    order = np.lexsort((unit_N[shuffled_N], true_N[shuffled_N]))
    rows = shuffled_N[order]
    begins_unit = np.ones(len(rows), dtype=bool)
    begins_unit[1:] = (np.diff(true_N[rows]) != 0) | (np.diff(unit_N[rows]) != 0)
    donor = np.cumsum(begins_unit) - 1
    starts = np.flatnonzero(begins_unit)
    sizes = np.diff(np.append(starts, len(rows)))
    label_C = true_N[rows[starts]]

    # Too small ones first, so that only the others count as units of their class.
    large_C = 2 * sizes >= size
    several_C = np.bincount(label_C[large_C], minlength=int(true_N.max()) + 1)[label_C] > 1
    kept_C = large_C & several_C
    place_M = np.arange(len(rows)) - starts[donor] if len(rows) else donor
    kept_M = kept_C[donor] & (place_M < size) if len(rows) else np.zeros(0, dtype=bool)
    return Donors(
        rows=rows[kept_M],
        donor=(np.cumsum(kept_C) - 1)[donor[kept_M]],
        label=np.unique(label_C[kept_C], return_inverse=True)[1],
        sizes=np.minimum(sizes, size)[kept_C],
    )
