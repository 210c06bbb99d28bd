"""Shortcuts: how well the label is told by what should not tell it, such as the size of the file, the camera or the
date.

A network learns whatever separates the classes (Geirhos et al., 'Shortcut learning in deep neural networks', 2020), and
a score on rows of the same kind never shows it. Each column is tried alone: its values are cut into bins, the class
shares of a bin are learned on four fifths of the rows, and the rest is predicted by them. That is scikit-learn's
CategoricalNB on one column with equal priors, written as counts, so that some hundred permutations take a second.

Two numbers say how well it works, both 0 by chance and 1 at best: `strength` for all classes, and for one class against
the others its `informedness` (Youden, 'Index for rating diagnostic tests', 1950), since a class of a hundred that is
told without a fault moves the first one by little. The labels are permuted, and the largest of all these numbers, each
standardized, is compared: a p-value over all columns and classes together, whatever their number (Westfall and Young,
'Resampling-based multiple testing', 1993, section 2.3).

Letters in names: N rows, K classes, B bins, F folds, C columns, P permutations, S statistics.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import norm

from classwise.randomness import CHECK, generator

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FOLDS = 5
MOST_BINS = 32
MOST_CATEGORIES = 256
"""Different strings of a column that are kept; the rarer ones are one category together."""
ROWS_A_BIN = 20
SMOOTHING = 0.1
"""Rows of each class that are added to each bin. One, as is usual, would give empty bins to the rarest class."""
LEAST_ROWS = 10
"""Rows that a class needs to be looked at alone; those with fewer than FOLDS are left out altogether."""
PERMUTATIONS = 199
UPPER = 0.985
"""The quantile of the permutations that a statistic's unit is taken from, if it is not the standard deviation."""
ALPHA = 0.02
NOTABLE_STRENGTH, STRONG_STRENGTH = 0.1, 0.5
NOTABLE_CLASS, STRONG_CLASS = 0.3, 0.8


@dataclass(frozen=True)
class Shortcut:
    """How well one column tells the label.

    balanced_accuracy: cross-validated, over classes with FOLDS rows or more. chance: of the same, by guessing.
    strength: how far the accuracy lies above chance, as a share of the farthest that a column of so many different
    values can reach: two values tell apart two classes, or two halves of the classes. best_class: the class that is
    told best among those with LEAST_ROWS, and its informedness, the share of its rows that are predicted as it minus
    the share of the others that are; None without such a class. p_strength, p_class: that any column tells anything so
    well by chance, of the strength and of the informedness. rows: labeled rows.
    """

    column: str
    balanced_accuracy: float
    chance: float
    strength: float
    best_class: int | None
    informedness: float
    p_strength: float
    p_class: float
    rows: int

    @property
    def p_value(self) -> float:
        """The smaller one."""
        return min(self.p_strength, self.p_class)

    @property
    def tells_all(self) -> bool:
        """Whether the column tells all classes together well above chance; else it may tell one of them."""
        return self.strength >= NOTABLE_STRENGTH and self.p_strength <= ALPHA

    @property
    def tells_one(self) -> bool:
        """Whether it tells the best class well above chance."""
        return self.informedness >= NOTABLE_CLASS and self.p_class <= ALPHA

    @property
    def is_notable(self) -> bool:
        """Significant, and well above chance: worth a look, for a column that may depend on what images show."""
        return self.tells_all or self.tells_one

    @property
    def is_strong(self) -> bool:
        """So good that a network could do with this column alone."""
        is_strong_for_one = self.tells_one and self.informedness >= STRONG_CLASS
        return is_strong_for_one or (self.tells_all and self.strength >= STRONG_STRENGTH)


