"""Rows that hold the same image, under whatever name: they are one group, never on both sides of a split."""

from collections.abc import Sequence

from classwise.compose.labels import Labels
from classwise.data.sources import Samples
from classwise.data.split import merge_groups
from classwise.data.targets import RankingTarget, Target


def split_groups(samples: Samples, labels: Labels, targets: Sequence[Target]) -> list[str] | None:
    """The group of each row, for a split: rows that share a group, a query or their image, also through other rows.
    None if each row is its own."""
    groupings = [*_groupings(samples)]
    groupings += [
        [str(query) for query in labels[target.name][:, 1]]
        for target in targets
        if isinstance(target, RankingTarget)
    ]
    return merge_groups(*groupings) if groupings else None


def resampling_groups(samples: Samples) -> Sequence[str] | None:
    """The group of each row, for the bootstrap: rows that share a group or their image vary together. None if each row
    is its own."""
    groupings = _groupings(samples)
    return merge_groups(*groupings) if len(groupings) > 1 else next(iter(groupings), None)


def _groupings(samples: Samples) -> list[Sequence[str]]:
    """The groups of the table, if it has any, and the contents, if any two rows have the same."""
    groupings: list[Sequence[str]] = [] if samples.groups is None else [samples.groups]
    if samples.contents is not None and len(set(samples.contents)) < len(samples):
        groupings.append(samples.contents)
    return groupings
