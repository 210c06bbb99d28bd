"""Facts and points of made-up runs, and what trackers hold of them, read with the tools' own readers."""

import csv
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classwise.tracking.facts import Point, RunFacts

METRIC = "macro_f1"
WANDB_BLOCK = 32768


def facts_of(folder: Path, step: int = 0, name: str = "a run", group: str = "") -> RunFacts:
    """Of a run in `folder`, with a config of three keys."""
    folder.mkdir(exist_ok=True)
    config = folder / "config.toml"
    config.write_text('seed = 1\nname = "마스크"\n', encoding="utf-8")
    return RunFacts(
        folder=str(folder),
        name=name,
        group=group,
        parameters={"seed": 1, "loss.name": "focal", "report.baselines": True, "optimizer.lr": 0.001},
        files=[str(config)],
        tags={"classwise.version": "1"},
        metric=METRIC,
        step=step,
    )


def points_of(steps: Sequence[int], offset: float = 0.0) -> list[Point]:
    """The loss at some steps: a hundredth of the step, and the offset."""
    return [Point(step, 1000.0 + step, {"train/loss": step / 100 + offset}) for step in steps]


def table_of(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scalars_of(run: Path, tag: str) -> list[tuple[int, float]]:
    """Step and value of every point that TensorBoard would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"))
    reader.Reload()
    return [(point.step, point.value) for point in reader.Scalars(tag)]


def wandb_records(run: Path) -> list[Any]:
    """The records of all offline runs in RUN/wandb, in the order of time.

    A .wandb file is a log of LevelDB: a header of 7 bytes, then blocks of 32 KB with records, each with a checksum (4
    bytes), a length (2) and a type (1: whole, 2 to 4: first, middle and last part).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        data, position, parts = file.read_bytes(), 7, b""
        while position + 7 <= len(data):
            if (left := WANDB_BLOCK - position % WANDB_BLOCK) < 7:
                position += left
                continue
            _, length, kind = struct.unpack("<IHB", data[position : position + 7])
            position += 7
            parts += data[position : position + length]
            position += length
            if kind in (1, 4):
                found.append(Record.FromString(parts))
                parts = b""
    return found


def wandb_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of the history."""
    rows = [record.history for record in wandb_records(run) if record.HasField("history")]
    return [{"/".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]


def mlflow_run(name: str) -> tuple[Any, Any]:
    """A client, and the only run of this name in the experiment `classwise` of MLFLOW_TRACKING_URI."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("classwise")
    runs = client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{name}'")
    assert len(runs) == 1
    return client, runs[0]


def mlflow_points(name: str, metric: str) -> list[tuple[int, float]]:
    """Step and value of every point of a metric."""
    client, run = mlflow_run(name)
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def mlflow_artifacts(name: str, folder: str = "") -> list[str]:
    """The paths of all artifacts."""
    client, run = mlflow_run(name)
    found = []
    for artifact in client.list_artifacts(run.info.run_id, folder):
        found += mlflow_artifacts(name, artifact.path) if artifact.is_dir else [artifact.path]
    return found
