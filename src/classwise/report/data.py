"""The page's section on data: rows and groups of the splits, and each target's labels in them."""

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from classwise.report.kinds import KINDS, MOST_CLASSES
from classwise.report.names import short_number
from classwise.report.read import Json, RunFiles, count, joint_title, kind_of, listing, mapping, number

MOST_IMAGES = 50  # unreadable images listed one by one
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class ClassCount:
    """Rows of one class or label in each split; `test` is None where the run has no test rows."""

    label: str
    train: int
    valid: int
    test: int | None = None

    @property
    def valid_share(self) -> float | None:
        rows = self.train + self.valid + (self.test or 0)
        return self.valid / rows if rows else None


@dataclass(frozen=True)
class TargetCounts:
    """Rows per class of one target. With very many `classes`, `rows` holds the rarest only. `largest` and `smallest`
    are training rows."""

    noun: str
    nouns: str
    classes: int
    rows: list[ClassCount]
    largest: int
    smallest: int

    @property
    def imbalance(self) -> str:
        """The largest class's training rows over the smallest one's, as `49 : 1`; empty where that one has none."""
        return f"{short_number(round(self.largest / self.smallest, 1))} : 1" if self.smallest else ""


@dataclass(frozen=True)
class Spread:
    """A regression target's values in one split, as text."""

    split: str
    labeled: int
    min: str
    mean: str
    max: str


@dataclass(frozen=True)
class TargetData:
    """What is recorded of one target's labels: counts of classes or labels, the spread of its numbers, its queries, and
    the rows without a label; the last two by split."""

    title: str
    counts: TargetCounts | None = None
    spreads: list[Spread] = field(default_factory=list)
    queries: dict[str, int] = field(default_factory=dict)
    unlabeled: dict[str, int] = field(default_factory=dict)


def data_section(run: RunFiles) -> dict[str, Any]:
    """Everything that the section shows."""
    data = mapping(run.status.get("data"))
    skipped = [mapping(row) for row in listing(data.get("bad_images"))]
    rows = split_rows(run)
    config = mapping(run.config.get("data"))
    is_given = bool(config.get("split") or config.get("fold"))
    return {
        **rows,
        "rows": sum(rows.values()),
        # Where data.valid or data.test names a table, or a column gives the split, no share was requested.
        "requested": {key: None if is_given else _share(config.get(key)) for key in ("valid", "test")},
        "groups": _groups(run, data),
        "group": str(config.get("group") or ""),
        "targets": _targets(run, data),
        "skipped": [(str(row.get("path")), str(row.get("reason"))) for row in skipped[:MOST_IMAGES]],
        "skipped_count": len(skipped),
    }


def split_rows(run: RunFiles) -> dict[str, int]:
    """The numbers of training, validation and test rows: from split.csv, else from status.json."""
    if "split" in run.split.columns:
        return {name: int((run.split["split"] == name).sum()) for name in SPLITS}
    data = mapping(run.status.get("data"))
    return {name: count(data.get(name)) for name in SPLITS}


def _share(value: Any) -> float | None:
    share = number(value)
    return share if share is not None and 0 < share < 1 else None


def _groups(run: RunFiles, data: Json) -> dict[str, int | None] | None:
    """The numbers of groups in each split, and of those in several: from split.csv, else from status.json, which does
    not record the latter. None without groups."""
    if {"group", "split"} <= set(run.split.columns) and run.split["group"].null_count() < run.split.height:
        groups_of = {
            split: set(run.split.filter(pl.col("split") == split)["group"].drop_nulls().to_list())
            for split in SPLITS
        }
        several = sum(len(found) for found in groups_of.values()) - len(set().union(*groups_of.values()))
        return {**{split: len(found) for split, found in groups_of.items()}, "several": several}
    groups = mapping(data.get("groups"))
    if not groups:
        return None
    return {**{split: count(groups.get(split)) for split in SPLITS}, "several": None}


def _targets(run: RunFiles, data: Json) -> list[TargetData]:
    """The joint class, then the targets in the config's order, as far as anything is recorded of them."""
    parts = [mapping(data.get(part)) for part in ("labels", "values", "queries", "masked")]
    names = dict.fromkeys(name for part in [mapping(run.config.get("targets")), *parts] for name in part)
    targets = [_joint(run, mapping(data.get("joint")))]
    targets += [_target(run, name, data) for name in names]
    return [
        target for target in targets if target.counts or target.spreads or target.queries or target.unlabeled
    ]


def _joint(run: RunFiles, joint: Json) -> TargetData:
    keys = ("label", *(split for split in SPLITS if split in joint))
    columns = [listing(joint.get(key)) for key in ("labels", *keys[1:])]
    rows = [_class_count(dict(zip(keys, cells, strict=True))) for cells in zip(*columns, strict=False)]
    return TargetData(joint_title(run), counts=_counts(rows, "class"))


def _target(run: RunFiles, name: str, data: Json) -> TargetData:
    """What status.json records of the target `name`."""
    recorded = {part: mapping(data.get(part)).get(name) for part in ("labels", "values", "queries", "masked")}
    rows = [_class_count(row) for row in map(mapping, listing(recorded["labels"]))]
    return TargetData(
        name,
        counts=_counts(rows, kind_of(run, name)),
        spreads=_spreads(mapping(recorded["values"])),
        queries=_by_split(mapping(recorded["queries"])),
        unlabeled=_by_split(mapping(recorded["masked"])),
    )


def _class_count(row: Json) -> ClassCount:
    return ClassCount(
        str(row.get("label")),
        train=count(row.get("train")),
        valid=count(row.get("valid")),
        test=count(row["test"]) if "test" in row else None,
    )


def _counts(rows: list[ClassCount], kind: str) -> TargetCounts | None:
    """The rarest class first, with very many classes only the rarest; levels and numbers that are cut at edges in their
    own order, if they are not too many."""
    if not rows:
        return None
    is_ordered = kind in ("ordinal", "regression") and len(rows) <= MOST_CLASSES
    shown = rows if is_ordered else sorted(rows, key=lambda row: row.train)[:MOST_CLASSES]
    sizes = [row.train for row in rows]
    # A number that is cut at edges has classes too, but no noun of its own for them.
    nouns = KINDS[kind] if kind in KINDS and KINDS[kind].noun else KINDS["class"]
    return TargetCounts(
        noun=nouns.noun,
        nouns=nouns.nouns,
        classes=len(rows),
        rows=shown,
        largest=max(sizes),
        smallest=min(sizes),
    )


def _spreads(values: Json) -> list[Spread]:
    """Of a regression target, in its own unit."""
    spreads = []
    for split, name in SPLITS.items():
        cells = mapping(values.get(split))
        if cells:
            numbers = {key: number(cells.get(key)) for key in ("min", "mean", "max")}
            texts = {key: "–" if value is None else short_number(value) for key, value in numbers.items()}
            spreads.append(Spread(name, labeled=count(cells.get("known")), **texts))
    return spreads


def _by_split(counts: Json) -> dict[str, int]:
    """A count for each split; empty where both are 0 or missing."""
    by_split = {split: count(counts.get(split)) for split in SPLITS}
    return by_split if any(by_split.values()) else {}
