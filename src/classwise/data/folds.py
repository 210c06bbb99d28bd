"""The folds of a cross-validation: every row in exactly one, whole groups, stratified over all targets.

Guarantees: the rows of one group are in one fold; no fold is empty; the folds differ in rows and in the rows of each
label by less than moving one more group, or one and another, could better; with the ids of the rows their order makes
no difference. A label of a required stratum is in every fold, if it has a group for each and moves of up to two groups
at a time find a way; with fewer groups it is in as many folds as it has groups, in the same sense.

As in split.py, groups with the same counts of labels (a *profile*) are interchangeable, so each fold gets its whole
share of each profile, and only the remainders are chosen. scikit-learn's StratifiedGroupKFold does without the last
step and knows one target; it leaves a label of four groups out of one of five folds (docs/decisions/0049-folds.md).

Letters in names: N rows, C labels (and one more for all rows), G groups, P profiles, F folds.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from classwise.data.strata import DrawnRows, Flags, Numbers, Stratum
from classwise.randomness import SPLIT, generator

Floats = npt.NDArray[np.float64]
STREAM = 3
"""Of the draws for splits the one for folds; 0 is that for validation, 1 the profiles' own, 2 that for the test."""
MOST_WORK = 2e9
"""Multiplications that the improvement may take: a few seconds."""
MOST_FIRST_MOVES = 200
"""Of pairs of moves the first ones that are tried for a label that a fold lacks."""


def draw_folds(
    strata: Sequence[Stratum],
    groups: Sequence[Hashable] | None,
    count: int,
    seed: int,
    ids: Sequence[str] | None = None,
) -> Numbers:
    """The fold of each row (N,), from 0 to `count` - 1. `groups`: the group of each row; None: each row is its own.
    `ids`: a unique name for each row; rows are drawn in their order, without them in the order given.

    Raises ValueError for fewer groups than folds."""
    drawn = DrawnRows.of(strata, groups, ids)
    if len(drawn.profiles) < count:
        raise ValueError(f"{len(drawn.profiles)} groups for {count} folds")

    # Whole shares of each profile first, then the remainders, then what moves can still better.
    rng = generator(seed, SPLIT, STREAM)
    groups_P = np.bincount(drawn.profiles, minlength=len(drawn.counts))
    folds = _Folds(drawn.counts, drawn.required, groups_P, count)
    for profile in _remainders(folds, groups_P, count, rng):
        folds.add(profile)
    _improve(folds)

    fold_N = np.empty(len(drawn.groups), dtype=np.int64)
    fold_N[drawn.order] = _dealt(drawn.profiles, folds.groups_PF, rng)[drawn.groups]
    return fold_N


