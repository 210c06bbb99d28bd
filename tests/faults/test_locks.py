"""Two runs in one directory: one goes on, the other is told who holds it; without locks both would go on."""

import errno
import fcntl
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from classwise.errors import OutputError
from classwise.run.folder import new_folder
from classwise.run.lock import locked, refuse_held
from tests.faults import locks, signals
from tests.faults.forked import Hook, start
from tests.helpers.scenes import command


@pytest.fixture(scope="module")
def here() -> Iterator[signals.Place]:
    """A small data set, and its undisturbed runs once they are needed."""
    with signals.place() as found:
        yield found


@pytest.mark.parametrize(("verb", "before"), [("train", ""), ("train", "stale"), ("resume", "")])
def test_two_at_the_same_instant(here: signals.Place, verb: str, before: str) -> None:
    """One trains to the end, the other names it."""
    locks.at_the_same_instant(here, verb, 1, before)


def test_a_second_one_of_two_processes(here: signals.Place) -> None:
    """Refused while the first one trains, by its first process for both."""
    locks.one_after_the_other(here, ("train", "resume"), (1, 2), random.Random(0))


def test_two_threads_of_one_process(here: signals.Place) -> None:
    """The system's lock alone would let both in."""
    locks.in_threads(here)


def test_the_lock_is_free_after_kill_9(here: signals.Place) -> None:
    """Though loader workers of the killed one live on, which hold its open file."""
    assert locks.after_a_kill(here, 2, random.Random(0))


@pytest.mark.full
def test_without_the_lock_both_go_on(here: signals.Place) -> None:
    """Two trains in one directory, where the system's locks do nothing: both train, or the one stumbles over the other's
    files, or each over the other's; that one goes on and the other names it is past."""
    with pytest.raises(signals.NotHeldError, match=r"[20] go on|not named|exit codes"):
        locks.at_the_same_instant(here, "train", 1, "", locks.locks_do_nothing)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_lock_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The message names the file and the reason."""

    def fail(*given: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OutputError) as found, locked(tmp_path):
        pass
    assert str(found.value) == f"{tmp_path} cannot be locked: {tmp_path / '.lock'}: {os.strerror(number)}"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is said to be one; the folder can be locked once it has them."""
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", fcntl.lockf)
        locks.no_locks()
        with pytest.raises(OutputError, match=r"supports no locks \(No locks available\)"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_a_folder_has_one_lock_whatever_it_is_called(tmp_path: Path) -> None:
    """Also through a link; and it is free again afterwards, with nothing left."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "run"):
        with pytest.raises(OutputError, match=f"link is in use by this process {os.getpid()} on "):
            refuse_held(tmp_path / "link")
        with pytest.raises(OutputError, match="is in use by this process"), locked(tmp_path / "link"):
            pass
    with locked(tmp_path / "link"):
        pass
    refuse_held(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A link called `.lock` in a folder that others can write into could lead to any file."""
    (tmp_path / "victim").write_text("somebody's")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="cannot be locked"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "victim").read_text() == "somebody's"


@pytest.mark.parametrize("existed", [False, True])
def test_a_run_that_never_began_leaves_its_folder_as_it_was(tmp_path: Path, existed: bool) -> None:
    """Made by it: gone. There before: empty again."""
    run = tmp_path / "run"
    if existed:
        run.mkdir()
        (run / ".lock").write_text("left by a killed one")

    def fail() -> None:
        with new_folder("name", run):
            (run / "config.toml").touch()
            (run / "checkpoints").mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == (["run"] if existed else [])


@pytest.mark.parametrize("name", ["last", ".previous-last", "best"])
def test_a_run_that_has_begun_keeps_its_folder(tmp_path: Path, name: str) -> None:
    """Also where an error comes between the two renames of a checkpoint, when none has the name `last`."""

    def fail() -> None:
        with new_folder("name", tmp_path / "run") as folder:
            (folder.checkpoints / name).mkdir(parents=True)
            (folder.checkpoints / ".staging-last").mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {name, ".staging-last"}


def test_a_run_without_a_checkpoint_is_not_said_to_be_in_use(here: signals.Place, tmp_path: Path) -> None:
    """Killed right before its first checkpoint took its name: resume says that there is none."""
    hook = Hook("classwise.run.checkpoint:_serialize", os.kill, (0, signal.SIGKILL))
    start(tmp_path / "files", here.train(tmp_path / "run", 1), [hook]).wait()
    assert (tmp_path / "run/status.json").exists()
    found = command("resume", tmp_path / "run")
    assert found.code == 1
    assert "there is no usable checkpoint" in found.err


def test_what_another_has_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    """A folder is looked at again once it is held."""
    run = tmp_path / "run"
    run.mkdir()

    def fill_and_lock(folder: Path) -> object:
        (folder / "status.json").write_text("of another run")
        return locked(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classwise.run.folder.locked", fill_and_lock)
        with (
            pytest.raises(OutputError, match="already exists and is not overwritten"),
            new_folder("name", run),
        ):
            pass
    assert [path.name for path in run.iterdir()] == ["status.json"]
