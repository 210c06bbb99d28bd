"""Near copies among images: re-encoded, resized, brightened, blurred, mirrored, turned, cropped a little or with a
border.

Candidates are the images that are nearest in what is coarse (copy_candidates.py); a pair counts if it also agrees in
what is fine (copy_confirm.py), better than pairs in the same data that are no copies (copy_chance.py).
"""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from classwise.datacheck.copy_candidates import RANK, Candidates, find_candidates
from classwise.datacheck.copy_chance import FALSE_PER_IMAGE, Chance, measure_chance
from classwise.datacheck.copy_confirm import Agreement, agreement, align, turned_view
from classwise.datacheck.signature import ImageStatistics, Signature, UnreadableFile

BLANK = 2.0
"""Standard deviation in levels of gray below which an image shows nothing that could be copied."""
SAMPLED, RANKS = 250, (RANK - 3, RANK - 1)
"""Images, and which of their neighbors (from 0), that chance is measured on."""
CROWD = 1.2
"""How near the neighbor of rank RANK is taken to be where there are not so many images."""
NEARER, SURELY_NEAR = 0.5, 2.5
"""A pair is looked at if it is nearer than the nearest neighbor is expected to be, by so much of `_Search.gap`, or if
it is so near."""
MOST_REACH = 0.3
"""How much nearer than the neighbor of rank RANK a non-copy is expected to come, at most. Sets with few copies have
0.08 to 0.27; more is measured where most images have copies among their nearest neighbors, of which it then tells."""
ROUNDS, CHUNK = 10, 64
"""Rounds at most, and pairs that a thread looks at before it takes the next ones."""
HOW = (
    "the same",
    "mirrored",
    "mirrored",
    "rotated by 180°",
    "mirrored and rotated by 90°",
    "rotated by 90°",
    "rotated by 90°",
    "mirrored and rotated by 90°",
)
"""By classwise.datacheck.copy_candidates.TURNS."""
CROPPED = 0.08
"""Of the area that only one of two images shows, for one to be called cropped."""
FAINT, COLOR_NOISE, COLOR_SHARE = 6.0, 5.0, 0.35
"""Mean color differences, in levels, below which an image has no hue; what they may differ by; and the share of
them."""
GAINS = (0.4, 2.5)
"""By which brightness, contrast and borders may change the strength of a color."""
RESIZED = 0.02
"""By which the sizes of two images differ, for one to be called resized."""

Bools = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CopyPair:
    """Two rows, a < b, with copies of one picture. value: the share of the fine structure that agrees, 0 to 1. how:
    what was done to one of them, as far as it is known."""

    a: int
    b: int
    value: float
    how: str


@dataclass(frozen=True)
class NearCopies:
    """Pairs that connect all near copies, by rows; by which chance they were told from others, and how many false
    ones it lets expect in all."""

    pairs: tuple[CopyPair, ...]
    chance: Chance
    expected_false: float


def find_near_copies(
    signatures: Sequence[Signature | UnreadableFile], threads: int | None = None
) -> NearCopies:
    """The near copies among images, whose exact copies are known by `Signature.content`: only the first row of a
    content is in a pair. Of k near copies of one picture there are few more pairs than the k - 1 that connect them.

    What is assumed: a pair that is no copy and is as near as two images are to their neighbors of rank RANK, or
    somewhat nearer (`_Search.reach`), agrees as these neighbors do; and not more than half of these neighbors
    are copies. Pictures that differ in a small part only (a face with another mask, in a drawing) are near copies
    here. Below 60 images there is too little to measure chance on, and typical values are used, which miss weak
    copies of plain images. An image with next to no contrast (BLANK) is nobody's near copy. The result depends
    neither on the order of the images nor on the number of `threads` (one a core).
    """
    first_rows = _rows_to_search(signatures)
    if len(first_rows) < 2:
        return NearCopies((), measure_chance(np.zeros(0), np.zeros(0), 1, 1), 0.0)
    chosen = [signature for row in first_rows if isinstance(signature := signatures[row], Signature)]
    search = _Search(chosen, threads or os.cpu_count() or 1)
    links = search.run()
    pairs = []
    for link in links:
        a, b = sorted((first_rows[link.one], first_rows[link.other]))
        how = _how(chosen[link.one], chosen[link.other], link)
        pairs.append(CopyPair(a, b, value=1 - 10**-link.agreement.score, how=how))
    assert search.chance is not None
    return NearCopies(
        tuple(sorted(pairs, key=lambda pair: (pair.a, pair.b))), search.chance, search.expected_false
    )


def copy_groups(count: int, pairs: Sequence[CopyPair], contents: Sequence[bytes | None]) -> list[int]:
    """A group number for each of `count` rows: rows with the same content, or connected by pairs, are in one.
    `contents`: of each row, None where it is unknown. Groups are numbered from 0 in the order of their first rows."""
    first_row: dict[bytes, int] = {}
    edges = [(pair.a, pair.b) for pair in pairs]
    for row, content in enumerate(contents):
        if content is not None:
            edges.append((row, first_row.setdefault(content, row)))
    component_N = _components(count, edges)
    _, first_N, number_N = np.unique(component_N, return_index=True, return_inverse=True)
    groups: list[int] = np.argsort(np.argsort(first_N))[number_N].tolist()
    return groups


