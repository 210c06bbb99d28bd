"""Checkpoints: saved whole or not at all, and verified before a byte of them is used.

A checkpoint is a folder with `model.safetensors` (the weights), `training.safetensors` (the optimizer's
tensors), `state.json` (everything else, readable) and `manifest.json` (sizes, SHA-256, fingerprint), written
in this order with each file flushed to the disk. It is staged under a hidden name and takes its own name in
one step; the one before is moved aside first and deleted last, so that at every moment at least one whole
checkpoint is on the disk. A flipped bit, which neither torch nor safetensors would notice, fails the
manifest's hash. No pickle is read or written.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
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
from classwise.training.state import Progress, TrainState

SCHEMA = 3
# Schema 2 holds the same values under other names.
READABLE_SCHEMAS = (2, SCHEMA)
RENAMED_METADATA = {"window": "micro_batches_per_update"}
RENAMED_PROGRESS = {"window": "update_in_epoch", "waited": "epochs_without_improvement"}
# Other versions of these may read, change or normalise images differently, or build another model.
_DTYPES = {
    str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)
}
IMAGE_AND_MODEL_PACKAGES = ("timm", "torchvision", "opencv-python-headless", "simplejpeg", "pillow")
FILES = ("model.safetensors", "training.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified. `state` is state.json, `fingerprint` where it was made."""

    folder: Path
    state: dict[str, Any]
    fingerprint: dict[str, Any]
    model: dict[str, Tensor]
    training: dict[str, Tensor]

    @property
    def update(self) -> int:
        """How many updates it has seen."""
        return int(self.state["progress"]["update"])

    @property
    def epoch(self) -> int:
        """How many whole epochs it has seen."""
        return int(self.state["progress"]["epoch"])

    @property
    def metadata(self) -> dict[str, Any]:
        """What inference needs to know: the model, the targets, the precision."""
        metadata: dict[str, Any] = self.state["metadata"]
        return metadata


@dataclass
class RunCheckpointer:
    """Keeps `last` and `best` of a run in `folder`. `metadata` stand in every state.json; `after` is called with
    the state once both are on the disk. `every_updates`, `every_seconds`: how often within an epoch."""

    folder: Path
    metadata: dict[str, Any]
    fingerprint: dict[str, Any]
    after: Callable[[TrainState], None] = lambda state: None
    every_updates: int | None = None
    every_seconds: float | None = None
    processes: Processes = SINGLE_PROCESS
    _saved: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))

    def should_save(self, progress: Progress) -> bool:
        """Whether so many updates or seconds have passed since the last save."""
        update, seconds = self._saved
        late = self.every_seconds is not None and time.monotonic() - seconds >= self.every_seconds
        return late or (self.every_updates is not None and progress.update - update >= self.every_updates)

    def save(self, state: TrainState, best: bool) -> None:
        """Write `last`, and `best` where it is one; of several processes, which hold the same state, the first
        does. Raises CheckpointError (disk full, not writable); what was there before is then still whole."""
        self.processes.from_rank_zero(lambda: self._write(state, best))
        self._saved = state.progress.update, time.monotonic()

    def _write(self, state: TrainState, best: bool) -> None:
        files = _serialise(state, self.metadata, self.fingerprint)
        for name in ("best", "last") if best else ("last",):
            write_checkpoint(self.folder, name, files)
        self.after(state)


def fingerprint(device: str, world_size: int = 1) -> dict[str, Any]:
    """What a resume's bytes depend on: the same here, the same results; something else, slightly others."""
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
    """Put `files` at folder/name in one step; see the module's text for the order."""
    place, staging, aside = folder / name, folder / f".staging-{name}", folder / f".previous-{name}"
    try:
        make_folder(folder)
        _remove(staging)
        staging.mkdir()
        for file, data in files.items():
            _write_flushed(staging / file, data)
        sync_folder(staging)
        if place.exists():
            _remove(aside)
            place.replace(aside)
        staging.replace(place)
        sync_folder(folder)
        _remove(aside)
    except OSError as error:
        with contextlib.suppress(OSError):
            if not place.exists() and aside.exists():  # between the two renames
                aside.replace(place)
        _remove(staging)
        if place.exists():
            _remove(aside)
        kept = "; the one from before is kept" if place.exists() else ""
        raise CheckpointError(
            f"{folder / name}: the checkpoint cannot be written: {error.strerror or error}{kept}"
        ) from error


