"""The last step of a split: a search for the labels that simple moves have left on one side.

To put every label on both sides is set splitting (Lovász 1973: coloring a hypergraph with two colors), which is
NP-complete. So the search is complete up to a number of steps: it starts from the split at hand and changes as little
as it can.
"""

import numpy as np
import numpy.typing as npt

MAX_STEPS = 20_000
"""Groups that the search moves before it gives up: about a second."""
MAX_DEPTH = 400
"""Groups that are moved at the same time, at most."""


def put_all_on_both_sides(
    holds_PC: npt.NDArray[np.bool_],
    profile_G: npt.NDArray[np.int64],
    sizes_G: npt.NDArray[np.int64],
    held_G: npt.NDArray[np.bool_],
    valid_G: npt.NDArray[np.bool_],
    least_left: int = 1,
) -> bool:
    """Move groups until each of the C labels has at least one group drawn (`valid_G`) and `least_left` groups that are
    not. `valid_G` is changed in place; it stays as it is if there is nothing to do, or the search fails. Whether it was
    changed.

    `holds_PC`: which labels a group of each profile holds. `sizes_G`: the rows of each group; small ones are moved
    first. `held_G`: groups that may not move. The search fails where no such split exists, and after MAX_STEPS.
    """
    valid_P = np.bincount(profile_G[valid_G], minlength=len(holds_PC))
    left_P = np.bincount(profile_G[~valid_G], minlength=len(holds_PC))
    is_short_C = (valid_P @ holds_PC == 0) | (left_P @ holds_PC < least_left)
    if not is_short_C.any():
        return False
    search = _Search(
        holds_PC, profile_G=profile_G, sizes_G=sizes_G, held_G=held_G, valid_G=valid_G, least_left=least_left
    )
    if not search.solve(0):
        return False
    valid_G[:] = search.is_valid
    return True


class _Search:
    """Depth-first search with backtracking. Of the labels that are short of groups on a side, the one with the fewest
    groups that may still move there is next: one of these has to move. They are tried in turn; what was tried stays
    where it was, so that no split is visited twice. Groups of one profile are interchangeable, so one of them is tried
    for all."""

    def __init__(
        self,
        holds_PC: npt.NDArray[np.bool_],
        profile_G: npt.NDArray[np.int64],
        sizes_G: npt.NDArray[np.int64],
        held_G: npt.NDArray[np.bool_],
        valid_G: npt.NDArray[np.bool_],
        least_left: int,
    ) -> None:
        self.is_valid: list[bool] = valid_G.tolist()
        self._profile: list[int] = profile_G.tolist()
        self._sizes: list[int] = sizes_G.tolist()
        self._fixed: list[bool] = held_G.tolist()
        self._least_left = least_left
        # By profile and by label: which labels a group holds, and which groups hold a label.
        self._labels: list[list[int]] = [np.flatnonzero(holds_C).tolist() for holds_C in holds_PC]
        self._holders: list[list[int]] = [
            np.flatnonzero(holds_P[profile_G]).tolist() for holds_P in holds_PC.T
        ]
        self._on_valid: list[int] = [
            sum(self.is_valid[group] for group in groups) for groups in self._holders
        ]
        self._short = {label for label in range(len(self._holders)) if self._is_short(label)}
        self._steps = 0

    def solve(self, depth: int) -> bool:
        """Whether no label is short, after moves of groups that are not fixed. If one is, all is as before."""
        if not self._short:
            return True
        if depth == MAX_DEPTH:
            return False
        free_of = {label: self._free_groups(label) for label in sorted(self._short)}
        label = min(free_of, key=lambda label: len(free_of[label]))

        # One group a profile; those whose move takes fewest other labels off a side come first.
        by_profile: dict[int, list[int]] = {}
        for group in free_of[label]:
            by_profile.setdefault(self._profile[group], []).append(group)
        candidates = sorted(
            by_profile.values(),
            key=lambda groups: (self._broken_by(groups[0]), self._sizes[groups[0]], groups[0]),
        )
        tried: list[int] = []
        solved = False
        for groups in candidates:
            if self._steps >= MAX_STEPS:
                break
            self._steps += 1
            self._move(groups[0])
            self._fixed[groups[0]] = True
            solved = self.solve(depth + 1)
            if solved:
                break
            self._move(groups[0])
            for group in groups:
                self._fixed[group] = True
            tried += groups
        for group in tried:
            self._fixed[group] = False
        return solved

    def _free_groups(self, label: int) -> list[int]:
        """The groups that hold a label that is short, and may move to the side where it is."""
        to_valid = not self._on_valid[label]
        return [
            group
            for group in self._holders[label]
            if not self._fixed[group] and self.is_valid[group] != to_valid
        ]

    def _move(self, group: int) -> None:
        """To the other side."""
        self.is_valid[group] = not self.is_valid[group]
        for label in self._labels[self._profile[group]]:
            self._on_valid[label] += 1 if self.is_valid[group] else -1
            if self._is_short(label):
                self._short.add(label)
            else:
                self._short.discard(label)

    def _broken_by(self, group: int) -> int:
        """How many labels would be short only because this group moves."""
        least = 1 if self.is_valid[group] else self._least_left
        return sum(
            label not in self._short
            and (self._on_valid[label] if self.is_valid[group] else self._on_train(label)) == least
            for label in self._labels[self._profile[group]]
        )

    def _on_train(self, label: int) -> int:
        return len(self._holders[label]) - self._on_valid[label]

    def _is_short(self, label: int) -> bool:
        return not self._on_valid[label] or self._on_train(label) < self._least_left
