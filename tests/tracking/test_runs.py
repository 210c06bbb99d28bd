"""Whole runs with trackers: the same bytes as without, the numbers where people look, one curve after a kill."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from classwise.config.load import make_config
from classwise.run import tracked as tracked_run
from classwise.tracking import channel, packages
from classwise.tracking.channel import Channel
from classwise.tracking.facts import Point
from tests.helpers.children import child_environment
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import FORKS, PLAIN, command, plain_table, write_config
from tests.helpers.tracked import (
    mlflow_artifacts,
    mlflow_points,
    mlflow_run,
    scalars_of,
    table_of,
    wandb_records,
    wandb_rows,
)

pytestmark = [
    FORKS,
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
]

FILES = ["csv", "tensorboard"]
ALL = [*FILES, "mlflow", "wandb"]
STEPS = [10, 12, 20, 24, 30, 36]  # every ten updates, and at the end of each of three epochs of twelve
LOSS = "train/loss"

# The run kills itself after update 23, once its trackers have what came after the checkpoint of update 19.
KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from classwise.cli import main
from classwise.training.state import Progress

run = Path(sys.argv[sys.argv.index("--run") + 1])
count = Progress.end_update

def end_update(self, loss, samples):
    count(self, loss, samples)
    if self.update == 23:
        names = sys.argv.pop(1).split(",")
        state = run / "trackers" / "state.json"
        while not (state.exists() and all(json.loads(state.read_text()).get(n, {}).get("step") == 20 for n in names)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

Progress.end_update = end_update
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of three epochs of twelve updates, and its run without trackers in `plain`."""
    folder = tmp_path_factory.mktemp("tracked")
    plain_table(folder, 16)
    changes = {"training__epochs": 3, "training__batch_size": 1, "training__checkpoint_updates": 19}
    command("train", write_config(folder, PLAIN, **changes), "--run", folder / "plain").ok()
    return folder


