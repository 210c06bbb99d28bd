"""What came out of a comparison: every run's result, every variant's summary, and both as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compare.plan import Planned
from classwise.compare.stats import Summary, summarise
from classwise.compare.text import HEADER, columns_to_show, digits_for, shown, table
from classwise.compare.work import DONE, Ended, is_done
from classwise.metrics.collection import higher_is_better
from classwise.metrics.text import display_width
from classwise.run.folder import RunFolder


@dataclass(frozen=True)
class Result:
    """One run: `state` finished, early_stopped, failed, interrupted or missing; the rest from its metrics.json and
    status.json, None and empty where it is not done."""

    variant: str
    seed: int
    folder: Path
    state: str
    message: str
    metric: str
    value: float | None
    epoch: int | None
    seconds: float | None
    scores: dict[str, float]

    @property
    def done(self) -> bool:
        return self.state in DONE


@dataclass(frozen=True)
class Comparison:
    """What came out: `results` one a run, `summary` one a variant; `rows` is the table as text, below `header`."""

    path: Path
    metric: str
    higher_is_better: bool
    results: tuple[Result, ...]
    summary: tuple[Summary, ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> list[Result]:
        """The runs that failed."""
        return [result for result in self.results if result.state == "failed"]

    @property
    def table(self) -> list[list[str]]:
        """Titles and then one row a variant, as text; columns that would be empty are left out."""
        rows = table(self.summary, digits_for(self.summary, self.metric))
        return [[row[i] for i in columns_to_show(rows)] for row in (list(HEADER), *rows)]

    def text(self) -> str:
        """The table in plain columns: names to the left, numbers to the right."""
        lines = self.table
        widths = [max(map(display_width, column)) for column in zip(*lines, strict=True)]
        padded = [
            [(cell, " " * (width - display_width(cell))) for cell, width in zip(line, widths, strict=True)]
            for line in lines
        ]
        return "\n".join(
            "  ".join([first + pad, *(pad + cell for cell, pad in rest)]).rstrip()
            for (first, pad), *rest in padded
        )


def collect(folder: Path, runs: Sequence[Planned], endings: dict[Path, Ended]) -> Comparison:
    names = list(dict.fromkeys(run.variant for run in runs))
    results = sorted(
        (result_of(run, endings.get(run.folder)) for run in runs),
        key=lambda r: (names.index(r.variant), r.seed),
    )
    values = values_of(results)
    metrics = list(dict.fromkeys(result.metric for result in results if result.done))
    metric = metrics[0] if metrics else runs[0].config.selection.metric
    # Where no run is done, the metric may be one that nobody knows.
    higher = not metrics or higher_is_better(metric)
    warnings = _warnings(results, metrics)
    return Comparison(folder, metric, higher, tuple(results), tuple(summarise(values)), tuple(warnings))


def result_of(run: Planned, ended: Ended | None) -> Result:
    if is_done(run.folder):
        folder = RunFolder(run.folder)
        metrics, status = folder.metrics(), folder.status()
        return Result(
            *(run.variant, run.seed, run.folder, str(status["state"]), "", str(metrics["metric"])),
            *(float(metrics["value"]), int(metrics["epoch"]), float(status["seconds"]), _scalars(metrics)),
        )
    state, message = (ended.state, ended.message) if ended else ("missing", "")
    return Result(run.variant, run.seed, run.folder, state, message, "", None, None, None, {})


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Every single number of metrics.json, named as in `selection.metric`."""
    targets = metrics["targets"]
    parts = {name if len(targets) > 1 else "": scores for name, scores in targets.items()}
    parts |= {"joint": metrics["joint"]} if metrics.get("joint") else {}
    return {
        f"{part}.{key}".removeprefix("."): value
        for part, scores in parts.items()
        for key, value in scores.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def values_of(results: Sequence[Result]) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {result.variant: {} for result in results}
    for result in results:
        if result.value is not None:
            values[result.variant][result.seed] = result.value
    return values


def _warnings(results: Sequence[Result], metrics: Sequence[str]) -> list[str]:
    found = []
    if len({result.seed for result in results}) == 1:
        found.append(
            "one seed says nothing of chance: there is no interval and no p-value; use --seeds 5 or more"
        )
    if len(metrics) > 1:
        found.append(
            f"the runs are judged by different scores ({', '.join(metrics)}), which cannot be compared"
        )
    for seed, names in _unlike(results).items():
        listed = ", ".join(shown(name) for name in names)
        found.append(
            f"seed {seed}: {listed} validated on other rows than {shown(results[0].variant)}; the pairs share no split"
        )
    failed = sum(result.state == "failed" for result in results)
    if failed:
        found.append(f"{failed} of {len(results)} runs failed; means and differences leave them out")
    missing = sum(not result.done for result in results) - failed
    if missing:
        found.append(f"{missing} of {len(results)} runs are not done yet")
    return found


def _unlike(results: Sequence[Result]) -> dict[int, list[str]]:
    """By seed, the variants that did not validate on the first one's rows."""
    rows = {(r.variant, r.seed): _validation_rows(r.folder) for r in results if r.done}
    found: dict[int, list[str]] = {}
    for (variant, seed), ids in rows.items():
        if rows.get((results[0].variant, seed), ids) != ids:
            found.setdefault(seed, []).append(variant)
    return found


def _validation_rows(folder: Path) -> frozenset[str]:
    split = RunFolder(folder).split()
    return frozenset(split.filter(pl.col("split") == "valid")["id"].to_list())


def run_table(results: Sequence[Result]) -> pl.DataFrame:
    names = ("variant", "seed", "metric", "value", "epoch", "seconds", "state", "message")
    columns = {"status" if name == "state" else name: [getattr(r, name) for r in results] for name in names}
    scores = dict.fromkeys(name for result in results for name in result.scores)
    return pl.DataFrame(
        {**{name: [r.scores.get(name) for r in results] for name in scores}, **columns}, strict=False
    ).select(*columns, *(n for n in scores if n not in columns))


def summary_table(summary: Sequence[Summary]) -> pl.DataFrame:
    rows = []
    for row in summary:
        own, d = row.own, row.difference
        low, high = (own.interval if own else None) or (None, None)
        d_low, d_high = (d.interval if d else None) or (None, None)
        rows.append(
            {
                "variant": row.variant,
                "n": own.n if own else 0,
                "mean": own.mean if own else None,
                "sd": own.sd if own else None,
                "low": low,
                "high": high,
                "pairs": d.pairs if d else None,
                "difference": d.mean if d else None,
                "difference_low": d_low,
                "difference_high": d_high,
                "p": d.p if d else None,
                "p_holm": d.p_holm if d else None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)
