"""What a run does for those who watch it: its sign of life, the live page, its trackers, a sheet of augmented images.

None of them can end a run, or change a bit of what it computes: whatever fails is said, and training goes on. Rank 0
alone has any.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from classwise.compose.augmented import augmented_images
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.console import Console
from classwise.files import write_json
from classwise.run.assembly import Parts
from classwise.run.folder import RunFolder
from classwise.run.heartbeat import signs_of_life
from classwise.run.live_report import LiveReport
from classwise.run.status import progress_now
from classwise.run.tracked import tracked
from classwise.signals import StopFlag
from classwise.tracking.trackers import NoTrackers, Trackers


@dataclass(frozen=True)
class Extras:
    """Those of one run. `should_stop`: whether the run has to stop; asking is its sign of life as well."""

    should_stop: Callable[[], bool]
    live: LiveReport
    trackers: Trackers | NoTrackers

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch, a line of history.jsonl, whose checkpoint is saved."""
        self.live.write()
        self.trackers.report(row)


@contextlib.contextmanager
def extras_of(
    folder: RunFolder, config: Config, parts: Parts, console: Console, stop: StopFlag
) -> Iterator[Extras]:
    """The extras of a run within the block; at its end status.json has to say how the run ended."""
    is_main_process = parts.settings.processes.is_main_process
    live_epochs = parts.settings.epochs if config.report.live and is_main_process else 0
    with contextlib.ExitStack() as stack:
        trackers = stack.enter_context(tracked(folder, config, parts, console))
        should_stop: Callable[[], bool] = stop.is_set
        if is_main_process:
            beats = signs_of_life(folder.path, lambda: progress_now(parts), should_stop)
            should_stop = stack.enter_context(beats)
        yield Extras(should_stop, LiveReport(folder, live_epochs, console), trackers)


def write_augmented(
    folder: RunFolder, config: Config, splits: DatasetSplits, parts: Parts, console: Console
) -> None:
    """Write augmented.json, once for a run, if it changes its images."""
    if folder.augmented.exists():
        return
    try:
        sheets = augmented_images(config, splits, parts.data)
        if sheets is not None:
            write_json(folder.augmented, sheets)
    except Exception as error:  # whatever is wrong with the sheet, the run is worth more
        console.line(f"warning: the report has no augmented images: {type(error).__name__}: {error}")
