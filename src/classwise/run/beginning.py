"""What a run has before its first update: its baselines, what saves its checkpoints, and the files of its start."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from classwise.compose.baselines import run_baselines
from classwise.compose.remembered import baselines_key, keep_baselines, recall_baselines
from classwise.compose.splits import DatasetSplits, data_digest
from classwise.config.own_parts import digests_in
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.memory import memory_of
from classwise.distributed import Processes
from classwise.errors import CheckpointError
from classwise.files import write_text
from classwise.model.classifier import Classifier
from classwise.model.heads import Head, head_as_dict
from classwise.run.assembly import Parts
from classwise.run.checkpoint import RunCheckpointer, fingerprint
from classwise.run.folder import RunFolder, split_parts
from classwise.run.heartbeat import signs_of_life
from classwise.run.own_code import portable, portable_name
from classwise.run.resume_config import fixed_toml
from classwise.run.status import status_frame, status_now
from classwise.signals import StopFlag
from classwise.training.loop import never
from classwise.training.state import TrainState
from classwise.version import __version__


def wants_baselines(config: Config, splits: DatasetSplits) -> bool:
    """Whether the run has baselines: rows to score them on, and a config that does not switch them off."""
    return config.report.baselines and len(splits.valid.samples) > 0


def score_baselines(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: dict[str, Head],
    device: torch.device,
    console: Console,
    should_stop: Callable[[], bool] = never,
) -> dict[str, Any] | None:
    """The entry `baselines` of status.json, None if the config wants none. Scored once, if they are not remembered, and
    those on features before anything is fine-tuned; a resumed run keeps the entry. Raises ImageError, and Interrupted
    if asked to stop."""
    if not wants_baselines(config, splits):
        return None
    memory = memory_of(config.data.cache)
    key = baselines_key(config, splits, model, heads, device)
    baselines = recall_baselines(memory, key)
    origin = "remembered, as nothing has changed: " if baselines else ""
    if baselines is None:
        console.line("scoring two baselines on the same split ...")
        # It may take minutes, in which nothing else is written.
        with signs_of_life(folder.path, lambda: {"doing": "scoring the baselines"}, should_stop) as asked:
            baselines = run_baselines(config, splits, model, heads=heads, device=device, should_stop=asked)
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
    folder.write_split(split_parts(splits))


def stop_between_updates(stop: StopFlag, processes: Processes) -> None:
    """From now on a signal stops the run after the update that is under way, no longer at once."""
    # All processes change over together: one that a signal ended before would leave the others waiting for it.
    with stop.holding():
        processes.any(False)
        stop.wait_for_updates()
