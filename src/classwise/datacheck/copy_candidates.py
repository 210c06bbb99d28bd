"""Which images may be copies of each other: the nearest ones by what is coarse in them.

An image is described by the low frequencies of its thumbnail, which neither compression nor resizing changes. The
cosine transform makes the eight ways to turn and mirror a square cheap: mirroring flips the signs of the odd
frequencies, and transposing swaps the axes. Crops and borders are looked for by cropping the thumbnails.

All images are compared with all by matrix products in blocks. Of many images, each is compared only with those in the
nearest cells of a coarse quantizer (the inverted file of Sivic and Zisserman, 'Video Google', 2003; Jégou et al.,
'Product quantization for nearest neighbor search', 2011, section IV).
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

FREQUENCIES = 8
"""Along each axis of a descriptor."""
TURNS = range(8)
"""How an image is turned: bit 2 transposes it, then bit 1 mirrors it top to bottom and bit 0 left to right."""
CROPS = (0.04, 0.08, 0.12)
"""What is cut from each side of an image, as a share of that side, when parts of images are looked for."""
RANK = 8
"""Neighbors of an image as it is, upright and whole, that are looked up."""
PARTNERS, VARIANTS = 1, 2
"""The nearest images that are kept for each image, and the ways in which each of these matches."""
WHOLE = 16_000
"""So many views are compared all with all."""
CELL, PROBED = 300, 6
"""Views in a cell, on average, if there are more; and the cells that each view is compared with."""
BLOCK = 2**22
"""Numbers in a block of similarities."""

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """P ways in which two views of images may match, the nearest first.

    a_P, b_P: numbers of views. turn_P: how view a is turned (TURNS) and crop_P: what is cut from each of its sides
    then, to look like view b. similarity_P: the cosine of their descriptors. neighbor_NK and neighbor_similarity_NK:
    the views that are nearest to each image that was asked for (to its first view), RANK of them; -1 where there are
    fewer.
    """

    a_P: Numbers  # noqa: N815 - a shape suffix, as below
    b_P: Numbers  # noqa: N815
    turn_P: Numbers  # noqa: N815
    crop_P: Floats  # noqa: N815
    similarity_P: Floats  # noqa: N815
    neighbor_NK: Numbers  # noqa: N815
    neighbor_similarity_NK: Floats  # noqa: N815


def descriptors(views_VSS: NDArray[np.uint8]) -> Floats:
    """(V, FREQUENCIES, FREQUENCIES): the low frequencies of views, weighted by frequency, since natural images have
    less of the higher ones (Field, 'Relations between the statistics of natural images', 1987); without the mean."""
    size = views_VSS.shape[1]
    basis_FS = dct(np.eye(size, dtype=np.float32), axis=0, norm="ortho")[:FREQUENCIES]
    u = np.arange(FREQUENCIES, dtype=np.float32)
    weights_FF = np.sqrt(u[:, None] ** 2 + u**2)
    found_VFF = np.empty((len(views_VSS), FREQUENCIES, FREQUENCIES), np.float32)
    for start in range(0, len(views_VSS), 1024):
        part_VSS = views_VSS[start : start + 1024].astype(np.float32)
        found_VFF[start : start + 1024] = basis_FS @ (part_VSS @ basis_FS.T) * weights_FF
    return found_VFF


def turned(descriptors_VFF: Floats, turn: int) -> Floats:
    """The descriptors of views that are turned as `turn` says (TURNS)."""
    signs = np.where(np.arange(FREQUENCIES) % 2, np.float32(-1), np.float32(1))
    found_VFF = descriptors_VFF.transpose(0, 2, 1) if turn & 4 else descriptors_VFF
    if turn & 2:
        found_VFF = found_VFF * signs[:, None]
    return found_VFF * signs if turn & 1 else found_VFF


def cropped(views_VSS: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Views without `share` of each side, at their old size."""
    size = views_VSS.shape[1]
    start = round(share * size)
    inner = slice(start, size - start)
    return np.stack([cv2.resize(view_SS[inner, inner], (size, size)) for view_SS in views_VSS])


