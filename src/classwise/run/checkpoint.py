"""Checkpoints: saved whole or not at all, and verified before any of their contents is used.

A checkpoint is a folder with `model.safetensors` (the weights), `training.safetensors` (the optimizer's
tensors), `state.json` (everything else, readable) and `manifest.json` (sizes, SHA-256, fingerprint), written
in this order, each file flushed to disk. It is staged under a hidden name and renamed in one step; its
predecessor is moved aside before and deleted after, so that at every moment at least one complete checkpoint
is on disk. A flipped bit, which neither torch nor safetensors would notice, fails the manifest's hash. No
pickle is read or written.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import CheckpointError
from classwise.files import json_text, make_folder, sha256, sync_folder
from classwise.model.classifier import Classifier, ModelMetadata, restore_classifier
from classwise.run.own_code import located_name
from classwise.run.tensor_tree import flatten, unflatten
from classwise.training.state import Progress, TrainState

SCHEMA = 3
# Schema 2 holds the same values under other names.
READABLE_SCHEMAS = (2, SCHEMA)
RENAMED_METADATA = {"window": "micro_batches_per_update"}
RENAMED_PROGRESS = {
    "window": "update_in_epoch",
    "waited": "epochs_without_improvement",
    "micro_batch": "chunk_size",
}
# Other versions of these may decode, resize or normalize images differently, or build another model.
IMAGE_AND_MODEL_PACKAGES = ("timm", "torchvision", "opencv-python-headless", "simplejpeg", "pillow")
FILES = ("model.safetensors", "training.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified. `state` is state.json; `fingerprint` says where it was made (see
    the function of that name); `model` and `training` are the tensors of the two safetensors files."""

    folder: Path
    state: dict[str, Any]
    fingerprint: dict[str, Any]
    model: dict[str, Tensor]
    training: dict[str, Tensor]

    @property
    def update(self) -> int:
        """The number of updates done."""
        return int(self.state["progress"]["update"])

    @property
    def epoch(self) -> int:
        """The number of whole epochs done."""
        return int(self.state["progress"]["epoch"])

    @property
    def metadata(self) -> dict[str, Any]:
        """What inference needs besides the weights: model, targets, heads, precision."""
        metadata: dict[str, Any] = self.state["metadata"]
        return metadata


@dataclass
class RunCheckpointer:
    """Saves the checkpoints `last` and `best` of a run in `folder`.

    `metadata` is written into every state.json. `after` is called with the state once the files are on disk.
    `every_updates`, `every_seconds`: how often to save within an epoch (default: not at all). `best_name`: what the
    best epoch is saved as (see run/stages.py).
    """

    folder: Path
    metadata: dict[str, Any]
    fingerprint: dict[str, Any]
    after: Callable[[TrainState], None] = lambda state: None
    every_updates: int | None = None
    every_seconds: float | None = None
    best_name: str = "best"
    processes: Processes = SINGLE_PROCESS
    _saved: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))

    def should_save(self, progress: Progress) -> bool:
        """Whether as many updates or seconds as configured have passed since the last save."""
        update, seconds = self._saved
        late = self.every_seconds is not None and time.monotonic() - seconds >= self.every_seconds
        return late or (self.every_updates is not None and progress.update - update >= self.every_updates)

    def save(self, state: TrainState, best: bool) -> None:
        """Write `last`, and `best` too if this epoch is the best so far. Rank 0 writes, since all processes hold the
        same state. Raises CheckpointError if the disk is full or not writable; the previous checkpoint is then intact.
        """
        names = (self.best_name, "last") if best else ("last",)
        self.processes.from_rank_zero(lambda: self._write(state, names))
        self._saved = state.progress.update, time.monotonic()

    def save_first(self, state: TrainState) -> None:
        """Write the first answer as `first`, as `best` and as `last`, which the fine-tuning starts from."""
        self.processes.from_rank_zero(lambda: self._write(state, ("first", "best", "last")))
        self._saved = state.progress.update, time.monotonic()

    def _write(self, state: TrainState, names: Sequence[str]) -> None:
        files = _serialize(state, self.metadata, self.fingerprint)
        for name in names:
            write_checkpoint(self.folder, name, files)
        self.after(state)


