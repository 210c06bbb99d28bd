"""From single images to findings: files that cannot be read, images that are odd for their set, and outliers."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.datacheck.finding import INFO, SEVERE, WARNING, Finding
from classwise.datacheck.image_quality import QualityIssue, quality_issues
from classwise.datacheck.outliers import Outliers
from classwise.datacheck.rows import Rows
from classwise.datacheck.signature import ImageStatistics, Signature, UnreadableFile

LEAST_IN_CLASS = 3
"""Images with a defect, below which nothing is said of the class that most of them are of."""
MOST_OF_CLASS = 0.8
"""The share of the images with a defect that are of one class, from which on it is said."""


def unreadable_findings(rows: Rows, signatures: Sequence[Signature | UnreadableFile]) -> list[Finding]:
    """A finding for each file that cannot be used."""
    return [
        Finding(
            kind="unreadable",
            severity=SEVERE,
            id=rows.ids[row],
            partner="",
            value=None,
            advice=f'{signature.reason}. Repair the file, or take the row out; data.bad_images = "skip" leaves it out',
            details={"parts": {rows.part_of[row]: 1}},
        )
        for row, signature in enumerate(signatures)
        if isinstance(signature, UnreadableFile)
    ]


def statistics_table(signatures: Sequence[Signature | UnreadableFile]) -> pl.DataFrame:
    """A row for each image, null for those that cannot be read, as `quality_issues` takes it."""
    names = tuple(field.name for field in fields(ImageStatistics))
    facts = ("frames", "bits", "unused_channels")

    def values(signature: Signature | UnreadableFile) -> dict[str, object]:
        if isinstance(signature, UnreadableFile):
            return dict.fromkeys((*names, *facts))
        found: dict[str, object] = {name: getattr(signature.statistics, name) for name in names}
        return found | {name: getattr(signature.facts, name) for name in facts}

    whole = {"height": pl.Int64, "width": pl.Int64, "gray": pl.Boolean, "flat_border": pl.Boolean}
    whole |= dict.fromkeys(facts, pl.Int64)
    schema = {name: whole.get(name, pl.Float64) for name in (*names, *facts)}
    return pl.DataFrame([values(signature) for signature in signatures], schema=schema, orient="row")


def quality_findings(rows: Rows, statistics: pl.DataFrame) -> tuple[list[Finding], list[QualityIssue]]:
    """A finding for each image that is blank, dark, bright, blurred, or odd in size or mode, and the issues
    themselves. A defect that most often has one class is a warning: it tells the class."""
    issues = quality_issues(statistics)
    classes = _classes_of_defects(rows, issues)
    found = [
        Finding(
            kind=issue.kind,
            severity=issue.severity,
            id=rows.ids[issue.row],
            partner="",
            value=round(issue.value, 4) + 0.0,  # no -0.0
            advice=f"{issue.reason}{classes.get(issue.kind, '')}. {_ADVICE[issue.kind]}",
            details={"parts": {rows.part_of[issue.row]: 1}},
        )
        for issue in issues
    ]
    return found, issues


_ADVICE = {
    "blank": "Nothing can be learned from it: look for the file it should have been",
    "dark": "Look whether it shows what its label says",
    "bright": "Look whether it shows what its label says",
    "blurred": "Look whether it shows what its label says",
    "odd-size": "Look whether it is a part of an image, or of other data",
    "odd-mode": "Look whether it is of other data; classwise converts it",
}


def _classes_of_defects(rows: Rows, issues: Sequence[QualityIssue]) -> Mapping[str, str]:
    """By kind `; 7 of 8 such images are of label 'scratch'`, where most of them are, and far more than of all rows."""
    found: dict[str, str] = {}
    for kind in dict.fromkeys(issue.kind for issue in issues):
        of_kind = [issue.row for issue in issues if issue.kind == kind]
        for name, texts in rows.texts.items():
            labels, counts = np.unique(
                [text for row in of_kind if (text := texts[row]) is not None] or [""], return_counts=True
            )
            label, count = labels[counts.argmax()], int(counts.max())
            share = sum(text == label for text in texts) / max(1, len(texts))
            if count >= LEAST_IN_CLASS and count / len(of_kind) >= MOST_OF_CLASS > 2 * share:
                found[kind] = f"; {count} of {len(of_kind)} such images have {name} {str(label)!r}"
    return found


def outlier_findings(rows: Rows, numbers: npt.NDArray[np.int64], outliers: Outliers) -> list[Finding]:
    """A finding for each row that is unlike all others. `numbers`: the rows that were looked at."""
    return [
        Finding(
            kind="outlier",
            severity=WARNING if distance > 1.5 * outliers.threshold else INFO,
            id=rows.ids[numbers[row]],
            partner=rows.ids[numbers[nearest]],
            value=round(float(distance), 4),
            advice=(
                f"with the label {rows.text(numbers[row])}, and unlike all other images"
                f" (distance {distance:.2f}; {outliers.threshold:.2f} is usual at most); beside it the nearest one."
                " Look whether it belongs here; a rare kind of image does"
            ),
            details={"parts": {rows.part_of[numbers[row]]: 1}},
        )
        for row, distance, nearest in zip(
            outliers.rows[: outliers.listed],
            outliers.distance[: outliers.listed],
            outliers.nearest[: outliers.listed],
            strict=True,
        )
    ]
