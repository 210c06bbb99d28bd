"""What is counted of splits in a few steps is what counting row by row gives."""

import numpy as np
import polars as pl
import pytest

from classwise.compose.splits import DatasetSplits, Split, combination_numbers, data_digest
from classwise.data.sources import Samples
from classwise.files import json_text, sha256


def numbers_by_rows(classes: list[np.ndarray]) -> np.ndarray:
    """By the distinct rows of all targets together."""
    rows_NT = np.stack(classes, axis=1)
    labeled_N = (rows_NT >= 0).all(axis=1)
    number_N = np.full(len(rows_NT), -1)
    _, number_N[labeled_N] = np.unique(rows_NT[labeled_N], axis=0, return_inverse=True)
    return number_N


@pytest.mark.parametrize("sizes", [[2], [1], [3, 5], [2] * 40, [10**6, 10**6, 10**6]])
@pytest.mark.parametrize("rows", [0, 1, 300])
def test_combinations_are_numbered_in_sorted_order(sizes, rows):
    """Also where there could be more of them than numbers, and where labels are missing."""
    draw = np.random.default_rng(0)
    classes = [draw.integers(0, size, rows) for size in sizes]
    classes[-1][: rows // 10] = -1
    found = combination_numbers(classes)
    assert found.dtype == np.int64
    assert found.tolist() == numbers_by_rows(classes).tolist()
    assert (found == -1).sum() == rows // 10


def split_of(ids: list[str], weights: np.ndarray | None = None) -> Split:
    samples = Samples("rows.csv", ".", ids, [f"{id}.png" for id in ids], None, pl.DataFrame({"path": ids}))
    return Split(samples, {"a": np.arange(len(ids)), "b": np.zeros((len(ids), 2))}, "digest", weights=weights)


@pytest.mark.parametrize("names", [["x", "y"], ['"', "\\", "é"], ["one"], []])
def test_the_digest_of_the_data_is_that_of_its_json(names):
    """A run that was begun by an earlier version is resumed with the same digest."""
    train, valid = split_of(["first", *names], np.ones(1 + len(names))), split_of(names[::-1])
    splits = DatasetSplits((), (), train, valid, bad=(), warnings=())
    written = [
        [
            list(split.samples.ids),
            list(split.samples.names),
            split.images_digest,
            {name: sha256(labels.tobytes()) for name, labels in split.labels.items()},
            *([] if split.weights is None else [sha256(split.weights.tobytes())]),
        ]
        for split in (train, valid)
    ]
    assert data_digest(splits) == sha256(json_text(written).encode())
