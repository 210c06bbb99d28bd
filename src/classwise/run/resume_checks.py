"""What `resume` asks before it trains: has the run ended already, is the data the same, is the machine?"""

from typing import Any

from classwise.compose.splits import DatasetSplits, data_digest
from classwise.console import Console
from classwise.distributed import Processes
from classwise.errors import CheckpointError
from classwise.run.checkpoint import Checkpoint
from classwise.run.extension import refuse_edited_config
from classwise.run.folder import RunFolder, split_table
from classwise.run.lock import refuse_held


def has_ended(folder: RunFolder, processes: Processes, console: Console, epochs: int | None = None) -> bool:
    """Whether the run is complete, which is then printed; with `epochs`, whether it has trained so many. Raises
    CheckpointError if the folder holds no run, OutputError if another process is about to begin one in it, ConfigError
    if the config of a complete run was edited."""

    def status() -> dict[str, Any]:
        try:
            return folder.status()
        except CheckpointError:
            refuse_held(folder.path)
            raise

    current = processes.from_rank_zero(status)
    ended: bool = current["state"] in ("finished", "early_stopped")
    ended = ended and epochs in (None, current["epoch"])
    if ended:
        processes.from_rank_zero(lambda: refuse_edited_config(folder))
        console.line(
            f"{folder.path}: {current['state']} already, after epoch {current['epoch']}; nothing to do"
        )
    return ended


def refuse_changed_data(folder: RunFolder, splits: DatasetSplits, metadata: dict[str, Any]) -> None:
    """Raise CheckpointError unless the same rows with the same labels and images are in the same splits: otherwise
    validation would see training rows, or outputs would be read as other labels. `metadata`: the checkpoint's."""
    columns = ["id", "group", "split"]
    trained_on = folder.split().select(columns)
    current = split_table(splits).select(columns)
    difference = None
    if not trained_on.equals(current):
        difference = f"split.csv has {trained_on.height} rows, the data now {current.height}, or they differ"
    elif metadata["targets"] != [target.as_dict() for target in splits.targets]:
        difference = "its targets or their label lists differ"
    elif metadata["data"] != data_digest(splits):
        difference = "some rows have another label, order or split, or their images have other bytes"
    if difference:
        raise CheckpointError(
            f"{folder.path}: the data is not what the run was trained on: {difference}; start a new run, or bring"
            " the table and the images back to what they were"
        )


def warn_of_other_machine(checkpoint: Checkpoint, current: dict[str, Any], console: Console) -> None:
    """Warn if the `current` fingerprint (see `fingerprint`) is not the one that the checkpoint was made with."""
    changes = [
        f"{key} {checkpoint.fingerprint.get(key)} then, {value} now"
        for key, value in current.items()
        if checkpoint.fingerprint.get(key) != value
    ]
    if changes:
        console.line(
            f"warning: the checkpoint was made in another environment ({'; '.join(changes)}): the run goes on, but"
            " its numbers may differ in the last digits from those of an uninterrupted run"
        )
