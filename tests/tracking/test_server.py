"""MLflow: runs on its own server with a SQLite database, and names that it takes."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from classwise.tracking.facts import Ending, Point
from classwise.tracking.lane import KINDS
from classwise.tracking.memory import Memory
from classwise.tracking.tracker import Tracker
from tests.helpers.tracked import facts_of, mlflow_artifacts, mlflow_points, mlflow_run, points_of

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow server` on the loopback interface."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture(autouse=True)
def at_the_server(outside: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)


def opened(folder: Path, name: str, group: str = "") -> Tracker:
    memory = Memory(folder)

    def remember(**values: object) -> None:
        memory.keep("mlflow", **values)

    return KINDS["mlflow"].open(
        facts_of(folder, name=name, group=group), memory.recall("mlflow"), 0, remember
    )


def test_a_run_on_a_server_is_there_with_all_it_ended_with(tmp_path: Path) -> None:
    tracker = opened(tmp_path, "whole", group="folds")
    tracker.log(points_of(range(1, 1201)))  # more than MLflow takes at once
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    tracker.finish(Ending("early_stopped", 1200, 1.0, scores={"final/f1": 0.5}, model=[str(model)]))
    _, run = mlflow_run("whole")
    assert run.info.status == "FINISHED"
    assert run.data.tags["classwise.group"] == "folds"
    assert run.data.tags["mlflow.source.name"] == "classwise"
    assert run.data.params == {
        "seed": "1",
        "loss.name": "focal",
        "report.baselines": "True",
        "optimizer.lr": "0.001",
    }
    assert run.data.metrics["final/f1"] == 0.5
    assert [step for step, _ in mlflow_points("whole", "train/loss")] == list(range(1, 1201))
    assert mlflow_artifacts("whole") == ["config.toml", "model/model.safetensors"]


@pytest.mark.parametrize(
    ("state", "status"), [("failed", "FAILED"), ("interrupted", "KILLED"), ("killed", "KILLED")]
)
def test_a_run_that_goes_on_is_the_same_run(tmp_path: Path, state: str, status: str) -> None:
    first = opened(tmp_path, state)
    first.log(points_of([1]))
    first.finish(Ending(state))
    assert mlflow_run(state)[1].info.status == status
    second = opened(tmp_path, state)
    assert mlflow_run(state)[1].info.status == "RUNNING"
    second.log(points_of([2]))
    second.finish(Ending("finished"))
    assert mlflow_run(state)[1].info.status == "FINISHED"
    assert [step for step, _ in mlflow_points(state, "train/loss")] == [1, 2]


def test_names_that_mlflow_refuses_stay_apart(tmp_path: Path) -> None:
    names = (
        "valid/f1[<30]",
        "valid/f1[>30]",
        "valid/f1[../마스크]",
        "valid/f1[a//b]",
        "valid/f1[" + "x" * 300 + "]",
    )
    opened(tmp_path, "names").log([Point(1, 1.0, dict.fromkeys(names, 0.5))])
    _, run = mlflow_run("names")
    assert len(run.data.metrics) == len(names)
    assert "valid/f1__30_" in run.data.metrics
    assert "valid/f1__30__2" in run.data.metrics


def test_the_experiment_is_that_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "masks")
    for number in range(2):
        opened(tmp_path / str(number), f"run {number}")
    experiment = MlflowClient().get_experiment_by_name("masks")
    assert len(MlflowClient().search_runs([experiment.experiment_id])) == 2
