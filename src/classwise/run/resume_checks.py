"""What a resume asks before it trains: has the run ended, and are data and machine what they were?"""

from typing import Any

from classwise.compose.splits import DatasetSplits, data_digest
from classwise.console import Console
from classwise.distributed import Processes
from classwise.errors import CheckpointError
from classwise.run.checkpoint import (
    Checkpoint,
)
from classwise.run.folder import RunFolder, split_table
from classwise.run.lock import refuse_held


def has_ended(folder: RunFolder, processes: Processes, console: Console) -> bool:
    """And says so. Raises CheckpointError if there is no run, OutputError if another process is about to begin one."""

    def status() -> dict[str, Any]:
        try:
            return folder.status()
        except CheckpointError:
            refuse_held(folder.path)
            raise

    found = processes.from_rank_zero(status)
    ended: bool = found["state"] in ("finished", "early_stopped")
    if ended:
        console.line(f"{folder.path}: {found['state']} already, after epoch {found['epoch']}; nothing to do")
    return ended


def refuse_changed_data(folder: RunFolder, splits: DatasetSplits, metadata: dict[str, Any]) -> None:
    """The same rows with the same labels must stand on the same sides: else validation would see what was
    trained on, or outputs would be taken for other labels."""
    then, now = folder.split(), split_table(splits)
    what = None
    if not then.select("id", "group", "split").equals(now.select("id", "group", "split")):
        what = f"split.csv has {then.height} rows, the data now {now.height}, or they differ"
    elif metadata["targets"] != [target.as_dict() for target in splits.targets]:
        what = "its targets or their label lists differ"
    elif metadata["data"] != data_digest(splits):
        what = "some rows have other labels, or their images have other bytes"
    if what:
        raise CheckpointError(
            f"{folder.path}: the data is not what the run was trained on: {what}; start a new run, or bring the"
            " table and the images back to what they were"
        )


def warn_of_other_fingerprint(checkpoint: Checkpoint, now: dict[str, Any], console: Console) -> None:
    differ = [
        f"{key} {checkpoint.fingerprint.get(key)} then, {value} now"
        for key, value in now.items()
        if checkpoint.fingerprint.get(key) != value
    ]
    if differ:
        console.line(
            "warning: this is not where the checkpoint was made (" + "; ".join(differ) + "): the run goes on,"
            " but its numbers may differ in the last digits from an uninterrupted one's"
        )
