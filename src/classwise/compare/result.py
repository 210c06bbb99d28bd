"""What came out of a comparison: every run's result, every variant's summary, and both as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from classwise.compare.plan import Plan, PlannedRun
from classwise.compare.resamples import resampled_runs
from classwise.compare.scoring import Scoring
from classwise.compare.stats import Design, Runs, Summary, Values, summarize
from classwise.compare.text import HEADER, columns_to_show, digits_for, shown, table
from classwise.metrics.formatting import display_width
from classwise.metrics.names import higher_is_better, split_metric
from classwise.metrics.scores import AT_PRIOR, score_range
from classwise.report.names import IN_UNITS
from classwise.run.folder import RunFolder
from classwise.run.unattended import DONE, Outcome, is_done

# Scores are read to two decimals; a smaller difference is not worth another loss.
DEFAULT_MARGIN = 0.01


@dataclass(frozen=True)
class Result:
    """One run. `state`: finished, early_stopped, failed, interrupted or missing; the rest is read from its metrics.json
    and status.json, and is None or empty where the run is not done. `value` is the score on the scored rows; `selected`
    that on the validation rows which chose the epoch, None where these are the scored ones."""

    variant: str
    seed: int
    folder: Path
    state: str
    message: str
    metric: str
    value: float | None
    selected: float | None
    epoch: int | None
    seconds: float | None
    scores: dict[str, float]

    @property
    def done(self) -> bool:
        return self.state in DONE


@dataclass(frozen=True)
class Comparison:
    """The whole comparison: `results` has one entry per run, `summary` one per variant. `scored`: which rows the runs
    are scored on, and why; `margin`: differences below it do not matter, None where there is no such."""

    path: Path
    metric: str
    higher_is_better: bool
    scored: str
    margin: float | None
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


def collect(plan: Plan, outcomes: Mapping[Path, Outcome], margin: float | None) -> Comparison:
    """Read what every run left in its folder. `outcomes`: how those ended that were trained just now; `margin`: as
    given, None for the default of the metric."""
    runs = plan.runs
    scoring = plan.scoring
    names = list(dict.fromkeys(run.variant for run in runs))
    results = [result_of(run, outcomes.get(run.folder), scoring.split) for run in runs]
    results.sort(key=lambda result: (names.index(result.variant), result.seed))

    # Where no run is done, the configured metric may be an unknown one, without a direction.
    metrics = list(dict.fromkeys(result.metric for result in results if result.done))
    metric = metrics[0] if metrics else runs[0].config.selection.metric
    higher = not metrics or higher_is_better(metric)
    if margin is None and split_metric(metric)[1] not in IN_UNITS:
        margin = DEFAULT_MARGIN

    # Rows that are the same for all runs are resampled, for what other rows would have changed.
    done = {result.folder: result.value for result in results if result.value is not None}
    design = _design(list(done), scoring)
    resampled: Mapping[Path, Values] = {}
    is_fixed = not scoring.redrawn or len({result.seed for result in results}) == 1
    if is_fixed and len(metrics) == 1:
        resampled = resampled_runs([run for run in runs if run.folder in done], metric, done, scoring.split)
    variants = {name: _runs_of(name, results, resampled) for name in names}
    return Comparison(
        path=plan.folder,
        metric=metric,
        higher_is_better=higher,
        scored=scoring.text,
        margin=margin,
        results=tuple(results),
        summary=tuple(_within_range(row, metric) for row in summarize(variants, design, margin, higher)),
        warnings=tuple(_warnings(results, metrics, scoring, resampled if is_fixed else None)),
    )


def _within_range(row: Summary, metric: str) -> Summary:
    """The interval of the variant's mean cut to the values that the score can have: Student's t knows no limits."""
    if row.score is None or row.score.interval is None:
        return row
    name = split_metric(metric)[1].removesuffix(AT_PRIOR)
    low, high = np.clip(row.score.interval, *score_range(name)).tolist()
    return replace(row, score=replace(row.score, interval=(low, high)))


def _runs_of(variant: str, results: Sequence[Result], resampled: Mapping[Path, Values]) -> Runs:
    done = [result for result in results if result.variant == variant and result.value is not None]
    return Runs(
        scores={result.seed: result.value for result in done if result.value is not None},
        resampled={result.seed: resampled[result.folder] for result in done if result.folder in resampled},
    )


def _design(folders: Sequence[Path], scoring: Scoring) -> Design | None:
    """The numbers of rows, averaged over the runs that are done; None without any."""
    if not folders:
        return None
    # Of a run with test rows, the validation rows are drawn from the same ones, unless they are a table.
    config = next(iter(scoring.variants.values()))
    drawn = ["train", scoring.split, *(["valid"] if isinstance(config.data.valid, float) else [])]
    counts = []
    for folder in folders:
        split = RunFolder(folder).split()
        scored = split.filter(pl.col("split") == scoring.split)
        groups = RunFolder(folder).groups(scoring.split, by_image=not config.has_ranking)
        counts.append(
            [
                len(scored),
                int((split["split"] == "train").sum()),
                int(split["split"].is_in(drawn).sum()),
                len(scored) if groups is None else len(set(groups.values())),
            ]
        )
    scored_rows, trained, rows, units = np.mean(counts, axis=0).tolist()
    return Design(scored_rows, trained=trained, rows=rows, units=units, redrawn=scoring.redrawn)


def result_of(run: PlannedRun, outcome: Outcome | None, split: str) -> Result:
    """The result of one run on its `split` (test or valid). `outcome`: how it ended, where it was trained just now."""
    if is_done(run.folder):
        folder = RunFolder(run.folder)
        metrics = folder.metrics()
        status = folder.status()
        scored = metrics["test"] if split == "test" else metrics
        return Result(
            variant=run.variant,
            seed=run.seed,
            folder=run.folder,
            state=str(status["state"]),
            message="",
            metric=str(metrics["metric"]),
            value=float(scored["value"]),
            selected=float(metrics["value"]) if split == "test" else None,
            epoch=int(metrics["epoch"]),
            seconds=float(status["seconds"]),
            scores=_scalars(scored),
        )
    return Result(
        variant=run.variant,
        seed=run.seed,
        folder=run.folder,
        state=outcome.state if outcome else "missing",
        message=outcome.message if outcome else "",
        metric="",
        value=None,
        selected=None,
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


def _warnings(
    results: Sequence[Result],
    metrics: Sequence[str],
    scoring: Scoring,
    resampled: Mapping[Path, Values] | None,
) -> list[str]:
    """What a reader should know before relying on the numbers. `resampled`: None where nothing had to be."""
    warnings = []
    if len({result.seed for result in results}) == 1:
        warnings.append(
            "a single seed does not show how much scores vary from training to training: the intervals hold for these"
            " models on other rows, and there are no p-values and no verdicts; use --seeds 5 or more"
        )
    if len(metrics) > 1:
        warnings.append(f"the runs report different metrics ({', '.join(metrics)}), which cannot be compared")
    with_other_rows = _with_other_rows(results, scoring.split)
    for seed, names in with_other_rows.items():
        listed = ", ".join(shown(name) for name in names)
        warnings.append(
            f"seed {seed}: {listed} scored on other rows than {shown(results[0].variant)}, so these runs are not paired"
            " by split"
        )

    left_out = resampled is not None and any(r.done and r.folder not in resampled for r in results)
    if left_out and not with_other_rows:
        warnings.append(
            "the predictions do not suffice to resample the score, so that nothing shows how far it depends on the"
            " scored rows: there are no intervals and no p-values"
        )
    failed = sum(result.state == "failed" for result in results)
    if failed:
        warnings.append(f"{failed} of {len(results)} runs failed; means and differences leave them out")
    missing = sum(not result.done for result in results) - failed
    if missing:
        warnings.append(f"{missing} of {len(results)} runs are not done yet")
    return warnings


def _with_other_rows(results: Sequence[Result], split: str) -> dict[int, list[str]]:
    """By seed, the variants that were not scored on the rows of the first variant."""
    rows = {(r.variant, r.seed): _scored_rows(r.folder, split) for r in results if r.done}
    variants: dict[int, list[str]] = {}
    for (variant, seed), ids in rows.items():
        if rows.get((results[0].variant, seed), ids) != ids:
            variants.setdefault(seed, []).append(variant)
    return variants


def _scored_rows(folder: Path, split: str) -> frozenset[str]:
    rows = RunFolder(folder).split()
    return frozenset(rows.filter(pl.col("split") == split)["id"].to_list())


def run_table(results: Sequence[Result]) -> pl.DataFrame:
    """compare.csv: a line per run, and after its own columns one for every score on the scored rows. `valid`: the score
    on the validation rows, where these only chose the epoch."""
    attributes = ("variant", "seed", "metric", "value", "selected", "epoch", "seconds", "state", "message")
    names = {"state": "status", "selected": "valid"}
    columns: dict[str, list[Any]] = {}
    for attribute in attributes:
        columns[names.get(attribute, attribute)] = [getattr(result, attribute) for result in results]
    score_names = dict.fromkeys(name for result in results for name in result.scores)
    scores = {
        name: [result.scores.get(name) for result in results] for name in score_names if name not in columns
    }
    return pl.DataFrame({**columns, **scores}, strict=False)


def summary_table(comparison: Comparison) -> pl.DataFrame:
    """summary.csv: a line per variant, with full precision."""
    rows = []
    for row in comparison.summary:
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
                "detectable": difference.detectable if difference else None,
                "margin": comparison.margin if difference else None,
                "p_equivalent": difference.p_equivalent if difference else None,
                "p_equivalent_holm": difference.p_equivalent_holm if difference else None,
                "verdict": difference.verdict if difference else None,
                "scored": comparison.scored,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)
