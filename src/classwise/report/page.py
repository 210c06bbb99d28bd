"""`report.html`: one self-contained file that shows the results of a run, made from its run directory alone.

The page loads nothing and runs only the one script that its Content-Security-Policy names by its SHA-256; without it
the page is complete, but neither sorts nor enlarges. Names of classes and files are untrusted input: Jinja2 escapes
every one of them, and the script sets them as text only. The same directory gives the same bytes, so that pages can be
compared.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from classwise.data.masked import masked_text
from classwise.files import write_bytes
from classwise.report.augmented import augmented_section, unchanged_images
from classwise.report.curves import curves, frozen_epochs, pace
from classwise.report.data import SPLITS, data_section, split_rows
from classwise.report.environment import REPORT, InlineScript, inline_script, page_environment
from classwise.report.explanations import explanations
from classwise.report.folds import folds_section
from classwise.report.headline import best_of, headline
from classwise.report.kinds import MOST_CLASSES
from classwise.report.mistakes import galleries
from classwise.report.names import shorten
from classwise.report.probabilities import probabilities
from classwise.report.read import RunFiles, count, listing, mapping, number, read_run
from classwise.report.scores import all_scores, overviews, test_run
from classwise.report.svg import legend_key

LOG_LINES = 40

NO_SCORE = "No score yet: the run directory records no best epoch."
ALL_ROWS = (
    "No score: the run was trained on all rows (data.valid = 0), which leaves none to score it on. The model of the"
    " last epoch is kept."
)

STATES = {
    "finished": "Finished",
    "early_stopped": "Stopped early",
    "interrupted": "Interrupted",
    "failed": "Failed",
    "running": "Not finished",
    "killed": "Killed",
    "silent": "No sign of life",
}
STYLE_OF_STATE = {"killed": "failed", "silent": "unknown"}


def write_report(run: Path, status: Mapping[str, Any] | None = None) -> Path:
    """Write `report.html` into the run directory `run` and return its path.

    `status`: the coming content of status.json, where it is not written yet. Works for a run in any state: sections
    without data are left out, and the page says so. An earlier page is replaced in one step. Raises DataError where
    `run` is not a run directory."""
    page = render(read_run(run, status))
    path = run / "report.html"
    # A file name that is not UTF-8 is read as lone surrogates, which cannot be encoded.
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def render(run: RunFiles) -> str:
    """The page as text."""
    best = best_of(run)
    scores = all_scores(run)
    test = test_run(run)
    test_scores = all_scores(test)
    folds = folds_section(run, best)
    warnings, notes = _warnings_and_notes(run)
    return _template().render(
        name=run.name,
        state=_state(run),
        reload_seconds=count(mapping(run.status.get("live")).get("reload_seconds")),
        best=best,
        headline=headline(run, best),
        no_score=ALL_ROWS if _is_on_all_rows(run) else NO_SCORE,
        key_figures=_key_figures(run),
        warnings=warnings + run.damaged,
        notes=notes,
        check=_check_text(run),
        folds=folds,
        scored_rows="out-of-fold rows" if run.is_folds else "validation rows",
        curves=curves(run, best),
        pace=pace(run),
        frozen=frozen_epochs(run),
        discarded=_is_discarded(run),
        scores=scores,
        overviews=overviews(run, scores, best),
        test_overviews=overviews(test, test_scores, best),
        probabilities=probabilities(run),
        galleries=galleries(run),
        augmented=augmented_section(run),
        unchanged=unchanged_images(run),
        explanations=explanations(run),
        data=data_section(run),
        config=run.config_text,
        environment=_environment(run),
        timed=_timed_settings(run),
        log=run.log.splitlines()[-LOG_LINES:],
        most_classes=MOST_CLASSES,
        script=_script(),
    )


@cache
def _script() -> InlineScript:
    return inline_script(REPORT / "report.js")


@cache
def _template() -> Template:
    environment = page_environment()
    environment.filters |= {"thousands": lambda n: f"{n:,}", "percent": lambda p: f"{p:.1%}"}
    environment.globals |= {"shorten": shorten, "legend_key": legend_key}
    return environment.get_template("template.html.j2")


def _warnings_and_notes(run: RunFiles) -> tuple[list[str], list[str]]:
    """What the run has warned of; that a target has no label in some rows, which is often meant so, is but a note."""
    data = mapping(run.status.get("data"))
    masked = {
        name: sum(map(count, mapping(rows).values())) for name, rows in mapping(data.get("masked")).items()
    }
    usual = {masked_text(name, rows) for name, rows in masked.items()}
    texts = [str(text) for text in listing(data.get("warnings"))]
    return [text for text in texts if text not in usual], [text for text in texts if text in usual]


def _is_discarded(run: RunFiles) -> bool:
    """Whether the epochs are those of a fine-tuning after which the first answer was kept."""
    return mapping(run.metrics.get("plan")).get("kept") == "first_answer"


def _is_on_all_rows(run: RunFiles) -> bool:
    """Whether the run has no validation rows, by choice."""
    return mapping(run.config.get("data")).get("valid") == 0


def _check_text(run: RunFiles) -> str:
    """What `classwise check` has found in the data of the run; empty where check.html is not there."""
    severities = mapping(mapping(run.check.get("counts")).get("severity"))
    if not severities or not (run.folder / "check.html").exists():
        return ""
    return ", ".join(f"{count(number)} {name}" for name, number in severities.items())


def _state(run: RunFiles) -> dict[str, str]:
    """The run's state: its kind (a CSS class), a word for it, a note on what the page covers, and the reason."""
    kind = str(run.status.get("state") or "unknown")
    if run.is_folds:
        done = f"{count(run.status.get('done'))} of {count(run.status.get('of'))} folds are done"
        return {
            "kind": STYLE_OF_STATE.get(kind, kind) if kind in STATES else "unknown",
            "word": STATES.get(kind, "State unknown"),
            "note": "" if kind == "finished" else f"{done}.",
            "reason": str(run.status.get("reason") or "") if kind != "finished" else "",
        }
    live = mapping(run.status.get("live"))
    if kind == "running" and live:
        note = (
            f"Running, epoch {count(live.get('epoch'))} of {count(live.get('epochs'))}. Last written at"
            f" {live.get('written')}; until the run ends, the page reloads itself every"
            f" {count(live.get('reload_seconds'))} seconds."
        )
        return {"kind": kind, "word": "Running", "note": note, "reason": ""}
    epochs = _epochs(run)
    when = f"after epoch {epochs}" if epochs else "before the end of its first epoch"
    notes = {
        "finished": "",
        "early_stopped": "",
        "interrupted": f"This run was interrupted {when}; the page covers it up to that point.",
        "failed": f"This run failed {when}; the page covers it up to that point.",
        "running": f"This run had not finished when the page was written, {when}. It may still be running, or it"
        " was killed.",
        "killed": f"This run was killed {when}; the page covers it up to that point.",
        "silent": f"This run has given no sign of life since it was {when}.",
    }
    return {
        "kind": STYLE_OF_STATE.get(kind, kind) if kind in STATES else "unknown",
        "word": STATES.get(kind, "State unknown"),
        "note": notes.get(kind, "The run directory does not record how the run ended."),
        # A finished run's reason says no more than its state and its epochs.
        "reason": str(run.status.get("reason") or "") if kind != "finished" else "",
    }


