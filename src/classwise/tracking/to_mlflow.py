"""A run of an MLflow server or store: parameters, metrics with steps, tags, artifacts, and how it ended.

Only MlflowClient is used, which holds no global state. Where the run goes is MLflow's to say: MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, and its variables for passwords and tokens.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from classwise.tracking.facts import Ending, Point, RunFacts

EXPERIMENT = "classwise"
PARAMETERS_A_REQUEST = 100  # MLflow's limits
METRICS_A_REQUEST = 1000
PARAMETER_LENGTH = 6000
KEY_LENGTH = 250
MODEL_FOLDER = "model"
IMAGE_FOLDER = "confusion"
STATUS = {"finished": "FINISHED", "early_stopped": "FINISHED", "failed": "FAILED"}  # any other: KILLED

# A server that does not answer would otherwise be asked for minutes before anybody is told.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class MlflowRun:
    """One run; `memory` names one that is there already, and goes on."""

    def __init__(self, facts: RunFacts, memory: dict[str, Any], remember: Callable[..., None]) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._names: dict[str, str] = {}
        if "run_id" in memory:
            self._run_id = str(memory["run_id"])
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            run = self._client.create_run(
                _experiment_id(self._client), run_name=facts.name, tags=_tags(facts)
            )
            self._run_id = run.info.run_id
            remember(run_id=self._run_id)

        # Only once: MLflow refuses parameters that change, as a number of workers may on a resume.
        if "has_begun" not in memory:
            self._log_parameters(facts.parameters)
            for file in facts.files:
                self._client.log_artifact(self._run_id, file)
            remember(has_begun=True)
        self.where = f"run {self._run_id} in {self._client.tracking_uri}"

    def log(self, points: Sequence[Point]) -> None:
        """A metric a number, with its step and time."""
        from mlflow.entities import Metric

        metrics = [
            Metric(self._valid_name(name), value, timestamp=round(point.time * 1000), step=point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for part in _parts(metrics, METRICS_A_REQUEST):
            self._client.log_batch(self._run_id, metrics=part)

    def finish(self, ending: Ending) -> None:
        """The final scores as metrics, the files as artifacts, and the status."""
        if ending.scores:
            self.log([Point(ending.step, ending.time, ending.scores)])
        for file in ending.files:
            self._client.log_artifact(self._run_id, file)
        for image in ending.confusion_images.values():
            self._client.log_artifact(self._run_id, image, IMAGE_FOLDER)
        for file in ending.model:
            self._client.log_artifact(self._run_id, file, MODEL_FOLDER)
        self._client.set_tag(self._run_id, "classwise.state", ending.state)
        self._client.set_terminated(self._run_id, status=STATUS.get(ending.state, "KILLED"))

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        values = [
            Param(self._valid_name(name), str(value)[:PARAMETER_LENGTH]) for name, value in parameters.items()
        ]
        for part in _parts(values, PARAMETERS_A_REQUEST):
            self._client.log_batch(self._run_id, params=part)

    def _valid_name(self, name: str) -> str:
        """The name without what MLflow refuses, such as the brackets of f1[old]. Names that would become the same get
        a number."""
        if name not in self._names:
            valid = posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", name))[:KEY_LENGTH].lstrip("/.")
            taken = set(self._names.values())
            number = 2
            unique = valid
            while unique in taken:
                unique = f"{valid[: KEY_LENGTH - 5]}_{number}"
                number += 1
            self._names[name] = unique
        return self._names[name]


def open_mlflow(
    facts: RunFacts, memory: dict[str, Any], keep: int, remember: Callable[..., None]
) -> MlflowRun:
    """A new run, or the one that is remembered."""
    return MlflowRun(facts, memory, remember)


def _experiment_id(client: Any) -> str:
    """The experiment that MLflow's variables name, or `classwise`; made where it is missing."""
    from mlflow.exceptions import MlflowException

    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Another run, such as the next fold, may have made it in between.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _tags(facts: RunFacts) -> dict[str, str]:
    """Those that MLflow's pages show, and ours."""
    tags = {
        "mlflow.source.name": "classwise",
        "mlflow.source.type": "LOCAL",
        "classwise.run": Path(facts.folder).name,
        **facts.tags,
    }
    return tags | ({"classwise.group": facts.group} if facts.group else {})


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
