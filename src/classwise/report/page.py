"""`report.html`: one file that says what a run learnt, from what its directory holds and nothing else.

The page asks for nothing from outside, runs no script and forbids both to itself (Content-Security-Policy).
Names of classes and files are hostile input: Jinja2 escapes every one of them. The same directory gives the
same bytes, so a page can be compared with the one before.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from classwise.files import write_bytes
from classwise.report.curves import curves, frozen_epochs, pace
from classwise.report.data import data_section, split_rows
from classwise.report.headline import best_of, headline
from classwise.report.mistakes import galleries
from classwise.report.names import shorten
from classwise.report.read import RunFiles, count, listing, mapping, number, read_run
from classwise.report.scores import MOST_CLASSES, all_scores, overviews
from classwise.report.svg import legend_key

LOG_LINES = 40

STATES = {
    "finished": "Finished",
    "early_stopped": "Stopped early",
    "interrupted": "Interrupted",
    "failed": "Failed",
    "running": "Not finished",
}


def write_report(run: Path, status: Mapping[str, Any] | None = None) -> Path:
    """Writes `report.html` into the run directory `run` and returns its path. `status`: what status.json is about
    to say, where it does not say it yet.

    Works for a run in any state: what is not there yet is left out, and the page says so. The page replaces an
    earlier one in one step. Raises DataError where `run` is no run directory."""
    page = render(read_run(run, status))
    target = run / "report.html"
    # A file name that is no UTF-8 reads as lone surrogates, which no page can hold.
    write_bytes(target, page.encode("utf-8", errors="replace"))
    return target


def render(run: RunFiles) -> str:
    """The page as text."""
    best, scores = best_of(run), all_scores(run)
    return _template().render(
        name=run.name,
        state=_state(run),
        best=best,
        headline=headline(run, best),
        facts=_facts(run),
        warnings=[str(text) for text in listing(mapping(run.status.get("data")).get("warnings"))]
        + run.damaged,
        curves=curves(run, best),
        pace=pace(run),
        frozen=frozen_epochs(run),
        scores=scores,
        overviews=overviews(run, scores, best),
        galleries=galleries(run),
        data=data_section(run),
        config=run.config_text,
        environment=_environment(run),
        measured=_measured(run),
        log=run.log.splitlines()[-LOG_LINES:],
        most_classes=MOST_CLASSES,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": lambda n: f"{n:,}", "percent": lambda p: f"{p:.1%}"}
    environment.globals |= {"shorten": shorten, "legend_key": legend_key}
    return environment.get_template("template.html.j2")


def _state(run: RunFiles) -> dict[str, str]:
    """The run's state: its kind (a style of the page), a word for it, and what the reader should know."""
    kind = str(run.status.get("state") or "unknown")
    # A finished run's reason says no more than its state and its epochs do.
    reason = str(run.status.get("reason") or "") if kind != "finished" else ""
    epochs = _epochs(run)
    upto = f"after epoch {epochs}" if epochs else "before its first epoch was complete"
    notes = {
        "finished": "",
        "early_stopped": "",
        "interrupted": f"This run was interrupted {upto}; the page describes it up to there.",
        "failed": f"This run failed {upto}; the page describes it up to there.",
        "running": f"This run had not finished when the page was written, {upto}. It may still be running, or it"
        " was stopped without a chance to say so.",
    }
    note = notes.get(kind, "The run directory does not say how the run ended.")
    word = STATES.get(kind, "State unknown")
    return {"kind": kind if kind in STATES else "unknown", "word": word, "note": note, "reason": reason}


def _epochs(run: RunFiles) -> int:
    """Complete epochs: the history has one line for each."""
    return len(run.history) or count(run.status.get("epoch"))


def _facts(run: RunFiles) -> list[tuple[str, str, str]]:
    """The strip under the headline: (name, value, smaller print), only what is known."""
    model = mapping(run.status.get("model"))
    size = " × ".join(str(side) for side in listing(model.get("image_size")))
    parameters = number(model.get("parameters"))
    planned = number(mapping(run.config.get("training")).get("epochs"))
    train, valid = split_rows(run)
    found = [
        ("Training rows", f"{train:,}" if train else "", ""),
        (
            "Validation rows",
            f"{valid:,}" if valid else "",
            f"{valid / (train + valid):.1%} of all" if valid else "",
        ),
        ("Epochs", f"{_epochs(run)}", f"of {planned:.0f}" if planned else ""),
        ("Duration", duration(number(run.status.get("seconds"))), ""),
        (
            "Model",
            str(model.get("backbone") or ""),
            f"{_millions(parameters)} parameters" if parameters else "",
        ),
        ("Image size", size, "height × width, pixels" if size else ""),
    ]
    return [fact for fact in found if fact[1]]


def _millions(value: float) -> str:
    return f"{value / 1e6:.1f} million" if value >= 1e6 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `41 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _environment(run: RunFiles) -> list[tuple[str, str]]:
    started = run.status.get("started")
    found = [("started", str(started))] if started else []
    for name, value in mapping(run.status.get("environment")).items():
        found.append((str(name).replace("_", " "), _flat(value)))
    return [(name, value) for name, value in found if value]


def _measured(run: RunFiles) -> list[tuple[str, str]]:
    """The ways to train that were timed, the one that was taken first, and their milliseconds an image."""
    found = []
    for plan in (mapping(plan) for plan in listing(run.status.get("measured"))):
        seconds = number(plan.get("seconds"))
        counts = [
            f"{_flat(plan.get(name))} {name[:-1] if plan.get(name) == 1 else name}"
            for name in ("threads", "workers")
        ]
        parts = [_flat(plan.get("precision")), *counts, _flat(plan.get("memory_format")).replace("_", " ")]
        parts += ["compiled"] if plan.get("compile") is True else []
        parts += ["optimizer not fused"] if plan.get("fused") is False else []
        if seconds is not None:
            found.append((", ".join(parts), f"{1000 * seconds:.2f}"))
    return found


def _flat(value: Any) -> str:
    """A JSON value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(part) for part in value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
