"""One run while it trains: its parts, its checkpoints, its signals, and how it ends."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from classwise.compose.baselines import run_baselines
from classwise.compose.checks import single_image_batch_error
from classwise.compose.splits import DatasetSplits, data_digest
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.distributed import Processes
from classwise.errors import CheckpointError, ClasswiseError, Interrupted
from classwise.files import write_text
from classwise.model.classifier import Classifier
from classwise.model.heads import Head, head_as_dict
from classwise.report.page import write_report
from classwise.run.assembly import Parts
from classwise.run.checkpoint import (
    RunCheckpointer,
    fingerprint,
    read_checkpoint,
)
from classwise.run.folder import RunFolder, split_table
from classwise.run.messages import epoch_line, say_unbeaten
from classwise.run.predictor import Predictor
from classwise.run.resume_config import kept_toml
from classwise.run.status import ending_text, status_frame, status_now
from classwise.signals import StopFlag
from classwise.training import loop
from classwise.training.oom import retry_in_smaller_chunks
from classwise.training.state import TrainState
from classwise.version import __version__


def score_baselines(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: dict[str, Head],
    device: torch.device,
    console: Console,
) -> dict[str, Any] | None:
    """Computed once, before anything is learnt; a resumed run has them in its status.json."""
    if not config.report.baselines:
        return None
    console.line("scoring two baselines on the same split ...")
    baselines = run_baselines(config, splits, model, heads, device)
    for note in baselines.notes:
        console.line(f"note: {note}")
    console.line(str(baselines))
    return baselines.as_dict()


def run_checkpointer(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    parts: Parts,
    baselines: dict[str, Any] | None = None,
    measured: Sequence[dict[str, Any]] = (),
) -> RunCheckpointer:
    """Keeps checkpoints, and after each brings history and status to where the checkpoint is."""
    metadata = {
        "classwise": __version__,
        "model": parts.state.model.metadata.as_dict(),
        "targets": [target.as_dict() for target in splits.targets],
        "heads": {name: head_as_dict(head) for name, head in parts.heads.items()},
        "joint": list(splits.joint),
        "precision": config.training.precision,
        "memory_format": config.training.memory_format,
        "micro_batches_per_update": parts.data.micro_batches_per_update,
        "config": kept_toml(config),
        "data": data_digest(splits),
    }
    processes = parts.settings.processes
    made_on = fingerprint(str(parts.settings.device), processes.world_size)
    environment = {"classwise": __version__, **made_on}
    status = status_frame(folder, config, splits, parts.state.model, baselines, measured, environment)

    started, before = time.monotonic(), float(status["seconds"])

    def after(state: TrainState) -> None:
        folder.write_history(state.progress.history)
        seconds = round(before + time.monotonic() - started, 1)
        folder.write_status(status_now(status | {"seconds": seconds}, state, "running", "", parts.settings))

    t = config.training
    seconds = 60 * t.checkpoint_minutes if t.checkpoint_minutes else None
    return RunCheckpointer(
        folder.checkpoints, metadata, made_on, after, t.checkpoint_updates, seconds, processes
    )


def write_beginning(folder: RunFolder, config: Config, splits: DatasetSplits, console: Console) -> None:
    """What stands in a run's directory from the start."""
    console.log_to(folder.log)
    write_text(folder.config, config.to_toml())
    folder.write_split(split_table(splits))


def stop_between_updates(stop: StopFlag, processes: Processes) -> None:
    """All processes or none: one that a signal ends now would leave the others without it."""
    with stop.holding():
        processes.any(False)
        stop.wait_for_updates()