def _components(count: int, edges: Sequence[tuple[int, int]]) -> Numbers:
    ends_E2 = np.array(edges, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends_E2), bool), (ends_E2[:, 0], ends_E2[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def is_flat(signature: Signature) -> bool:
    """Whether an image shows nothing that could be copied."""
    return bool(signature.views_VSS[0].std() < BLANK)


def _rows_to_search(signatures: Sequence[Signature | UnreadableFile]) -> list[int]:
    """The first row of each content that shows something, in the order of the contents, so that the order of the rows
    makes no difference."""
    first_row: dict[bytes, int] = {}
    for row, signature in enumerate(signatures):
        if isinstance(signature, Signature) and not is_flat(signature):
            first_row.setdefault(signature.content, row)
    return [first_row[content] for content in sorted(first_row)]


@dataclass(frozen=True)
class _Link:
    """Two images that are copies, and how one is turned."""

    one: int
    other: int
    turn: int
    agreement: Agreement


def _how(one: Signature, other: Signature, link: _Link) -> str:
    is_cropped = not 1 - CROPPED < link.agreement.scale < 1 / (1 - CROPPED)
    how = HOW[link.turn]
    if is_cropped:
        return "cropped" if link.turn == 0 else f"{how} and cropped"
    sizes = [np.array([item.statistics.height, item.statistics.width]) for item in (one, other)]
    is_resized = np.abs(sizes[0] / sizes[1] - 1).max() > RESIZED
    return "resized" if link.turn == 0 and is_resized else how


def alike_in_color(one: ImageStatistics, other: ImageStatistics) -> bool:
    """Whether the mean color of one image can have become that of the other: brightness and contrast change how strong
    a color is, a neutral border makes it weaker, and neither changes its hue."""
    first = np.array([one.cb, one.cr])
    second = np.array([other.cb, other.cr])
    strength = max(float(np.linalg.norm(first)), float(np.linalg.norm(second)))
    if strength < FAINT:
        return True
    gain = np.clip(first @ second / max(float(first @ first), 1e-6), *GAINS)
    return bool(np.linalg.norm(second - gain * first) <= COLOR_NOISE + COLOR_SHARE * strength)


class _Search:
    """Looks for copies in rounds: what one round connects is one image to the next, so that copies of copies meet."""

    def __init__(self, signatures: Sequence[Signature], threads: int) -> None:
        counts = [len(signature.views_VSS) for signature in signatures]
        self.views_VSS = np.concatenate([signature.views_VSS for signature in signatures])
        self.image_V = np.repeat(np.arange(len(signatures)), counts)
        self.threads, self.count = threads, len(signatures)
        self.statistics = [signature.statistics for signature in signatures]
        self.crowd_N = np.full(self.count, CROWD)
        self.gap = self.reach = 0.0
        self.chance: Chance | None = None
        self.expected_false = 0.0

    def run(self) -> list[_Link]:
        """All links."""
        links: list[_Link] = []
        seen: set[tuple[int, int]] = set()
        active_N = asked_N = np.ones(self.count, bool)
        for _ in range(ROUNDS):
            new = self._round(active_N, asked_N, seen)
            if not new:
                break
            links += new

            # The first image of each group stands for it; those of groups that have grown ask again.
            component_N = _components(self.count, [(link.one, link.other) for link in links])
            active_N = np.zeros(self.count, bool)
            active_N[np.unique(component_N, return_index=True)[1]] = True
            grown_C = np.unique(component_N[[link.one for link in new]])
            asked_N = active_N & np.isin(component_N, grown_C)
            if active_N.sum() < 2:
                break
        return links

    def _round(self, active_N: Bools, asked_N: Bools, seen: set[tuple[int, int]]) -> list[_Link]:
        """The links that the images which are asked for have among the active ones, without what was seen before."""
        view_A = np.flatnonzero(active_N[self.image_V])
        number_N = np.cumsum(active_N) - 1
        found = find_candidates(
            self.views_VSS[view_A], number_N[self.image_V[view_A]], asked_N[active_N], self.threads
        )
        image_A = np.flatnonzero(active_N)
        self._note_crowds(found, image_A[asked_N[active_N]], asked_N[active_N])
        a_P, b_P = view_A[found.a_P], view_A[found.b_P]
        pair_P = np.sort(np.stack([self.image_V[a_P], self.image_V[b_P]], axis=1), axis=1)
        if self.chance is None:
            self.chance = self._measure(found, view_A, tested=len(np.unique(pair_P, axis=0)))

            self._note_reach(found, pair_P)

        # Most candidates are as near as neighbors usually are, and need no second look.
        near_P = _nearness(found.similarity_P)
        crowd_P = self.crowd_N[pair_P].mean(axis=1)
        fresh_P = np.array([tuple(pair) not in seen for pair in pair_P.tolist()], bool)
        looked_at = np.flatnonzero(
            fresh_P & ((near_P > crowd_P + self.reach + NEARER * self.gap) | (near_P >= SURELY_NEAR))
        )
        seen.update(map(tuple, pair_P.tolist()))
        scored = self._scores(
            a_P[looked_at], b_P[looked_at], found.turn_P[looked_at], found.crop_P[looked_at]
        )

        best: dict[tuple[int, int], _Link] = {}
        expected_P = np.minimum(near_P, crowd_P + self.reach)[looked_at]
        for place, threshold in enumerate(self.chance.threshold(expected_P).tolist()):
            row = looked_at[place]
            one, other = int(self.image_V[a_P[row]]), int(self.image_V[b_P[row]])
            link = _Link(one, other, int(found.turn_P[row]), scored[place])
            key = (min(one, other), max(one, other))
            known = best.get(key)
            is_copy = link.agreement.is_possible and link.agreement.score > threshold
            is_copy = is_copy and alike_in_color(self.statistics[one], self.statistics[other])
            if is_copy and (known is None or link.agreement.score > known.agreement.score):
                best[key] = link
        return list(best.values())

    def _note_crowds(self, found: Candidates, image_Q: Numbers, asked_A: Bools) -> None:
        """How near the neighbors of the images that were asked for are; and, once, how much nearer the first one is
        expected to be: nearness grows as the logarithm of the rank falls."""
        ranked_QK = _nearness(found.neighbor_similarity_NK[asked_A])
        complete_Q = found.neighbor_NK[asked_A][:, -1] >= 0
        self.crowd_N[image_Q] = np.where(complete_Q, ranked_QK[:, -1], CROWD)
        if self.chance is None:
            middle = RANK // 2
            gaps_Q = (ranked_QK[:, middle - 1] - ranked_QK[:, -1])[complete_Q] / np.log10(RANK / middle)
            gap = float(np.median(gaps_Q)) * np.log10(RANK) if len(gaps_Q) else 0.0
            self.gap = min(gap, MOST_REACH)

    def _note_reach(self, found: Candidates, pair_P: Numbers) -> None:
        """How much nearer than the neighbor of rank RANK the nearest one is expected to be, however turned: by `gap` if
        images have an upright, by more if they have none. Copies are far nearer, so a low quantile tells: of the
        largest of many values, the tenth part lies about half of `gap` below the median."""
        margin_P = _nearness(found.similarity_P) - self.crowd_N[pair_P].mean(axis=1)
        usual = float(np.quantile(margin_P, 0.1)) + self.gap / 2 if len(margin_P) else 0.0
        self.reach = min(max(self.gap, usual), MOST_REACH)

    def _measure(self, found: Candidates, view_A: Numbers, tested: int) -> Chance:
        """Chance on neighbors that are hardly copies, of images at equal distances in their order."""
        sampled = np.arange(0, self.count, max(1, self.count // SAMPLED))
        first_view_N = np.searchsorted(self.image_V, np.arange(self.count))
        a_P = np.repeat(first_view_N[sampled], len(RANKS))
        b_P = found.neighbor_NK[sampled][:, RANKS].ravel()
        near_P = _nearness(found.neighbor_similarity_NK[sampled][:, RANKS].ravel())
        known = b_P >= 0
        a_P, b_P, near_P = a_P[known], view_A[b_P[known]], near_P[known]
        scored = self._scores(a_P, b_P, np.zeros(len(a_P), int), np.zeros(len(a_P)))
        score_P = np.array([item.score for item in scored])
        chance = measure_chance(near_P, score_P, self.count, tested)
        self.expected_false = self.count * FALSE_PER_IMAGE
        return chance

    def _scores(
        self, a_P: Numbers, b_P: Numbers, turn_P: NDArray[np.integer], crop_P: NDArray[np.floating]
    ) -> list[Agreement]:
        """How well views agree, in threads."""

        def score(place: int) -> Agreement:
            first_SS = turned_view(self.views_VSS[a_P[place]], int(turn_P[place])).astype(np.float32)
            second_SS = self.views_VSS[b_P[place]].astype(np.float32)
            return agreement(first_SS, second_SS, align(first_SS, second_SS, float(crop_P[place])))

        def scores(places: range) -> list[Agreement]:
            return [score(place) for place in places]

        # In chunks: handing over a single pair takes a tenth as long as looking at it.
        chunks = [range(start, min(start + CHUNK, len(a_P))) for start in range(0, len(a_P), CHUNK)]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(itertools.chain.from_iterable(pool.map(scores, chunks)))


def _nearness(similarity: NDArray[np.floating]) -> Floats:
    """-log10(1 - cosine), 0 to 6."""
    return -np.log10(np.clip(1 - similarity.astype(np.float64), 1e-6, 1))