def fingerprint(device: str, world_size: int = 1) -> dict[str, Any]:
    """What the bytes of a run depend on besides config and data. With an equal one, a resumed run ends in the same
    bytes as an uninterrupted run; with another, the last digits may differ."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **{name: importlib.metadata.version(name) for name in IMAGE_AND_MODEL_PACKAGES},
        "machine": f"{sys.platform} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def write_checkpoint(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """Replace the checkpoint folder/name by `files` in one step; the module's docstring says in which order. Raises
    CheckpointError."""
    current = folder / name
    staging = folder / f".staging-{name}"
    previous = folder / f".previous-{name}"
    try:
        # All bytes are on disk before anything takes the checkpoint's name.
        make_folder(folder)
        _remove(staging)
        staging.mkdir()
        for file, data in files.items():
            _write_flushed(staging / file, data)
        sync_folder(staging)

        # A folder cannot be renamed over another one, so the predecessor makes room first.
        if current.exists():
            _remove(previous)
            current.replace(previous)
        staging.replace(current)
        sync_folder(folder)
        _remove(previous)
    except OSError as error:
        # If it was the second rename that failed, the predecessor gets its name back.
        with contextlib.suppress(OSError):
            if not current.exists() and previous.exists():
                previous.replace(current)
        _remove(staging)
        if current.exists():
            _remove(previous)
        intact = "; the previous one is intact" if current.exists() else ""
        raise CheckpointError(
            f"{current}: the checkpoint cannot be written: {error.strerror or error}{intact}"
        ) from error


def copy_checkpoint(folder: Path, source: str, name: str) -> None:
    """Replace the checkpoint folder/name by a copy of folder/source, in one step. Raises CheckpointError."""
    original = read_checkpoint(folder / source).folder
    write_checkpoint(
        folder, name, {file: (original / file).read_bytes() for file in (*FILES, "manifest.json")}
    )


def _remove(folder: Path) -> None:
    """Delete a folder, the manifest first: what a kill in between leaves then reads as an unfinished checkpoint, not as
    a damaged one. Errors are ignored, since the next save tries again."""
    if (folder / "manifest.json").exists():
        with contextlib.suppress(OSError):
            (folder / "manifest.json").unlink()
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises CheckpointError, which says what is wrong with it.

    A kill between the two renames of `write_checkpoint` leaves no folder of that name: the new checkpoint or its
    predecessor is then read under its hidden name.
    """
    if not folder.exists():
        for hidden in (f".staging-{folder.name}", f".previous-{folder.name}"):
            with contextlib.suppress(CheckpointError):
                return _read_whole(folder.with_name(hidden))
    return _read_whole(folder)


