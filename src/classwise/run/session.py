"""One run while it trains: its baselines, checkpoints and signals, and what it writes at its start and its end."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from classwise.compose.augmented import augmented_images
from classwise.compose.baselines import run_baselines
from classwise.compose.checks import single_image_batch_error
from classwise.compose.first_answer import wants_first_answer
from classwise.compose.remembered import baselines_key, keep_baselines, recall_baselines
from classwise.compose.splits import DatasetSplits, data_digest
from classwise.config.own_parts import digests_in
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.data.memory import memory_of
from classwise.distributed import Processes
from classwise.errors import CheckpointError, ClasswiseError, Interrupted
from classwise.files import write_json, write_text
from classwise.model.classifier import Classifier
from classwise.model.heads import Head, head_as_dict
from classwise.own_parts.run_code import trust_option
from classwise.report.page import write_report
from classwise.run.assembly import Parts
from classwise.run.checkpoint import RunCheckpointer, fingerprint
from classwise.run.explained_rows import write_heat_maps
from classwise.run.folder import RunFolder, split_table
from classwise.run.heartbeat import Heartbeat
from classwise.run.live_report import LiveReport
from classwise.run.messages import epoch_line, say_batch_norm, say_end
from classwise.run.own_code import admitted_in, portable, portable_name
from classwise.run.resume_config import fixed_toml
from classwise.run.stages import (
    chosen_answer,
    complete_first_answer,
    headline,
    make_first_answer,
    scored,
)
from classwise.run.status import ending_text, progress_now, status_frame, status_now
from classwise.run.tracked import tracked
from classwise.signals import StopFlag
from classwise.tracking.trackers import NoTrackers, Trackers
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
    """The entry `baselines` of status.json, None if the config wants none. Scored once, before anything is fine-tuned,
    if they are not remembered; a resumed run keeps the entry."""
    if not config.report.baselines or not len(splits.valid.samples):
        return None
    memory = memory_of(config.data.cache)
    key = baselines_key(config, splits, model, heads, device)
    baselines = recall_baselines(memory, key)
    origin = "remembered, as nothing has changed: " if baselines else ""
    if baselines is None:
        console.line("scoring two baselines on the same split ...")
        baselines = run_baselines(config, splits, model, heads=heads, device=device)
        keep_baselines(memory, key, baselines)
    for note in baselines.notes:
        console.line(f"note: {note}")
    console.line(f"{origin}{baselines}")
    return baselines.as_dict()


def run_checkpointer(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    parts: Parts,
    baselines: dict[str, Any] | None = None,
    measured: Sequence[dict[str, Any]] = (),
    kept_heads: Sequence[str] = (),
) -> RunCheckpointer:
    """Saves the run's checkpoints, and after each brings history.jsonl and status.json up to date with it. `measured`:
    what was measured to replace `auto`, for status.json; `kept_heads`: the targets whose heads are those of the run
    that it starts from."""
    processes = parts.settings.processes
    machine = fingerprint(str(parts.settings.device), processes.world_size)
    status = status_frame(
        folder,
        config=config,
        splits=splits,
        model=parts.state.model,
        baselines=baselines,
        measured=measured,
        kept_heads=kept_heads,
        environment={"classwise": __version__, **machine},
    )

    # A resumed run counts on from the seconds that it has taken before.
    started = time.monotonic()
    seconds_before = float(status["seconds"])

    def update_files(state: TrainState) -> None:
        folder.write_history(state.progress.history)
        with contextlib.suppress(CheckpointError):  # they may have been scored since
            status["baselines"] = folder.status()["baselines"]
        status["seconds"] = round(seconds_before + time.monotonic() - started, 1)
        folder.write_status(status_now(status, state, parts.settings, name="running", reason=""))

    minutes = config.training.checkpoint_minutes
    return RunCheckpointer(
        folder=folder.checkpoints,
        metadata=_metadata(config, splits, parts),
        fingerprint=machine,
        after=update_files,
        every_updates=config.training.checkpoint_updates,
        every_seconds=60 * minutes if minutes else None,
        best_name="finetuned" if config.plan == "probe_then_finetune" else "best",
        processes=processes,
    )


def _metadata(config: Config, splits: DatasetSplits, parts: Parts) -> dict[str, Any]:
    """What every checkpoint of the run says besides its numbers: all that inference and a resume need to know."""
    metadata = {
        "classwise": __version__,
        "model": parts.state.model.metadata.as_dict() | {"backbone": portable_name(config.model.backbone)},
        "targets": [target.as_dict() for target in splits.targets],
        "heads": {name: head_as_dict(head) for name, head in parts.heads.items()},
        "joint": list(splits.joint),
        "precision": config.training.precision,
        "memory_format": config.training.memory_format,
        "micro_batches_per_update": parts.data.micro_batches_per_update,
        "config": fixed_toml(config),
        "data": data_digest(splits),
    }
    code = digests_in(config)
    return metadata | ({"code": code} if code else {})


def write_beginning(folder: RunFolder, config: Config, splits: DatasetSplits, console: Console) -> None:
    """The files that a run has from its start: log.txt, config.toml (without any `auto`) and split.csv."""
    console.log_to(folder.log)
    write_text(folder.config, portable(config).to_toml())
    folder.write_split(split_table(splits))


def stop_between_updates(stop: StopFlag, processes: Processes) -> None:
    """From now on a signal stops the run after the update that is under way, no longer at once."""
    # All processes change over together: one that a signal ended before would leave the others waiting for it.
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
    """Train until the run ends, and record in status.json how it ended; rank 0 alone writes.

    Raises Interrupted after a signal (with a checkpoint saved), and whatever training raises.
    """
    with tracked(folder, config, parts, console) as trackers:
        _train_and_write(folder, config, splits, parts, checkpointer, console, stop, trackers)


def _train_and_write(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    parts: Parts,
    checkpointer: RunCheckpointer,
    console: Console,
    stop: StopFlag,
    trackers: Trackers | NoTrackers,
) -> None:
    """`run_to_the_end`, whose numbers go to `trackers`."""
    is_main_process = parts.settings.processes.is_main_process
    ending = _EndingStatus(folder, parts)
    live = LiveReport(folder, parts.settings.epochs if config.report.live and is_main_process else 0, console)
    try:
        with _signs_of_life(folder, parts, stop) as should_stop:
            if is_main_process:
                _keep_augmented(folder, config, splits, parts)
            if wants_first_answer(config):
                _begin_with_first_answer(folder, config, splits, parts, checkpointer, console, should_stop)
            live.write()
            outcome = _train(parts, checkpointer, console, should_stop, live, trackers)
            if not is_main_process:
                return
            metrics = _write_results(folder, config, splits, parts.state, should_stop, console)
    except (Interrupted, KeyboardInterrupt) as error:
        # A second signal raises KeyboardInterrupt, which brings no message.
        reason = (
            str(error)
            if isinstance(error, Interrupted)
            else "stopped at once; the previous checkpoint is intact"
        )
        if is_main_process:
            ending.write("interrupted", reason)
            _try_report(folder, console)
        trust = trust_option(list(admitted_in(config)))
        interrupted = Interrupted(f"{reason}; go on with: classwise resume {folder.path}{trust}")
        interrupted.reported_by_rank_zero = not is_main_process
        raise interrupted from None
    except BaseException as error:
        # If the disk is full, status.json cannot be written either; the first error is the one to show.
        with contextlib.suppress(OSError, CheckpointError):
            if is_main_process:
                ending.write("failed", f"{type(error).__name__}: {error}")
                _try_report(folder, console)
        if clearer_error := single_image_batch_error(error, config):
            raise clearer_error from error
        raise

    # The status comes last: a run that says it is finished has all its files.
    best = {key: metrics[key] for key in ("metric", "value", "epoch")}
    status = ending.status(outcome, ending_text(outcome, parts.settings)) | {"best": best}
    status.pop("kept", None)
    live.say_cost()
    write_report(folder.path, status)
    folder.write_status(status)
    say_end(console, folder, outcome, parts)


def _keep_augmented(folder: RunFolder, config: Config, splits: DatasetSplits, parts: Parts) -> None:
    """augmented.json, once for a run."""
    if not folder.augmented.exists():
        sheets = augmented_images(config, splits, parts.data)
        if sheets is not None:
            write_json(folder.augmented, sheets)


@contextlib.contextmanager
def _signs_of_life(folder: RunFolder, parts: Parts, stop: StopFlag) -> Iterator[Callable[[], bool]]:
    """Yields whether the run has to stop; rank 0, which is asked often, says in progress.json how far the run is."""
    if not parts.settings.processes.is_main_process:
        yield stop.is_set
        return
    heartbeat = Heartbeat(folder.path, lambda: progress_now(parts))
    try:
        yield heartbeat.beating(stop.is_set)
    finally:
        heartbeat.end()


def _begin_with_first_answer(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    parts: Parts,
    checkpointer: RunCheckpointer,
    console: Console,
    should_stop: Callable[[], bool],
) -> None:
    """The first answer, and after it what it has to beat, which can wait; whatever of both is not there yet."""
    processes = parts.settings.processes
    if parts.state.progress.first_answer is None:
        make_first_answer(folder, config, splits, parts, checkpointer, console, should_stop)
    else:
        processes.from_rank_zero(lambda: complete_first_answer(folder, config, splits, parts.state))

    def score_once() -> None:
        if folder.status().get("baselines") is None:
            baselines = score_baselines(
                config, splits, parts.state.model, parts.heads, parts.settings.device, console
            )
            folder.write_status(folder.status() | {"baselines": baselines})

    processes.from_rank_zero(score_once)


def _train(
    parts: Parts,
    checkpointer: RunCheckpointer,
    console: Console,
    should_stop: Callable[[], bool],
    live: LiveReport,
    trackers: Trackers | NoTrackers,
) -> str:
    """The loop, with a progress bar and a line for each epoch; returns `finished` or `early_stopped`."""
    settings = parts.settings

    def running_loss() -> str:
        progress = parts.state.progress
        return f"loss {progress.loss_sum / progress.samples:.4f}" if progress.samples else ""

    def watch(updates: Iterable[list[Batch]], epoch: int, first_update: int) -> Iterable[list[Batch]]:
        updates = trackers.watch(updates, parts.state, parts.data.updates_per_epoch)
        title = f"epoch {epoch + 1}/{settings.epochs}"
        return console.bar(
            updates, title, total=parts.data.updates_per_epoch, done=first_update, note=running_loss
        )

    def report(row: dict[str, Any], best: bool) -> None:
        console.line(epoch_line(row, settings, best, parts.heads))
        live.write()
        trackers.report(row)

    def report_chunks(size: int) -> None:
        console.line(f"memory ran out: from now on {size} images at once")
        say_batch_norm(console, parts)

    def train() -> str:
        return loop.train(
            state=parts.state,
            data=parts.data,
            valid=parts.valid,
            metrics=parts.metrics,
            settings=settings,
            checkpointer=checkpointer,
            should_stop=should_stop,
            watch=watch,
            report=report,
        )

    # Workers ignore signals, so the loaders have to be closed whatever ends the loop.
    with contextlib.closing(parts.data.loader), contextlib.closing(parts.valid.loader):
        return retry_in_smaller_chunks(train, parts.state, parts.data, report_chunks)


class _EndingStatus:
    """status.json of a run that has ended. Made when training begins, since it counts the seconds."""

    def __init__(self, folder: RunFolder, parts: Parts) -> None:
        self._folder = folder
        self._parts = parts
        self._started = time.monotonic()
        # Other processes may not see the folder, and write nothing.
        is_main_process = parts.settings.processes.is_main_process
        self._seconds_before = float(folder.status().get("seconds", 0.0)) if is_main_process else 0.0

    def status(self, name: str, reason: str) -> dict[str, Any]:
        """The contents of status.json as of now. `name`: finished, early_stopped, interrupted or failed."""
        seconds = round(self._seconds_before + time.monotonic() - self._started, 1)
        frame = self._folder.status() | {"seconds": seconds}
        return status_now(frame, self._parts.state, self._parts.settings, name=name, reason=reason)

    def write(self, name: str, reason: str) -> None:
        """Replace status.json."""
        self._folder.write_status(self.status(name, reason))


def _write_results(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    state: TrainState,
    should_stop: Callable[[], bool],
    console: Console,
) -> dict[str, Any]:
    """Write metrics.json, predictions.csv, explanations.json and, with test rows, predictions-test.csv of the best
    checkpoint; returns the metrics. Raises Interrupted."""
    answer = chosen_answer(folder, config, splits, state, should_stop)
    predictor, metrics = answer.predictor, answer.metrics
    valid = splits.valid
    if len(valid.samples):
        folder.write_predictions(predictor.table(valid.samples, answer.outputs, valid.labels))
        write_heat_maps(folder, predictor, config, splits, answer.outputs, console)

    # The test rows are scored here only: nothing was chosen by them.
    kept = {"valid": answer.outputs}
    if (test := splits.test) is not None:
        outputs = predictor.outputs(test.samples, config, should_stop=should_stop, cached=test.cached)
        folder.write_predictions(predictor.table(test.samples, outputs, test.labels), "test")
        metrics["test"] = scored(predictor, outputs, test, splits, config)
        kept["test"] = outputs
    if config.fold is not None and predictor.tta == "none":  # for what is made of all folds
        folder.write_outputs(kept)
    metrics = headline(metrics) | metrics
    folder.write_metrics(metrics)
    return metrics


def _try_report(folder: RunFolder, console: Console) -> None:
    """Write the report of a run that did not end well; if that fails as well, the first error is the one to show."""
    try:
        write_report(folder.path)
    except (ClasswiseError, OSError, ValueError, KeyError) as error:
        console.line(f"warning: the report could not be written: {error}")
