"""The section 'What the model looks at': heat maps that the run has kept in explanations.json, rarest classes first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from classwise.explain.overlay import legend_colors
from classwise.report.explain_page import percent
from classwise.report.read import Json, RunFiles, count, listing, mapping, number
from classwise.report.thumbnails import file_names, kept_image, row_paths
from classwise.report.tiles import Line, Tile

KINDS = ("mistakes", "hits")
"""Of each class, in this order."""


@dataclass(frozen=True)
class ClassMaps:
    """One class of a target; `lead` says which of its rows are shown."""

    target: str
    label: str
    lead: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Explanations:
    """The section. `colors`: from weak to strong; `has_targets`: whether classes of several targets are shown;
    `has_missed`: whether a label of several is shown that was missed."""

    groups: list[ClassMaps]
    colors: list[str]
    has_targets: bool
    has_missed: bool


def explanations(run: RunFiles) -> Explanations | None:
    """The section of a run, or of folds, whose rows are each explained by the model that has not seen them; None
    without a heat map."""
    classes = [mapping(each) for found in run.explanations for each in listing(found.get("classes"))]
    by_class: dict[tuple[str, str], list[Json]] = {}
    for each in classes:
        by_class.setdefault((str(each.get("target")), str(each.get("label"))), []).append(each)
    rows = [mapping(row) for each in classes for kind in KINDS for row in listing(each.get(kind))]
    ids = [str(row.get("id")) for row in rows]
    files = file_names({id_: id_ for id_ in ids} | row_paths(run.split, ids))
    groups = [_class_maps(target, label, found, files) for (target, label), found in by_class.items()]
    groups = [group for group in groups if group.tiles]
    if not groups:
        return None
    return Explanations(
        groups=groups,
        colors=legend_colors(),
        has_targets=len({group.target for group in groups}) > 1,
        has_missed=any(line.text == f"not {group.label}" for group in groups for line in _predicted(group)),
    )


def _predicted(maps: ClassMaps) -> list[Line]:
    return [line for tile in maps.tiles for line in tile.lines if line.term == "predicted"]


def _class_maps(target: str, label: str, found: Sequence[Json], files: Mapping[str, str]) -> ClassMaps:
    """One class, of one run or of several folds: of these as many rows as one of them shows."""
    tiles = {kind: _most_certain(found, kind, files) for kind in KINDS}
    training = min(count(each.get("rows")) for each in found)
    lead = _lead(training, len(tiles["mistakes"]), len(tiles["hits"]))
    return ClassMaps(target, label, lead, [tile for kind in KINDS for tile in tiles[kind]])


def _most_certain(found: Sequence[Json], kind: str, files: Mapping[str, str]) -> list[Tile]:
    most = max(len(listing(each.get(kind))) for each in found)
    rows = [mapping(row) for each in found for row in listing(each.get(kind))]
    by_id: dict[str, Json] = {}  # with several models a fold, a row is there more than once
    for row in sorted(rows, key=lambda row: -(number(row.get("probability")) or 0.0)):
        by_id.setdefault(str(row.get("id")), row)
    tiles = [_tile(row, kind, files) for row in by_id.values()]
    return [tile for tile in tiles if tile.image.uri and tile.heat_map and tile.heat_map.uri][:most]


def _tile(row: Json, kind: str, files: Mapping[str, str]) -> Tile:
    predicted = Line(
        "predicted",
        str(row.get("predicted")),
        sign="→",
        note=percent(number(row.get("probability")) or 0.0),
        wrong=kind == "mistakes",
    )
    id_ = str(row.get("id"))
    return Tile(
        id_,
        file=files[id_],
        lines=[Line("true", str(row.get("true"))), predicted],
        image=kept_image(row.get("image")),
        heat_map=kept_image(row.get("map")),
    )


def _lead(training: int, mistakes: int, hits: int) -> str:
    """`26 training images. The worst mistake, then the 2 most certain hits.`"""

    def words(number: int, adjective: str, noun: str) -> str:
        return f"the {adjective} {noun}" if number == 1 else f"the {number} {adjective} {noun}s"

    shown = [words(mistakes, "worst", "mistake")] if mistakes else []
    shown += [words(hits, "most certain", "hit")] if hits else []
    missing = [noun for noun, number in (("mistake", mistakes), ("hit", hits)) if not number]
    text = ", then ".join(shown) + "".join(f"; no {noun}" for noun in missing)
    return f"{training:,} training image{'' if training == 1 else 's'}. {text[:1].upper()}{text[1:]}."
