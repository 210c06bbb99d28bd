"""A comparison that means something: every variant with the same seeds, and the differences paired by seed.

A seed decides the split, the first weights, the order and the augmentation; so two variants with the same seed share
the validation rows, and their difference is free of how easy that split was.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from classwise.compare.page import write_results
from classwise.compare.plan import PlanFile, Planned, Plans, Variant, alone, planned_runs, read_plan
from classwise.compare.result import Comparison, Result, collect, result_of
from classwise.compare.text import shown
from classwise.compare.work import Ended, in_processes, is_done, one_by_one, state_of
from classwise.console import Console
from classwise.errors import ConfigError, Interrupted
from classwise.report.names import number_text


def compare(
    config_path: str | Path,
    variants: Sequence[Variant],
    seeds: int,
    out: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    jobs: int = 1,
    quiet: bool = False,
) -> Comparison:
    """Train every variant with the seeds `seed`, `seed + 1`, ... and write what came out into `out`.

    `out` (default: compare/NAME) holds compare.csv (a line a run), summary.csv (a line a variant), compare.svg,
    compare.html, compare.json and the runs' own folders. A run that is done there is not trained again, an
    interrupted one goes on, and variants and seeds may be added. The first variant is what the others are
    measured against. `jobs`: processes that train at the same time. The runs score no baselines, which the tables
    have no use for, unless the config or `overrides` set report.baselines.

    Raises ConfigError before anything trains where a config is wrong, contradicts itself or is not what `out` was
    trained with; Interrupted after a signal. A run that fails is in the result and stops no other.
    """
    for name, number in (("seeds", seeds), ("jobs", jobs)):
        if number < 1:
            raise ConfigError(f"--{name}: found {number}, must be 1 or more")
    console = Console(quiet)
    folder, runs, warned = planned_runs(
        Path(config_path), variants, seeds, None if out is None else Path(out), tuple(overrides)
    )
    plan = read_plan(folder)
    for name, warning in warned:
        console.line(f"warning: {shown(name)}: {warning}")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        plan.add(runs)
        plan.write()
        endings = _train(plan, runs, jobs, console)
        comparison = collect(folder, runs, endings)
        write_results(comparison)
    _say_end(comparison, console)
    return comparison


def _train(plan: PlanFile, runs: Sequence[Planned], jobs: int, console: Console) -> dict[Path, Ended]:
    """Carry out what is not done yet; how each of these ended, by folder."""
    left = [run for run in runs if not is_done(run.folder)]
    _say_start(plan.path.parent, runs, left, console)
    endings: dict[Path, Ended] = {}
    number = {run.folder: index for index, run in enumerate(runs, 1)}
    plans = Plans(plan, runs, jobs, {})

    def begins(run: Planned) -> None:
        verb = "going on with" if state_of(run.folder) else "training"
        console.line(f"[{number[run.folder]}/{len(runs)}] {verb} {shown(run.variant)}, seed {run.seed}")

    work = (
        one_by_one(left, plans.settle, begins)
        if jobs == 1
        else in_processes(left, plans.settle, begins, jobs)
    )
    try:
        for run, ended in work:
            endings[run.folder] = ended
            plans.ended(run)
            said = result_of(run, ended)
            console.line(
                f"[{number[run.folder]}/{len(runs)}] {shown(run.variant)}, seed {run.seed}: {_outcome(said)}"
            )
    except KeyboardInterrupt:
        pass  # between two runs: `_say_end` finds some missing
    return endings


def _outcome(result: Result) -> str:
    if result.value is None:
        return result.state + (f": {result.message}" if result.message else "")
    value = number_text(result.metric, result.value)
    return f"{result.metric} {value} in epoch {result.epoch}, {result.seconds:.1f} s"


def _say_start(folder: Path, runs: Sequence[Planned], left: Sequence[Planned], console: Console) -> None:
    variants, seeds = (len({getattr(run, key) for run in runs}) for key in ("variant", "seed"))
    known = f", {len(runs) - len(left)} of them done already" if len(left) < len(runs) else ""
    console.line(f"{folder}: {variants} variants x {seeds} seeds = {len(runs)} runs{known}")


def _say_end(comparison: Comparison, console: Console) -> None:
    """Raises Interrupted where runs are left that did not fail."""
    done = sum(result.done for result in comparison.results)
    if done + len(comparison.failed) < len(comparison.results):
        raise Interrupted(
            f"stopped with {done} of {len(comparison.results)} runs done; go on with the same command, which"
            f" trains only what {comparison.path} does not hold yet"
        )
    for warning in comparison.warnings:
        console.line(f"warning: {warning}")
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
