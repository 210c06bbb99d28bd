"""Watching a run: what is shown of it, that it is only read, and what is said of one that was killed."""

import contextlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from classwise.errors import ClasswiseError, Interrupted
from classwise.run import heartbeat, liveness
from classwise.run.heartbeat import Heartbeat, read_progress
from classwise.run.liveness import SILENT_SECONDS, status_of, true_status
from classwise.run.lock import lock_holder, lock_state, locked
from classwise.run.trained import Run
from classwise.watch import command as watching
from classwise.watch.command import watch
from classwise.watch.lines import Teller, whole_text
from classwise.watch.snapshot import Snapshot, lines_of, read_snapshot
from classwise.watch.view import view_of
from classwise.watch.words import sparkline
from tests.helpers.children import child_environment
from tests.helpers.scenes import command, plain_table, untouched, write_config

# The first beat comes at once, so that nothing here waits for a clock.
MAIN = (
    "from classwise.run import heartbeat; heartbeat.BEAT_SECONDS = 0; from classwise.cli import main; main()"
)
STATUS = {"state": "running", "reason": "", "epoch": 2, "update": 8, "seconds": 9.0}
STATUS |= {"best": {"metric": "macro_f1", "value": 0.5, "epoch": 1}}
CONFIG = '[targets.label]\ncolumn = "label"\n[training]\nepochs = 5\n[selection]\nmetric = "macro_f1"\n'


def row(epoch: int, loss: float, score: float) -> dict[str, Any]:
    """A line of history.jsonl."""
    valid = {"macro_f1": score, "accuracy": 0.9, "loss": loss + 1}
    return {
        "epoch": epoch,
        "update": 4 * epoch,
        "lr": 1e-3,
        "train_loss": loss,
        "valid": valid,
        "seconds": 20.0,
        "images_per_second": 80.0,
    }


def write_run(folder: Path, epochs: int = 2, **status: Any) -> Path:
    """A run directory that has come so far; nobody holds it."""
    folder.mkdir(exist_ok=True)
    (folder / "status.json").write_text(json.dumps(STATUS | {"epoch": epochs} | status))
    rows = [row(epoch, 2 / epoch, 0.2 * epoch) for epoch in range(1, epochs + 1)]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    (folder / "config.toml").write_text(CONFIG)
    (folder / "log.txt").write_text("".join(f"line {number}\n" for number in range(30)))
    return folder


def progress(**changes: Any) -> dict[str, Any]:
    """progress.json of the third epoch."""
    return {
        "time": "2026-01-01T00:00:00+00:00",
        "process": 1,
        "host": platform.node(),
        "doing": "training",
        "epoch": 3,
        "epochs": 5,
        "update": 9,
        "update_in_epoch": 1,
        "updates_per_epoch": 4,
        "lr": 2e-3,
        "loss": 0.625,
        "epoch_seconds": 5.0,
        "images_per_second": 64.0,
        "memory": {"process": 8.12e8},
    } | changes


def shown(snapshot: Snapshot, plain: bool = False) -> str:
    """The view as text, on a terminal of 100 columns and 40 lines."""
    file = io.StringIO()
    console = Console(file=file, width=100, height=40, force_terminal=False, legacy_windows=False)
    if plain:
        console = Console(file=_Ascii(file), width=100, height=40, force_terminal=False)
    console.print(view_of(snapshot, 100, 40, plain))
    return file.getvalue()


