"""Which rows belong together, and which of them are held out."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from classwise.errors import DataError

TEST_SHARE, DRAWS = 0.25, 500

FRAMES = 400
"""Photographs of tiles that were taken at most so many frames after another are in one group."""
ALIKE = 0.93
"""So are photographs that correlate at least so much."""
SIDE, SHIFT, BLUR = 48, 3, 4.0
"""Photographs are compared at SIDE x SIDE pixels, shifted by up to SHIFT, without what is larger than BLUR pixels."""


def tile_groups(paths: Sequence[Path], numbers: Sequence[int]) -> NDArray[np.int64]:
    """A group number for each photograph of a tile; `numbers` are their frame numbers, the column `tile`.

    The exposures of one part follow each other in time, mostly within 60 frames, some within 360. They are chained by
    their frames; parts that were photographed again later are found by their pixels.
    """
    frames_N = np.asarray(numbers)
    together_NN = np.abs(frames_N[:, None] - frames_N) <= FRAMES
    _, groups_N = connected_components(together_NN | (correlations(paths) >= ALIKE), directed=False)
    return groups_N.astype(np.int64)


def correlations(paths: Sequence[Path]) -> NDArray[np.float32]:
    """The highest correlation of each two images over small shifts, whatever their exposure; (N, N)."""
    images_NHW = np.stack([_texture(path) for path in paths])
    flat_NP = images_NHW.reshape(len(paths), -1)
    found_NN = np.full((len(paths), len(paths)), -1, np.float32)
    for down, right in product(range(-SHIFT, SHIFT + 1), repeat=2):
        shifted_NP = np.roll(images_NHW, (down, right), axis=(1, 2)).reshape(len(paths), -1)
        np.maximum(found_NN, flat_NP @ shifted_NP.T, out=found_NN)
    return found_NN


def _texture(path: Path) -> NDArray[np.float32]:
    """Small and gray, divided by its local brightness, with mean 0 and norm 1."""
    gray_HW = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    small_HW = cv2.resize(gray_HW, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    texture_HW = small_HW / (cv2.GaussianBlur(small_HW, (0, 0), BLUR) + 1)
    texture_HW -= texture_HW.mean()
    return np.asarray(texture_HW / max(1e-12, float(np.linalg.norm(texture_HW))))


def hold_out(labels: Sequence[str], groups: Sequence[object], seed: int) -> NDArray[np.bool_]:
    """Which rows are for the test: about a quarter, by whole groups, with every class on both sides.

    Of DRAWS random choices of groups, the one whose shares of the classes are closest to a quarter. scikit-learn's
    StratifiedGroupKFold is not used, since its shuffled folds repeat: of the tiles, the tests of two seeds share almost
    half of their rows. DataError where no choice has every class on both sides.
    """
    classes, class_N = np.unique(np.asarray(labels), return_inverse=True)
    names, group_N = np.unique([str(group) for group in groups], return_inverse=True)
    counts_GK = np.zeros((len(names), len(classes)))
    np.add.at(counts_GK, (group_N, class_N), 1)
    rng = np.random.default_rng(seed)
    chosen_DG = rng.random((DRAWS, len(names))) < TEST_SHARE
    shares_DK = chosen_DG @ counts_GK / counts_GK.sum(axis=0)
    misses_D = np.abs(shares_DK - TEST_SHARE).max(axis=1)
    misses_D[((shares_DK == 0) | (shares_DK == 1)).any(axis=1)] = np.inf
    if not np.isfinite(misses_D.min()):
        raise DataError(f"seed {seed}: no choice of whole groups has every class on both sides")
    return np.asarray(chosen_DG[misses_D.argmin()][group_N])


def share_of_rows(labels: Sequence[str], share: float, least: int, seed: int) -> list[int]:
    """Row numbers of a random `share` of every class, rounded, but at least `least` of it."""
    rng = np.random.default_rng(seed)
    classes_N = np.asarray(labels)
    kept: list[int] = []
    for label in np.unique(classes_N):
        rows = np.flatnonzero(classes_N == label)
        count = min(len(rows), max(least, round(share * len(rows))))
        kept += rng.choice(rows, count, replace=False).tolist()
    return sorted(kept)
