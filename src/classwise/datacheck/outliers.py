"""Outliers: images that are unlike all others, by their distance from their neighbors in feature space.

The mean distance from the k nearest neighbors (Angiulli and Pizzuti, 'Fast outlier detection in high dimensional
spaces', PKDD 2002), of features of length 1, which with features of pretrained networks is as good as methods with
many more knobs (Sun et al., 'Out-of-distribution detection with deep nearest neighbors', ICML 2022). All rows are
ranked; those are listed that would hardly be met in the set if distances went on as they do among its ordinary rows.

Letters in names: N rows, F features, D components.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.datacheck.components import principal_components
from classwise.errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NEIGHBORS = 10
COMPONENTS = 64
EXPECTED = 0.05
"""Rows of the whole set that may lie beyond the threshold by chance."""
MIDDLE, TAIL = 0.5, 0.9
"""The quantiles of the distances between which their tail is fitted: the outliers themselves lie behind."""
LEAST_ROWS = 20


@dataclass(frozen=True)
class Outliers:
    """All rows, the one that lies farthest from its neighbors first.

    rows (N,): row numbers. distance (N,): the mean distance from the nearest NEIGHBORS, of features of length 1: 0 for
    copies, about 1.4 for what has nothing in common. nearest (N,): the row that is most like it. listed: how many of
    the first are outliers. threshold: the distance beyond which they are.
    """

    rows: Ints
    distance: Floats
    nearest: Ints
    listed: int
    threshold: float


def find_outliers(features_NF: npt.ArrayLike) -> Outliers:
    """Rank the rows of a set by how unlike all others they are.

    Raises DataError for fewer than LEAST_ROWS rows, and for features that are not finite.
    """
    features_NF = np.asarray(features_NF, dtype=np.float64)
    if len(features_NF) < LEAST_ROWS:
        raise DataError(f"outliers: found {len(features_NF)} rows; at least {LEAST_ROWS} are needed")
    if not np.isfinite(features_NF).all():
        raise DataError("outliers: found features that are not finite numbers; leave out their rows")
    unit_ND = _of_length_one(features_NF)
    distance_N, nearest_N = _to_neighbors(unit_ND)
    threshold = tail_threshold(distance_N)
    order_N = np.lexsort((np.arange(len(distance_N)), -distance_N))
    return Outliers(
        rows=order_N,
        distance=distance_N[order_N],
        nearest=nearest_N[order_N],
        listed=int((distance_N > threshold).sum()),
        threshold=threshold,
    )


def tail_threshold(distances_N: Floats) -> float:
    """The distance beyond which EXPECTED rows of all N would lie, if the upper half of them had an exponential tail
    with the slope that it has up to the TAIL quantile. Real tails of distances fall faster, so that fewer are
    listed."""
    middle, tail = np.quantile(distances_N, (MIDDLE, TAIL))
    scale = (tail - middle) / np.log((1 - MIDDLE) / (1 - TAIL))
    return float(middle + scale * np.log(len(distances_N) * (1 - MIDDLE) / EXPECTED))


def _of_length_one(features_NF: Floats) -> Floats:
    """(N, D) features of length 1 by their first COMPONENTS: distances are almost the same, and much faster."""
    lengths_N1 = np.linalg.norm(features_NF, axis=1, keepdims=True)
    points_ND = principal_components(features_NF / np.where(lengths_N1 > 0, lengths_N1, 1), COMPONENTS)
    return points_ND if points_ND.shape[1] else np.zeros((len(points_ND), 1))  # rows that are all equal


def _to_neighbors(points_ND: Floats) -> tuple[Floats, Ints]:
    """(N,) the mean distance from the nearest NEIGHBORS other rows, and the number of the nearest one."""
    from sklearn.neighbors import NearestNeighbors  # takes a second, and is for features only

    count = min(NEIGHBORS, len(points_ND) - 1)
    distance_Nk, row_Nk = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points_ND).kneighbors()
    return distance_Nk.mean(axis=1), row_Nk[:, 0].astype(np.int64)
