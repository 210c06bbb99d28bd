"""The section 'What the model looks at': heat maps that the run has kept in explanations.json, rarest classes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from classwise.explain.overlay import legend_colors
from classwise.report.explain_page import percent
from classwise.report.read import RunFiles, count, listing, mapping, number

THUMBNAIL_SIDE = 176
"""Pixels of the longer side of the images in it."""
PREFIX = "data:image/"


@dataclass(frozen=True)
class Tile:
    """One row: its image and heat map as data URIs, what it is and what is predicted."""

    id: str
    true: str
    predicted: str
    probability: str
    wrong: bool
    image: str
    map: str


@dataclass(frozen=True)
class Group:
    """One class of a target; `lead` says which of its rows are shown."""

    target: str
    label: str
    lead: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Explanations:
    """The section. `colors`: from weak to strong; `has_targets`: whether classes of several targets are shown;
    `has_missed`: whether a label of several is shown that was missed."""

    groups: list[Group]
    colors: list[str]
    has_targets: bool
    has_missed: bool


def explanations(run: RunFiles) -> Explanations | None:
    """The section of a run, or of folds, whose rows are each explained by the model that has not seen them; None
    without a heat map."""
    classes = [mapping(each) for found in run.explanations for each in listing(found.get("classes"))]
    by_class: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in classes:
        by_class.setdefault((str(each.get("target")), str(each.get("label"))), []).append(each)
    groups = [_group(target, label, found) for (target, label), found in by_class.items()]
    groups = [group for group in groups if group.tiles]
    if not groups:
        return None
    return Explanations(
        groups=groups,
        colors=legend_colors(),
        has_targets=len({group.target for group in groups}) > 1,
        has_missed=any(tile.predicted == f"not {group.label}" for group in groups for tile in group.tiles),
    )


def _group(target: str, label: str, found: Sequence[dict[str, Any]]) -> Group:
    """One class, of one run or of several folds: of these as many rows as one of them shows."""
    parts = {}
    for kind in ("mistakes", "hits"):
        rows = [mapping(row) for each in found for row in listing(each.get(kind))]
        most = max(len(listing(each.get(kind))) for each in found)
        rows = sorted(rows, key=lambda row: -(number(row.get("probability")) or 0.0))
        parts[kind] = list({str(row.get("id")): row for row in reversed(rows)}.values())[::-1][:most]
    tiles = [
        _tile(row, wrong=kind == "mistakes")
        for kind, rows in parts.items()
        for row in rows
        if str(row.get("image")).startswith(PREFIX) and str(row.get("map")).startswith(PREFIX)
    ]
    training = min(count(each.get("rows")) for each in found)
    return Group(target, label, _lead(training, len(parts["mistakes"]), len(parts["hits"])), tiles)


def _lead(training: int, mistakes: int, hits: int) -> str:
    """`26 training images. The worst mistake, then the 2 most certain hits.`"""

    def words(number: int, adjective: str, noun: str) -> str:
        return f"the {adjective} {noun}" if number == 1 else f"the {number} {adjective} {noun}s"

    shown = [words(mistakes, "worst", "mistake")] if mistakes else ["no mistake"]
    shown += [words(hits, "most certain", "hit")] if hits else ["no hit"]
    text = ", then ".join(shown)
    return f"{training:,} training image{'' if training == 1 else 's'}. {text[0].upper()}{text[1:]}."


def _tile(row: dict[str, Any], wrong: bool) -> Tile:
    return Tile(
        id=str(row.get("id")),
        true=str(row.get("true")),
        predicted=str(row.get("predicted")),
        probability=percent(number(row.get("probability")) or 0.0),
        wrong=wrong,
        image=str(row["image"]),
        map=str(row["map"]),
    )
