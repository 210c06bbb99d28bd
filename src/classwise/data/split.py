"""The split into training, validation and test rows: stratified, grouped, exact in its share, without replacement.

Guarantees: the rows of one group are never on both sides; a label that only one group has is trained on; every other
label of a required stratum is on both sides, if any split has that and a bounded search finds it (split_repair.py);
moving one more group would not bring the labels' shares in validation nearer to the wanted share; and with the ids of
the rows, their order makes no difference.

Groups with the same counts of labels (a *profile*: one woman under 30 with seven images, say) are interchangeable, so
each profile contributes its share exactly and only the remainders have to be chosen. That makes the split exact, and
fast for large tables.

The test rows, if any, are drawn first (`draw_test_rows`), and the others are then split into training and validation
(`split_rows`).

Letters in names: N rows, T strata, C labels (and one more for all rows), G groups, P profiles.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from classwise.data.split_repair import put_all_on_both_sides
from classwise.data.strata import (
    DrawnRows,
    Flags,
    Numbers,
    group_numbers,
    in_table_order,
    label_numbers,
    required_labels,
)
from classwise.data.strata import Stratum as Stratum
from classwise.randomness import SPLIT, generator


def split_rows(
    strata: Sequence[Stratum],
    groups: Sequence[Hashable] | None,
    share: float,
    seed: int,
    ids: Sequence[str] | None = None,
) -> Flags:
    """Which rows are for validation, (N,) bool. `groups`: the group of each row; None: each row is its own.
    `share`: of the rows that are for validation, between 0 and 1. `ids`: a unique name for each row. Rows are drawn in
    the order of these, so that the order of the table makes no difference; without them in the order given.

    A label of a required stratum whose rows are all of one group cannot be on both sides: its group is trained on, see
    `labels_of_one_group`, and the share is one of the other rows. Where all groups are needed for training, no row is
    for validation.
    """
    drawn = DrawnRows.of(strata, groups, ids)

    # What the only group of a label holds besides stays on its side as well; a label without any other group has to.
    single_C = drawn.required & _has_one_group(drawn.labels, drawn.groups, len(drawn.required))
    holds_PC = drawn.counts > 0
    held_P: Flags = np.asarray((holds_PC & single_C).any(axis=1))
    movable_C = (holds_PC & ~held_P[:, None]).any(axis=0)
    rules = _Rules(drawn.required & movable_C, held=held_P, counted=~held_P, share=share, least_left=1)
    valid_G = _draw(drawn.profiles, drawn.counts, rules, rng=generator(seed, SPLIT))
    return in_table_order(valid_G[drawn.groups], drawn.order)


def labels_of_one_group(strata: Sequence[Stratum], groups: Sequence[Hashable] | None) -> list[str]:
    """The labels of required strata whose rows are all of one group, as `name=label`: no split has them on both sides.
    `groups`: the group of each row; None: each row is its own."""
    label_NT = label_numbers(strata)
    group_N = group_numbers(groups, np.arange(len(label_NT)))
    required_C = required_labels(strata)
    single_C = required_C & _has_one_group(label_NT, group_N, len(required_C))
    names = [f"{stratum.name}={label}" for stratum in strata for label in stratum.labels]
    return [names[c] for c in np.flatnonzero(single_C)]


def draw_test_rows(
    strata: Sequence[Stratum],
    groups: Sequence[Hashable] | None,
    share: float,
    seed: int,
    parts_left: int,
    ids: Sequence[str] | None = None,
) -> tuple[Flags, list[str]]:
    """Which rows are for the test, (N,) bool, and the labels that are not tested. The arguments as in `split_rows`.

    `parts_left`: into how many parts the other rows will be split (training and validation: 2). A label of a required
    stratum needs a group for each of these and one for the test; where it has fewer, none of its groups is drawn. Of
    every other required label the test gets at least one group and leaves at least `parts_left`, unless groups with
    several labels rule it out.
    """
    drawn = DrawnRows.of(strata, groups, ids)

    # The groups of a label that is too rare are held, whichever other labels they have.
    holds_PC = drawn.counts > 0
    groups_C = np.bincount(drawn.profiles, minlength=len(drawn.counts)) @ holds_PC
    rare_C = drawn.required & (groups_C > 0) & (groups_C <= parts_left)
    held_P: Flags = np.asarray((holds_PC & rare_C).any(axis=1))
    names = [f"{stratum.name}={label}" for stratum in strata for label in stratum.labels]
    untested = [names[c] for c in np.flatnonzero(rare_C)]

    # A stream of its own, so that the split of the other rows is drawn independently.
    rng = generator(seed, SPLIT, 2)
    everything_P = np.ones_like(held_P)
    rules = _Rules(
        drawn.required & ~rare_C, held=held_P, counted=everything_P, share=share, least_left=parts_left
    )
    test_G = _draw(drawn.profiles, drawn.counts, rules, rng=rng)
    return in_table_order(test_G[drawn.groups], drawn.order), untested


def merge_groups(*groupings: Sequence[Hashable]) -> list[str]:
    """One grouping out of several: rows that any of them puts together, directly or through other rows, are together (a
    person's images and the queries that contain them). A group's name is the number of its first row."""
    # Union-find, in which the root of each tree is its first row.
    parent: list[int] = list(range(len(groupings[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for groups in groupings:
        first_row: dict[Hashable, int] = {}
        for row, group in enumerate(groups):
            root_of_row = root(row)
            root_of_group = root(first_row.setdefault(group, row))
            parent[max(root_of_row, root_of_group)] = min(root_of_row, root_of_group)
    return [str(root(row)) for row in range(len(parent))]


def _has_one_group(label_NT: Numbers, group_N: Numbers, labels: int) -> Flags:
    """Which labels (C + 1,) have rows, and these of one group only."""
    first_C = np.full(labels, -1)  # the group of the first row
    several_C = np.zeros(labels, dtype=bool)
    for label_N in label_NT.T:
        first_C[label_N[::-1]] = group_N[::-1]
        several_C[label_N[group_N != first_C[label_N]]] = True
    return (first_C >= 0) & ~several_C


def _draw(profile_G: Numbers, counts_PC: Numbers, rules: "_Rules", rng: np.random.Generator) -> Flags:
    """Which groups (G,) are drawn, for validation say: none of a profile that is held, and of each required label at
    least one, while at least `least_left` are left."""
    # Most groups by the shares of their profiles, the rest one by one.
    valid_G, remainders = _take_whole_parts(profile_G, rules, rng)
    _assign_remainders(profile_G, counts_PC, valid_G=valid_G, remainders=remainders, rules=rules)

    # Several times: an improvement may free a label that had to stay on one side before.
    for _ in range(3):
        _put_on_both_sides(profile_G, counts_PC, valid_G, rules)
        _improve(profile_G, counts_PC, valid_G, rules)

    # What moves of single groups have not reached is searched for.
    holds_PC = counts_PC > 0
    wanted_C = rules.required & holds_PC.any(axis=0)
    searched = put_all_on_both_sides(
        holds_PC[:, wanted_C],
        profile_G=profile_G,
        sizes_G=counts_PC[profile_G, -1],
        held_G=rules.held[profile_G],
        valid_G=valid_G,
        least_left=rules.least_left,
    )
    if searched:
        _improve(profile_G, counts_PC, valid_G, rules)
    return valid_G


@dataclass(frozen=True)
class _Rules:
    """What a draw has to keep to: see `_draw`. The share is that of the groups of the `counted` profiles."""

    required: Flags  # (C + 1,)
    held: Flags  # (P,)
    counted: Flags  # (P,)
    share: float
    least_left: int


def _take_whole_parts(profile_G: Numbers, rules: _Rules, rng: np.random.Generator) -> tuple[Flags, list[int]]:
    """(valid_G, remainders): of every profile that is not held the whole part of its share, drawn without replacement;
    one more group of each profile that has a fraction left is a remainder, still to be assigned."""
    order = rng.permutation(len(profile_G))
    order = order[np.argsort(profile_G[order], kind="stable")]
    valid_G = np.zeros(len(profile_G), dtype=bool)
    remainders = []
    for groups in np.split(order, np.flatnonzero(np.diff(profile_G[order])) + 1):
        wanted = 0.0 if rules.held[profile_G[groups[0]]] else rules.share * len(groups)
        whole = int(wanted + 1e-9)
        valid_G[groups[:whole]] = True
        if wanted - whole > 1e-9:
            remainders.append(int(groups[whole]))
    return valid_G, [remainders[i] for i in rng.permutation(len(remainders))]


def _assign_remainders(
    profile_G: Numbers, counts_PC: Numbers, valid_G: Flags, remainders: list[int], rules: _Rules
) -> None:
    """Each remainder goes to the side that keeps every label's count nearest to its share of what has been assigned.
    The large groups come first, so that the small ones can correct them."""
    remainders = sorted(remainders, key=lambda g: -int(counts_PC[profile_G[g], -1]))
    share = rules.share
    weight_C = 1 / np.maximum(_totals(profile_G, counts_PC, rules), 1)
    assigned_P = np.bincount(np.delete(profile_G, remainders), minlength=len(counts_PC)) * rules.counted
    off_C = _valid_counts(profile_G, counts_PC, valid_G) - share * (assigned_P @ counts_PC)
    for g in remainders:
        counts_C = counts_PC[profile_G[g]]
        as_valid_C = off_C + (1 - share) * counts_C
        as_train_C = off_C - share * counts_C
        valid_G[g] = (as_valid_C**2 @ weight_C) < (as_train_C**2 @ weight_C)
        off_C = as_valid_C if valid_G[g] else as_train_C


def _put_on_both_sides(profile_G: Numbers, counts_PC: Numbers, valid_G: Flags, rules: _Rules) -> None:
    """For every required label that has too few groups on a side, the rarest first, move the group that costs least.

    A move that takes away the last group of another label puts that label at the end of the queue. No group is moved
    twice, so this ends; where labels exclude each other, some may stay on one side.
    """
    totals_C = _totals(profile_G, counts_PC, rules)
    required_C = rules.required
    groups_P = np.bincount(profile_G, minlength=len(counts_PC))
    moved_G = np.zeros_like(valid_G)
    queue = [int(c) for c in np.argsort(totals_C[:-1], kind="stable") if totals_C[c] and required_C[c]]
    while queue:
        label = queue.pop(0)
        holds_G = counts_PC[:, label][profile_G] > 0
        to_valid = not valid_G[holds_G].any()
        is_short_left = (~valid_G[holds_G]).sum() < rules.least_left
        if not to_valid and not is_short_left:
            continue

        # How far validation is from its share, and how many groups hold each label on the side that the group leaves
        # (it should not be the last there) and on the side that it enters.
        off_C = _valid_counts(profile_G, counts_PC, valid_G) - rules.share * totals_C
        valid_P = np.bincount(profile_G[valid_G], minlength=len(counts_PC))
        left_side_C = (groups_P - valid_P if to_valid else valid_P) @ (counts_PC > 0)
        entered_side_C = (valid_P if to_valid else groups_P - valid_P) @ (counts_PC > 0)
        least, least_entered = (rules.least_left, 1) if to_valid else (1, rules.least_left)

        # Of the profiles Q that hold the label, the one whose move takes fewest other labels away, then costs least.
        movable_G = holds_G & ~moved_G & (valid_G != to_valid) & ~(rules.held[profile_G] & to_valid)
        profiles = np.unique(profile_G[movable_G])
        if not len(profiles):
            continue
        counts_QC = counts_PC[profiles]
        broken_QC = (counts_QC > 0) & (left_side_C == least) & (entered_side_C >= least_entered) & required_C
        off_after_QC = off_C + (1 if to_valid else -1) * counts_QC
        costs_Q = (off_after_QC**2 / np.maximum(totals_C, 1)).sum(axis=1)
        best = np.lexsort((costs_Q, broken_QC.sum(axis=1)))[0]
        group = np.flatnonzero((profile_G == profiles[best]) & movable_G)[0]
        valid_G[group] = to_valid
        moved_G[group] = True
        queue += np.flatnonzero(broken_QC[best]).tolist()

        # One group may not be enough.
        if not to_valid and (~valid_G[holds_G]).sum() < rules.least_left:
            queue.append(label)


def _improve(profile_G: Numbers, counts_PC: Numbers, valid_G: Flags, rules: _Rules) -> None:
    """Move one group at a time, the one that gains most, as long as that brings the counts nearer to their shares and
    takes no required label off a side: putting the rare labels on both sides has moved others along."""
    totals_C = _totals(profile_G, counts_PC, rules)
    weight_C = 1 / np.maximum(totals_C, 1)
    exact_PC = counts_PC.astype(np.float64)
    holds_PC = (counts_PC > 0).astype(np.float64)
    squares_P = exact_PC**2 @ weight_C
    groups_P = np.bincount(profile_G, minlength=len(counts_PC))
    valid_P = np.bincount(profile_G[valid_G], minlength=len(counts_PC))
    while True:
        # The change of the weighted squared distance by moving one group of each profile, to validation or back.
        slope_P = 2 * exact_PC @ ((valid_P @ exact_PC - rules.share * totals_C) * weight_C)
        left_P = groups_P - valid_P
        moves = []
        for sign, here_P, is_free_P, least in (
            (1, left_P, ~rules.held, rules.least_left),
            (-1, valid_P, np.ones_like(rules.held), 1),
        ):
            lasts_P = holds_PC @ ((here_P @ holds_PC <= least) & rules.required)
            may_move_P = (here_P > 0) & is_free_P & (lasts_P == 0)
            change_P = np.where(may_move_P, sign * slope_P + squares_P, np.inf)
            # Rounded, so that the order of a sum on another machine does not decide between equal changes.
            best = int(change_P.round(9).argmin())
            moves.append((change_P[best], best, sign > 0))
        change, best, to_valid = min(moves)
        if change > -1e-9:
            return
        valid_G[np.flatnonzero((profile_G == best) & (valid_G != to_valid))[0]] = to_valid
        valid_P[best] += 1 if to_valid else -1


def _totals(profile_G: Numbers, counts_PC: Numbers, rules: _Rules) -> Numbers:
    """The rows of each label that the share is of."""
    totals: Numbers = (np.bincount(profile_G, minlength=len(counts_PC)) * rules.counted) @ counts_PC
    return totals


def _valid_counts(profile_G: Numbers, counts_PC: Numbers, valid_G: Flags) -> Numbers:
    counts: Numbers = np.bincount(profile_G[valid_G], minlength=len(counts_PC)) @ counts_PC
    return counts