def find_candidates(
    views_VSS: NDArray[np.uint8], image_V: Numbers, asked_N: NDArray[np.bool_], threads: int | None = None
) -> Candidates:
    """The nearest images of each image that is asked for.

    `image_V`: the image that each view is of, ascending, 0 to N - 1. An image has one or two views. The result does
    not depend on the number of `threads` (one a core).
    """
    base_VFF = descriptors(views_VSS)
    index = _Index(_unit(base_VFF), image_V, threads or os.cpu_count() or 1)
    asked_Q = np.flatnonzero(asked_N[image_V])
    neighbor_NK = np.full((len(asked_N), RANK), -1, np.int64)
    neighbor_similarity_NK = np.zeros((len(asked_N), RANK), np.float32)
    is_first_Q = np.append(True, np.diff(image_V[asked_Q]) > 0)
    found = []
    for turn, crop, queries_QD in _queries(base_VFF[asked_Q], views_VSS[asked_Q]):
        plain = turn == 0 and crop == 0
        near_QK, similarity_QK = index.nearest(queries_QD, asked_Q, RANK if plain else 1)
        if plain:
            neighbor_NK[image_V[asked_Q[is_first_Q]]] = near_QK[is_first_Q]
            neighbor_similarity_NK[image_V[asked_Q[is_first_Q]]] = np.maximum(0, similarity_QK[is_first_Q])
            near_QK, similarity_QK = near_QK[:, :PARTNERS], similarity_QK[:, :PARTNERS]
        count = near_QK.shape[1]
        found.append(
            (
                np.repeat(asked_Q, count),
                near_QK.ravel(),
                np.full(near_QK.size, turn),
                np.full(near_QK.size, crop, np.float32),
                similarity_QK.ravel(),
            )
        )
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    columns = [column[columns[1] >= 0] for column in columns]
    kept = _kept(columns[0], columns[1], image_V, columns[4])
    a_P, b_P, turn_P, crop_P, similarity_P = (column[kept] for column in columns)
    return Candidates(a_P, b_P, turn_P, crop_P, similarity_P, neighbor_NK, neighbor_similarity_NK)


def _queries(base_QFF: Floats, views_QSS: NDArray[np.uint8]) -> Iterator[tuple[int, float, Floats]]:
    """Each turn of the whole image, and each crop of the upright one."""
    for turn in TURNS:
        yield turn, 0.0, _unit(turned(base_QFF, turn))
    for crop in CROPS:
        yield 0, crop, _unit(descriptors(cropped(views_QSS, crop)))


def _unit(descriptors_VFF: Floats) -> Floats:
    flat_VD = descriptors_VFF.reshape(len(descriptors_VFF), -1)
    return np.asarray(flat_VD / np.maximum(np.linalg.norm(flat_VD, axis=1, keepdims=True), 1e-6))


def _kept(a_P: Numbers, b_P: Numbers, image_V: Numbers, similarity_P: Floats) -> Numbers:
    """Which matches are kept, the nearest first: of each image those with its PARTNERS nearest images, and of each two
    images the VARIANTS nearest, with different views."""
    # The order decides between matches that are equally near.
    order_P = np.lexsort((b_P, a_P, -similarity_P))
    views_P2 = np.sort(np.stack([a_P, b_P], axis=1)[order_P], axis=1)
    order_P = order_P[_first_of_each(views_P2[:, 0], views_P2[:, 1])]
    pair_P2 = np.sort(np.stack([image_V[a_P], image_V[b_P]], axis=1)[order_P], axis=1)
    order_P, pair_P2 = (
        values[_rank_within(pair_P2[:, 0], pair_P2[:, 1]) < VARIANTS] for values in (order_P, pair_P2)
    )

    # The nearest match of each two images counts for both of them.
    first_F = _first_of_each(pair_P2[:, 0], pair_P2[:, 1])
    image_E = np.concatenate([pair_P2[first_F, 0], pair_P2[first_F, 1]])
    near_E = np.argsort(np.tile(first_F, 2), kind="stable")
    is_near_E = np.zeros(len(image_E), bool)
    is_near_E[near_E] = _rank_within(image_E[near_E]) < PARTNERS
    is_kept_F = is_near_E.reshape(2, -1).any(axis=0)
    kept_pairs = pair_P2[first_F[is_kept_F]]
    key_P, key_F = (pairs[:, 0] * (image_V[-1] + 1) + pairs[:, 1] for pairs in (pair_P2, kept_pairs))
    return np.asarray(order_P[np.isin(key_P, key_F)])


def _first_of_each(*keys: Numbers) -> Numbers:
    """The first place of each different combination of keys, ascending."""
    return np.flatnonzero(_rank_within(*keys) == 0)


