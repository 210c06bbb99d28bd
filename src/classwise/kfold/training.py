"""The folds of a directory, trained one after the other, or several at a time; what is done is not done again.

One at a time they are trained in this process, so that the tables, the images and the decoded images are read once for
all, and the memory is that of one run; several at a time have a process each (folds.jobs). See
docs/decisions/0049-folds.md.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from classwise.compose.autotune import resolve_auto
from classwise.compose.contents import split_groups
from classwise.compose.dataset import ReadData, prepare, read_data
from classwise.compose.image_facts import image_warnings
from classwise.compose.settings import metric_targets, selection_metric
from classwise.compose.split_checks import split_warnings
from classwise.compose.splits import DatasetSplits
from classwise.config.folds import Folds
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.memory import memory_of
from classwise.distributed import SINGLE_PROCESS
from classwise.errors import CheckpointError, ClasswiseError, DataError, Interrupted
from classwise.files import write_text
from classwise.kfold.chosen_on import with_plan
from classwise.kfold.decisions import refuse_costs_of_other_size
from classwise.kfold.folder import KIND, LAST, SOUP, FoldsFolder
from classwise.kfold.jobs import environments, jobs_of, share_features, with_shared_cores
from classwise.kfold.last import train_last, wants_last
from classwise.kfold.out_of_fold import all_rows, fold_warnings
from classwise.kfold.plan import FoldRun, fold_runs, with_given_count
from classwise.kfold.results import write_results
from classwise.kfold.soup import make_soup, wants_soup
from classwise.metrics.text import headline_text
from classwise.report.page import write_report
from classwise.run.assembly import new_model
from classwise.run.parallel import in_processes
from classwise.run.predictor import preserve_torch_state, set_threads
from classwise.run.status import data_summary, model_summary
from classwise.run.unattended import DONE, Outcome, is_done, signal_watch, state_of, train_or_resume
from classwise.signals import stop_flag

WAITING = "waiting"
ShouldStop = Callable[[], bool]


@dataclass
class FoldsStatus:
    """How far the folds are, for status.json: the runs once they are known, why some failed (by name), the `entries`
    that do not change, and since when this process is at it."""

    folder: FoldsFolder
    entries: dict[str, Any]
    runs: list[FoldRun] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @staticmethod
    def begin(folder: FoldsFolder, config: Config) -> "FoldsStatus":
        """Of folds that are new, for which config.toml and status.json are written, or that go on."""
        now = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": 0.0}
        if not folder.is_drawn:
            write_text(folder.files.config, config.to_toml())
            FoldsStatus(folder, now).write("running", "")
        kept = folder.status()
        entries = {key: kept[key] for key in ("started", "seconds", "data", "model") if key in kept}
        return FoldsStatus(folder, now | entries, fold_runs(config) if folder.is_drawn else [])

    @property
    def done(self) -> int:
        """How many folds are done."""
        return sum(is_done(self.folder.path / run.name) for run in self.runs)

    @property
    def done_text(self) -> str:
        return f"{self.done} of {len(self.runs)} folds done"

    def write(self, state: str, reason: str) -> None:
        """Replace status.json."""
        self.folder.files.write_status(self.contents(state, reason))

    def contents(self, state: str, reason: str) -> dict[str, Any]:
        """What status.json holds as of now."""
        folds = []
        for run in self.runs:
            name = state_of(self.folder.path / run.name) or WAITING
            entry = {"folder": run.name, "fold": run.fold, "seed": run.config.seed, "state": name}
            if run.name in self.messages:
                entry |= {"state": "failed", "message": self.messages[run.name]}
            folds.append(entry)
        seconds = float(self.entries["seconds"]) + time.monotonic() - self.started
        head = {
            "state": state,
            "reason": reason,
            "kind": KIND,
            "done": self.done,
            "of": len(self.runs),
            "folds": folds,
        }
        for other in (LAST, SOUP):
            if found := state_of(self.folder.path / other):
                head[other] = found
        return head | self.entries | {"seconds": round(seconds, 1)}


def train_folds(
    folder: FoldsFolder, config: Config, console: Console, quiet: bool, is_new: bool = True
) -> None:
    """Train what is not done yet, then write the results of all folds together. `is_new`: the config is not one that
    was written into the folder.

    Raises ClasswiseError with the names of the folds that failed, once the others are done; Interrupted after a signal.
    """
    with stop_flag(), signal_watch() as signal_came, preserve_torch_state():
        console.log_to(folder.files.log)
        status = FoldsStatus.begin(folder, config)
        try:
            with contextlib.closing(read_data(config, console)) as read:
                if folder.is_drawn:
                    _refuse_other_rows(folder, config, read, console)
                else:
                    config = with_given_count(config, read.samples, is_new)
                    config = with_plan(config, len(read.samples), console)
                    config = _begin(folder, config, read, console, status)
                status.runs = fold_runs(config)
                _train_all(status, config, read, console, quiet, signal_came)
                gathered = write_results(folder, config, read, console, signal_came)
                # Whatever becomes of further models, the folds have their report.
                if wants_last(config) or wants_soup(config):
                    write_report(folder.path, status.contents("running", ""))
                make_soup(folder, config, read, gathered, console, signal_came)
                del gathered
                train_last(folder, config, read, console, quiet)
        except (Interrupted, KeyboardInterrupt):
            if not folder.is_drawn:
                raise  # there is nothing to go on with
            status.write("interrupted", "stopped by a signal")
            raise Interrupted(
                f"stopped with {status.done_text}; go on with: classwise resume {folder.path}"
            ) from None
        except BaseException as error:
            # If the disk is full, status.json cannot be written either; the first error is the one to show.
            with contextlib.suppress(OSError, CheckpointError):
                if folder.is_drawn:
                    status.write("failed", f"{type(error).__name__}: {error}")
            raise

        # The status comes last: folds that say they are finished have all their files.
        finished = status.contents("finished", f"all {len(status.runs)} folds are done")
        write_report(folder.path, finished)
        folder.files.write_status(finished)
        console.line(f"report: {folder.files.report}")


def _train_all(
    status: FoldsStatus,
    config: Config,
    read: ReadData,
    console: Console,
    quiet: bool,
    signal_came: ShouldStop,
) -> None:
    """Train what is not done yet. Raises KeyboardInterrupt after a signal; ClasswiseError if some failed, once the
    others are done."""
    path = status.folder.path
    status.write("running", "")
    waiting = [run for run in status.runs if not is_done(path / run.name)]
    jobs = min(jobs_of(config), len(waiting))
    endings = (
        _in_processes(status, waiting, jobs, config, read, console, signal_came)
        if jobs > 1
        else _one_by_one(status, waiting, read, console, quiet)
    )
    with contextlib.closing(endings):
        for run, outcome in endings:
            if outcome.state == "interrupted" or signal_came():
                raise KeyboardInterrupt
            if outcome.state == "failed":
                status.messages[run.name] = outcome.message
                console.line(f"{run.name} failed: {outcome.message}")
            status.write("running", "")
    if status.messages:
        listed = "; ".join(f"{name}: {message}" for name, message in status.messages.items())
        raise ClasswiseError(
            f"{path}: {status.done_text}, {len(status.messages)} failed: {listed}. Once the cause is gone, go on with:"
            f" classwise resume {path}"
        )


def _one_by_one(
    status: FoldsStatus, waiting: Sequence[FoldRun], read: ReadData, console: Console, quiet: bool
) -> Generator[tuple[FoldRun, Outcome]]:
    """Train in this process, and yield how each ended."""
    for run in waiting:
        path = status.folder.path / run.name
        _say_beginning(status, run, console)
        yield run, train_or_resume(path, run.config, quiet=quiet, read=read)
        gc.collect()  # models refer to themselves, and the next one would be held beside this one


def _in_processes(
    status: FoldsStatus,
    waiting: Sequence[FoldRun],
    jobs: int,
    config: Config,
    read: ReadData,
    console: Console,
    signal_came: ShouldStop,
) -> Generator[tuple[FoldRun, Outcome]]:
    """Train in `jobs` processes, and yield how each ended; what they print is in their log.txt."""
    path = status.folder.path
    console.line(f"{jobs} folds at a time, a process each: about {jobs} times the memory of one")
    share_features(waiting[0].config, read, console, signal_came)
    gc.collect()
    endings = in_processes(
        waiting,
        lambda run: (path / run.name, run.config),
        begins=lambda run: _say_beginning(status, run, console),
        jobs=jobs,
        environments=environments(config),
    )
    # An error in between has to stop the processes now, not when its traceback is let go.
    with contextlib.closing(endings):
        for run, outcome in endings:
            if outcome.state in DONE:
                metrics = status.folder.run(run.name).metrics()
                console.line(f"{run.name}: {headline_text(metrics)}")
            yield run, outcome
    if signal_came():
        raise KeyboardInterrupt


def _say_beginning(status: FoldsStatus, run: FoldRun, console: Console) -> None:
    number = status.runs.index(run) + 1
    verb = "going on with" if state_of(status.folder.path / run.name) else "training"
    console.line(
        f"[{number} of {len(status.runs)}] {verb} {run.name}: fold {run.fold} validates, the others are trained on"
    )


def _begin(
    folder: FoldsFolder, config: Config, read: ReadData, console: Console, status: FoldsStatus
) -> Config:
    """Draw the folds, say what they lack, and write config.toml without any `auto` and folds.csv; returns the config.
    Raises DataError, ConfigError."""
    splits, table = _drawn(config, read, console)
    rows = all_rows(read.samples.ids, splits)
    warnings = _warnings(config, read, rows, table)
    for warning in warnings:
        console.line(f"warning: {warning}")
    _refuse_unscored_folds(config, rows, table)
    refuse_costs_of_other_size(config, rows.label_lists)

    # What depends on the machine is decided once for all, so that the folds differ in their rows alone.
    jobs = jobs_of(config)
    first = with_shared_cores(fold_runs(config)[0].config, jobs)
    set_threads(first)
    model = new_model(first, splits, SINGLE_PROCESS).model
    resolved, _, _ = resolve_auto(first, splits, model, console, memory=memory_of(config.data.cache))
    data = resolved.data.model_copy(update={"valid": config.data.valid, "check": config.data.check})
    of_all = {
        "folds": _folds(config).model_copy(update={"jobs": jobs}),
        "data": data,
        "inference": config.inference,
        "decision": config.decision,
    }
    config = resolved.model_copy(update=of_all)

    # folds.csv comes last: whoever finds it finds all that the folds need.
    status.entries |= {
        "data": data_summary(rows) | {"warnings": warnings},
        "model": model_summary(config, model),
    }
    status.write("running", "")
    write_text(folder.files.config, config.to_toml())
    if config.data.check == "all":
        from classwise.datacheck.api import check_splits  # imports that most folds can do without

        check_splits(folder.path, config, rows, console)
    folder.write_folds(table)
    sizes = ", ".join(str((table["fold"] == str(fold)).sum()) for fold in range(_folds(config).count))
    console.line(f"{folder.path}: {table.height} rows in {_folds(config).count} folds of {sizes}")
    return config


def _folds(config: Config) -> Folds:
    assert config.folds is not None
    return config.folds


def _drawn(config: Config, read: ReadData, console: Console) -> tuple[DatasetSplits, pl.DataFrame]:
    """The data as the first fold has it, and the table of all folds (id, group, fold, as text), in the order of the
    source. Each fold is drawn as its run will draw it."""
    first: DatasetSplits | None = None
    fold_of: dict[str, str] = {}
    for run in fold_runs(config)[: _folds(config).count]:
        splits = prepare(run.config, console, read=read)
        first = first or splits
        fold_of |= dict.fromkeys(splits.valid.samples.ids, str(run.fold))
    assert first is not None
    samples = all_rows(read.samples.ids, first).train.samples
    columns = {
        "id": list(samples.ids),
        "group": [None] * len(samples) if samples.groups is None else list(samples.groups),
        "fold": [fold_of[id] for id in samples.ids],
    }
    return first, pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _warnings(config: Config, read: ReadData, rows: DatasetSplits, table: pl.DataFrame) -> list[str]:
    """Of the data as a whole, and of what single folds lack."""
    samples, labels = rows.train.samples, rows.train.labels
    fold_N = table["fold"].cast(pl.Int64).to_numpy()
    groups = split_groups(samples, labels, rows.targets) or samples.ids
    return [
        *samples.notes,
        *split_warnings(rows),
        *image_warnings(read.facts, config),
        *fold_warnings(rows.targets, labels, fold_N, groups),
    ]


def _refuse_unscored_folds(config: Config, rows: DatasetSplits, table: pl.DataFrame) -> None:
    """Raise DataError for a fold in which no row has a label of a target that the selecting metric is computed from:
    its model could not be selected, which should not be found out once the others are trained."""
    fold_N = table["fold"].cast(pl.Int64).to_numpy()
    metric = selection_metric(config)
    for name in metric_targets(metric, rows):
        labeled_N = rows.target(name).is_labeled(rows.train.labels[name])
        without = sorted(set(range(_folds(config).count)) - set(fold_N[labeled_N].tolist()))
        if without:
            raise DataError(
                f"selection.metric: found {metric!r}, but fold {without[0]} of {_folds(config).count} has no label of"
                f" {name!r}; allowed: fewer folds, or a metric of another target"
            )


def _refuse_other_rows(folder: FoldsFolder, config: Config, read: ReadData, console: Console) -> None:
    """Raise CheckpointError unless the folds that would be drawn now are those of folds.csv."""
    _, table = _drawn(config, read, console)
    before = folder.folds()
    if not before.equals(table):
        raise CheckpointError(
            f"{folder.path}: the data is not what the folds were drawn from: folds.csv has {before.height} rows, the"
            f" data now {table.height}, or they differ in group or fold; start anew, or bring the table and the images"
            " back to what they were"
        )