def run_to_the_end(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    parts: Parts,
    checkpointer: RunCheckpointer,
    console: Console,
    stop: StopFlag,
) -> None:
    """The loop, and whatever happens in it said in status.json, by the first process."""
    is_main_process = parts.settings.processes.is_main_process

    def watch(updates: Iterable[list[Batch]], epoch: int, skipped: int) -> Iterable[list[Batch]]:
        title = f"epoch {epoch + 1}/{parts.settings.epochs}"
        return console.bar(updates, title, total=parts.data.updates_per_epoch, done=skipped)

    def say(row: dict[str, Any], best: bool) -> None:
        console.line(epoch_line(row, parts.settings, best))

    started = time.monotonic()
    before = _seconds_before(folder) if is_main_process else 0.0

    def ended_status(state: str, reason: str) -> dict[str, Any]:
        status = folder.status() | {"seconds": round(before + time.monotonic() - started, 1)}
        return status_now(status, parts.state, state, reason, parts.settings)

    def end(state: str, reason: str) -> None:
        if is_main_process:
            folder.write_status(ended_status(state, reason))

    p = parts
    try:
        with contextlib.closing(p.data.loader), contextlib.closing(p.valid.loader):
            ended = retry_in_smaller_chunks(
                lambda: loop.train(
                    state=p.state,
                    data=p.data,
                    valid=p.valid,
                    metrics=p.metrics,
                    settings=p.settings,
                    checkpointer=checkpointer,
                    should_stop=stop.is_set,
                    watch=watch,
                    report=say,
                ),
                p.state,
                p.data,
            )
        if not is_main_process:
            return
        _write_results(folder, config, splits, stop.is_set)
    except (Interrupted, KeyboardInterrupt) as stopped:
        reason = _reason_of(stopped)
        end("interrupted", reason)
        if is_main_process:
            _report_anyway(folder, console)
        interrupted = Interrupted(f"{reason}; go on with: classwise resume {folder.path}")
        interrupted.reported_by_rank_zero = not is_main_process
        raise interrupted from None
    except BaseException as error:
        with contextlib.suppress(OSError, CheckpointError):
            end("failed", f"{type(error).__name__}: {error}")
            if is_main_process:
                _report_anyway(folder, console)
        if clearer_error := single_image_batch_error(error, config):
            raise clearer_error from error
        raise
    # The status comes last: a run that says it is finished has all its files.
    status = ended_status(ended, ending_text(ended, parts.settings))
    write_report(folder.path, status)
    folder.write_status(status)
    best = parts.state.progress
    first = parts.settings.first_epoch
    since = f" (of those from epoch {first} on)" if first > 1 else ""
    console.line(
        f"{ended.replace('_', ' ')}: best {parts.settings.metric} {best.best:.4f} in epoch {best.best_epoch}{since}\n"
        f"report: {folder.report}"
    )
    say_unbeaten(folder, best.best or 0.0, parts.settings.higher_is_better, console)


def _reason_of(stopped: BaseException) -> str:
    """A second signal raises KeyboardInterrupt, which says nothing of checkpoints."""
    if isinstance(stopped, Interrupted):
        return str(stopped)
    return "stopped at once; the checkpoint from before is kept"


def _write_results(
    folder: RunFolder, config: Config, splits: DatasetSplits, should_stop: Callable[[], bool]
) -> None:
    """metrics.json and predictions.csv of the best checkpoint on the validation rows. Raises Interrupted."""
    checkpoint = read_checkpoint(folder.checkpoints / "best")
    predictor = Predictor.of(checkpoint)
    samples, labels = splits.valid.samples, splits.valid.labels
    outputs = predictor.outputs(samples, config, should_stop, cached=splits.valid.cached)
    metrics = predictor.score(outputs, labels, samples.groups, config)
    order = ("metric", "value", "epoch")
    metrics["epoch"] = checkpoint.epoch
    folder.write_metrics({key: metrics[key] for key in order} | metrics)
    folder.write_predictions(predictor.table(samples, outputs, labels))


def _report_anyway(folder: RunFolder, console: Console) -> None:
    """A page for a run that did not end well is a help, but its failing must not hide the real error."""
    try:
        write_report(folder.path)
    except (ClasswiseError, OSError, ValueError, KeyError) as error:
        console.line(f"warning: the report could not be written: {error}")


def _seconds_before(folder: RunFolder) -> float:
    return float(folder.status().get("seconds", 0.0))
