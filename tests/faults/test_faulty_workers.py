"""Rows 7 and 10, quickly: the same batches from any workers, and errors that name the file. And each protection taken
out, to see that the promise breaks without it."""

import itertools
import multiprocessing
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from classwise.data import workers as watched
from classwise.data.loader import Loader
from classwise.errors import WorkerError
from tests.faults import workers
from tests.helpers.scenes import FORKS

pytestmark = [FORKS, pytest.mark.filterwarnings("ignore:This DataLoader will create")]


# Row 7


def test_any_workers_give_the_same_batches() -> None:
    """No worker, two forked, one spawned, one from a fork server: one digest."""
    workers.workers_digest([(2, "fork"), (1, "spawn"), (1, "forkserver")], epochs=1).check()


@pytest.mark.full
def test_augmentation_by_a_generator_of_the_process_depends_on_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sabotage: numbers from numpy's global generator, which each worker has its own of."""

    def own(*place: int) -> np.random.Generator:
        return np.random.default_rng(np.random.randint(2**31))

    monkeypatch.setattr("classwise.data.dataset.generator", own)
    count = workers.workers_digest([(1, "fork"), (2, "fork")])
    assert count.held == 1, count.failures


def test_a_run_goes_on_with_other_workers() -> None:
    """Two forked workers, then `classwise resume --workers 0`: the bytes of a run that had none."""
    workers.resumed_with_others([((2, "fork"), (0, "fork"))]).check()


# Row 10


def test_a_faulty_worker_is_an_error_that_names_the_file() -> None:
    """Ten kinds of faults in forked workers in training; also between batches, and when the parent is killed."""
    workers.faulty_passes(("training",), ("fork",)).check()


