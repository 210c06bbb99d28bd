"""One run from its first update to its end: what it trains, what it writes then, and how status.json says it ended."""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from classwise.compose.baselines import probes_features
from classwise.compose.checks import single_image_batch_error
from classwise.compose.first_answer import wants_first_answer
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.errors import CheckpointError, Interrupted
from classwise.own_parts.run_code import trust_option
from classwise.report.page import write_report
from classwise.run.assembly import Parts
from classwise.run.beginning import score_baselines, wants_baselines
from classwise.run.checkpoint import RunCheckpointer
from classwise.run.explained_rows import write_heat_maps
from classwise.run.extras import Extras, extras_of, write_augmented
from classwise.run.folder import RunFolder
from classwise.run.messages import epoch_line, say_batch_norm, say_end
from classwise.run.own_code import admitted_in
from classwise.run.stages import (
    chosen_answer,
    complete_first_answer,
    headline,
    make_first_answer,
    scored,
)
from classwise.run.status import ending_text, status_now
from classwise.signals import StopFlag
from classwise.training import loop
from classwise.training.oom import retry_in_smaller_chunks


@dataclass(frozen=True)
class Session:
    """What a run works with while it trains."""

    folder: RunFolder
    config: Config
    splits: DatasetSplits
    parts: Parts
    checkpointer: RunCheckpointer
    console: Console

    @property
    def is_main_process(self) -> bool:
        return self.parts.settings.processes.is_main_process


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
    session = Session(folder, config, splits, parts, checkpointer, console)
    ending = _EndingStatus(folder, parts)
    with extras_of(folder, config, parts, console, stop) as extras:
        try:
            outcome = _train(session, extras, stop)
            if session.is_main_process:
                _finish(session, extras, ending, outcome)
        except (Interrupted, KeyboardInterrupt) as error:
            raise _interrupted(session, ending, error) from None
        except BaseException as error:
            _record_failure(session, ending, error)
            if clearer_error := single_image_batch_error(error, config):
                raise clearer_error from error
            raise
        if session.is_main_process:
            say_end(console, folder, outcome, parts)


def _train(session: Session, extras: Extras, stop: StopFlag) -> str:
    """The first answer, where the plan begins with one, and the epochs; returns `finished` or `early_stopped`."""
    if session.is_main_process:
        write_augmented(
            session.folder, session.config, session.splits, parts=session.parts, console=session.console
        )
    if wants_first_answer(session.config):
        _begin_with_first_answer(session, extras.should_stop, stop)
    extras.live.write()
    return _train_epochs(session, extras, stop)


def _begin_with_first_answer(session: Session, should_stop: Callable[[], bool], stop: StopFlag) -> None:
    """The first answer, and after it what it has to beat, which can wait; whatever of both is not there yet."""
    folder, config, splits, parts = session.folder, session.config, session.splits, session.parts
    processes = parts.settings.processes
    if parts.state.progress.first_answer is None:
        make_first_answer(
            folder, config, splits, parts, session.checkpointer, session.console, should_stop=should_stop
        )
    else:
        processes.from_rank_zero(lambda: complete_first_answer(folder, config, splits, parts.state))

    _score_baselines_once(session, stop)


def _score_baselines_once(session: Session, stop: StopFlag) -> None:
    """The baselines, unless they are scored or the run wants none. Raises Interrupted if asked to stop."""
    folder, config, parts = session.folder, session.config, session.parts
    if probes_features(config) or not wants_baselines(config, session.splits):
        return  # those on features were scored on the first weights, before the first update

    def score_once() -> None:
        if folder.status().get("baselines") is None:
            baselines = score_baselines(
                folder,
                config,
                session.splits,
                parts.state.model,
                heads=parts.heads,
                device=parts.settings.device,
                console=session.console,
                should_stop=stop.is_set,  # they have signs of life of their own
            )
            folder.write_status(folder.status() | {"baselines": baselines})

    parts.settings.processes.from_rank_zero(score_once)