@pytest.fixture
def server() -> Iterator[str]:
    """A server that takes what it is sent, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def trackers_option(names: list[str]) -> tuple[str, str]:
    return "--report.trackers", json.dumps(names)


def killed_and_resumed(data: Path, run: Path, names: list[str]) -> None:
    arguments = ["train", str(data / "classwise.toml"), "--run", str(run), *trackers_option(names)]
    child = [sys.executable, "-c", KILLED, ",".join(names), *arguments]
    code = subprocess.run(child, env=child_environment(), capture_output=True, timeout=300).returncode
    assert code == -9
    command("resume", run).ok()


def test_a_run_with_trackers_ends_in_the_same_bytes_and_they_hold_its_numbers(
    data: Path, outside: Path
) -> None:
    run = data / "all"
    result = command("train", data / "classwise.toml", "--run", run, *trackers_option(ALL)).ok()
    assert_same_end(data / "plain", run)
    assert "warning: report.trackers" not in result.err

    # The same points in all four, those of each epoch as in history.jsonl.
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    losses = [(row["update"], row["train_loss"]) for row in history]
    rows = table_of(run)
    assert [int(row["step"]) for row in rows] == STEPS
    assert [(int(r["step"]), float(r["train/epoch_loss"])) for r in rows if r["train/epoch_loss"]] == losses
    points = [(int(row["step"]), float(row[LOSS])) for row in rows if row[LOSS]]
    assert scalars_of(run, LOSS) == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]
    assert mlflow_points("all", LOSS) == points
    assert mlflow_points("all", "train/epoch_loss") == losses
    assert [(row["_step"], row[LOSS]) for row in wandb_rows(run) if LOSS in row] == points

    # MLflow: parameters, tags, status, artifacts.
    _, found = mlflow_run("all")
    metrics = json.loads((run / "metrics.json").read_text())
    assert found.info.status == "FINISHED"
    assert found.data.params["training.batch_size"] == "1"
    assert found.data.tags["classwise.state"] == "finished"
    assert found.data.metrics["final/macro_f1"] == metrics["value"]
    assert set(mlflow_artifacts("all")) == {
        "config.toml",
        "confusion/confusion-label.png",
        "metrics.json",
        "model/manifest.json",
        "model/model.safetensors",
        "model/state.json",
        "report.html",
    }

    # wandb: the config, the model as an artifact, and that it has finished.
    records = {record.WhichOneof("record_type"): record for record in wandb_records(run)}
    config = {item.key: json.loads(item.value_json) for item in records["run"].run.config.update}
    assert records["run"].run.project == "classwise"
    assert config["training.batch_size"] == 1
    contents = {
        entry.path: Path(entry.local_path) for entry in records["artifact"].artifact.manifest.contents
    }
    assert contents["model.safetensors"] == run.resolve() / "checkpoints" / "best" / "model.safetensors"
    assert records["exit"].exit.exit_code == 0


@pytest.mark.parametrize("names", [FILES, pytest.param(ALL, marks=pytest.mark.full)])
def test_a_killed_and_resumed_run_has_one_curve(data: Path, outside: Path, names: list[str]) -> None:
    """Killed with a SIGKILL after points that its checkpoint does not have: none is missing, none there twice, and each
    is that of a run that was never stopped."""
    whole, run = data / f"whole-{len(names)}", data / f"killed-{len(names)}"
    command("train", data / "classwise.toml", "--run", whole, *trackers_option(FILES)).ok()
    killed_and_resumed(data, run, names)
    assert_same_end(data / "plain", run)
    clock = ("time/epoch_seconds", "time/images_per_second")
    timeless = [
        [{k: v for k, v in row.items() if k not in clock} for row in table_of(r)] for r in (whole, run)
    ]
    assert timeless[0] == timeless[1]
    assert [int(row["step"]) for row in timeless[1]] == STEPS
    for tag in (LOSS, "valid/macro_f1", "train/lr"):
        assert scalars_of(run, tag) == scalars_of(whole, tag)
    if "mlflow" in names:
        points = [(int(row["step"]), float(row[LOSS])) for row in timeless[0] if row[LOSS]]
        assert mlflow_points(run.name, LOSS) == points
        assert mlflow_run(run.name)[1].info.status == "FINISHED"
        assert [(row["_step"], row[LOSS]) for row in wandb_rows(run) if LOSS in row] == points
        ids = {record.run.run_id for record in wandb_records(run) if record.HasField("run")}
        assert len(ids) == 1


def test_a_server_that_never_answers_ends_no_run_and_is_named_once(
    data: Path, outside: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_the_table_is_done(self: Channel, seconds: float) -> bool:
        self.send(None)  # type: ignore[arg-type]  # no message follows
        deadline = time.monotonic() + 300
        while not any((a.tracker, a.kind) == ("csv", "done") for a in list(self.answers)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return False

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setattr(Channel, "wait", until_the_table_is_done)
    run = data / "unanswered"
    result = command("train", data / "classwise.toml", "--run", run, *trackers_option(["csv", "mlflow"])).ok()
    assert_same_end(data / "plain", run)
    assert [int(row["step"]) for row in table_of(run)] == STEPS
    assert result.err.count("warning: report.trackers: mlflow") == 1
    assert "report.trackers: mlflow: did not come to an end in time" in result.err


@pytest.mark.full
def test_a_server_that_is_not_there_is_named_once(
    data: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = data / "unreachable"
    result = command("train", data / "classwise.toml", "--run", run, *trackers_option(["mlflow"])).ok()
    assert result.err.count("Training goes on") == 1
    assert "6 points and the end of the run were not sent" in result.err


def test_a_process_that_dies_ends_no_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel.sys, "executable", "/bin/false")
    run = data / "dead"
    result = command("train", data / "classwise.toml", "--run", run, *trackers_option(["csv"])).ok()
    assert_same_end(data / "plain", run)
    assert result.err.count("warning: report.trackers: csv: its process broke off") == 1


def test_a_process_that_cannot_be_started_ends_no_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel.sys, "executable", "/no/such/python")
    run = data / "unstarted"
    result = command("train", data / "classwise.toml", "--run", run, *trackers_option(["csv"])).ok()
    assert "warning: report.trackers: " in result.err
    assert "training goes on without them" in result.err


def test_a_failure_of_our_own_is_one_warning_and_training_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Channel, message: object) -> None:
        if isinstance(message, Point):
            raise TypeError("not a number")

    monkeypatch.setattr(Channel, "send", broken)
    run = data / "broken"
    result = command("train", data / "classwise.toml", "--run", run, *trackers_option(["csv"])).ok()
    assert_same_end(data / "plain", run)
    assert result.err.count("warning: report.trackers: csv: TypeError: not a number") == 1


def test_a_run_in_the_root_has_no_group() -> None:
    config = make_config({"data": {"source": "x.csv"}, "targets": {"a": {"column": "a"}}})
    assert tracked_run._group(Path("/run"), config) == ""


def test_a_resume_without_the_package_ends_before_anything_begins(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = data / "resumed"
    command("train", data / "classwise.toml", "--run", run, *trackers_option(["csv"])).ok()
    monkeypatch.setitem(packages.PACKAGES, "csv", ("no_such_package",))
    result = command("resume", run, "--epochs", 4)
    assert result.code == 1
    assert "report.trackers: found 'csv', which needs the package no_such_package" in result.err
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def test_folds_have_a_run_each_in_one_group(data: Path, outside: Path) -> None:
    folds = data / "masks-folds"
    options = ("--folds", 2, "--run", folds, "--training.epochs", 1)
    command("folds", data / "classwise.toml", *options, *trackers_option(["tensorboard", "wandb"])).ok()
    for name in ("fold-0", "fold-1"):
        run = next(record.run for record in wandb_records(folds / name) if record.HasField("run"))
        assert (run.run_group, run.display_name) == ("masks-folds", f"masks-folds/{name}")
        assert len(scalars_of(folds / name, "train/epoch_loss")) == 1


def test_one_process_of_many_tracks(data: Path) -> None:
    """Rank 0 alone starts a process."""
    from types import SimpleNamespace

    from classwise.config.load import load_config
    from classwise.console import Console
    from classwise.run.folder import RunFolder
    from classwise.run.tracked import tracked
    from classwise.tracking.trackers import NoTrackers

    config = load_config(data / "classwise.toml", [("report.trackers", '["csv"]')])
    parts = SimpleNamespace(settings=SimpleNamespace(processes=SimpleNamespace(is_main_process=False)))
    with tracked(RunFolder(data / "rank1"), config, parts, Console(quiet=True)) as found:  # type: ignore[arg-type]
        assert isinstance(found, NoTrackers)
    assert not (data / "rank1").exists()
