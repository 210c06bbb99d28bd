"""Which labels are likely wrong, from probabilities of models that have not seen the rows: a ranking, never a verdict.

Rows are ranked by the posterior probability of a wrong label under a model of how labels came to be wrong (see
`noise_model`), rather than by the probability of the given label alone, as cleanlab does by default (Northcutt et al.,
'Confident learning', JAIR 2021), which is the same without that model. On planted errors the average precision is
higher where pairs of classes are confused, about the same where labels are wrong at random, and higher in the mean over
sets (docs/results/check.md, benchmarks/checking/labels.py).

There is no threshold beyond which labels are 'found' to be wrong: with real models, confident learning's filters flag
14 to 25 % of the right labels of rare classes. Instead each row has an estimate of the probability that its label is
wrong, and so has the first part of the ranking: as many are expected to be wrong. The estimate is the mean of two
noise models, one with errors that differ by pair of classes and one in which all pairs are alike. The first one takes
classes that the *model* confuses for errors, the second one misses pairs that *people* confuse; so the mean is an
estimate too.

cleanlab is no dependency: up to 2.7 it is under the AGPL; from 2.8 on it is under Apache-2.0, but brings pandas, and
the score that would be used of it is one line.

Letters in names: N rows, K classes, L labels, M ranked entries (a row and a target, or a row and a label).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.datacheck.noise_model import fit_noise_model

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEW_ROWS = 20
"""Rows of a class below which a warning goes with each label that may be wrong."""
LEAST_EXPECTED = 0.5
"""Rows that have to be expected for a pair of classes to be named."""


@dataclass(frozen=True)
class LabelRanking:
    """Entries from the label that is most likely wrong down to the least; all arrays are (M,).

    rows: row numbers. targets: the names of the targets, or labels of a multilabel target, that labels are of. given:
    the class, level or flag (0 or 1) that is written. proposed: what it is most likely instead. score: what entries
    are ranked by, 0 to 1. wrong: the estimated probability that the label is wrong; it need not fall along the
    ranking.
    """

    rows: Ints
    targets: npt.NDArray[np.str_]
    given: Ints
    proposed: Ints
    score: Floats
    wrong: Floats

    def expected_errors(self, count: int) -> float:
        """How many of the first `count` labels are wrong: an estimate from the same probabilities. It is too high where
        the model confuses classes that nobody else does, and too low where a fifth of all labels is wrong."""
        return float(self.wrong[:count].sum())


@dataclass(frozen=True)
class ErrorPair:
    """`expected` rows that are `true`, by estimate, are called `given`."""

    target: str
    given: int
    true: int
    expected: float


def rank_classes(probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike, target: str = "") -> LabelRanking:
    """Rank the rows of a target with one class a row, or of the joint class of several.

    `probabilities_NK`: out of fold; rows that have none are NaN. `labels_N`: class numbers, -1 where unknown. Rows
    without a label or without probabilities are not ranked. Raises ValueError for other shapes, negative probabilities
    and labels beyond K.
    """
    probabilities_MK, label_M, rows = _known(probabilities_NK, labels_N)
    by_pair_MK, alike_MK = _posteriors(probabilities_MK, label_M)
    places = np.arange(len(rows))
    return _ranking(
        rows=rows,
        target=target,
        given=label_M,
        proposed=_most_likely_other(by_pair_MK, label_M),
        score=1 - by_pair_MK[places, label_M],
        wrong=1 - (by_pair_MK + alike_MK)[places, label_M] / 2,
    )


def rank_levels(probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike, target: str = "") -> LabelRanking:
    """Rank the rows of a target with K ordered levels: by the expected number of levels between the true one and the
    given one, as a share of K - 1, so that a far error ranks before a near one. The arguments as in `rank_classes`."""
    probabilities_MK, label_M, rows = _known(probabilities_NK, labels_N)
    by_pair_MK, alike_MK = _posteriors(probabilities_MK, label_M)
    levels = by_pair_MK.shape[1]
    distance_MK = np.abs(np.arange(levels) - label_M[:, None])
    return _ranking(
        rows=rows,
        target=target,
        given=label_M,
        proposed=_most_likely_other(by_pair_MK, label_M),
        score=(by_pair_MK * distance_MK).sum(axis=1) / max(1, levels - 1),
        wrong=1 - (by_pair_MK + alike_MK)[np.arange(len(rows)), label_M] / 2,
    )


def rank_flags(
    probabilities_NL: npt.ArrayLike, flags_NL: npt.ArrayLike, labels: Sequence[str]
) -> LabelRanking:
    """Rank each label of each row of a multilabel target; `targets` of the entries are the names of the `labels`.

    `probabilities_NL`: of each label, NaN where there is none. `flags_NL`: 1 where a row has the label, 0 where it has
    not, -1 where that is unknown. Raises ValueError as `rank_classes`.
    """
    probabilities_NL, flags_NL = np.asarray(probabilities_NL, np.float64), np.asarray(flags_NL, np.int64)
    if probabilities_NL.shape != flags_NL.shape or flags_NL.ndim != 2 or flags_NL.shape[1] != len(labels):
        raise ValueError(
            f"found probabilities {probabilities_NL.shape}, flags {flags_NL.shape} and {len(labels)} labels; allowed:"
            " (N, L) twice, and L labels"
        )
    return merge_rankings(
        [
            rank_classes(np.stack([1 - probability_N, probability_N], axis=1), flag_N, labels[number])
            for number, (probability_N, flag_N) in enumerate(zip(probabilities_NL.T, flags_NL.T, strict=True))
        ]
    )


def merge_rankings(rankings: Sequence[LabelRanking]) -> LabelRanking:
    """One list of the entries of several targets, by their scores. A row is in it once for each of its targets."""
    if not rankings:
        return _empty()
    parts = {
        name: np.concatenate([getattr(ranking, name) for ranking in rankings])
        for name in ("rows", "targets", "given", "proposed", "score", "wrong")
    }
    order_M = np.argsort(-parts["score"], kind="stable")
    return LabelRanking(**{name: values_M[order_M] for name, values_M in parts.items()})


def error_pairs(ranking: LabelRanking) -> list[ErrorPair]:
    """Which classes are called which, the most frequent first: the expected numbers of rows, by their most likely true
    class. Pairs of which less than LEAST_EXPECTED is expected are left out."""
    keys = np.stack(
        [np.unique(ranking.targets, return_inverse=True)[1].reshape(-1), ranking.given, ranking.proposed]
    )
    pairs, first_P, pair_M = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    expected_P = np.bincount(pair_M.reshape(-1), weights=ranking.wrong, minlength=pairs.shape[1])
    found = [
        ErrorPair(str(ranking.targets[first]), int(given), int(true), float(expected))
        for first, (_, given, true), expected in zip(first_P, pairs.T, expected_P, strict=True)
        if expected >= LEAST_EXPECTED
    ]
    return sorted(found, key=lambda pair: (-pair.expected, pair.target, pair.given, pair.true))


def rare_class_warning(name: str, rows: int) -> str | None:
    """What to say beside a label of a class with few rows; None for the others."""
    if rows >= FEW_ROWS:
        return None
    if rows == 1:
        return f"{name!r} has this row only: removing it loses the class. Correct the label, or keep it."
    return (
        f"{name!r} has {rows} rows: each one that is removed takes {100 / rows:.0f} % of the class away, and a model"
        " knows rare classes worst, so that right labels look wrong. Look at it, and rather correct it than remove it."
    )


def _known(probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[Floats, Ints, Ints]:
    """Probabilities (M, K) that sum to 1, labels (M,) and row numbers (M,) of the rows that have both."""
    probabilities_NK, labels_N = np.asarray(probabilities_NK, np.float64), np.asarray(labels_N, np.int64)
    if probabilities_NK.ndim != 2 or labels_N.shape != probabilities_NK.shape[:1]:
        raise ValueError(
            f"found probabilities {probabilities_NK.shape} and labels {labels_N.shape}; allowed: (N, K) and (N,)"
        )
    classes = probabilities_NK.shape[1]
    if labels_N.max(initial=-1) >= classes:
        raise ValueError(f"found class {labels_N.max()} and probabilities of {classes} classes")
    if (probabilities_NK < 0).any():
        raise ValueError("found negative probabilities; logits have to go through a softmax first")
    total_N = probabilities_NK.sum(axis=1)
    rows = np.flatnonzero((labels_N >= 0) & np.isfinite(total_N) & (total_N > 0))
    return probabilities_NK[rows] / total_N[rows, None], labels_N[rows], rows


def _posteriors(probabilities_MK: Floats, label_M: Ints) -> tuple[Floats, Floats]:
    """The probability of each true class (M, K) by either noise model. A single class, and no rows, cannot be wrong."""
    if probabilities_MK.shape[1] < 2 or not len(label_M):
        return probabilities_MK, probabilities_MK
    models = [fit_noise_model(probabilities_MK, label_M, by_pair) for by_pair in (True, False)]
    by_pair_MK, alike_MK = (model.posterior(probabilities_MK, label_M) for model in models)
    return by_pair_MK, alike_MK


def _most_likely_other(posterior_MK: Floats, label_M: Ints) -> Ints:
    """(M,) the most likely class but the given one, or this where there is no other."""
    if posterior_MK.shape[1] < 2:
        return label_M
    others_MK = posterior_MK.copy()
    others_MK[np.arange(len(label_M)), label_M] = -1
    return np.asarray(others_MK.argmax(axis=1))


def _ranking(
    rows: Ints, target: str, given: Ints, proposed: Ints, score: Floats, wrong: Floats
) -> LabelRanking:
    order_M = np.argsort(-score, kind="stable")
    return LabelRanking(
        rows=rows[order_M],
        targets=np.full(len(rows), target),
        given=given[order_M],
        proposed=proposed[order_M],
        score=np.clip(score[order_M], 0, 1),
        wrong=np.clip(wrong[order_M], 0, 1),
    )


def _empty() -> LabelRanking:
    none = np.zeros(0, np.int64)
    return _ranking(none, "", none, none, np.zeros(0), np.zeros(0))
