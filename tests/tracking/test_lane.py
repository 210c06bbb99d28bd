"""A tracker that fails, hangs or comes back: what it had missed arrives, it says so once, and others go on."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from classwise.tracking import lane
from classwise.tracking.facts import Ending, Point, RunFacts
from classwise.tracking.lane import Lane
from classwise.tracking.memory import Memory
from classwise.tracking.tracker import Kind
from tests.helpers.tracked import facts_of, points_of


class Fake:
    """A tracker in memory that raises what it is told to, one error a call."""

    def __init__(self, errors: Sequence[BaseException] = ()) -> None:
        self.where = "in memory"
        self.errors = list(errors)
        self.steps: list[int] = []
        self.ending: Ending | None = None
        self.kept: int | None = None

    def open(
        self, facts: RunFacts, memory: dict[str, Any], keep: int, remember: Callable[..., None]
    ) -> "Fake":
        self.kept = keep
        return self

    def log(self, points: Sequence[Point]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.steps += [point.step for point in points]

    def finish(self, ending: Ending) -> None:
        self.ending = ending


def lane_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, fake: Fake, can_erase: bool = True, step: int = 0
) -> tuple[Lane, list[tuple[str, str]]]:
    """A lane for the tracker `csv`, which is the fake one, and what it says."""
    monkeypatch.setitem(lane.KINDS, "csv", Kind(fake.open, can_erase))
    monkeypatch.setattr(lane, "BETWEEN_SECONDS", 0.001)
    monkeypatch.setattr(lane, "RETRY_SECONDS", 0.001)
    said: list[tuple[str, str]] = []
    found = Lane(
        "csv", facts_of(folder, step), Memory(folder), lambda _, kind, text: said.append((kind, text))
    )
    return found, said


def run_to_its_end(found: Lane, points: Sequence[Point]) -> None:
    for point in points:
        found.add(point)
    found.thread.start()
    found.end(Ending("finished"))
    found.thread.join()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SystemExit(1), ValueError("")])
def test_a_tracker_that_comes_back_has_missed_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake([error, error, error])
    found, said = lane_of(monkeypatch, tmp_path, fake)
    for point in points_of([1, 2, 3]):
        found.add(point)
    found.thread.start()
    while found.thread.is_alive() and (fake.errors or not fake.steps):
        threading.Event().wait(0.001)
    found.end(Ending("finished"))
    found.thread.join()
    assert fake.steps == [1, 2, 3]
    assert fake.ending == Ending("finished")
    assert [kind for kind, _ in said] == ["opened", "failed", "recovered", "done"]


def test_a_tracker_that_fails_to_the_end_says_once_why_and_then_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake([OSError("no route to host\nat all")] * 1000)
    found, said = lane_of(monkeypatch, tmp_path, fake)
    run_to_its_end(found, points_of([1, 2]))
    assert said[1:] == [
        ("failed", "OSError: no route to host"),
        ("lost", "2 points and the end of the run were not sent"),
        ("done", ""),
    ]


def test_points_wait_up_to_a_limit_that_does_not_count_for_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MOST_WAITING", 2)
    fake = Fake()
    found, said = lane_of(monkeypatch, tmp_path, fake)
    run_to_its_end(found, [*points_of([1, 2, 3, 4]), Point(5, 0.0, {}, ends_epoch=True)])
    assert fake.steps == [1, 2, 5]
    assert ("lost", "2 points within epochs, more than can wait") in said


@pytest.mark.parametrize(("can_erase", "kept", "steps"), [(True, 4, [5, 6, 8]), (False, 6, [8])])
def test_after_a_resume_no_point_is_there_twice(
    can_erase: bool, kept: int, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged up to 6, resumed from a checkpoint at 4: what can be erased is sent again, and the rest is not."""
    Memory(tmp_path).keep("csv", step=6)
    fake = Fake()
    found, _ = lane_of(monkeypatch, tmp_path, fake, can_erase, step=4)
    run_to_its_end(found, points_of([2, 4, 5, 6, 8]))
    assert fake.kept == kept
    assert fake.steps == steps
    assert Memory(tmp_path).recall("csv") == {"step": 8}


def test_an_epoch_that_was_missed_at_a_kill_is_sent_after_the_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the checkpoint at 4 and the report of that epoch."""
    Memory(tmp_path).keep("csv", step=2)
    fake = Fake()
    found, _ = lane_of(monkeypatch, tmp_path, fake, can_erase=False, step=4)
    run_to_its_end(found, points_of([2, 4, 6]))
    assert fake.steps == [4, 6]