def _epochs(run: RunFiles) -> int:
    """The number of complete epochs: the history has a line for each."""
    return len(run.history) or count(run.status.get("epoch"))


def _key_figures(run: RunFiles) -> list[tuple[str, str, str]]:
    """The strip below the headline: (name, value, small print), as far as they are recorded."""
    model = mapping(run.status.get("model"))
    size = " × ".join(str(side) for side in listing(model.get("image_size")))
    parameters = number(model.get("parameters"))
    figures = [
        *(_rows_of_folds(run) if run.is_folds else _rows_and_epochs(run)),
        ("Duration", duration(number(run.status.get("seconds"))), ""),
        (
            "Model",
            str(model.get("backbone") or ""),
            f"{_millions(parameters)} parameters" if parameters else "",
        ),
        ("Image size", size, "height × width in pixels" if size else ""),
    ]
    return [figure for figure in figures if figure[1]]


def _rows_and_epochs(run: RunFiles) -> list[tuple[str, str, str]]:
    """The figures that only a single run has."""
    training = mapping(run.config.get("training"))
    planned = None if training.get("plan") == "probe" else number(training.get("epochs"))
    rows = split_rows(run)
    total = max(1, sum(rows.values()))
    figures = [
        (
            f"{SPLITS[name].capitalize()} rows",
            f"{n:,}",
            "" if name == "train" else f"{n / total:.1%} of all rows",
        )
        for name, n in rows.items()
        if n
    ]
    return [*figures, ("Epochs", f"{_epochs(run)}", f"of {planned:.0f}" if planned else "")]


def _rows_of_folds(run: RunFiles) -> list[tuple[str, str, str]]:
    """The figures that only a folds directory has."""
    rows = split_rows(run)
    folds = mapping(run.config.get("folds"))
    repeats = count(folds.get("repeats"))
    return [
        ("Labeled rows", f"{rows['valid']:,}", ""),
        ("Test rows", f"{rows['test']:,}" if rows["test"] else "", ""),
        ("Folds", str(folds.get("count") or ""), f"{repeats} models each" if repeats > 1 else ""),
    ]


def _millions(value: float) -> str:
    return f"{value / 1e6:.1f} million" if value >= 1e6 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds in readable units: `41 s`, `12 min 5 s`, `3 h 20 min`; empty for None."""
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
    rows = [("started", str(started))] if started else []
    for name, value in mapping(run.status.get("environment")).items():
        rows.append((str(name).replace("_", " "), _flat(value)))
    return [(name, value) for name, value in rows if value]


def _timed_settings(run: RunFiles) -> list[tuple[str, str]]:
    """The training settings that were timed, the chosen ones first, and their milliseconds per image."""
    rows = []
    for settings in map(mapping, listing(run.status.get("measured"))):
        seconds = number(settings.get("seconds"))
        if seconds is None:
            continue
        parts = [_flat(settings.get("precision"))]
        for name in ("threads", "workers"):
            value = settings.get(name)
            parts.append(f"{_flat(value)} {name.removesuffix('s') if value == 1 else name}")
        parts.append(_flat(settings.get("memory_format")).replace("_", " "))
        if settings.get("compile") is True:
            parts.append("compiled")
        if settings.get("fused") is False:
            parts.append("optimizer not fused")
        rows.append((", ".join(parts), f"{1000 * seconds:.2f}"))
    return rows


def _flat(value: Any) -> str:
    """A JSON value in one line; empty for null."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(part) for part in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
