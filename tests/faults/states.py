"""A small state in training, and checkpoints of it as bytes."""

import dataclasses
import shutil
from pathlib import Path

import torch

from classwise.run import checkpoint as checkpoints
from classwise.run.checkpoint import FILES, Checkpoint, RunCheckpointer
from classwise.training import loop
from classwise.training.state import TrainState
from tests.helpers.tiny_runs import SETTINGS, convolutional, state_of, training

FACTS = {"classwise": "test", "micro_batches_per_update": 1}
MADE_ON = {"torch": "x", "threads": 1}
NAMES = (*FILES, "manifest.json")


def trained(updates: int) -> TrainState:
    """A state after so many updates (up to four), with a norm's statistics and moments."""
    data = training(8, 2)
    state = state_of(convolutional(), data, "adamw", decay=0.9)
    if updates:
        windows = (window for number, window in enumerate(data.updates(0)) if number < updates)
        loop.train_one_epoch(state, windows, data, dataclasses.replace(SETTINGS, clip_norm=1.0))
    return state


def files_of(updates: int) -> dict[str, bytes]:
    """The files of a checkpoint after so many updates."""
    return checkpoints._serialize(trained(updates), FACTS, MADE_ON)


def checkpointer(folder: Path) -> RunCheckpointer:
    """One that writes below `folder`."""
    return RunCheckpointer(folder, FACTS, MADE_ON)


def put(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A whole checkpoint, written plainly."""
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for file, data in files.items():
        (place / file).write_bytes(data)
    return place


def same_as(found: Checkpoint, files: dict[str, bytes]) -> bool:
    """Whether a checkpoint that has been read holds the numbers of those files."""
    from safetensors.torch import load

    pairs = [
        (found.model, load(files["model.safetensors"])),
        (found.training, load(files["training.safetensors"])),
    ]
    return all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        for ours, theirs in pairs
    )