def find_shortcuts(
    columns: pl.DataFrame | Mapping[str, Sequence[Any]],
    labels_N: npt.ArrayLike,
    groups_N: Sequence[Any] | None = None,
    *,
    left_out: Collection[str] = (),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Shortcut]:
    """How well each of the `columns` tells the label, the best first; constant columns are not among them.

    Numbers, dates and booleans are cut into bins of about equal size; strings are categories; a missing value is one of
    its own. `labels_N`: class numbers, -1 for rows without a label. `groups_N`: rows of a group are on one side of each
    fold, and get the labels of another group as a whole when labels are permuted.
    `left_out`: columns that the labels were read from, such as the folder where folders are the classes.

    Empty where fewer than two classes have FOLDS rows. Raises ValueError for columns of another length.
    """
    table = columns if isinstance(columns, pl.DataFrame) else pl.DataFrame(columns, strict=False)
    label_N = np.asarray(labels_N, dtype=np.int64)
    if table.width and table.height != len(label_N):
        raise ValueError(
            f"found {table.height} rows and {len(label_N)} labels; allowed: a label for each row"
        )

    # Only labeled rows of classes that can be on both sides of a fold.
    counts_K = np.bincount(label_N[label_N >= 0], minlength=1)
    class_K = np.flatnonzero(counts_K >= FOLDS)
    used_N = np.isin(label_N, class_K)
    if len(class_K) < 2:
        return []
    class_N = np.searchsorted(class_K, label_N[used_N])
    group_N = (
        np.arange(len(class_N)) if groups_N is None else _numbers(np.asarray(groups_N, dtype=str)[used_N])
    )

    names = [name for name in table.columns if name not in left_out]
    bins = {name: column_bins(table[name].filter(pl.Series(used_N))) for name in names}
    bins = {name: bin_N for name, bin_N in bins.items() if bin_N.max() > 0}
    if not bins:
        return []
    observed_CS, p_CS = _tested(list(bins.values()), class_N, group_N, permutations, seed)
    found = [
        _shortcut(name, int(bin_N.max()) + 1, statistic_S, p_S, class_K, len(class_N))
        for (name, bin_N), statistic_S, p_S in zip(bins.items(), observed_CS, p_CS, strict=True)
    ]
    return sorted(found, key=lambda one: (-max(one.strength, one.informedness), one.column))


def is_sorted_by_class(labels_N: npt.ArrayLike) -> bool:
    """Whether a table lists one class after the other, -1 aside. Then the position of a row tells its class, and this
    means nothing; in a table of another order it may tell that classes were collected at different times."""
    label_N = np.asarray(labels_N)
    label_N = label_N[label_N >= 0]
    runs = 1 + int((label_N[1:] != label_N[:-1]).sum())
    return runs <= 2 * len(np.unique(label_N))