def _read_whole(folder: Path) -> Checkpoint:
    """The checkpoint in exactly this folder. Raises CheckpointError."""
    # Every byte is verified before it is parsed.
    manifest = _read_manifest(folder)
    data = {}
    for name in FILES:
        listed = manifest["files"].get(name)
        listed = listed if isinstance(listed, dict) else {}
        try:
            data[name] = (folder / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{folder / name} cannot be read: {error.strerror}") from None
        if (
            len(data[name]) != listed.get("size")
            or isinstance(listed["size"], bool)
            or sha256(data[name]) != listed.get("sha256")
        ):
            raise CheckpointError(f"{folder / name} is damaged: it does not match the manifest")

    # The hashes match, so whatever is wrong from here on was written by another program.
    try:
        state = _checked_state(_with_current_names(json.loads(data["state.json"]), manifest["schema"]))
        tensors = [load(data[name]) for name in FILES[:2]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is not a checkpoint of classwise: {error}") from None
    return Checkpoint(folder, state, manifest["fingerprint"], *tensors)


def _with_current_names(state: Any, schema: int) -> Any:
    """state.json with the current schema's names. Raises KeyError, TypeError, AttributeError if it is malformed."""
    if schema == SCHEMA:
        return state
    metadata, progress = state.pop("facts"), state["progress"]
    state["metadata"] = {RENAMED_METADATA.get(key, key): value for key, value in metadata.items()}
    state["progress"] = {RENAMED_PROGRESS.get(key, key): value for key, value in progress.items()}
    return state


def _checked_state(state: Any) -> dict[str, Any]:
    """state.json, with those parts checked that are needed before `restore`. Raises ValueError, TypeError, KeyError."""
    for key in ("metadata", "progress", "training"):
        if not isinstance(state[key], dict):
            raise TypeError(f"{key} in state.json is not an object")
    Progress.from_dict(state["progress"])
    checked: dict[str, Any] = state
    return checked


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The usable checkpoint with the most updates; calls `warn` with a message for each unusable one.

    Raises CheckpointError if there is none: a run never silently starts afresh.
    """
    # A kill between the two renames leaves complete checkpoints under the names `.staging-*` and `.previous-*`.
    kinds = ("last", "best", "finetuned", "first")
    names = [name for kind in kinds for name in (kind, f".staging-{kind}", f".previous-{kind}")]
    usable = []
    problems = []
    for name in names:
        if (folder / name).is_dir():
            try:
                usable.append(read_checkpoint(folder / name))
            except CheckpointError as error:
                # A staged one without a manifest was being written when the run was killed: nothing is lost.
                if (folder / name / "manifest.json").exists() or not name.startswith("."):
                    problems.append(str(error))

    if not usable:
        reason = "; ".join(problems) or "none has been written"
        raise CheckpointError(f"{folder}: there is no usable checkpoint ({reason})")
    newest = max(usable, key=lambda checkpoint: checkpoint.update)
    for problem in problems:
        warn(f"{problem}; going on from {newest.folder.name} (update {newest.update})")
    return newest


@contextlib.contextmanager
def reading(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn errors of the block into CheckpointErrors: the checkpoint's hashes match, but its contents were written by
    another version of classwise, or by another program."""
    try:
        yield
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        MemoryError,
    ) as error:
        what = f"{type(error).__name__}: {error!s:.300}"
        raise CheckpointError(f"{checkpoint.folder} cannot be used: {what}") from error


def restored_model(checkpoint: Checkpoint) -> Classifier:
    """The model of a checkpoint, with its weights. Raises CheckpointError, ModelError."""
    with reading(checkpoint):
        metadata = ModelMetadata.from_dict(checkpoint.metadata["model"])
        run = checkpoint.folder.parent.parent
        metadata = dataclasses.replace(metadata, backbone=located_name(metadata.backbone, run))
        for number, (name, outputs) in enumerate(metadata.heads.items()):
            # Checked before the model is built, since a forged number could ask for all memory there is.
            rows = checkpoint.model[f"heads.{number}.weight"].shape[0]
            if rows != outputs:
                raise ValueError(f"the head of {name!r} has {rows} outputs, not {outputs!r:.50}")
        if not all(8 <= side <= 4096 for side in metadata.image_size):
            raise ValueError(f"images of {list(metadata.image_size)!r:.50}")
        if not 1 <= metadata.channels <= 64:
            raise ValueError(f"images of {metadata.channels!r:.50} channels")
        return restore_classifier(metadata, checkpoint.model)


def weights_digest(model: nn.Module) -> str:
    """A hash over all weights and buffers that a checkpoint would hold."""
    return sha256(save(_plain(model.state_dict())))


def read_on_rank_zero(processes: Processes, read: Callable[[], Checkpoint]) -> Checkpoint:
    """Call `read` in rank 0, and return its checkpoint in all processes: only that machine needs the run directory.
    Raises in all processes what `read` raises."""
    if processes.world_size == 1:
        return read()
    checkpoint = processes.on_all_ranks(lambda: read() if processes.is_main_process else None)

    # The others have nothing to send.
    text = model = training = None
    if checkpoint is not None:
        text = json_text(
            [str(checkpoint.folder.resolve()), checkpoint.state, checkpoint.fingerprint]
        ).encode()
        model = save(checkpoint.model)
        training = save(checkpoint.training)
    folder, state, made_on = json.loads(processes.broadcast(text))
    return Checkpoint(
        folder=Path(folder),
        state=state,
        fingerprint=made_on,
        model=load(processes.broadcast(model)),
        training=load(processes.broadcast(training)),
    )


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a freshly built state. Raises CheckpointError if it does not fit."""
    try:
        training = unflatten(checkpoint.state["training"], checkpoint.training)
        # With averaging, model.safetensors holds the average; the weights that are trained are in `training`.
        averaged = training["average"]
        state.average.load_state_dict(averaged and {**averaged, "model": checkpoint.model})
        state.model.load_state_dict(training["model"] or checkpoint.model)
        state.criterion.load_state_dict(training["criterion"], strict=False)
        state.optimizer.load_state_dict(training["optimizer"])
        _lay_out_as_parameters(state.optimizer)
        state.schedule.load_state_dict(training["schedule"])
        state.scaler.load_state_dict(training["scaler"])
        state.outcomes.load_state_dict(training.get("outcomes", {}))  # earlier versions recorded none
        state.progress = Progress.from_dict(checkpoint.state["progress"])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{checkpoint.folder} belongs to another configuration: {error}") from error


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give moments the memory layout of their parameter (mostly channels_last). Files hold them contiguous, and a fused
    step, which walks both through memory, would pair each weight with another one's moment."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def with_metadata(checkpoint: Checkpoint, metadata: dict[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint that is on disk, with other metadata."""
    files = {name: (checkpoint.folder / name).read_bytes() for name in FILES[:2]}
    text = {"schema": SCHEMA, **checkpoint.state, "metadata": metadata}
    return _signed(files | {"state.json": json_text(text).encode()}, checkpoint.fingerprint)


def with_weights(
    checkpoint: Checkpoint, weights: dict[str, Tensor], metadata: dict[str, Any]
) -> dict[str, bytes]:
    """The files of a checkpoint of a model that no update has made, in the form of `checkpoint`: nothing to train it on
    with."""
    progress = Progress(first_answer=None).as_dict()
    text = {"schema": SCHEMA, "metadata": metadata, "progress": progress, "training": {}}
    files = {
        "model.safetensors": save(_plain(weights)),
        "training.safetensors": save({}),
        "state.json": json_text(text).encode(),
    }
    return _signed(files, checkpoint.fingerprint)


def _serialize(state: TrainState, metadata: dict[str, Any], made_on: dict[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint by name, the manifest last."""
    # The average is what inference uses; without averaging it is the model itself, which is saved once.
    training = {
        "model": {} if state.average.model is state.model else state.model.state_dict(),
        "average": {key: value for key, value in state.average.state_dict().items() if key != "model"},
        "criterion": {name: p.detach() for name, p in state.criterion.named_parameters()},
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "scaler": state.scaler.state_dict(),
        "outcomes": state.outcomes.state_dict(),
    }
    tensors: dict[str, Tensor] = {}
    tree = flatten(training, "", tensors)
    text = {"schema": SCHEMA, "metadata": metadata, "progress": state.progress.as_dict(), "training": tree}
    files = {
        "model.safetensors": save(_plain(state.average.model.state_dict())),
        "training.safetensors": save(_plain(tensors)),
        "state.json": json_text(text).encode(),
    }

    return _signed(files, made_on)


def _signed(files: dict[str, bytes], made_on: dict[str, Any]) -> dict[str, bytes]:
    """The files with their manifest, which hashes them and itself, last."""
    manifest = {
        "schema": SCHEMA,
        "files": {name: {"size": len(data), "sha256": sha256(data)} for name, data in files.items()},
        "fingerprint": made_on,
    }
    signed = manifest | {"sha256": sha256(json_text(manifest).encode())}
    return files | {"manifest.json": json_text(signed).encode()}


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the host, contiguous, each with memory of its own, as safetensors requires."""
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}


def _read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json without its own hash, which has been verified. Raises CheckpointError."""
    path = folder / "manifest.json"
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        claimed = manifest.pop("sha256")
        if json_text(manifest | {"sha256": claimed}).encode() != data:
            raise ValueError("it has been edited")
        if sha256(json_text(manifest).encode()) != claimed:
            raise ValueError("its own hash does not match")
        if not (isinstance(manifest["files"], dict) and isinstance(manifest["fingerprint"], dict)):
            raise TypeError("files and fingerprint are not objects")
        schema = manifest["schema"]
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the checkpoint is incomplete") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if schema not in READABLE_SCHEMAS or isinstance(schema, bool):
        readable = " and ".join(map(str, READABLE_SCHEMAS))
        raise CheckpointError(
            f"{path}: schema {schema!r:.50}, but this version of classwise reads {readable}"
        )
    return dict(manifest)


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