class _Folds:
    """How many groups of each profile are in each fold (`groups_PF`), and what follows: the rows and the groups of each
    label (`rows_FC`, `holders_FC`). It begins with the whole share of each profile's `groups_P` in each fold."""

    def __init__(self, counts_PC: Numbers, required_C: Flags, groups_P: Numbers, count: int) -> None:
        # The rows of each label in one group of a profile, and whether it has the label, as 0 and 1.
        self.counts_PC = counts_PC.astype(np.float64)
        self.holds_PC = (counts_PC > 0).astype(np.float64)
        # How bad it is if a fold lacks the label; an empty fold is worse than one that lacks every label.
        self.lack_C = required_C.astype(np.float64)
        self.lack_C[-1] = 1 + self.lack_C.sum()
        self.weight_C = 1 / np.maximum(groups_P @ self.counts_PC, 1)
        self.groups_PF = np.repeat((groups_P // count)[:, None], count, axis=1)
        self.rows_FC = self.groups_PF.T @ self.counts_PC
        self.holders_FC = self.groups_PF.T @ self.holds_PC

    def add(self, profile: int) -> None:
        """Put one more group into the fold that lacks most of its labels and, of these, has the fewest of its rows."""
        rows_C, holds_C = self.counts_PC[profile], self.holds_PC[profile]
        found_F = ((self.holders_FC == 0) * self.lack_C) @ holds_C
        rows_F = self.rows_FC @ (rows_C * self.weight_C)
        self.put(profile, int(np.lexsort((rows_F.round(9), -found_F))[0]), 1)

    def put(self, profile: int, fold: int, number: int) -> None:
        """Add groups of a profile to a fold, or take them away."""
        self.groups_PF[profile, fold] += number
        self.rows_FC[fold] += number * self.counts_PC[profile]
        self.holders_FC[fold] += number * self.holds_PC[profile]

    def move(self, profile: int, here: int, there: int) -> None:
        """Move one group of a profile from one fold to another."""
        self.put(profile, here, -1)
        self.put(profile, there, 1)

    def best_move(self) -> tuple[float, float, tuple[int, int, int]]:
        """The move that changes least for the worse: how much is lacking after it less before, the change of the
        squared distances from equal shares, and (profile, from, to)."""
        near_PF = self.counts_PC @ (self.rows_FC * self.weight_C).T
        square_P = self.counts_PC**2 @ self.weight_C
        lost_PF = self.holds_PC @ ((self.holders_FC == 1) * self.lack_C).T
        found_PF = self.holds_PC @ ((self.holders_FC == 0) * self.lack_C).T
        best = (np.inf, np.inf, (0, 0, 0))
        for here, there in np.ndindex(*near_PF.shape[1:] * 2):
            may_P = self.groups_PF[:, here] > 0
            if here == there or not may_P.any():
                continue
            lacking_P = np.where(may_P, lost_PF[:, here] - found_PF[:, there], np.inf)
            # Rounded, so that the order of a sum on another machine does not decide between equal changes.
            change_P = (2 * (near_PF[:, there] - near_PF[:, here] + square_P)).round(9)
            profile = int(np.lexsort((change_P, lacking_P))[0])
            best = min(best, (float(lacking_P[profile]), float(change_P[profile]), (profile, here, there)))
        return best


def _remainders(folds: _Folds, groups_P: Numbers, count: int, rng: np.random.Generator) -> list[int]:
    """The profile of each group that is left over, in the order in which they are placed: those with the rarest label
    first, then the largest, so that the small ones can correct them; equals by lot."""
    left = np.repeat(np.arange(len(groups_P)), groups_P % count)
    left = left[rng.permutation(len(left))]
    groups_C = np.where(folds.lack_C > 0, groups_P @ folds.holds_PC, np.inf)
    rarest_P = np.where(folds.holds_PC > 0, groups_C, np.inf).min(axis=1)
    order = np.lexsort((-folds.counts_PC[left, -1], rarest_P[left]))
    return [int(profile) for profile in left[order]]


def _improve(folds: _Folds) -> None:
    """Move one group at a time, the one that gains most, as long as that makes less lacking or, with as much lacking,
    the folds more equal; where a label is still lacking, two at a time."""
    profiles, labels = folds.counts_PC.shape
    count = folds.groups_PF.shape[1]
    moves_left = max(20, int(MOST_WORK // (profiles * (4 * labels * count + 20 * count**2))))
    while moves_left > 0:
        lacking, change, move = folds.best_move()
        moves_left -= 1
        if (lacking, change) < (0, -1e-9):
            folds.move(*move)
            continue
        tried = _move_two(folds, moves_left)
        moves_left -= tried
        if not tried or tried > MOST_FIRST_MOVES:
            return


def _move_two(folds: _Folds, most: int) -> int:
    """Make a pair of moves after which less is lacking, if one is found whose first brings a label to a fold that lacks
    it; returns how many first moves were tried, MOST_FIRST_MOVES + 1 if none was the right one."""
    holders_C = folds.holders_FC.sum(axis=0)
    is_short_FC = (folds.holders_FC == 0) & (folds.lack_C > 0)
    tried = 0
    for fold, label in np.argwhere(is_short_FC).tolist():
        spread = int((folds.holders_FC[:, label] > 0).sum())
        if spread >= holders_C[label]:
            continue  # each of its groups has a fold to itself
        for profile in np.flatnonzero(folds.holds_PC[:, label]).tolist():
            for here in np.flatnonzero(folds.groups_PF[profile]).tolist():
                if tried >= min(MOST_FIRST_MOVES, most):
                    return MOST_FIRST_MOVES + 1
                tried += 1
                before = _lacking(folds)
                folds.move(profile, here, fold)
                lacking, _, move = folds.best_move()
                if _lacking(folds) + lacking < before:
                    folds.move(*move)
                    return tried
                folds.move(profile, fold, here)
    return MOST_FIRST_MOVES + 1 if tried else 0


def _lacking(folds: _Folds) -> float:
    return float(((folds.holders_FC == 0) * folds.lack_C).sum())


def _dealt(profile_G: Numbers, groups_PF: Numbers, rng: np.random.Generator) -> Numbers:
    """The fold of each group (G,): so many of each profile as each fold has, which ones by lot."""
    order = rng.permutation(len(profile_G))
    order = order[np.argsort(profile_G[order], kind="stable")]
    fold_G = np.empty(len(profile_G), dtype=np.int64)
    folds = np.tile(np.arange(groups_PF.shape[1]), len(groups_PF))
    fold_G[order] = np.repeat(folds, groups_PF.reshape(-1))
    return fold_G
