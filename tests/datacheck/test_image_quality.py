"""Odd images: each planted defect is listed as what it is, and ordinary sets are not."""

from collections import Counter
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from classwise.datacheck.finding import INFO, KINDS, SEVERE, WARNING
from classwise.datacheck.image_quality import (
    issue_flags,
    quality_issues,
    robust_distance,
)
from classwise.demo.fashion import read_bundle


def photograph(seed: int, height: int = 96, width: int = 128) -> Any:
    """Coarse and fine structure, as in a photograph."""
    rng = np.random.default_rng(seed)
    image_HW = np.zeros((height, width), np.float32)
    for cells in (4, 16, 64):
        noise = rng.normal(0, 60 / cells**0.5, size=(cells, cells)).astype(np.float32)
        image_HW += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image_HW + 120, 0, 255).astype(np.uint8)


def statistics(images: Any, **more: Any) -> pl.DataFrame:
    """A row for each image, as `quality_issues` needs it."""
    rows = [
        {
            "height": image_HW.shape[0],
            "width": image_HW.shape[1],
            "mean": float(image_HW.mean()),
            "std": float(image_HW.std()),
            "p1": float(np.percentile(image_HW, 1)),
            "p99": float(np.percentile(image_HW, 99)),
            "sharpness": float(cv2.Laplacian(image_HW, cv2.CV_32F).var()),
            "gray": True,
        }
        for image_HW in images
    ]
    return pl.DataFrame(rows).with_columns(**{name: pl.Series(values) for name, values in more.items()})


def found_in(images: Any, **more: Any) -> Any:
    return [(issue.row, issue.kind, issue.severity) for issue in quality_issues(statistics(images, **more))]


def ordinary(count: int = 60) -> list[Any]:
    return [photograph(seed) for seed in range(count)]


def test_an_ordinary_set_lists_nothing() -> None:
    assert found_in(ordinary()) == []


def test_small_drawings_are_not_blurred() -> None:
    """The bundled clothes, of 28 pixels each."""
    images_NHW, _ = read_bundle("train")
    assert found_in(images_NHW[::5]) == []


@pytest.mark.parametrize(
    ("change", "kind", "severity"),
    [
        (lambda image: np.full_like(image, 255), "blank", SEVERE),
        (lambda image: (128 + image % 4).astype(np.uint8), "blank", WARNING),
        (lambda image: (image / 6).astype(np.uint8), "dark", INFO),
        (lambda image: (image / 14).astype(np.uint8), "dark", WARNING),
        (lambda image: (255 - (255 - image.astype(int)) / 5).astype(np.uint8), "bright", INFO),
        (lambda image: (255 - (255 - image.astype(int)) / 14).astype(np.uint8), "bright", WARNING),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 0.9), "blurred", INFO),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 6), "blurred", WARNING),
        (lambda image: image[:48, :64], "odd-size", INFO),
        (lambda image: image[:7, :], "odd-size", WARNING),
    ],
)
def test_a_planted_defect_is_listed_as_what_it_is(change: Any, kind: str, severity: str) -> None:
    """Nothing else is, and the image is not two things at once."""
    images = ordinary()
    images[17] = change(images[17])
    assert found_in(images) == [(17, kind, severity)]
    assert kind in KINDS


def test_pale_images_are_not_blurred() -> None:
    images = ordinary()
    images[17] = (128 + (images[17] - 128.0) / 4).astype(np.uint8)
    assert found_in(images) == []


@pytest.mark.parametrize("factor", [0.3, 0.15])
def test_in_a_dark_set_nothing_is_dark(factor: float) -> None:
    assert found_in([(image * factor + 10).astype(np.uint8) for image in ordinary()]) == []


def test_in_a_blurred_set_nothing_is_blurred() -> None:
    assert found_in([cv2.GaussianBlur(image, (0, 0), 5) for image in ordinary()]) == []


def test_blank_images_are_listed_whatever_the_others_are() -> None:
    assert Counter(found_in([np.zeros((20, 20), np.uint8)] * 5)) == Counter(
        (row, "blank", SEVERE) for row in range(5)
    )


def test_a_class_of_small_images_is_not_odd() -> None:
    """A tenth of the set; one image in 200 that is four times as long is."""
    sizes = np.random.default_rng(0).integers(80, 100, size=(200, 2))
    sizes[:20] //= 2
    images = [photograph(row, *size) for row, size in enumerate(sizes)]
    assert found_in(images) == []
    images[150] = photograph(150, 40, 160)
    assert found_in(images) == [(150, "odd-size", INFO)]


def test_the_worst_comes_first_and_reasons_have_numbers() -> None:
    images = ordinary()
    images[5], images[8] = ((images[row] / divisor).astype(np.uint8) for row, divisor in ((5, 7), (8, 15)))
    first, second = quality_issues(statistics(images))
    assert (first.row, second.row) == (8, 5)
    assert first.value > second.value
    assert first.reason.startswith("99 % of the pixels are at level 1")


def test_other_pixel_formats_are_listed() -> None:
    """Gray among color, several frames, a fourth channel, 16 bits."""
    count = 40
    is_gray, frames = np.arange(count) == 3, np.where(np.arange(count) == 5, 2, 1)
    extra, bits = (np.arange(count) == 7).astype(int), np.where(np.arange(count) == 9, 16, 8)
    issues = quality_issues(
        statistics(ordinary(count), gray=is_gray, frames=frames, unused_channels=extra, bits=bits)
    )
    assert [(issue.row, issue.kind) for issue in issues] == [(row, "odd-mode") for row in (3, 5, 7, 9)]
    assert [issue.severity for issue in issues] == [INFO, WARNING, INFO, INFO]
    assert [issue.reason.split(",")[0] for issue in issues] == [
        "gray",
        "several frames or pages",
        "a channel beyond red",
        "16 bits",
    ]


def test_color_among_gray_is_listed_and_half_of_each_is_not() -> None:
    is_gray = np.arange(40) != 3
    assert found_in(ordinary(40), gray=is_gray) == [(3, "odd-mode", INFO)]
    assert found_in(ordinary(40), gray=np.arange(40) < 20) == []


def test_rows_that_could_not_be_read_keep_their_place() -> None:
    table = statistics(ordinary())
    unreadable = table[:1].select(
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in table.schema.items()
    )
    blank = statistics([np.zeros((96, 128), np.uint8)])
    (issue,) = quality_issues(pl.concat([unreadable, table, unreadable, blank]))
    assert (issue.row, issue.kind) == (62, "blank")
    assert quality_issues(unreadable) == []


def test_a_single_image_and_two_are_judged() -> None:
    assert found_in(ordinary(1)) == []
    assert found_in(ordinary(2)) == []


def test_defects_as_columns() -> None:
    images = ordinary()
    for row in (1, 2, 3, 30):
        images[row] = np.zeros_like(images[row])
    images[40] = (images[40] / 14).astype(np.uint8)
    issues = quality_issues(statistics(images))
    flags = issue_flags(issues, 60)
    assert np.flatnonzero(flags["blank"]).tolist() == [1, 2, 3, 30]
    assert np.flatnonzero(flags["dark"]).tolist() == [40]


def test_distances_have_a_least_deviation() -> None:
    np.testing.assert_allclose(robust_distance(np.array([5.0, 5.0, 5.0, 6.0]), 0.5), [0, 0, 0, 2])
    normal_N = np.random.default_rng(0).normal(3, 2, size=100_000)
    assert robust_distance(normal_N, 0.1).std() == pytest.approx(1, abs=0.02)
