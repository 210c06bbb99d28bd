"""The split into training and validation rows: stratified, grouped, exact in its share, without replacement.

What is promised: the rows of one group never stand on both sides; every label of a required stratum stands on
both sides, unless groups with several labels exclude it; and no move of one more group would bring the labels'
shares in validation nearer to the wanted share. Groups with the same counts of labels (a *profile*: one woman
under 30 with seven images, say) are exchangeable, so each profile gives its share exactly and only the
remainders have to be chosen; that is what makes it exact, and fast for large tables.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.errors import DataError
from classwise.randomness import SPLIT, generator

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stratum:
    """Label numbers (N,) that a split keeps in proportion; -1: the row is not in it, and nothing is promised.

    `required`: a label that cannot stand on both sides is refused, and each of the others does. Without it
    the labels (bins of a number, say) only pull the split their way.
    """

    name: str
    numbers: Numbers
    labels: Sequence[str]
    required: bool


def split_rows(
    strata: Sequence[Stratum], groups: Sequence[Hashable] | None, share: float, seed: int
) -> Flags:
    """Which rows are for validation, as N booleans. `groups` are the group of each row, or None.

    Raises DataError for a label of a required stratum with rows of one group only: it cannot stand on both
    sides.
    """
    label_NT, required_C = _columns(strata), _required(strata)
    group_N = _group_numbers(groups, len(label_NT))
    _refuse_single_groups(label_NT, group_N, strata, grouped=groups is not None)
    profile_G, counts_PC = _profiles(label_NT, group_N, len(required_C) - 1)
    rng = generator(seed, SPLIT)
    valid_G, rest = _take_profiles(profile_G, share, rng)
    _place_rest(profile_G, counts_PC, valid_G, rest, share)
    for _ in range(3):  # what settling moves may free a label that the pass before had to leave on one side
        _put_on_both_sides(profile_G, counts_PC, required_C, valid_G, share)
        _settle(profile_G, counts_PC, required_C, valid_G, share)
    return valid_G[group_N]


def merge_groups(*groupings: Sequence[Hashable]) -> list[str]:
    """One grouping out of several: rows that any of them holds together, directly or through other rows, are
    together (a person's images and the queries that they stand in). Names are numbers, by first row."""
    parent: list[int] = list(range(len(groupings[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for groups in groupings:
        first: dict[Hashable, int] = {}
        for row, group in enumerate(groups):
            one, other = root(row), root(first.setdefault(group, row))
            parent[max(one, other)] = min(one, other)
    return [str(root(row)) for row in range(len(parent))]


def _columns(strata: Sequence[Stratum]) -> Numbers:
    """(N, T) label numbers that run on from stratum to stratum, so that each label has one number; rows that
    are not in a stratum have the number after the last."""
    ends = np.cumsum([0, *(len(stratum.labels) for stratum in strata)])
    columns = [
        np.where(stratum.numbers < 0, ends[-1], stratum.numbers + start)
        for stratum, start in zip(strata, ends[:-1], strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.int64)


def _required(strata: Sequence[Stratum]) -> Flags:
    """Which labels have to stand on both sides, (C + 1,): the last stands for all rows, which have not."""
    flags = [stratum.required for stratum in strata for _ in stratum.labels]
    return np.array([*flags, False])


def _group_numbers(groups: Sequence[Hashable] | None, rows: int) -> Numbers:
    if groups is None:
        return np.arange(rows)
    number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.int64)


def _refuse_single_groups(
    label_NT: Numbers, group_N: Numbers, strata: Sequence[Stratum], grouped: bool
) -> None:
    labels = [(f"{stratum.name}={label}", stratum.required) for stratum in strata for label in stratum.labels]
    first_C = np.full(len(labels) + 1, -1)
    several_C = np.zeros(len(labels) + 1, dtype=bool)
    for label_N in label_NT.T:
        first_C[label_N[::-1]] = group_N[::-1]
        several_C[label_N[group_N != first_C[label_N]]] = True
    single = [
        label
        for (label, required), first, several in zip(labels, first_C[:-1], several_C[:-1], strict=True)
        if required and first >= 0 and not several
    ]
    if single:
        what = "group" if grouped else "row"
        raise DataError(
            f"only one {what} holds {', '.join(single[:10])}{' and more' if len(single) > 10 else ''}:"
            f" a class needs at least two {what}s to stand on both sides of a split;"
            " add some, merge the class into another, or set data.valid to a table"
        )


def _profiles(label_NT: Numbers, group_N: Numbers, classes: int) -> tuple[Numbers, Numbers]:
    """The profile of every group, and per profile its rows of each label and, in the last column, all its rows.

    Groups are compared by a 64-bit sum of one random number a label, so that no table of groups by labels is
    ever made; two profiles that differ share a sum with a chance of 2**-64. A label that is not known has a
    number too, since it counts among all rows.
    """
    random_C = generator(0, SPLIT, 1).integers(0, 2**64, size=classes + 1, dtype=np.uint64)
    sums_G = np.zeros(int(group_N.max()) + 1, dtype=np.uint64)
    np.add.at(sums_G, group_N, random_C[label_NT].sum(axis=1, dtype=np.uint64))
    _, first, profile_G = np.unique(sums_G, return_index=True, return_inverse=True)
    row_of_G = np.full(len(sums_G), -1)
    row_of_G[first] = np.arange(len(first))
    rows = row_of_G[group_N]
    counts_PC = np.zeros((len(first), classes + 1), dtype=np.int64)
    for label_N in label_NT.T:
        np.add.at(counts_PC, (rows[rows >= 0], label_N[rows >= 0]), 1)
    counts_PC[:, -1] = np.bincount(rows[rows >= 0], minlength=len(first))
    return profile_G.reshape(-1), counts_PC


def _take_profiles(profile_G: Numbers, share: float, rng: np.random.Generator) -> tuple[Flags, list[int]]:
    """Of every profile the whole part of its share, drawn without replacement; one more group of each
    profile with a fraction left is put aside."""
    order = rng.permutation(len(profile_G))
    order = order[np.argsort(profile_G[order], kind="stable")]
    valid_G = np.zeros(len(profile_G), dtype=bool)
    rest = []
    for members in np.split(order, np.flatnonzero(np.diff(profile_G[order])) + 1):
        wanted = share * len(members)
        whole = int(wanted + 1e-9)
        valid_G[members[:whole]] = True
        if wanted - whole > 1e-9:
            rest.append(int(members[whole]))
    return valid_G, [rest[i] for i in rng.permutation(len(rest))]


def _place_rest(
    profile_G: Numbers, counts_PC: Numbers, valid_G: Flags, rest: list[int], share: float
) -> None:
    """Groups put aside take, one after the other and the large ones first, the side that keeps every label's
    count nearest to its share of what has been placed: the small ones can then mend what the large ones did."""
    rest = sorted(rest, key=lambda g: -int(counts_PC[profile_G[g], -1]))
    weight_C = 1 / np.maximum(_totals(profile_G, counts_PC), 1)
    placed_P = np.bincount(np.delete(profile_G, rest), minlength=len(counts_PC))
    off_C = _valid_counts(profile_G, counts_PC, valid_G) - share * (placed_P @ counts_PC)
    for g in rest:
        counts_C = counts_PC[profile_G[g]]
        as_valid_C, as_train_C = off_C + (1 - share) * counts_C, off_C - share * counts_C
        valid_G[g] = (as_valid_C**2 @ weight_C) < (as_train_C**2 @ weight_C)
        off_C = as_valid_C if valid_G[g] else as_train_C


def _put_on_both_sides(
    profile_G: Numbers, counts_PC: Numbers, required_C: Flags, valid_G: Flags, share: float
) -> None:
    """For every required label that stands on one side only, rarest first, move the group that costs least.

    A move that takes the last group of another label with it puts that label last in the queue. No group is
    moved twice, so this ends; where labels exclude each other, some may be left on one side.
    """
    totals_C = _totals(profile_G, counts_PC)
    groups_P = np.bincount(profile_G, minlength=len(counts_PC))
    moved_G = np.zeros_like(valid_G)
    queue = [int(c) for c in np.argsort(totals_C[:-1], kind="stable") if totals_C[c] and required_C[c]]
    while queue:
        holds_G = counts_PC[:, queue.pop(0)][profile_G] > 0
        if valid_G[holds_G].any() != valid_G[holds_G].all():
            continue
        to_valid = not valid_G[holds_G].any()
        off_C = _valid_counts(profile_G, counts_PC, valid_G) - share * totals_C
        valid_P = np.bincount(profile_G[valid_G], minlength=len(counts_PC))
        # How many groups hold each label on the side that the moved group leaves: it should not be the last.
        leaving_C = (groups_P - valid_P if to_valid else valid_P) @ (counts_PC > 0)
        entered_C = (valid_P if to_valid else groups_P - valid_P) @ (counts_PC > 0)
        profiles = np.unique(profile_G[holds_G & ~moved_G])
        if not len(profiles):
            continue
        counts_QC = counts_PC[profiles]
        broken_QC = (counts_QC > 0) & (leaving_C == 1) & (entered_C > 0) & required_C
        costs_Q = ((off_C + (1 if to_valid else -1) * counts_QC) ** 2 / np.maximum(totals_C, 1)).sum(axis=1)
        best = np.lexsort((costs_Q, broken_QC.sum(axis=1)))[0]
        group = np.flatnonzero((profile_G == profiles[best]) & (valid_G != to_valid) & ~moved_G)[0]
        valid_G[group], moved_G[group] = to_valid, True
        queue += np.flatnonzero(broken_QC[best]).tolist()


def _settle(profile_G: Numbers, counts_PC: Numbers, required_C: Flags, valid_G: Flags, share: float) -> None:
    """Move one group at a time, the one that gains most, while that brings the counts nearer to their shares
    and leaves no required label on one side: putting the rare labels on both sides has taken others along."""
    totals_C = _totals(profile_G, counts_PC)
    weight_C = 1 / np.maximum(totals_C, 1)
    exact_PC, holds_PC = counts_PC.astype(np.float64), (counts_PC > 0).astype(np.float64)
    squares_P = exact_PC**2 @ weight_C
    groups_P = np.bincount(profile_G, minlength=len(counts_PC))
    valid_P = np.bincount(profile_G[valid_G], minlength=len(counts_PC))
    while True:
        slope_P = 2 * exact_PC @ ((valid_P @ exact_PC - share * totals_C) * weight_C)
        moves = []
        for sign, here_P in ((1, groups_P - valid_P), (-1, valid_P)):
            lasts_P = holds_PC @ ((here_P @ holds_PC == 1) & required_C)
            change_P = np.where((here_P > 0) & (lasts_P == 0), sign * slope_P + squares_P, np.inf)
            # Rounded, so that the order of a sum on another machine does not decide between equals.
            best = int(change_P.round(9).argmin())
            moves.append((change_P[best], best, sign > 0))
        change, best, to_valid = min(moves)
        if change > -1e-9:
            return
        valid_G[np.flatnonzero((profile_G == best) & (valid_G != to_valid))[0]] = to_valid
        valid_P[best] += 1 if to_valid else -1


def _totals(profile_G: Numbers, counts_PC: Numbers) -> Numbers:
    totals: Numbers = np.bincount(profile_G, minlength=len(counts_PC)) @ counts_PC
    return totals


def _valid_counts(profile_G: Numbers, counts_PC: Numbers, valid_G: Flags) -> Numbers:
    counts: Numbers = np.bincount(profile_G[valid_G], minlength=len(counts_PC)) @ counts_PC
    return counts