def _train_epochs(session: Session, extras: Extras, stop: StopFlag) -> str:
    """The loop, with a progress bar and a line for each epoch; returns `finished` or `early_stopped`. The baselines, if
    they are not scored yet, come after the first epoch, so that the first update need not wait for them."""
    parts, console = session.parts, session.console
    settings = parts.settings

    def running_loss() -> str:
        progress = parts.state.progress
        return f"loss {progress.loss_sum / progress.samples:.4f}" if progress.samples else ""

    def watch(updates: Iterable[list[Batch]], epoch: int, first_update: int) -> Iterable[list[Batch]]:
        total = parts.data.updates_per_epoch
        updates = extras.trackers.watch(updates, parts.state, total)
        title = f"epoch {epoch + 1}/{settings.epochs}"
        return console.bar(updates, title, total=total, done=first_update, note=running_loss)

    def report(row: dict[str, Any], best: bool) -> None:
        _score_baselines_once(session, stop)
        console.line(epoch_line(row, settings, best, parts.heads))
        extras.end_epoch(row)

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
            checkpointer=session.checkpointer,
            should_stop=extras.should_stop,
            watch=watch,
            report=report,
        )

    # Workers ignore signals, so the loaders have to be closed whatever ends the loop.
    with contextlib.closing(parts.data.loader), contextlib.closing(parts.valid.loader):
        outcome = retry_in_smaller_chunks(train, parts.state, parts.data, report_chunks)

    # Once more for a run that was stopped between its last epoch and its baselines: no epoch is left to report.
    _score_baselines_once(session, stop)
    return outcome


def _finish(session: Session, extras: Extras, ending: _EndingStatus, outcome: str) -> None:
    """Write what the run ends with. The status comes last: a run that says it is finished has all its files."""
    metrics = _write_results(session, extras.should_stop)
    best = {key: metrics[key] for key in ("metric", "value", "epoch")}
    status = ending.status(outcome, ending_text(outcome, session.parts.settings)) | {"best": best}
    status.pop("kept", None)
    extras.live.say_cost()
    write_report(session.folder.path, status)
    session.folder.write_status(status)


def _write_results(session: Session, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Write predictions.csv, with test rows predictions-test.csv, metrics.json and explanations.json of the best
    checkpoint; returns the metrics. Raises Interrupted."""
    folder, config, splits = session.folder, session.config, session.splits
    answer = chosen_answer(folder, config, splits, session.parts.state, should_stop)
    predictor, metrics = answer.predictor, answer.metrics
    valid = splits.valid
    if len(valid.samples):
        folder.write_predictions(predictor.table(valid.samples, answer.outputs, valid.labels))

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

    # Once all else is there: they explain it, and nothing may depend on them.
    if len(valid.samples):
        write_heat_maps(folder, predictor, config, splits, answer.outputs, session.console)
    return metrics


def _interrupted(session: Session, ending: _EndingStatus, error: BaseException) -> Interrupted:
    """Record that a signal has stopped the run; returns what to raise, which says how to go on."""
    # A second signal raises KeyboardInterrupt, which brings no message.
    reason = "stopped at once; the previous checkpoint is intact"
    if isinstance(error, Interrupted):
        reason = str(error)
    if session.is_main_process:
        ending.write("interrupted", reason)
        _try_report(session)
    trust = trust_option(list(admitted_in(session.config)))
    interrupted = Interrupted(f"{reason}; go on with: classwise resume {session.folder.path}{trust}")
    interrupted.reported_by_rank_zero = not session.is_main_process
    return interrupted


def _record_failure(session: Session, ending: _EndingStatus, error: BaseException) -> None:
    """Record that the run has failed, as far as that is possible."""
    # If the disk is full, status.json cannot be written either; the first error is the one to show.
    with contextlib.suppress(OSError, CheckpointError):
        if session.is_main_process:
            ending.write("failed", f"{type(error).__name__}: {error}")
            _try_report(session)


def _try_report(session: Session) -> None:
    """Write the report of a run that did not end well; if that fails as well, the first error is the one to show."""
    try:
        write_report(session.folder.path)
    except Exception as error:
        session.console.line(f"warning: the report could not be written: {type(error).__name__}: {error}")
