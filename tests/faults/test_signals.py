"""A signal ends a run with a checkpoint; without its protections it does not."""

import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import classwise
from classwise.run.folder import RunFolder
from classwise.signals import STOPPING, StopFlag, defer_signals, stop_flag
from tests.faults import signals
from tests.faults.counting import Count
from tests.helpers.scenes import command


@pytest.fixture(scope="module")
def here() -> Iterator[signals.Place]:
    """A small data set, and its undisturbed runs once they are needed."""
    with signals.place() as found:
        yield found


def test_a_signal_at_a_random_moment(here: signals.Place) -> None:
    """Each signal, to the process and the group, 0 and 2 workers, 1 and 2 processes."""
    count = Count()
    tries = [("SIGTERM", "group", 2, 1), ("SIGINT", "process", 0, 1), ("SIGUSR1", "process", 2, 2)]
    signals.random_moments(here, count, tries)
    count.check()


def test_a_signal_in_a_phase(here: signals.Place) -> None:
    """Setting up, beginning, validating, writing, ending, resuming: some of the places."""
    count = Count()
    signals.every_phase(here, count, part=36)
    count.check()


def test_two_signals_in_a_row(here: signals.Place) -> None:
    """The second SIGINT stops at once, wherever the run is by then; the checkpoint is good."""
    count = Count()
    signals.two_in_a_row(here, count, [("SIGINT", 2, 1)])
    count.check()


@pytest.mark.full
@pytest.mark.parametrize(
    ("sabotage", "number", "to", "workers", "world_size"),
    [
        (signals.workers_take_signals, signal.SIGTERM, "group", 2, 1),
        (signals.everyone_for_itself, signal.SIGTERM, "process", 0, 2),
        (signals.without_sigusr1, signal.SIGUSR1, "process", 0, 1),
    ],
)
def test_without_its_protection_a_signal_breaks_the_run(
    here: signals.Place,
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Callable[[], None],
    number: int,
    to: str,
    workers: int,
    world_size: int,
) -> None:
    """Workers die before the checkpoint; one process waits for another that has left; nobody heard the signal."""
    monkeypatch.setattr(here, "patience", 3.0)

    def try_often() -> None:  # a worker's death may be noticed too late to matter
        for seed in range(8):
            signals.at_a_random_moment(here, number, to, workers, world_size, random.Random(seed), sabotage)

    with pytest.raises(signals.NotHeldError):
        try_often()


def test_a_run_in_a_thread_leaves_signals_alone(here: signals.Place, tmp_path: Path) -> None:
    """Handlers belong to the main thread: a signal there is its own business, and the run goes on to its end."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in STOPPING}
    try:
        thread = threading.Thread(target=classwise.train, args=(here.config, tmp_path / "run"))
        thread.start()
        for number in STOPPING:
            os.kill(os.getpid(), number)
        thread.join(120)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert came == list(STOPPING)
    assert RunFolder(tmp_path / "run").status()["state"] == "finished"


def test_handlers_are_put_back(here: signals.Place, tmp_path: Path) -> None:
    """Whatever was there before, also where the run was refused."""
    before = [signal.getsignal(number) for number in STOPPING]
    command("train", here.config, "--run", tmp_path / "run").ok()
    assert command("train", here.config, "--run", tmp_path / "run").code == 1
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_what_a_flag_does() -> None:
    """At once before there is a checkpoint, then after the update; SIGINT again at once; all of it held while held."""
    early = StopFlag()
    with pytest.raises(KeyboardInterrupt, match="15"):
        early.ask(signal.SIGTERM, None)
    early.ask(signal.SIGTERM, None)  # the clearing up goes on
    with pytest.raises(KeyboardInterrupt):
        early.ask(signal.SIGINT, None)

    late = StopFlag()
    late.wait_for_updates()
    assert not late.is_set()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        late.ask(number, None)
    assert late.is_set()
    with pytest.raises(KeyboardInterrupt):
        late.ask(signal.SIGINT, None)

    held, steps = StopFlag(), []

    def hold() -> None:
        with held.holding():
            with held.holding():
                held.ask(signal.SIGUSR1, None)
            steps.append("still within")

    with pytest.raises(KeyboardInterrupt, match="10"):
        hold()
    assert steps == ["still within"]


def test_processes_started_while_signals_are_held_back_never_get_them() -> None:
    """A new process inherits what is held back; this one gets it at the end of the block, if not before."""
    show = ["grep", "SigBlk", "/proc/self/status"]
    bits = sum(1 << (number - 1) for number in STOPPING)
    with stop_flag() as stop:
        stop.wait_for_updates()
        with defer_signals():
            os.kill(os.getpid(), signal.SIGUSR1)
            within = int(subprocess.check_output(show).split()[1], 16)
        assert stop.is_set()
    after = int(subprocess.check_output(show).split()[1], 16)
    assert within & bits == bits
    assert after & bits == 0
