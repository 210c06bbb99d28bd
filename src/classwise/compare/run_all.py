"""A fair comparison: every variant is trained with the same seeds, and differences are paired by seed.

A seed determines the split, the initial weights, the order of the rows and the augmentation. Two variants with the same
seed share their validation rows, so the difficulty of the split cancels out of their difference.
"""

import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from classwise.compare.page import write_results
from classwise.compare.plan import Plan, PlannedRun, plan_runs
from classwise.compare.plan_file import PlanFile, lock_folder, read_plan_file
from classwise.compare.result import Comparison, Result, collect, result_of
from classwise.compare.text import digits_for, power_text, shown
from classwise.compare.tuning import SharedTuning
from classwise.compare.variants import Variant
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import ConfigError, Interrupted
from classwise.report.names import number_text
from classwise.run.parallel import in_processes, one_by_one
from classwise.run.unattended import Outcome, is_done, state_of


def compare(
    config_path: str | Path,
    variants: Sequence[Variant],
    seeds: int,
    out: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    jobs: int = 1,
    margin: float | None = None,
    quiet: bool = False,
) -> Comparison:
    """Train every variant with the seeds `seed`, `seed + 1`, ... and write the results into `out`.

    `out` (default: compare/NAME) holds compare.csv (a line per run), summary.csv (a line per variant), compare.svg,
    compare.html, compare.json and the run directories. A run that is done there is not trained again, an interrupted
    one is resumed, and variants and seeds may be added. The other variants are compared with the first one, on rows
    that chose nothing: those of data.test or, without it, see `scoring_of`. `jobs`: how many processes train at the
    same time. `margin`: smaller differences do not matter (default: 0.01; none for errors in a target's own unit).
    Baselines, for which the tables have no column, are computed only where the config or `overrides` set
    report.baselines.

    Raises ConfigError before anything is trained where a config is invalid, contradicts itself or differs from the one
    that `out` was trained with; Interrupted after a signal. A run that fails is part of the result and does not stop
    the others.
    """
    for name, number in (("seeds", seeds), ("jobs", jobs)):
        if number < 1:
            raise ConfigError(f"--{name}: found {number}, must be 1 or more")
    console = Console(quiet)
    if margin is not None and not 0 < margin < math.inf:
        raise ConfigError(f"--margin: found {margin}, must be a number above 0")
    plan = plan_runs(
        Path(config_path),
        variants=variants,
        seeds=seeds,
        out=None if out is None else Path(out),
        overrides=tuple(overrides),
    )
    file = read_plan_file(plan.folder)
    for name, warning in plan.warnings:
        console.line(f"warning: {shown(name)}: {warning}")
    console.line(f"scored: {plan.scoring.text}")

    # From here on files are written: one process at a time in this folder.
    plan.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(plan.folder):
        file.add(plan.runs, plan.scoring)
        file.write()
        outcomes = _train(file, plan, jobs=jobs, console=console)
        comparison = collect(plan, outcomes, margin)
        write_results(comparison)
    _print_end(comparison, console)
    return comparison


def _train(file: PlanFile, plan: Plan, jobs: int, console: Console) -> dict[Path, Outcome]:
    """Train the runs that are not done yet; returns how each of these ended, by folder."""
    runs = plan.runs
    to_do = [run for run in runs if not is_done(run.folder)]
    _print_start(file.path.parent, runs=runs, to_do=to_do, console=console)
    numbers = {run.folder: index for index, run in enumerate(runs, 1)}
    tuning = SharedTuning(file, runs, jobs)

    def print_run(run: PlannedRun, text: str) -> None:
        console.line(f"[{numbers[run.folder]}/{len(runs)}] {text}")

    def print_beginning(run: PlannedRun) -> None:
        verb = "resuming" if state_of(run.folder) else "training"
        print_run(run, f"{verb} {shown(run.variant)}, seed {run.seed}")

    outcomes: dict[Path, Outcome] = {}

    def work_of(run: PlannedRun) -> tuple[Path, Config] | None:
        config = tuning.resolve_auto(run)
        return None if config is None else (run.folder, config)

    if jobs == 1:
        endings = one_by_one(to_do, work_of, print_beginning)
    else:
        endings = in_processes(to_do, work_of, begins=print_beginning, jobs=jobs)
    try:
        with contextlib.closing(endings):  # an error in between stops the processes, too
            for run, outcome in endings:
                outcomes[run.folder] = outcome
                tuning.run_ended(run)
                result = result_of(run, outcome, plan.scoring.split)
                print_run(run, f"{shown(run.variant)}, seed {run.seed}: {_result_text(result)}")
    except KeyboardInterrupt:
        pass  # between two runs: `_print_end` finds that some are missing
    return outcomes


def _result_text(result: Result) -> str:
    if result.value is None:
        return result.state + (f": {result.message}" if result.message else "")
    value = number_text(result.metric, result.value)
    return f"{result.metric} {value} in epoch {result.epoch}, {result.seconds:.1f} s"


def _print_start(
    folder: Path, runs: Sequence[PlannedRun], to_do: Sequence[PlannedRun], console: Console
) -> None:
    variants = len({run.variant for run in runs})
    seeds = len({run.seed for run in runs})
    done = len(runs) - len(to_do)
    note = f", {done} of them already done" if done else ""
    console.line(f"{folder}: {variants} variants x {seeds} seeds = {len(runs)} runs{note}")


def _print_end(comparison: Comparison, console: Console) -> None:
    """Print warnings and failures. Raises Interrupted where runs are missing that did not fail."""
    done = sum(result.done for result in comparison.results)
    if done + len(comparison.failed) < len(comparison.results):
        raise Interrupted(
            f"stopped with {done} of {len(comparison.results)} runs done; the same command continues, and trains"
            f" only what is missing in {comparison.path}"
        )
    for warning in comparison.warnings:
        console.line(f"warning: {warning}")
    if power := power_text(comparison.summary, digits_for(comparison.summary, comparison.metric)):
        console.line(power)
    for result in comparison.failed:
        console.line(f"failed: {shown(result.variant)}, seed {result.seed}: {result.message}")


def print_table(comparison: Comparison) -> None:
    """The table on stdout: ruled on a terminal, plain columns elsewhere."""
    if not sys.stdout.isatty():
        print(comparison.text())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as Rich
    from rich.table import Table
    from rich.text import Text

    titles, *rows = comparison.table
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text: a name such as [red] is no markup
    Rich().print(table)
