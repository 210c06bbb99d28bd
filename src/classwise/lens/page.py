"""The page of one update: one self-contained file, under the same security policy as a run's report.

Ids and labels are untrusted input: Jinja2 escapes every one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from classwise.files import write_bytes
from classwise.lens import drawing
from classwise.lens.comparisons import Accumulation
from classwise.lens.sentences import (
    accumulation_text,
    clipping_text,
    exact,
    graph_text,
    modes_text,
    normalizer_text,
    notices,
    numbers_text,
    short,
)
from classwise.lens.view import MOST_ROWS, View
from classwise.report.environment import page_environment
from classwise.report.names import shorten
from classwise.report.svg import legend_key


@dataclass(frozen=True)
class LossRow:
    """A row of a head's table of losses: what it is of, and for each term what it adds to sum and normalizer; `after`:
    to the loss of the update after the step, `before` before it."""

    name: str
    truth: str
    entries: tuple[tuple[float, float], ...]
    before: float
    after: float | None


def write_page(view: View, path: Path) -> None:
    """Write the page, in one step."""
    write_bytes(path, render(view).encode("utf-8", errors="replace"))


def render(view: View) -> str:
    """The page as text."""
    recording = view.recording
    titles = {f"heads.{place}": f"head {name}" for place, name in enumerate(view.run.parts.heads)}
    graph = recording.graph
    return _template().render(
        view=view,
        recording=recording,
        figures=numbers_text(view),
        notices=notices(view),
        most_rows=MOST_ROWS,
        clipping=clipping_text(view),
        graph=None if graph is None else drawing.draw_block(graph, titles),
        graph_text=graph_text(view),
        loss_rows={head.name: _loss_rows(view, place) for place, head in enumerate(view.reduction.heads)},
        normalizer_text=normalizer_text,
        rate_chart=drawing.rate_chart(view.rates, _now(view)),
        histogram=_histogram,
        accumulation_text=accumulation_text(view),
        pairs=_pairs(view.comparisons.accumulation),
        modes_text=modes_text(view),
        titles=titles,
    )


@cache
def _template() -> Template:
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {
        "thousands": lambda n: f"{n:,}",
        "percent": lambda p: f"{p:.1%}",
        "short": short,
        "exact": exact,
        "shape": drawing.shape_text,
        "size": size_text,
    }
    environment.globals |= {"shorten": shorten, "legend_key": legend_key}
    return environment.get_template("step.html.j2")


def size_text(count: int) -> str:
    """Bytes in readable units."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def _now(view: View) -> tuple[float, float]:
    place = (view.recording.number - 1) / view.updates_per_epoch
    return next((x, y) for x, y in view.rates if x == place)


def _histogram(parameter: Any) -> Markup:
    edge = short(parameter.edge)
    return drawing.histogram(parameter.counts, f"gradient of {parameter.name}, from −{edge} to {edge}")


def _loss_rows(view: View, place: int) -> list[LossRow]:
    """The rows of one head, up to MOST_ROWS; empty where its loss is no sum over rows."""
    head = view.reduction.heads[place]
    after = None if view.reduction_after is None else view.reduction_after.heads[place]
    if not head.terms:
        return []
    truths: Sequence[str] = [dict(row.truths)[head.name] for row in view.rows]
    names: Sequence[str] = [row.id for row in view.rows]
    if head.by == "query":
        names, truths = head.names, [""] * len(head.names)
    return [
        LossRow(
            name=names[row],
            truth=truths[row],
            entries=tuple((term.rows[row], term.shares[row]) for term in head.terms),
            before=head.row_loss(row) or 0.0,
            after=None if after is None else after.row_loss(row),
        )
        for row in range(min(len(names), MOST_ROWS))
    ]


def _pairs(accumulation: Accumulation | None) -> list[Markup]:
    """Two charts: two micro-batches, and the mean of two means, each against one batch."""
    if accumulation is None or accumulation.whole is None:
        return []
    two, means = accumulation.two_points, accumulation.means_points
    return [
        drawing.pairs_chart(two, "Gradient of two micro-batches against that of one batch", "one batch"),
        drawing.pairs_chart(means, "Mean of two mean gradients against that of one batch", "one batch"),
    ]
