"""The page of `classwise explain`: each image beside its heat maps, in one file that loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from classwise.explain.explanation import Explanation
from classwise.explain.overlay import enlarged, legend_colors, overlay
from classwise.files import write_bytes
from classwise.report.environment import page_environment
from classwise.report.names import short_number, shorten
from classwise.report.thumbnails import encode

LONGEST_SIDE = 480  # pixels of an image on the page

METHODS = {
    "gradcam": "the maps of the network's layers, weighted by the gradient of the answer (Grad-CAM, place by place)",
    "attention": "the attention of all layers, weighted by the gradient of the answer",
    "occlusion": "hiding one part of the image after the other",
}
"""How each method finds what a map shows."""


@dataclass(frozen=True)
class HeatMap:
    """One map on the page: what it explains, what the model says, and what hiding the marked part does."""

    target: str
    explained: str
    answers: list[tuple[str, float, str]]
    uri: str
    notes: list[str]


@dataclass(frozen=True)
class ExplainedImage:
    """One image on the page, with the maps of all targets in question."""

    id: str
    uri: str
    maps: list[HeatMap]


def write_page(explanations: Sequence[Explanation], name: str, path: Path) -> None:
    """Write the page. `explanations`: of each image one after the other; `name`: of the run."""
    images = [_image(list(of_image)) for _, of_image in groupby(explanations, key=lambda each: each.id)]
    environment = page_environment()
    environment.globals |= {"shorten": shorten}
    page = environment.get_template("explain.html.j2").render(
        name=name,
        images=images,
        colors=legend_colors(),
        method=METHODS[explanations[0].method],
        size=" × ".join(map(str, explanations[0].image.shape[:2])),
        has_targets=len({each.target for each in explanations}) > 1,
    )
    write_bytes(path, page.encode("utf-8", errors="replace"))


def _image(explanations: list[Explanation]) -> ExplainedImage:
    first = explanations[0]
    shown_HWC = enlarged(first.image)
    return ExplainedImage(
        first.id, encode(shown_HWC, LONGEST_SIDE).uri, [_heat_map(each) for each in explanations]
    )


def _heat_map(explanation: Explanation) -> HeatMap:
    explained = explanation.label or "what makes the value larger"
    answers = [(label, p, percent(p)) for label, p in explanation.top]
    notes = []
    if explanation.is_number:
        notes.append(f"predicted: {short_number(explanation.value)}")
    elif explanation.label != explanation.predicted:
        notes.append(f"asked for; predicted is {explanation.predicted}")
    return HeatMap(
        target=explanation.target,
        explained=explained,
        answers=answers,
        uri=encode(overlay(explanation.image, explanation.heat_map), LONGEST_SIDE).uri,
        notes=[*notes, hiding_text(explanation)],
    )


def hiding_text(explanation: Explanation) -> str:
    """What hiding the marked fifth does to the answer, against a random fifth."""
    if explanation.heat_map.max() == 0:
        return "Nothing in the image speaks for this answer."
    hidden = explanation.hidden
    if explanation.is_number:
        values = [short_number(value) for value in (hidden.before, hidden.marked, hidden.random)]
        what = "value"
    else:
        values = [percent(value) for value in (hidden.before, hidden.marked, hidden.random)]
        what = "probability"
    return (
        f"With the marked fifth hidden, the {what} goes from {values[0]} to {values[1]}; with a random fifth, to"
        f" {values[2]}."
    )


def percent(share: float) -> str:
    """`93%`; near the ends with one more digit, `99.7%`."""
    return f"{share:.0%}" if 0.01 <= share <= 0.99 else f"{share:.1%}"
