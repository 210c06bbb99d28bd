"""What a split keeps in proportion: labels as numbers, rows in groups, and groups that are alike.

Letters in names: N rows, T strata, C labels (and one more for all rows), G groups, P profiles.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.data.texts import Texts
from classwise.randomness import SPLIT, generator

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stratum:
    """Labels that a split keeps in proportion, as numbers (N,); -1: the row has none of them.

    required: every label must be on both sides of the split, and one that only one group has on the training side.
    Otherwise the labels (bins of a number, say) are kept in proportion as far as possible.
    """

    name: str
    numbers: Numbers
    labels: Sequence[str]
    required: bool


@dataclass(frozen=True)
class DrawnRows:
    """The rows in the order in which they are drawn, and what a draw needs of them.

    order (N,): their places in the table. labels (N, T): see `label_numbers`. groups (N,): see `group_numbers`.
    required (C,): see `required_labels`. profiles (G,) and counts (P, C): see `profiles_of`.
    """

    order: Numbers
    labels: Numbers
    groups: Numbers
    required: Flags
    profiles: Numbers
    counts: Numbers

    @staticmethod
    def of(
        strata: Sequence[Stratum], groups: Sequence[Hashable] | None, ids: Sequence[str] | None
    ) -> "DrawnRows":
        """`groups`: the group of each row of the table; None: each row is its own. `ids`: a unique name for each row,
        whose order is that of drawing; None: that of the table."""
        label_NT = label_numbers(strata)
        order_N = drawing_order(ids, len(label_NT))
        label_NT = label_NT[order_N]
        required_C = required_labels(strata)
        group_N = group_numbers(groups, order_N)
        profile_G, counts_PC = profiles_of(label_NT, group_N, len(required_C) - 1)
        return DrawnRows(
            order=order_N,
            labels=label_NT,
            groups=group_N,
            required=required_C,
            profiles=profile_G,
            counts=counts_PC,
        )


def label_numbers(strata: Sequence[Stratum]) -> Numbers:
    """(N, T) label numbers that continue from stratum to stratum, so that each label of all strata has its own number.
    Rows that are not in a stratum have the number after the last."""
    ends = np.cumsum([0, *(len(stratum.labels) for stratum in strata)])
    columns = [
        np.where(stratum.numbers < 0, ends[-1], stratum.numbers + start)
        for stratum, start in zip(strata, ends[:-1], strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.int64)


def required_labels(strata: Sequence[Stratum]) -> Flags:
    """Which labels must be on both sides, (C + 1,); the last entry is for all rows, which need not be."""
    flags = [stratum.required for stratum in strata for _ in stratum.labels]
    return np.array([*flags, False])


def drawing_order(ids: Sequence[str] | None, rows: int) -> Numbers:
    """The rows (N,) in the order in which they are drawn."""
    return np.arange(rows) if ids is None else Texts.of(ids).sorted_rows()


def in_table_order(flags_N: Flags, order_N: Numbers) -> Flags:
    """Flags of the rows in the order of drawing, in that of the table."""
    table_flags_N = np.zeros_like(flags_N)
    table_flags_N[order_N] = flags_N
    return table_flags_N


def group_numbers(groups: Sequence[Hashable] | None, order_N: Numbers) -> Numbers:
    """The number of each row's group, (N,), for the rows in the order of drawing; groups are numbered as they come."""
    if groups is None:
        return np.arange(len(order_N))
    ordered = [groups[row] for row in order_N]
    number = {group: i for i, group in enumerate(dict.fromkeys(ordered))}
    return np.array([number[group] for group in ordered], dtype=np.int64)


def profiles_of(label_NT: Numbers, group_N: Numbers, classes: int) -> tuple[Numbers, Numbers]:
    """(profile_G, counts_PC): the profile of every group; and for each profile the rows of each label in one of its
    groups, with all rows of a group in the last column.

    Groups are compared by the sum of one random 64-bit number a label, so that no table of groups by labels is ever
    made; two different profiles have the same sum with a probability of 2**-64. An unknown label has a number too,
    since it counts among all rows.
    """
    random_C = generator(0, SPLIT, 1).integers(0, 2**64, size=classes + 1, dtype=np.uint64)
    sums_G = np.zeros(int(group_N.max()) + 1, dtype=np.uint64)
    np.add.at(sums_G, group_N, random_C[label_NT].sum(axis=1, dtype=np.uint64))
    _, first_group_P, profile_G = np.unique(sums_G, return_index=True, return_inverse=True)

    # The rows of the first group of each profile stand for those of all its groups.
    counted_profile_G = np.full(len(sums_G), -1)
    counted_profile_G[first_group_P] = np.arange(len(first_group_P))
    counted_profile_N = counted_profile_G[group_N]
    is_counted_N = counted_profile_N >= 0
    counts_PC = np.zeros((len(first_group_P), classes + 1), dtype=np.int64)
    for label_N in label_NT.T:
        np.add.at(counts_PC, (counted_profile_N[is_counted_N], label_N[is_counted_N]), 1)
    counts_PC[:, -1] = np.bincount(counted_profile_N[is_counted_N], minlength=len(first_group_P))
    return profile_G.reshape(-1), counts_PC
