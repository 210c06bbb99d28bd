"""What came out of a comparison: every run's result, every variant's summary, and both as tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compare.plan import PlannedRun
from classwise.compare.stats import Summary, summarize
from classwise.compare.text import HEADER, columns_to_show, digits_for, shown, table
from classwise.compare.work import DONE, Outcome, is_done
from classwise.metrics.collection import higher_is_better
from classwise.metrics.text import display_width
from classwise.run.folder import RunFolder


@dataclass(frozen=True)
class Result:
    """One run. `state`: finished, early_stopped, failed, interrupted or missing; the rest is read from its metrics.json
    and status.json, and is None or empty where the run is not done."""

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
    """The whole comparison: `results` has one entry per run, `summary` one per variant."""

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
        """The header and then one row per variant, as text; empty columns are left out."""
        rows = table(self.summary, digits_for(self.summary, self.metric))
        return [[row[i] for i in columns_to_show(rows)] for row in (list(HEADER), *rows)]

    def text(self) -> str:
        """The table in plain columns: names left-aligned, numbers right-aligned."""
        rows = self.table
        widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            padding = [" " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)]
            cells = [row[0] + padding[0]]
            cells += [space + cell for cell, space in zip(row[1:], padding[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def collect(folder: Path, runs: Sequence[PlannedRun], outcomes: dict[Path, Outcome]) -> Comparison:
    """Read what every run left in its folder. `outcomes`: how those ended that were trained just now."""
    names = list(dict.fromkeys(run.variant for run in runs))
    results = [result_of(run, outcomes.get(run.folder)) for run in runs]
    results.sort(key=lambda result: (names.index(result.variant), result.seed))

    # Where no run is done, the configured metric may be an unknown one, without a direction.
    metrics = list(dict.fromkeys(result.metric for result in results if result.done))
    metric = metrics[0] if metrics else runs[0].config.selection.metric
    return Comparison(
        path=folder,
        metric=metric,
        higher_is_better=not metrics or higher_is_better(metric),
        results=tuple(results),
        summary=tuple(summarize(values_of(results))),
        warnings=tuple(_warnings(results, metrics)),
    )


def result_of(run: PlannedRun, outcome: Outcome | None) -> Result:
    """The result of one run. `outcome`: how it ended, where it was trained just now."""
    if is_done(run.folder):
        folder = RunFolder(run.folder)
        metrics = folder.metrics()
        status = folder.status()
        return Result(
            variant=run.variant,
            seed=run.seed,
            folder=run.folder,
            state=str(status["state"]),
            message="",
            metric=str(metrics["metric"]),
            value=float(metrics["value"]),
            epoch=int(metrics["epoch"]),
            seconds=float(status["seconds"]),
            scores=_scalars(metrics),
        )
    return Result(
        variant=run.variant,
        seed=run.seed,
        folder=run.folder,
        state=outcome.state if outcome else "missing",
        message=outcome.message if outcome else "",
        metric="",
        value=None,
        epoch=None,
        seconds=None,
        scores={},
    )


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
    """The score by seed, by variant; runs that are not done are left out."""
    values: dict[str, dict[int, float]] = {result.variant: {} for result in results}
    for result in results:
        if result.value is not None:
            values[result.variant][result.seed] = result.value
    return values


def _warnings(results: Sequence[Result], metrics: Sequence[str]) -> list[str]:
    """What a reader should know before relying on the numbers."""
    warnings = []
    if len({result.seed for result in results}) == 1:
        warnings.append(
            "a single seed does not show how much scores vary by chance: there are no confidence intervals and no"
            " p-values; use --seeds 5 or more"
        )
    if len(metrics) > 1:
        warnings.append(f"the runs report different metrics ({', '.join(metrics)}), which cannot be compared")
    for seed, names in _with_other_rows(results).items():
        listed = ", ".join(shown(name) for name in names)
        warnings.append(
            f"seed {seed}: {listed} validated on other rows than {shown(results[0].variant)}, so these runs are not"
            " paired by split"
        )

    failed = sum(result.state == "failed" for result in results)
    if failed:
        warnings.append(f"{failed} of {len(results)} runs failed; means and differences leave them out")
    missing = sum(not result.done for result in results) - failed
    if missing:
        warnings.append(f"{missing} of {len(results)} runs are not done yet")
    return warnings


def _with_other_rows(results: Sequence[Result]) -> dict[int, list[str]]:
    """By seed, the variants that were not validated on the rows of the first variant."""
    rows = {(r.variant, r.seed): _validation_rows(r.folder) for r in results if r.done}
    variants: dict[int, list[str]] = {}
    for (variant, seed), ids in rows.items():
        if rows.get((results[0].variant, seed), ids) != ids:
            variants.setdefault(seed, []).append(variant)
    return variants


def _validation_rows(folder: Path) -> frozenset[str]:
    split = RunFolder(folder).split()
    return frozenset(split.filter(pl.col("split") == "valid")["id"].to_list())


def run_table(results: Sequence[Result]) -> pl.DataFrame:
    """compare.csv: a line per run, and after its own columns one for every score of metrics.json."""
    attributes = ("variant", "seed", "metric", "value", "epoch", "seconds", "state", "message")
    columns: dict[str, list[Any]] = {}
    for attribute in attributes:
        name = "status" if attribute == "state" else attribute
        columns[name] = [getattr(result, attribute) for result in results]
    score_names = dict.fromkeys(name for result in results for name in result.scores)
    scores = {
        name: [result.scores.get(name) for result in results] for name in score_names if name not in columns
    }
    return pl.DataFrame({**columns, **scores}, strict=False)


def summary_table(summary: Sequence[Summary]) -> pl.DataFrame:
    """summary.csv: a line per variant, with full precision."""
    rows = []
    for row in summary:
        score = row.score
        difference = row.difference
        low, high = (score.interval if score else None) or (None, None)
        difference_low, difference_high = (difference.interval if difference else None) or (None, None)
        rows.append(
            {
                "variant": row.variant,
                "n": score.n if score else 0,
                "mean": score.mean if score else None,
                "sd": score.sd if score else None,
                "low": low,
                "high": high,
                "pairs": difference.pairs if difference else None,
                "difference": difference.mean if difference else None,
                "difference_low": difference_low,
                "difference_high": difference_high,
                "p": difference.p if difference else None,
                "p_holm": difference.p_holm if difference else None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)
