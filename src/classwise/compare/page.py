"""A comparison's page: one self-contained file, under the same security policy as a run's report.

Names of variants are untrusted input: Jinja2 escapes every one of them.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from classwise.compare import text
from classwise.compare.chart import chart_file, panels
from classwise.compare.result import Comparison, Result, run_table, summary_table, values_of
from classwise.data.table import write_table
from classwise.files import write_text
from classwise.report.environment import page_environment
from classwise.report.names import number_text


def write_results(comparison: Comparison) -> None:
    """Write compare.csv, summary.csv, compare.svg and compare.html into the comparison's folder."""
    folder = comparison.path
    write_table(run_table(comparison.results), folder / "compare.csv")
    write_table(summary_table(comparison), folder / "summary.csv")

    # The page and the SVG file show the same panels.
    values = values_of(comparison.results)
    drawn = panels(
        comparison.summary,
        values=values,
        metric=comparison.metric,
        higher=comparison.higher_is_better,
    )
    name = text.shown(folder.resolve().name)
    metric = text.score_name(comparison.metric)
    write_text(folder / "compare.svg", chart_file(drawn, f"{name}: {metric}"))

    digits = text.digits_for(comparison.summary, comparison.metric)
    rows = text.table(comparison.summary, digits)
    page = _template().render(
        name=name,
        metric=metric,
        direction=text.direction(comparison.higher_is_better),
        variants=len(values),
        seeds=len({result.seed for result in comparison.results}),
        done=sum(result.done for result in comparison.results),
        total=len(comparison.results),
        warnings=comparison.warnings,
        panels=drawn,
        header=text.HEADER,
        columns=text.columns_to_show(rows),
        rows=rows,
        scored=comparison.scored,
        power=text.power_text(comparison.summary, digits),
        reading=text.reading(comparison.summary, comparison.higher_is_better, comparison.margin),
        runs=[_run_cells(result) for result in comparison.results],
        with_selected=any(result.selected is not None for result in comparison.results),
    )
    write_text(folder / "compare.html", page)


def _run_cells(result: Result) -> dict[str, Any]:
    value, selected = (
        "" if score is None else number_text(result.metric, score)
        for score in (result.value, result.selected)
    )
    seconds = "" if result.seconds is None else f"{result.seconds:,.1f}"
    return {
        "variant": text.shown(result.variant),
        "seed": result.seed,
        "value": value,
        "selected": selected,
        "epoch": result.epoch,
        "seconds": seconds,
        "state": result.state.replace("_", " "),
        "message": result.message,
    }


@cache
def _template() -> Template:
    environment = page_environment(Path(__file__).parent)
    return environment.get_template("comparison.html.j2")