def test_so_it_is_in_validation_and_prediction_and_from_a_fork_server(tmp_path: Path) -> None:
    """One of each."""
    for number, (phase, start, kind) in enumerate(
        [
            ("validation", "fork", "asleep"),
            ("prediction", "fork", "killed"),
            ("training", "forkserver", "killed"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert workers.failing_pass(folder, phase, start, kind)[0] == ""


def test_a_worker_that_dies_before_its_first_file(tmp_path: Path) -> None:
    """The error says so, and what to look at."""
    assert workers.failing_start(tmp_path, "forkserver", "bug")[0] == ""


def test_a_command_ends_with_the_file_and_can_be_resumed() -> None:
    """Exit 1, status failed, the checkpoint kept; a resumed run ends in the same bytes."""
    workers.faulty_commands(("train", "predict"), ("killed",), ()).check()


@pytest.mark.full
def test_without_notes_the_error_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sabotage: workers that do not note what they read."""
    monkeypatch.setattr(watched.Heartbeat, "begin", lambda *_: None)
    wrong, _ = workers.failing_pass(tmp_path, "training", "fork", "killed")
    assert "does not say" in wrong
    assert "trap killed 13.png" in wrong.split("does not say")[1]


@pytest.mark.full
def test_without_a_watch_a_stuck_worker_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: nobody looks after the workers, and the pass is there still at three times its limit."""
    monkeypatch.setattr(watched.Watchdog, "_watch", lambda self: None)
    held_up = multiprocessing.get_context("fork").Process(
        target=workers.failing_pass, args=(tmp_path, "training", "fork", "asleep")
    )
    held_up.start()
    pid = workers.sprung_in(tmp_path / "trap asleep 13.png", held_up)
    held_up.join(3)
    assert held_up.exitcode is None
    held_up.kill()
    held_up.join()
    assert workers.still_there([pid]) == ""


@pytest.mark.full
def test_without_its_word_a_hanging_worker_outlives_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: torch's workers look for their parent between two batches only."""
    monkeypatch.setattr(watched, "end_with_parent", lambda: None)
    wrong, _ = workers.hanging_orphan(tmp_path, "fork", patience=2)
    assert wrong.startswith("still there")
    os.kill(int((tmp_path / "trap asleep 3.png.sprung").read_text().split()[1]), signal.SIGKILL)


def struck_young(folder: Path) -> str:
    """A signal to the whole group comes while a worker still imports torch: the digest of its batches."""
    data = workers.set_of(workers.drawn(folder, 12), 1, "spawn")
    with workers.closed(data.loader):
        (worker,) = iter(data.loader._loader)._workers
        os.kill(worker.pid, signal.SIGTERM)
        return workers.digest(batch for window in data.updates(0) for batch in window)


def test_a_signal_does_not_end_a_worker_that_is_being_started(tmp_path: Path) -> None:
    """It gives the same batches as none."""
    plain = workers.set_of(workers.drawn(tmp_path, 12), 0, "auto")
    assert struck_young(tmp_path) == workers.digest(batch for window in plain.updates(0) for batch in window)


@pytest.mark.full
def test_without_holding_back_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sabotage: the signal arrives."""
    monkeypatch.setattr(watched, "defer_signals", nullcontext)
    with pytest.raises(WorkerError, match="SIGTERM"):
        struck_young(tmp_path)


def test_other_processes_of_the_fork_server_take_signals(tmp_path: Path) -> None:
    """Our workers start the server with signals held back; who else it forks for can end its processes as ever."""
    valid = workers.validation_of(workers.drawn(tmp_path, 5), 1, "forkserver")
    with workers.closed(valid.loader):
        workers.valid_pass(valid)
    other = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(600,))
    other.start()
    other.terminate()
    other.join(60)
    assert other.exitcode == -signal.SIGTERM
    other.kill()


# The parts


class Still:
    """A heartbeat that never changes, and a worker that is one's own."""

    def __init__(self, row: int) -> None:
        self.row, self.killed = row, False

    def read(self, worker: int) -> tuple[int, int]:
        """Always the same."""
        return self.row, 1

    def kill(self) -> None:
        """What is to be seen."""
        self.killed = True


class Looks:
    """In place of the event that ends a watch: it lets so many looks happen."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def wait(self, pause: float) -> bool:
        """Whether it is over."""
        self.looks -= 1
        return self.looks < 0


def watch_of(still: Still, looks: int, step: float, monkeypatch: pytest.MonkeyPatch) -> watched.Watchdog:
    """A watch with a limit of 1 s that looks every 0.1 s, by a clock that goes on by `step` between two looks."""
    clock = itertools.count()
    monkeypatch.setattr(watched.time, "monotonic", lambda: next(clock) * step)
    watch = watched.Watchdog([still], still, 0)  # type: ignore[arg-type]
    watch.timeout, watch._ended = 1.0, Looks(looks)  # type: ignore[assignment]
    return watch


@pytest.mark.parametrize(("looks", "killed"), [(4, False), (12, True)])
def test_time_in_which_nobody_ran_does_not_count(
    monkeypatch: pytest.MonkeyPatch, looks: int, killed: bool
) -> None:
    """Between two looks 1000 s pass, as in a job that was suspended: they count as two pauses, so that a worker has
    lost after six looks, not after two."""
    still = Still(row=3)
    watch = watch_of(still, looks, 1000, monkeypatch)
    watch._watch()
    assert (still.killed, watch.overdue) == (killed, [0] if killed else [])


@pytest.mark.parametrize(
    ("awaited", "looks", "killed"), [(False, 50, False), (True, 9, False), (True, 50, True)]
)
def test_a_worker_between_files_owes_a_sign_only_to_who_waits(
    monkeypatch: pytest.MonkeyPatch, awaited: bool, looks: int, killed: bool
) -> None:
    """It may rest for as long as the parent computes."""
    still = Still(row=~3)
    watch = watch_of(still, looks, 0.1, monkeypatch)
    with watch.waiting([0] if awaited else []):
        watch._watch()
    assert still.killed == killed


def test_a_worker_that_is_being_started_has_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports torch, on a machine that is busy."""
    for looks, killed in ((1000, False), (1300, True)):
        still = Still(watched.NOT_STARTED)
        watch = watch_of(still, looks, 0.1, monkeypatch)
        with watch.waiting([0]):
            watch._watch()
        assert still.killed == killed


def test_a_worker_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception outside of any file arrives as well, with its traceback as a note."""

    def refuse(worker: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr("classwise.data.loader.start_worker", refuse)
    data = workers.set_of(workers.drawn(tmp_path, 12), 1, "fork")
    with (
        workers.closed(data.loader),
        pytest.raises(WorkerError, match="a worker process failed: OSError: no room") as caught,
    ):
        workers.train_pass(data)
    assert "in refuse" in caught.value.__notes__[0]


@pytest.mark.parametrize("count", [0, 1])
def test_a_mistake_in_reading_shows_its_file_and_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """In the process itself as in a worker; `--debug` shows the note with the traceback."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("classwise.data.dataset.fit_image", fail)
    valid = workers.validation_of(workers.drawn(tmp_path, 5), count, "fork")
    with (
        workers.closed(valid.loader),
        pytest.raises(Exception, match="reading it failed with ZeroDivisionError: by nothing") as caught,
    ):
        workers.valid_pass(valid)
    assert "000.png: " in str(caught.value)
    assert "in fail" in caught.value.__notes__[0]


def test_a_closed_loader_starts_new_workers_after_a_fault(tmp_path: Path) -> None:
    """The rows without the trap come as ever."""
    paths = workers.drawn(tmp_path, 12)
    trap = paths[3].rename(tmp_path / "trap killed 3.png")
    paths[3] = workers.Trap(trap)
    loader: Loader = workers.validation_of(paths, 2, "fork").loader
    with workers.closed(loader):
        with pytest.raises(WorkerError, match="trap killed 3"):
            list(loader.batches([np.arange(12)]))
        others = [np.array([0, 1, 2]), np.arange(4, 12)]
        assert [list(batch.rows) for batch in loader.batches(others)] == [list(rows) for rows in others]