def _remove(folder: Path) -> None:
    """Delete what is no longer needed, the manifest first: what a kill in the middle leaves is then no checkpoint
    that somebody has damaged. What a failing disk keeps does no harm: the next save tries again."""
    if (folder / "manifest.json").exists():
        with contextlib.suppress(OSError):
            (folder / "manifest.json").unlink()
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises CheckpointError that says what is wrong with it.

    A kill between the two renames leaves no folder of that name, but the new one or the one before beside it.
    """
    if not folder.exists():
        for hidden in (f".staging-{folder.name}", f".previous-{folder.name}"):
            with contextlib.suppress(CheckpointError):
                return _read_whole(folder.with_name(hidden))
    return _read_whole(folder)


def _read_whole(folder: Path) -> Checkpoint:
    manifest = _read_manifest(folder)
    data = {}
    for name in FILES:
        wanted = manifest["files"].get(name)
        wanted = wanted if isinstance(wanted, dict) else {}
        try:
            data[name] = (folder / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{folder / name} cannot be read: {error.strerror}") from None
        if (
            len(data[name]) != wanted.get("size")
            or isinstance(wanted["size"], bool)
            or sha256(data[name]) != wanted.get("sha256")
        ):
            raise CheckpointError(f"{folder / name} is damaged: it is not what the manifest says")
    try:
        state = _checked_state(_with_current_names(json.loads(data["state.json"]), manifest["schema"]))
        tensors = [load(data[name]) for name in FILES[:2]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        # Whole by its hashes, and yet no checkpoint: somebody has made it so.
        raise CheckpointError(f"{folder} is no checkpoint of classwise: {error}") from None
    return Checkpoint(folder, state, manifest["fingerprint"], *tensors)


def _with_current_names(state: Any, schema: int) -> Any:
    """state.json with the names of this schema. Raises KeyError, TypeError, AttributeError for what is no state."""
    if schema == SCHEMA:
        return state
    metadata, progress = state.pop("facts"), state["progress"]
    state["metadata"] = {RENAMED_METADATA.get(key, key): value for key, value in metadata.items()}
    state["progress"] = {RENAMED_PROGRESS.get(key, key): value for key, value in progress.items()}
    return state


def _checked_state(state: Any) -> dict[str, Any]:
    """state.json as far as it is needed before `restore`. Raises ValueError, TypeError, KeyError."""
    for key in ("metadata", "progress", "training"):
        if not isinstance(state[key], dict):
            raise TypeError(f"{key} in state.json is no table")
    Progress.from_dict(state["progress"])
    found: dict[str, Any] = state
    return found


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The good checkpoint with the most updates; `warn` is told of every one that cannot be used.

    Raises CheckpointError if there is none: a run never silently starts afresh.
    """
    # A kill between the two renames leaves the names `.staging-*` and `.previous-*`, which are as good.
    names = ("last", ".staging-last", ".previous-last", "best", ".staging-best", ".previous-best")
    found, problems = [], []
    for name in names:
        if (folder / name).is_dir():
            try:
                found.append(read_checkpoint(folder / name))
            except CheckpointError as error:
                # A staged one without a manifest was being written when the run was killed: nothing is lost.
                if (folder / name / "manifest.json").exists() or not name.startswith("."):
                    problems.append(str(error))
    if not found:
        reason = "; ".join(problems) or "none has been written"
        raise CheckpointError(f"{folder}: there is no usable checkpoint ({reason})")
    newest = max(found, key=lambda checkpoint: checkpoint.update)
    for problem in problems:
        warn(f"{problem}; going on from {newest.folder.name} (update {newest.update})")
    return newest


@contextlib.contextmanager
def reading(checkpoint: Checkpoint) -> Iterator[None]:
    """What is wrong with the contents of a checkpoint that is whole becomes a CheckpointError: somebody has written
    it who is not classwise, or another version of it."""
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
        for number, (name, outputs) in enumerate(metadata.heads.items()):
            # Before it is built: a number that is not that of the weights could ask for all memory there is.
            found = checkpoint.model[f"heads.{number}.weight"].shape[0]
            if found != outputs:
                raise ValueError(f"the head of {name!r} has {found} outputs, not {outputs!r:.50}")
        if not all(8 <= side <= 4096 for side in metadata.image_size):
            raise ValueError(f"images of {list(metadata.image_size)!r:.50}")
        return restore_classifier(metadata, checkpoint.model)


def weights_digest(model: nn.Module) -> str:
    """A hash over all weights and buffers that a checkpoint keeps."""
    return sha256(save(_plain(model.state_dict())))