def column_bins(values: pl.Series) -> Ints:
    """The number of each value's bin (N,), from 0; a missing value has a bin of its own."""
    if values.dtype in (pl.String, pl.Categorical) or isinstance(values.dtype, pl.Enum):
        return _categories(values.cast(pl.String))
    number_N = (values.cast(pl.Int64) if values.dtype.is_temporal() else values).cast(pl.Float64).to_numpy()
    is_known_N = np.isfinite(number_N)
    known_M, place_M = np.unique(number_N[is_known_N], return_inverse=True)

    # Few different values are their own bins; the edges between more are quantiles.
    bins = int(np.clip(len(number_N) // ROWS_A_BIN, 2, MOST_BINS))
    if len(known_M) > bins:
        edges = np.quantile(number_N[is_known_N], np.arange(1, bins) / bins)
        place_M = np.searchsorted(np.unique(edges), number_N[is_known_N])
    bin_N = np.full(len(number_N), -1)
    bin_N[is_known_N] = place_M
    return _numbers(bin_N)


def _categories(values: pl.Series) -> Ints:
    cell_N = np.array(["" if value is None else f"={value}" for value in values.to_list()])
    _, place_N, count_B = np.unique(cell_N, return_inverse=True, return_counts=True)
    by_count_B = np.argsort(np.argsort(-count_B, kind="stable"), kind="stable")
    return _numbers(np.minimum(by_count_B[place_N], MOST_CATEGORIES - 1))


def _numbers(values_N: npt.NDArray[Any]) -> Ints:
    return np.unique(values_N, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _tested(
    columns: Sequence[Ints], class_N: Ints, group_N: Ints, permutations: int, seed: int
) -> tuple[Floats, Floats]:
    """(statistics_CS, p_CS). The statistics of a column: its strength, then the informedness of
    each class."""
    classes = int(class_N.max()) + 1
    rng = generator(seed, CHECK)
    fold_N = _folds(group_N, rng)
    is_large_K = np.bincount(class_N, minlength=classes) >= LEAST_ROWS

    # The first of the permutations is the order of the labels as they are.
    orders = [np.arange(len(class_N)), *(_permuted(group_N, rng) for _ in range(permutations))]
    statistic_PCS = np.zeros((len(orders), len(columns), 1 + classes))
    cell_C = [fold_N * (int(bin_N.max()) + 1) + bin_N for bin_N in columns]
    for number, order_N in enumerate(orders):
        for column, (bin_N, cell_N) in enumerate(zip(columns, cell_C, strict=True)):
            counts_FBK = np.bincount(
                cell_N * classes + class_N[order_N], minlength=FOLDS * (int(bin_N.max()) + 1) * classes
            ).reshape(FOLDS, -1, classes)
            strength, informedness_K = _told(counts_FBK)
            statistic_PCS[number, column] = [strength, *np.where(is_large_K, informedness_K, 0)]

    # What varies more by chance counts less, by its standard deviation, or by an upper quantile where that lies farther
    # out: the informedness of a rare class is skewed, and would hide what other statistics show.
    mean_CS = statistic_PCS.mean(axis=0)
    reach_CS = (np.quantile(statistic_PCS, UPPER, axis=0) - mean_CS) / norm.ppf(UPPER)
    unit_CS = np.maximum(statistic_PCS.std(axis=0), reach_CS)
    z_PCS = (statistic_PCS - mean_CS) / np.where(unit_CS > 0, unit_CS, 1)
    largest_P = z_PCS.reshape(len(orders), -1).max(axis=1)
    p_CS = (largest_P[:, None, None] >= z_PCS[0] - 1e-12).mean(axis=0)
    return statistic_PCS[0], p_CS


def _told(counts_FBK: Ints) -> tuple[float, Floats]:
    """(strength, informedness_K) of rows (fold, bin, class) that are predicted by the bins of the other folds."""
    classes = counts_FBK.shape[2]
    seen_FBK = counts_FBK.sum(axis=0) - counts_FBK
    smoothed_FBK = seen_FBK + SMOOTHING
    share_FBK = smoothed_FBK / smoothed_FBK.sum(axis=1, keepdims=True)

    # Rows of a bin that was never seen are guessed: each class gets its part of them.
    is_seen_FB = seen_FBK.any(axis=2)
    predicted_FB = share_FBK.argmax(axis=2)
    predicted_FBK = np.where(
        is_seen_FB[:, :, None], np.arange(classes) == predicted_FB[:, :, None], 1 / classes
    )
    total_K = counts_FBK.sum(axis=(0, 1))
    hits_K = (counts_FBK * predicted_FBK).sum(axis=(0, 1))
    called_K = (counts_FBK.sum(axis=2, keepdims=True) * predicted_FBK).sum(axis=(0, 1))

    # Labels of groups that are laid over smaller groups can lack a class.
    present = int((total_K > 0).sum())
    recall_K = hits_K / np.maximum(1, total_K)
    false_K = (called_K - hits_K) / np.maximum(1, total_K.sum() - total_K)
    farthest = min(counts_FBK.shape[1], present) - 1
    strength = (recall_K.sum() - 1) / farthest if farthest else 0.0
    return float(strength), np.where(total_K > 0, recall_K - false_K, 0)


def _folds(group_N: Ints, rng: np.random.Generator) -> Ints:
    """The fold of each row, by its group and not by its label, so that permuted labels are in the same position."""
    groups = int(group_N.max()) + 1
    fold_G = np.empty(groups, dtype=np.int64)
    fold_G[rng.permutation(groups)] = np.arange(groups) % FOLDS
    return fold_G[group_N]


def _permuted(group_N: Ints, rng: np.random.Generator) -> Ints:
    """The row whose label each row gets (N,): every group gets the labels of another one as a whole, drawn at random;
    repeated or thinned out where that one is smaller or larger."""
    order_N = np.lexsort((rng.random(len(group_N)), group_N))
    size_G = np.bincount(group_N)
    start_G = np.cumsum(size_G) - size_G
    source_G = rng.permutation(len(size_G))

    # The place of each row within its group, and of the row that it corresponds to in the other one.
    place_N = np.arange(len(group_N)) - start_G[group_N[order_N]]
    source_N = source_G[group_N[order_N]]
    source_place_N = place_N * size_G[source_N] // size_G[group_N[order_N]]
    row_N = np.empty(len(group_N), dtype=np.int64)
    row_N[order_N] = order_N[start_G[source_N] + source_place_N]
    return row_N


def _shortcut(name: str, bins: int, statistic_S: Floats, p_S: Floats, class_K: Ints, rows: int) -> Shortcut:
    # A class that is told by more than chance comes before one that is rare and happens to be.
    is_significant_K = p_S[1:] <= ALPHA
    best = int((statistic_S[1:] + (2.0 * is_significant_K)).argmax())  # informedness is at most 1
    informedness = float(statistic_S[1 + best])
    return Shortcut(
        column=name,
        balanced_accuracy=float(1 + statistic_S[0] * (min(bins, len(class_K)) - 1)) / len(class_K),
        chance=1 / len(class_K),
        strength=min(1.0, float(statistic_S[0])),  # a little more where folds happen to be uneven
        best_class=int(class_K[best]) if informedness > 0 else None,
        informedness=max(0.0, informedness),
        p_strength=float(p_S[0]),
        p_class=float(p_S[1 + best]),
        rows=rows,
    )
