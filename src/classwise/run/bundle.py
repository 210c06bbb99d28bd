"""The files of a run that are enough to predict with it, without anything of its data or of this machine.

    config.toml            without the places of data, caches and starting weights
    status.json            how training ended, the model, the number of rows of each label, versions of packages
    metrics.json           without warnings, which may name files
    labels.json            the label list of every target that has one
    checkpoints/best/      the weights and what decodes their outputs; not the optimizer's state
    code/                  the run's own code, if it has any

Not in it: split.csv, predictions.csv, outputs.safetensors, the report and its images, the log. A folder with these
files is opened by `Run.open`, and its checkpoint verified, as any other run's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.files import json_text, make_folder
from classwise.own_parts.run_code import FOLDER as CODE
from classwise.run.checkpoint import FILES, read_checkpoint, with_weights
from classwise.run.folder import RunFolder
from classwise.run.own_code import portable
from classwise.run.resume_config import fixed_toml

BUNDLED = (
    "config.toml",
    "status.json",
    "metrics.json",
    "labels.json",
    *(f"checkpoints/best/{name}" for name in (*FILES, "manifest.json")),
)
"""The names of the files; with code of its own, those of code/ as well."""
ELSEWHERE = {"source": "data", "images": ".", "cache": "auto"}
"""What [data] says in place of the paths of this machine."""
KEPT_STATUS = ("state", "epoch", "update", "best", "model", "environment")
ENDED = ("finished", "early_stopped")
"""States whose `reason` is kept; that of a run that has failed may name a file."""
KEPT_DATA = ("rows", "train", "valid", "test", "labels", "joint", "values", "queries", "masked")
LEFT_OUT_METRICS = ("warnings", "skipped", "unseen")


def bundle(folder: RunFolder) -> dict[str, bytes]:
    """The files by their names in the run directory. Raises CheckpointError for a run that has none of them, or damaged
    ones."""
    config = without_places(load_config(folder.config))
    checkpoint = read_checkpoint(folder.checkpoints / "best")
    metadata = checkpoint.metadata | {"config": fixed_toml(config), "data": ""}
    targets = metadata["targets"]
    texts: dict[str, Any] = {
        "status.json": _shared_status(folder.status(), config),
        "metrics.json": _shared_metrics(folder.metrics()),
        "labels.json": {target["name"]: target["labels"] for target in targets if target.get("labels")},
    }
    files = {"config.toml": portable(config).to_toml().encode()}
    files |= {name: json_text(value).encode() for name, value in texts.items()}
    for name, data in with_weights(checkpoint, checkpoint.model, metadata).items():
        files[f"checkpoints/best/{name}"] = data
    code = folder.path / CODE
    if code.is_dir():
        names = ["manifest.json", *json.loads((code / "manifest.json").read_text(encoding="utf-8"))["files"]]
        files |= {f"{CODE}/{name}": (code / name).read_bytes() for name in names}
    return files


def without_places(config: Config) -> Config:
    """The config without paths of this machine, but for those of the run's own code, which `portable` shortens."""
    data: dict[str, Any] = dict(ELSEWHERE)
    if config.data.cache == "off":
        data["cache"] = "off"
    for key in ("valid", "test"):
        if isinstance(getattr(config.data, key), str):
            data[key] = f"{key}.csv"
    model = config.model
    if Path(model.weights).is_absolute():
        model = model.model_copy(update={"weights": "starting-weights.safetensors"})
    return config.model_copy(update={"data": config.data.model_copy(update=data), "model": model})


def write_bundle(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files below `folder`, which is made."""
    for name, content in files.items():
        path = folder / name
        make_folder(path.parent)
        path.write_bytes(content)


def _shared_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json without names of files, of the test rows as well."""
    shared = {key: value for key, value in metrics.items() if key not in LEFT_OUT_METRICS}
    if isinstance(shared.get("test"), Mapping):
        shared["test"] = _shared_metrics(shared["test"])
    return shared


def _shared_status(status: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """status.json without names of files."""
    shared = {key: status[key] for key in KEPT_STATUS if key in status}
    if status.get("state") in ENDED:
        shared["reason"] = status.get("reason", "")
    if "model" in shared:
        shared["model"] = {**shared["model"], "weights": config.model.weights}
    data = status.get("data") or {}
    return shared | {"data": {key: data[key] for key in KEPT_DATA if key in data}}