def read_on_rank_zero(processes: Processes, read: Callable[[], Checkpoint]) -> Checkpoint:
    """What `read` gives in the first process, in all of them: only its machine needs the run directory."""
    if processes.world_size == 1:
        return read()
    found = processes.on_all_ranks(lambda: read() if processes.is_main_process else None)
    parts = (
        ("", b"", b"")
        if found is None
        else (
            json_text([str(found.folder), found.state, found.fingerprint]),
            save(found.model),
            save(found.training),
        )
    )
    text = processes.broadcast(parts[0].encode() if found else None)
    tensors = [load(processes.broadcast(part if found else None)) for part in parts[1:]]
    folder, state, made_on = json.loads(text)
    return Checkpoint(Path(folder), state, made_on, *tensors)


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's numbers into a freshly built state. Raises CheckpointError if they do not fit."""
    try:
        training = _unflatten(checkpoint.state["training"], checkpoint.training)
        # With averaging, model.safetensors holds the average, and the weights that go on learning stand beside it.
        averaged = training["average"]
        state.average.load_state_dict(averaged and {**averaged, "model": checkpoint.model})
        state.model.load_state_dict(training["model"] or checkpoint.model)
        state.criterion.load_state_dict(training["criterion"], strict=False)
        state.optimizer.load_state_dict(training["optimizer"])
        _lay_out_as_parameters(state.optimizer)
        state.schedule.load_state_dict(training["schedule"])
        state.scaler.load_state_dict(training["scaler"])
        state.progress = Progress.from_dict(checkpoint.state["progress"])
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{checkpoint.folder} belongs to another configuration: {error}") from error


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Moments in the memory layout of their parameter (channels_last, mostly): files hold plain order, and a
    fused step that walks both through memory would pair each weight with another's moment."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _serialise(state: TrainState, metadata: dict[str, Any], made_on: dict[str, Any]) -> dict[str, bytes]:
    tensors: dict[str, Tensor] = {}
    kept = state.average.model.state_dict()
    training = {
        "model": {} if state.average.model is state.model else state.model.state_dict(),
        "average": {key: value for key, value in state.average.state_dict().items() if key != "model"},
        "criterion": {name: p.detach() for name, p in state.criterion.named_parameters()},
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "scaler": state.scaler.state_dict(),
    }
    tree = _flatten(training, "", tensors)
    text = {"schema": SCHEMA, "metadata": metadata, "progress": state.progress.as_dict(), "training": tree}
    files = {
        "model.safetensors": save(_plain(kept)),
        "training.safetensors": save(_plain(tensors)),
        "state.json": json_text(text).encode(),
    }
    manifest = {
        "schema": SCHEMA,
        "files": {name: {"size": len(data), "sha256": sha256(data)} for name, data in files.items()},
        "fingerprint": made_on,
    }
    signed = manifest | {"sha256": sha256(json_text(manifest).encode())}
    return files | {"manifest.json": json_text(signed).encode()}


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the host, in plain order, each with memory of its own, as safetensors wants them."""
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        claimed = manifest.pop("sha256")
        if json_text(manifest | {"sha256": claimed}).encode() != data:
            raise ValueError("it is not as it was written")
        if sha256(json_text(manifest).encode()) != claimed:
            raise ValueError("its own hash does not fit")
        if not (isinstance(manifest["files"], dict) and isinstance(manifest["fingerprint"], dict)):
            raise TypeError("files and fingerprint are no tables")
        schema = manifest["schema"]
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: the checkpoint is not whole") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if schema not in READABLE_SCHEMAS or isinstance(schema, bool):
        readable = " and ".join(map(str, READABLE_SCHEMAS))
        raise CheckpointError(f"{path}: schema {schema!r:.50}, but this classwise reads {readable}")
    return dict(manifest)


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON: tensors go into `tensors` and leave their key; whole-number keys and tuples are marked."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"$tensor": path}
    if isinstance(value, dict):
        inner = {
            str(key): _flatten(item, f"{path}.{key}".lstrip("."), tensors) for key, item in value.items()
        }
        return {"$numbered": inner} if any(isinstance(key, int) for key in value) else inner
    if isinstance(value, list | tuple):
        items = [_flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"the optimizer keeps a {type(value).__name__} at {path}, which cannot be saved")


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$numbered" in value:
        return {int(key): _unflatten(item, tensors) for key, item in value["$numbered"].items()}
    if "$dtype" in value:
        return _DTYPES[value["$dtype"]]
    if "$tuple" in value:
        return tuple(_unflatten(item, tensors) for item in value["$tuple"])
    return {key: _unflatten(item, tensors) for key, item in value.items()}
