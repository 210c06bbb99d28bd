"""A run's trackers, as the training process sees them: it hands over numbers, and goes on.

What training pays is a comparison an update, and now and then an entry in a queue (benchmarks/serving/trackers.py).
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from classwise.console import Console
from classwise.tracking.channel import Channel
from classwise.tracking.confusion_image import write_confusion_images
from classwise.tracking.facts import Ending, Point, RunFacts, epoch_values, final_scores
from classwise.tracking.memory import FOLDER
from classwise.training.state import TrainState

T = TypeVar("T")
LOG = "log.txt"
POINTS_AN_EPOCH = 50  # at the most: enough for a curve, whatever an epoch takes
LEAST_UPDATES = 10  # between two points
QUIET_SECONDS = 2.0  # of waiting at the end, before somebody is told
FINISH_SECONDS = 120.0
"""For what is left at the end of a run, with the files; all of its own are written by then."""
STOP_SECONDS = 10.0  # after a signal, since what sent it may not wait long


class NoTrackers:
    """A run that nobody watches."""

    def watch(self, updates: Iterable[T], state: TrainState, updates_per_epoch: int) -> Iterable[T]:
        """The updates, as they are."""
        return updates

    def report(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, state: str, metrics: Mapping[str, Any] | None) -> None:
        """Nothing."""


class Trackers:
    """A run whose numbers go to trackers. Neither `watch` nor `report` raises, whatever goes wrong."""

    def __init__(
        self, names: Sequence[str], facts: RunFacts, history: Sequence[Mapping[str, Any]], console: Console
    ) -> None:
        """Start the process of the trackers. `history`: the epochs that are done, for trackers that missed one."""
        self._names = list(names)
        self._folder = Path(facts.folder)
        self._console = console
        self._step = facts.step
        self._done: set[str] = set()
        self._channel = Channel(names, self._folder / FOLDER / LOG)
        self._channel.send(facts)
        for row in history:
            self._send_epoch(row)

    def watch(self, updates: Iterable[T], state: TrainState, updates_per_epoch: int) -> Iterator[T]:
        """The updates of an epoch, or of the rest of one; every so many of them a point follows.

        Its loss is that of the one update, so that a resumed run has the points of one that was not interrupted. On a
        GPU it is that of the update before, whose loss is known by then: nobody waits for the device.
        """
        progress = state.progress
        interval = max(LEAST_UPDATES, -(-updates_per_epoch // POINTS_AN_EPOCH))
        next_update = (progress.update // interval + 1) * interval
        loss_sum, samples = progress.loss_sum, progress.samples
        for update in updates:
            yield update
            if progress.update >= next_update:
                # The last update of an epoch has the numbers of the whole epoch.
                is_whole = progress.update_in_epoch >= updates_per_epoch
                rows = progress.samples - samples
                if rows > 0 and not is_whole:
                    with self._spared():
                        self._send_update(state, (progress.loss_sum - loss_sum) / rows, updates_per_epoch)
                next_update += interval
            loss_sum, samples = progress.loss_sum, progress.samples

    def report(self, row: Mapping[str, Any]) -> None:
        """The numbers of an epoch, a line of history.jsonl; and what the trackers have to say."""
        with self._spared():
            self._send_epoch(row)
            self._say()

    def finish(self, state: str, metrics: Mapping[str, Any] | None) -> None:
        """Send what the run ended with and wait for the trackers, but not for long. `state`: as in status.json;
        `metrics`: metrics.json, of a run that is finished."""
        stopped = state == "interrupted"
        try:
            self._channel.send(self._ending(state, metrics))
            has_ended = self._channel.wait(QUIET_SECONDS)
            if not has_ended:
                limit = STOP_SECONDS if stopped else FINISH_SECONDS
                self._console.line(f"waiting for {', '.join(self._names)}, {limit:.0f} s at the most ...")
                has_ended = self._channel.wait(limit)
        finally:
            self._channel.close()
            self._say()
        why = "did not come to an end in time"
        if has_ended:
            why = f"its process broke off; what was printed is in {self._folder / FOLDER / LOG}"
        for name in self._names:
            if name not in self._done:
                self._warn(name, f"{why}; what it had not sent is lost")
        if self._channel.lost:
            self._warn(", ".join(self._names), f"{self._channel.lost} points were more than could wait")
        with contextlib.suppress(OSError):
            if not (log := self._folder / FOLDER / LOG).stat().st_size:
                log.unlink()

    @contextlib.contextmanager
    def _spared(self) -> Iterator[None]:
        """Says what fails within the block, once, and goes on: the run is worth more."""
        try:
            yield
        except Exception as error:
            self._warn(", ".join(self._names), f"{type(error).__name__}: {error}")

    def _send_update(self, state: TrainState, loss: float, updates_per_epoch: int) -> None:
        progress = state.progress
        values = {
            "epoch": progress.epoch + progress.update_in_epoch / updates_per_epoch,
            "train/loss": loss,
            "train/lr": state.optimizer.param_groups[-1]["lr"],
        }
        self._channel.send(Point(progress.update, time.time(), values))

    def _send_epoch(self, row: Mapping[str, Any]) -> None:
        self._step = row["update"]
        self._channel.send(Point(row["update"], time.time(), epoch_values(row), ends_epoch=True))

    def _ending(self, state: str, metrics: Mapping[str, Any] | None) -> Ending:
        """What the run ended with, as far as it is there."""
        files = [self._folder / name for name in ("report.html", "metrics.json")]
        ending = Ending(state, self._step, time.time(), files=[str(path) for path in files if path.exists()])
        if not ending.is_done or metrics is None:
            return ending
        confusion_images: dict[str, str] = {}
        with self._spared():  # the end itself has to be sent
            confusion_images = write_confusion_images(self._folder / FOLDER, metrics)
        best = self._folder / "checkpoints" / "best"
        model = [best / name for name in ("model.safetensors", "state.json", "manifest.json")]
        return Ending(
            state,
            self._step,
            ending.time,
            scores=final_scores(metrics),
            files=ending.files,
            confusion_images=confusion_images,
            model=[str(path) for path in model],
        )

    def _say(self) -> None:
        """Print what the trackers have said since the last time."""
        answers = self._channel.answers
        while answers:
            answer = answers.popleft()
            if answer.kind == "opened":
                self._console.line(f"{answer.tracker}: {answer.text}")
            elif answer.kind == "failed":
                self._warn(
                    answer.tracker,
                    f"{answer.text}. Training goes on, and it is tried again; all that was printed is in"
                    f" {self._folder / FOLDER / LOG}",
                )
            elif answer.kind == "recovered":
                self._console.line(f"{answer.tracker}: works again, and has what it had missed")
            elif answer.kind == "lost":
                self._warn(answer.tracker, answer.text)
            elif answer.kind == "done":
                self._done.add(answer.tracker)

    def _warn(self, tracker: str, text: str) -> None:
        self._console.line_once(f"warning: report.trackers: {tracker}: {text}")