def _rank_within(*keys: Numbers) -> Numbers:
    """At each place, how many earlier ones have the same keys."""
    order = np.lexsort(keys[::-1])
    is_new = np.append(True, np.any([np.diff(key[order]) != 0 for key in keys], axis=0))[: len(order)]
    starts = np.flatnonzero(is_new)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return ranks


class _Index:
    """Views to look for, in cells of near ones; few views are in one cell."""

    def __init__(self, unit_VD: Floats, image_V: Numbers, threads: int) -> None:
        self.unit_VD, self.image_V, self.threads = unit_VD, image_V, threads
        count = len(unit_VD)
        self.centers_CD = _centers(unit_VD, count // CELL) if count > WHOLE else unit_VD[:1]
        cell_V = np.concatenate([(part @ self.centers_CD.T).argmax(axis=1) for part in _parts(unit_VD)])
        order_V = np.argsort(cell_V, kind="stable")
        self.members = np.split(order_V, np.searchsorted(cell_V[order_V], np.arange(1, len(self.centers_CD))))

    def nearest(self, queries_QD: Floats, view_Q: Numbers, count: int) -> tuple[Numbers, Floats]:
        """The `count` nearest views of other images to each query and their similarity, (Q, count), the nearest
        first; `view_Q` are the views that the queries are of. Where there are fewer, the number is -1."""
        probed = min(PROBED, len(self.centers_CD))
        cells_QP = np.concatenate(
            [
                np.argpartition(-(part @ self.centers_CD.T), probed - 1, axis=1)[:, :probed]
                for part in _parts(queries_QD)
            ]
        )
        near_QPK = np.full((len(queries_QD), probed, count), -1, np.int64)
        similarity_QPK = np.full((len(queries_QD), probed, count), -2, np.float32)

        def search(job: tuple[int, Numbers]) -> None:
            cell, flat_R = job
            query_R, probe_R = np.divmod(flat_R, probed)
            members_M = self.members[cell]
            similarity_RM = queries_QD[query_R] @ self.unit_VD[members_M].T
            similarity_RM[self.image_V[view_Q[query_R]][:, None] == self.image_V[members_M]] = -2
            for rank in range(min(count, len(members_M))):
                best_R = similarity_RM.argmax(axis=1)
                rows_R = np.arange(len(best_R))
                value_R = similarity_RM[rows_R, best_R]
                near_QPK[query_R, probe_R, rank] = np.where(value_R > -2, members_M[best_R], -1)
                similarity_QPK[query_R, probe_R, rank] = value_R
                similarity_RM[rows_R, best_R] = -2

        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(search, self._jobs(cells_QP)))
        near_QK, similarity_QK = (
            near_QPK.reshape(len(near_QPK), -1),
            similarity_QPK.reshape(len(near_QPK), -1),
        )
        best_QK = np.argsort(-similarity_QK, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(near_QK, best_QK, 1), np.take_along_axis(similarity_QK, best_QK, 1)

    def _jobs(self, cells_QP: Numbers) -> Iterator[tuple[int, Numbers]]:
        """Each cell that has members with the queries to compare them with, in blocks, as places in `cells_QP`."""
        flat_F = cells_QP.ravel()
        order_F = np.argsort(flat_F, kind="stable")
        bounds = np.searchsorted(flat_F[order_F], np.arange(len(self.members) + 1))
        for cell, members_M in enumerate(self.members):
            step = max(1, BLOCK // max(1, len(members_M)))
            for start in range(bounds[cell], bounds[cell + 1], step):
                if len(members_M):
                    yield cell, order_F[start : min(start + step, bounds[cell + 1])]


def _centers(unit_VD: Floats, count: int) -> Floats:
    """The centers of `count` cells: k-means on the sphere, of a sample at equal distances in the order of the
    views."""
    sample_SD = unit_VD[:: max(1, len(unit_VD) // (50 * count))]
    centers_CD = sample_SD[:: max(1, len(sample_SD) // count)][:count].copy()
    for _ in range(8):
        cell_S = np.concatenate([(part @ centers_CD.T).argmax(axis=1) for part in _parts(sample_SD)])
        sums_CD = np.zeros_like(centers_CD)
        np.add.at(sums_CD, cell_S, sample_SD)
        filled_C = np.bincount(cell_S, minlength=len(centers_CD)) > 0
        centers_CD[filled_C] = _unit(sums_CD[filled_C])
    return centers_CD


def _parts(rows_VD: Floats) -> Sequence[Floats]:
    return [rows_VD[start : start + 4096] for start in range(0, len(rows_VD), 4096)]
