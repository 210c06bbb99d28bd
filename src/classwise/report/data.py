"""What the run learnt from: rows and groups on both sides of the split, and each target's answers in them."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from classwise.report.names import short_number
from classwise.report.read import Json, RunFiles, count, joint_title, kind_of, listing, mapping, number
from classwise.report.scores import KINDS, MOST_CLASSES

LISTED = 50  # unreadable images named one by one
SIDES = {"train": "training", "valid": "validation"}


@dataclass(frozen=True)
class ClassCount:
    label: str
    train: int
    valid: int

    @property
    def valid_share(self) -> float | None:
        rows = self.train + self.valid
        return self.valid / rows if rows else None


@dataclass(frozen=True)
class TargetCounts:
    """Rows per class of one target. `rows` holds the rarest only, where there are very many classes."""

    noun: str
    nouns: str
    classes: int
    rows: list[ClassCount]
    largest: int
    smallest: int

    @property
    def imbalance(self) -> str:
        """The largest class's training rows over the smallest one's, as `49 : 1`."""
        return f"{short_number(round(self.largest / self.smallest, 1))} : 1" if self.smallest else ""


@dataclass(frozen=True)
class TargetData:
    """One target's answers: counts of classes or labels, or of queries, or the spread of its numbers.

    `values`: a row a side of the split, (side, known, least, mean, greatest). `masked`: rows without an answer."""

    title: str
    counts: TargetCounts | None = None
    values: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    queries: dict[str, int] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)


def data_section(run: RunFiles) -> dict[str, Any]:
    """Everything that the page's part on data shows."""
    data = mapping(run.status.get("data"))
    bad = [mapping(row) for row in listing(data.get("bad_images"))]
    train, valid = split_rows(run)
    asked = number(mapping(run.config.get("data")).get("valid"))
    return {
        "train": train,
        "valid": valid,
        "asked": asked if asked is not None and 0 < asked < 1 else None,
        "groups": _groups(run, data),
        "group": str(mapping(run.config.get("data")).get("group") or ""),
        "targets": _targets(run, data),
        "bad": [(str(row.get("path")), str(row.get("reason"))) for row in bad[:LISTED]],
        "bad_count": len(bad),
    }


def split_rows(run: RunFiles) -> tuple[int, int]:
    """Rows for training and validation: those of split.csv, or as status.json counts them."""
    if "split" in run.split.columns:
        split = run.split["split"]
        return int((split == "train").sum()), int((split == "valid").sum())
    data = mapping(run.status.get("data"))
    return count(data.get("train")), count(data.get("valid"))


def _groups(run: RunFiles, data: Json) -> dict[str, int | None] | None:
    """Groups in training, in validation and in both, counted in split.csv; else what status.json records."""
    if {"group", "split"} <= set(run.split.columns) and run.split["group"].null_count() < run.split.height:
        sides = {
            side: run.split.filter(pl.col("split") == side)["group"].drop_nulls()
            for side in ("train", "valid")
        }
        train, valid = (set(groups.to_list()) for groups in sides.values())
        return {"train": len(train), "valid": len(valid), "both": len(train & valid)}
    groups = mapping(data.get("groups"))
    return (
        {"train": count(groups.get("train")), "valid": count(groups.get("valid")), "both": None}
        if groups
        else None
    )


def _targets(run: RunFiles, data: Json) -> list[TargetData]:
    """The joint class, then the targets in the config's order, as far as anything is recorded of them."""
    parts = [mapping(data.get(part)) for part in ("labels", "values", "queries", "masked")]
    names = dict.fromkeys(name for part in [mapping(run.config.get("targets")), *parts] for name in part)
    found = [_joint(run, mapping(data.get("joint"))), *(_target(run, name, *parts) for name in names)]
    return [target for target in found if target.counts or target.values or target.queries or target.masked]


def _joint(run: RunFiles, joint: Json) -> TargetData:
    columns = [listing(joint.get(key)) for key in ("labels", "train", "valid")]
    rows = [ClassCount(str(a), count(b), count(c)) for a, b, c in zip(*columns, strict=False)]
    return TargetData(joint_title(run), _counts(rows, "class"))


def _target(run: RunFiles, name: str, labels: Json, values: Json, queries: Json, masked: Json) -> TargetData:
    cells = map(mapping, listing(labels.get(name)))
    rows = [ClassCount(str(c.get("label")), count(c.get("train")), count(c.get("valid"))) for c in cells]
    return TargetData(
        name,
        counts=_counts(rows, kind_of(run, name)),
        values=_values(mapping(values.get(name))),
        queries=_sides(mapping(queries.get(name))),
        masked=_sides(mapping(masked.get(name))),
    )


def _counts(rows: list[ClassCount], kind: str) -> TargetCounts | None:
    """In the label list's own order; with very many classes, the rarest."""
    if not rows:
        return None
    shown = rows if len(rows) <= MOST_CLASSES else sorted(rows, key=lambda row: row.train)[:MOST_CLASSES]
    sizes = [row.train for row in rows]
    _, noun, nouns, _ = KINDS[kind] if KINDS.get(kind, KINDS["ranking"])[1] else KINDS["class"]
    return TargetCounts(noun, nouns, len(rows), shown, max(sizes), min(sizes))


def _values(sides: Json) -> list[tuple[str, int, str, str, str]]:
    """Of a regression, in the target's own unit."""
    found = []
    for side, name in SIDES.items():
        cells = mapping(sides.get(side))
        least, mean, greatest = (
            "–" if (value := number(cells.get(key))) is None else short_number(value)
            for key in ("min", "mean", "max")
        )
        if cells:
            found.append((name, count(cells.get("known")), least, mean, greatest))
    return found


def _sides(sides: Json) -> dict[str, int]:
    """A count a side of the split; empty where both are 0 or missing."""
    found = {side: count(sides.get(side)) for side in SIDES}
    return found if any(found.values()) else {}
