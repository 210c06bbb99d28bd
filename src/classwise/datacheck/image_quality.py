"""Images that are blank, dark, bright or blurred, or have another size or pixel format than the rest of the set.

Judged by a few statistics of each image. What is dark for photographs is ordinary for stars, and a drawing of 28
pixels is never as sharp as a page of text, so an image is listed where it is far from the set *and* bad in itself: in
a set that is dark throughout, nothing is dark. Only blank images are listed whatever the others are.

Distances from the set are in robust standard deviations (1.4826 times the median absolute deviation), with a least one
so that sets of almost equal images do not list trifles. Letters in names: N rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.datacheck.finding import INFO, SEVERE, WARNING

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BLANK_RANGE, BLANK_STD = 6, 4
"""Levels between the percentiles 1 and 99, and standard deviation, up to which an image is blank."""
FAR, VERY_FAR = 4, 6
"""Robust standard deviations beyond which an image is unlike the set."""
DARK, NEARLY_BLACK = 50, 20
"""Levels that 99 % of the pixels do not exceed."""
BRIGHT, NEARLY_WHITE = 205, 235
BLURRED, STRONGLY_BLURRED = 0.05, 0.01
"""Variance of the Laplacian over that of the levels: 20 for noise, 0.05 to 2 in ordinary sets of up to 256 pixels a
side, below 0.01 in most images after a Gaussian blur by two pixels."""
LEAST_LEVELS, LEAST_LOG = 5.0, 0.1
"""The least robust standard deviation of levels, and of logarithms."""
SAME = 0.95
"""The share of a set that makes what the others are odd."""
TIMES_SIDE, TIMES_ASPECT = 2.0, 1.5
"""Factors from the median up to which no size and no aspect is odd."""
FENCE, FENCE_QUANTILE = 1.5, 0.025
TINY = 8
"""Pixels of the shorter side below which there is nothing to see, in sets of larger images."""


@dataclass(frozen=True)
class QualityIssue:
    """What is odd about one image. kind: of classwise.datacheck.finding.KINDS. value: how odd, comparable within a
    kind, higher is worse. reason: what was found, in numbers."""

    row: int
    kind: str
    severity: str
    value: float
    reason: str


def quality_issues(statistics: pl.DataFrame) -> list[QualityIssue]:
    """What is odd about the images of a set, by kind, from the worst down.

    `statistics`: a row for each image with height, width (pixels); mean, std, p1, p99 (of the levels of gray, 0 to
    255); sharpness (variance of the Laplacian), gray (bool); and, where they are known, frames, bits and
    unused_channels as in classwise.data.pixel_format.ImageFacts. Rows of images that could not be read are null and
    are not judged.
    """
    rows = np.flatnonzero(statistics["std"].is_not_null().to_numpy())
    if not len(rows):
        return []
    known = statistics[rows]
    is_blank_N = _is_blank(known)
    issues = [
        *_blank(known, is_blank_N),
        *_dark(known, is_blank_N),
        *_bright(known, is_blank_N),
        *_blurred(known, is_blank_N),
        *_odd_size(known),
        *_odd_mode(known, is_blank_N),
    ]
    return [QualityIssue(int(rows[i.row]), i.kind, i.severity, i.value, i.reason) for i in issues]


def issue_flags(issues: Sequence[QualityIssue], rows: int) -> pl.DataFrame:
    """A column of booleans for each kind that occurs: for `find_shortcuts`, since a defect can follow a class."""
    flags = {kind: np.zeros(rows, dtype=bool) for kind in dict.fromkeys(issue.kind for issue in issues)}
    for issue in issues:
        flags[issue.kind][issue.row] = True
    return pl.DataFrame(flags)


def robust_distance(values_N: Floats, least: float) -> Floats:
    """(N,) how many robust standard deviations, `least` or more, each value lies above the median."""
    distance_N = values_N - np.median(values_N)
    return np.asarray(distance_N / max(least, 1.4826 * float(np.median(np.abs(distance_N)))))


def _is_blank(table: pl.DataFrame) -> Flags:
    level_range_N = (table["p99"] - table["p1"]).to_numpy()
    return np.asarray((level_range_N <= BLANK_RANGE) & (table["std"].to_numpy() <= BLANK_STD))


def _blank(table: pl.DataFrame, is_blank_N: Flags) -> list[QualityIssue]:
    std_N = table["std"].to_numpy()
    return _listed(
        "blank",
        is_blank_N,
        severe_N=std_N < 1,
        severities=(WARNING, SEVERE),
        value_N=-std_N,
        reasons=[f"levels vary by {std} only, around {mean:.0f} of 255" for std, mean in _rounded(table)],
    )


def _rounded(table: pl.DataFrame) -> list[tuple[str, float]]:
    return [(f"{std:.1f}", mean) for std, mean in table.select("std", "mean").iter_rows()]


def _dark(table: pl.DataFrame, is_blank_N: Flags) -> list[QualityIssue]:
    p99_N = table["p99"].to_numpy().astype(np.float64)
    distance_N = robust_distance(p99_N, LEAST_LEVELS)
    return _listed(
        "dark",
        (p99_N <= DARK) & (distance_N < -FAR) & ~is_blank_N,
        severe_N=p99_N <= NEARLY_BLACK,
        severities=(INFO, WARNING),
        value_N=-p99_N,
        reasons=[
            f"99 % of the pixels are at level {p99:.0f} or below; median of the set {np.median(p99_N):.0f}"
            for p99 in p99_N
        ],
    )


def _bright(table: pl.DataFrame, is_blank_N: Flags) -> list[QualityIssue]:
    p1_N = table["p1"].to_numpy().astype(np.float64)
    distance_N = robust_distance(p1_N, LEAST_LEVELS)
    return _listed(
        "bright",
        (p1_N >= BRIGHT) & (distance_N > FAR) & ~is_blank_N,
        severe_N=p1_N >= NEARLY_WHITE,
        severities=(INFO, WARNING),
        value_N=p1_N,
        reasons=[
            f"99 % of the pixels are at level {p1:.0f} or above; median of the set {np.median(p1_N):.0f}"
            for p1 in p1_N
        ],
    )


def _blurred(table: pl.DataFrame, is_blank_N: Flags) -> list[QualityIssue]:
    """By the sharpness over the contrast, so that pale images are not taken for blurred ones."""
    sharpness_N, std_N = (table[name].to_numpy().astype(np.float64) for name in ("sharpness", "std"))
    ratio_N = np.maximum(sharpness_N, 1e-6) / np.maximum(std_N, 1) ** 2
    distance_N = robust_distance(np.log(ratio_N), LEAST_LOG)
    return _listed(
        "blurred",
        (ratio_N <= BLURRED) & (distance_N < -FAR) & ~is_blank_N,
        severe_N=(ratio_N <= STRONGLY_BLURRED) & (distance_N < -VERY_FAR),
        severities=(INFO, WARNING),
        value_N=-distance_N,
        reasons=[
            f"edges have {ratio:.2g} of the contrast; median of the set {np.median(ratio_N):.2g}"
            for ratio in ratio_N
        ],
    )


def _odd_size(table: pl.DataFrame) -> list[QualityIssue]:
    height_N, width_N = (table[name].to_numpy().astype(np.float64) for name in ("height", "width"))
    log_side_N, log_aspect_N = np.log(height_N * width_N) / 2, np.log(width_N / height_N)
    sizes = list(zip(height_N.astype(int), width_N.astype(int), strict=True))
    (common, count), *_ = sorted(Counter(sizes).items(), key=lambda item: (-item[1], item[0]))
    text = f"{common[1]} × {common[0]}"

    # Where nearly all images have one size, every other size is odd.
    if count >= SAME * len(sizes):
        is_odd_N = np.array([size != common for size in sizes])
        usual = f"{_percent(count / len(sizes))} of the images are {text}"
    else:
        is_odd_N = _is_beyond(log_side_N, TIMES_SIDE) | _is_beyond(log_aspect_N, TIMES_ASPECT)
        aspect, side = np.exp(np.median(log_aspect_N)), np.exp(np.median(log_side_N))
        usual = (
            f"medians of the set: {aspect:.2f} for width / height, {side:.0f} for the root of their product"
        )
    shorter_N = np.minimum(height_N, width_N)
    is_tiny_N = (shorter_N < TINY) & (np.median(shorter_N) >= 2 * TINY)
    distance_N = np.maximum(
        np.abs(robust_distance(log_side_N, LEAST_LOG)), np.abs(robust_distance(log_aspect_N, LEAST_LOG))
    )
    return _listed(
        "odd-size",
        is_odd_N | is_tiny_N,
        severe_N=is_tiny_N,
        severities=(INFO, WARNING),
        value_N=distance_N,
        reasons=[f"{width} × {height} pixels; {usual}" for height, width in sizes],
    )


def _is_beyond(log_N: Floats, times: float) -> Flags:
    """What is far from the median by its robust distance, by a factor of `times`, and by FENCE times the distance of
    the outermost FENCE_QUANTILE: a class of small images is no error."""
    low, middle, high = np.quantile(log_N, (FENCE_QUANTILE, 0.5, 1 - FENCE_QUANTILE))
    fence_N = FENCE * np.where(log_N < middle, middle - low, high - middle)
    distance_N = np.abs(log_N - middle)
    is_far_N = np.abs(robust_distance(log_N, LEAST_LOG)) > FAR
    return np.asarray(is_far_N & (distance_N > np.log(times)) & (distance_N > fence_N))


def _odd_mode(table: pl.DataFrame, is_blank_N: Flags) -> list[QualityIssue]:
    """Gray among color or the other way round, another depth than the others, and what is not used of a file. A blank
    image has no color to look at."""
    gray_N = table["gray"].cast(pl.Boolean).to_numpy()
    share = float(gray_N[~is_blank_N].mean()) if not is_blank_N.all() else 0.0
    issues: list[QualityIssue] = []
    if 0 < share <= 1 - SAME:
        issues += _modes(
            gray_N & ~is_blank_N, INFO, f"gray, while {_percent(1 - share)} of the images are in color"
        )
    elif SAME <= share < 1:
        issues += _modes(
            ~gray_N & ~is_blank_N, INFO, f"in color, while {_percent(share)} of the images are gray"
        )
    if "frames" in table.columns:
        has_more_N = table["frames"].to_numpy() > 1
        issues += _modes(has_more_N, WARNING, "several frames or pages, of which only the first is used")
    if "unused_channels" in table.columns:
        has_more_N = table["unused_channels"].to_numpy() > 0
        issues += _modes(has_more_N, INFO, "a channel beyond red, green and blue, which is not used")
    if "bits" in table.columns:
        bits_N = table["bits"].to_numpy()
        common = int(np.bincount(bits_N).argmax())
        share = float((bits_N == common).mean())
        usual = f"while {_percent(share)} of the images have {common} bits a sample"
        for bits in np.unique(bits_N[bits_N != common]) if share >= SAME else ():
            issues += _modes(bits_N == bits, INFO, f"{bits} bits, {usual}")
    return issues


def _modes(is_odd_N: Flags, severity: str, reason: str) -> list[QualityIssue]:
    return [QualityIssue(int(row), "odd-mode", severity, 1.0, reason) for row in np.flatnonzero(is_odd_N)]


def _listed(
    kind: str,
    is_odd_N: Flags,
    *,
    severe_N: Flags,
    severities: tuple[str, str],
    value_N: Floats,
    reasons: Sequence[str],
) -> list[QualityIssue]:
    """The odd rows, the highest value first; `severities`: of most, and of those that are `severe_N`."""
    rows = np.flatnonzero(is_odd_N)
    ordered = rows[np.argsort(-value_N[rows], kind="stable")]
    return [
        QualityIssue(int(row), kind, severities[bool(severe_N[row])], float(value_N[row]), reasons[row])
        for row in ordered
    ]


def _percent(share: float) -> str:
    return f"{np.floor(1000 * share) / 10:.3g} %"