class _Ascii:
    """A stream that says it is ASCII."""

    encoding = "ascii"

    def __init__(self, file: io.StringIO) -> None:
        self.write, self.flush = file.write, file.flush

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """The run directory held by another process, as a run that trains holds it."""
    code = "import sys; from pathlib import Path; from classwise.run.lock import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield
        child.communicate()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as SIGKILL leaves it, in mid-epoch after the first epoch; `alive.txt` beside it says what was
    seen of it before."""
    folder = tmp_path_factory.mktemp("killed")
    plain_table(folder, 16)
    config = write_config(folder, training__epochs=4000, report={"live": True, "baselines": False})
    arguments = ["train", str(config), "--run", str(folder / "run")]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], stderr=subprocess.PIPE, env=child_environment()
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith(b"epoch"):
                break
        # The child waits as soon as the pipe is full, so it cannot come to its end.
        seen = command("watch", folder / "run", "--once")
        (folder / "alive.txt").write_text(f"{seen.code} {seen.out}")
        (folder / "state.txt").write_text(str(Run.open(folder / "run").status["state"]))
        child.send_signal(signal.SIGKILL)
        child.stderr.read()
    return folder


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run to change; its data stays where it was."""
    shutil.copytree(killed / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_running_while_its_process_is(killed: Path) -> None:
    assert (killed / "alive.txt").read_text().startswith(f"0 {killed / 'run'}: running, epoch")
    assert (killed / "state.txt").read_text() == "running"


def test_status_json_of_a_killed_run_says_running_and_every_reader_says_killed(run: Path) -> None:
    assert json.loads((run / "status.json").read_text())["state"] == "running"
    status = Run.open(run).status
    assert status["state"] == "killed"
    assert f"go on with: classwise resume {run}" in status["reason"]
    assert (run / "progress.json").exists()
    assert "last sign of life" in status["reason"]
    with untouched(run):
        result = command("watch", run)
    assert (result.code, result.err.split(": ")[2]) == (1, "killed")
    assert "killed, after epoch" in command("evaluate", run).ok().err
    page = command("report", run).ok().path.read_text()
    assert "This run was killed after epoch" in page
    assert 'http-equiv="refresh"' not in page


def test_the_page_of_a_running_run_reloads_itself(killed: Path) -> None:
    """As the kill has left it: the page of the epoch before."""
    page = (killed / "run" / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="' in page
    assert "of 4000. Last written at" in page


def test_a_killed_run_is_resumed_and_then_watched_to_its_end(run: Path) -> None:
    epoch = json.loads((run / "status.json").read_text())["epoch"]
    command("resume", run, "--epochs", epoch + 1).ok()
    assert not (run / "progress.json").exists()
    assert Run.open(run).status["state"] == "finished"
    assert f"{run}: finished" in command("watch", run).ok().out


def test_a_held_run_is_running_whatever_its_files_say(tmp_path: Path) -> None:
    """A resumed run says `interrupted` until its first checkpoint."""
    run = write_run(tmp_path / "run")
    stopped = write_run(tmp_path / "stopped", state="interrupted", reason="stopped after update 8")
    for folder in (run, stopped):
        with held(folder):
            assert status_of(folder)["state"] == "running"
            assert lock_state(folder) == "held"
        assert lock_state(folder) == "free"
    assert status_of(run)["state"] == "killed"
    assert status_of(stopped)["state"] == "interrupted"


def test_the_own_process_does_not_lose_its_lock_by_looking(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with locked(run):
        assert status_of(run)["state"] == "running"
        assert lock_state(run) == "held"
        assert lock_holder(run)["process"] == os.getpid()
        code = "import sys; from pathlib import Path; from classwise.run.lock import lock_state\n"
        code += "print(lock_state(Path(sys.argv[1])))"
        seen = subprocess.check_output([sys.executable, "-c", code, str(run)], env=child_environment())
        assert seen == b"held\n"


def test_of_another_machine_only_the_silence_tells(tmp_path: Path) -> None:
    """Its lock is not known here: a run on a shared disk, or a copy."""
    run = write_run(tmp_path / "run")
    (run / ".lock").write_text(json.dumps({"process": 1, "host": "elsewhere"}))
    (run / "progress.json").write_text(json.dumps(progress(host="elsewhere")))
    now = 1767225600.0  # when progress.json was written
    soon = true_status(run, STATUS, now + SILENT_SECONDS - 1)
    late = true_status(run, STATUS, now + 7 * 60)
    assert soon["state"] == "running"
    assert late["state"] == "silent"
    assert late["reason"].startswith("no sign of life on elsewhere for 7 min")


def test_without_progress_the_newest_file_tells(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / ".lock").write_text(json.dumps({"host": "elsewhere"}))
    for path in run.iterdir():
        os.utime(path, (1000, 1000))
    os.utime(run / "log.txt", (2000, 2000))
    assert liveness.seconds_silent(run, 2060) == 60


def test_a_run_that_ends_between_two_looks_is_not_called_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes its end, and then lets the lock go."""
    run = write_run(tmp_path / "run")
    before = json.loads((run / "status.json").read_text())

    def ends(folder: Path) -> str:
        write_run(folder, state="finished")
        return "free"

    monkeypatch.setattr(liveness, "lock_state", ends)
    assert true_status(run, before)["state"] == "finished"


def test_a_beat_comes_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now)
    calls = []
    beating = Heartbeat(tmp_path, lambda: {"update": len(calls)}).beating(
        lambda: calls.append(now) is not None
    )
    beats = []
    for now in (100.0, 100.9, 101.0, 101.5, 101.99, 102.1):  # noqa: B007 - `monotonic` reads it
        beating()
        beats.append(read_progress(tmp_path).get("update"))
    assert beats == [None, None, 2, 2, 2, 5]
    assert len(calls) == 6


def test_a_beat_that_cannot_be_written_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0)
    beat = Heartbeat(tmp_path / "gone", dict)
    assert beat.beating(lambda: True)() is True
    beat.end()
    assert Heartbeat(tmp_path, lambda: {}["update"]).beating(lambda: True)() is True


def test_a_new_heartbeat_removes_what_a_kill_has_left(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text("{}")
    (tmp_path / ".progress.json").write_text("{")
    Heartbeat(tmp_path, dict)
    assert list(tmp_path.iterdir()) == []


def test_a_view_has_the_epoch_the_rates_and_every_score(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "progress.json").write_text(json.dumps(progress()))
    with held(run):
        snapshot = read_snapshot(run)
    text = shown(snapshot)
    for part in ("running", "2 of 5 epochs", "epoch 3 of 5, 1 of 4 updates", "2.00e-03", "0.6250", "812 MB"):
        assert part in text
    assert "images/s 64" in text
    assert "about 55 s left" in text  # 20 s an epoch, of which 2 3/4 are left
    assert [line.name for line in lines_of(snapshot)] == ["loss", "validation loss", "macro_f1"]
    assert "macro_f1 *" in text
    assert "line 29" in text


def test_progress_of_an_epoch_that_has_ended_counts_once(tmp_path: Path) -> None:
    """progress.json is up to a second old: here it is of the second epoch, which the history has."""
    run = write_run(tmp_path / "run")
    (run / "progress.json").write_text(json.dumps(progress(epoch=2, update_in_epoch=4)))
    assert read_snapshot(run).share_of_epoch == 0.0
    (run / "progress.json").write_text(json.dumps(progress(epoch=3, update_in_epoch=1)))
    assert read_snapshot(run).share_of_epoch == 0.25


def test_before_the_first_epoch_the_scoring_of_baselines_is_shown(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text('{"doing": "scoring the baselines"}')
    with held(tmp_path):
        snapshot = read_snapshot(tmp_path)
    assert snapshot.state == "preparing"
    assert whole_text(snapshot) == f"{tmp_path}: preparing, scoring the baselines"
    assert "scoring the baselines" in shown(snapshot)


def test_a_view_in_ascii_has_no_other_sign(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    text = shown(read_snapshot(run), plain=True)
    assert "macro_f1" in text
    assert text.isascii()


def test_a_sparkline_goes_from_lowest_to_highest_and_keeps_the_last_value() -> None:
    assert sparkline([0.0, 7.0], 2) == "▁█"
    assert sparkline([1.0, 1.0, 1.0], 3) == "▁▁▁"
    assert sparkline([*range(100), -1.0], 10)[-1] == "▁"
    assert len(sparkline(range(1000), 30)) == 30


def test_a_linear_probe_has_its_score_and_no_epochs(tmp_path: Path) -> None:
    """As has any run before its first epoch has ended."""
    best = {"metric": "macro_f1", "value": 0.75, "epoch": 0}
    run = write_run(tmp_path / "run", epochs=0, state="finished", best=best)
    assert "macro_f1: 0.7500 (selects)" in whole_text(read_snapshot(run))
    assert "of 5 epochs" in shown(read_snapshot(run))
    (run / "config.toml").write_text(CONFIG.replace("epochs = 5", 'epochs = 5\nplan = "probe"'))
    text = shown(read_snapshot(run))
    assert "macro_f1" in text
    assert "0.7500" in text
    assert "epochs" not in text


def test_lines_say_what_is_new_and_nothing_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=1)
    teller = Teller()
    with held(run):
        first = list(teller.news(read_snapshot(run), 0))
        assert list(teller.news(read_snapshot(run), 1)) == []
        write_run(run, epochs=2)
        (run / "progress.json").write_text(json.dumps(progress()))
        second = list(teller.news(read_snapshot(run), 2))
        third = list(teller.news(read_snapshot(run), 63))
    fourth = list(teller.news(read_snapshot(run), 64))
    assert first[0].startswith(f"{run}: running, epoch 2 of 5")
    assert first[1] == "epoch 1 of 5  loss 2.0000  validation loss 3.0000  macro_f1 0.2000"
    assert second == ["epoch 2 of 5  loss 1.0000  validation loss 2.0000  macro_f1 0.4000"]
    assert third[0].startswith("epoch 3 of 5, 1 of 4 updates, about 55 s left; lr 2.00e-03")
    assert fourth[0].startswith(f"{run}: killed: its process is gone")


def test_folds_are_shown_with_the_one_that_trains(tmp_path: Path) -> None:
    folds = tmp_path / "folds"
    folds.mkdir()
    entries = [{"folder": f"fold-{k}", "state": "waiting"} for k in range(3)]
    status = {"state": "running", "reason": "", "kind": "folds", "done": 1, "of": 3, "folds": entries}
    (folds / "status.json").write_text(json.dumps(status | {"seconds": 5.0}))
    write_run(folds / "fold-0", state="finished")
    write_run(folds / "fold-1")
    with held(folds), held(folds / "fold-1"):
        snapshot = read_snapshot(folds)
    assert snapshot.folds == (("fold-0", "finished"), ("fold-1", "running"), ("fold-2", "waiting"))
    assert snapshot.current is not None
    for text in (whole_text(snapshot), shown(snapshot)):
        assert "fold-0" in text
        assert "macro_f1" in text


@pytest.mark.parametrize(
    ("state", "error"),
    [("finished", None), ("early_stopped", None), ("interrupted", Interrupted), ("failed", ClasswiseError)],
)
def test_the_end_of_the_run_is_the_end_of_watching(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: str,
    error: type[ClasswiseError] | None,
) -> None:
    """Watched from before its beginning; each look finds it further on."""
    run = tmp_path / "run"
    steps: list[Any] = [lambda: write_run(run, 1, state=state, reason="a reason")]
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: steps.pop(0)())
    if error is None:
        watch(run)
    else:
        with pytest.raises(error, match=f"{state}: a reason") as raised:
            watch(run)
        assert raised.value.exit_code == (75 if state == "interrupted" else 1)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{run}: waiting for it to begin"
    assert out[1].startswith(f"{run}: {'stopped early' if state == 'early_stopped' else state}")
    assert steps == []


def test_ctrl_c_ends_the_watching_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupted)
    with held(run), untouched(run), pytest.raises(SystemExit) as raised:
        command("watch", run)
    assert raised.value.code == 130


def test_a_folder_without_a_run_is_refused_for_one_look(tmp_path: Path) -> None:
    assert "there is no run here" in command("watch", tmp_path / "none", "--once").err
    (tmp_path / "file").write_text("")
    assert "is a file" in command("watch", tmp_path / "file").err


@pytest.mark.parametrize("name", ["status.json", "history.jsonl", "config.toml", "progress.json", "log.txt"])
@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b'{"state": 3, "best": 1, "epoch": {}}\n'])
def test_damaged_files_are_passed_over(tmp_path: Path, name: str, data: bytes) -> None:
    """A disk may be full, and a file of another version."""
    run = write_run(tmp_path / "run")
    (run / "progress.json").write_text(json.dumps(progress()))
    (run / name).write_bytes(data)
    snapshot = read_snapshot(run)
    assert shown(snapshot)
    assert whole_text(snapshot)


def test_watching_imports_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", state="finished")
    code = "import sys; from classwise.cli import run_command; code = run_command(sys.argv[1:])\n"
    code += "print(code, sorted({'torch', 'sklearn', 'numpy', 'polars'} & set(sys.modules)))"
    arguments = [sys.executable, "-c", code, "watch", str(run), "--once"]
    out = subprocess.check_output(arguments, env=child_environment(), text=True)
    assert out.splitlines()[-1] == "0 []"


def test_the_clock_of_a_running_run_goes_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    os.utime(run / "status.json", (time.time() - 3600, time.time() - 3600))
    with held(run):
        assert "running for 1 h 0 min" in shown(read_snapshot(run))
