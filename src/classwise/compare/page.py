"""A comparison's page: one file that asks for nothing, under the same policy as a run's report.

Names of variants are hostile input: Jinja2 escapes every one of them.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

import classwise.report
from classwise.compare.chart import chart_file, panels
from classwise.compare.result import Comparison, Result, run_table, summary_table, values_of
from classwise.compare.text import (
    HEADER,
    columns_to_show,
    digits_for,
    direction,
    reading,
    score_name,
    shown,
    table,
)
from classwise.data.table import write_table
from classwise.files import write_text
from classwise.report.names import number_text


def write_results(comparison: Comparison) -> None:
    """compare.csv, summary.csv, compare.svg and compare.html."""
    write_table(run_table(comparison.results), comparison.path / "compare.csv")
    write_table(summary_table(comparison.summary), comparison.path / "summary.csv")
    values = values_of(comparison.results)
    drawn = panels(comparison.summary, values, comparison.metric, comparison.higher_is_better)
    name = comparison.path.resolve().name
    write_text(
        comparison.path / "compare.svg", chart_file(drawn, f"{shown(name)}: {score_name(comparison.metric)}")
    )
    rows = table(comparison.summary, digits_for(comparison.summary, comparison.metric))
    facts = {
        "name": shown(name),
        "metric": score_name(comparison.metric),
        "direction": direction(comparison.higher_is_better),
        "variants": len(values),
        "seeds": len({result.seed for result in comparison.results}),
        "done": sum(result.done for result in comparison.results),
        "total": len(comparison.results),
        "warnings": comparison.warnings,
        "panels": drawn,
        "header": HEADER,
        "columns": columns_to_show(rows),
        "rows": rows,
        "reading": reading(comparison.summary, comparison.higher_is_better),
        "runs": [_run_cells(result) for result in comparison.results],
    }
    write_text(comparison.path / "compare.html", _template().render(**facts))


def _run_cells(result: Result) -> dict[str, Any]:
    value = "" if result.value is None else number_text(result.metric, result.value)
    seconds = "" if result.seconds is None else f"{result.seconds:,.1f}"
    return {
        "variant": shown(result.variant),
        "seed": result.seed,
        "value": value,
        "epoch": result.epoch,
        "seconds": seconds,
        "state": result.state.replace("_", " "),
        "message": result.message,
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(classwise.report.__path__[0])]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html.j2")
