"""Two and three processes compute what one would; without the sums, the merging or the turns they would not."""

import shutil
from typing import Any

import pytest

from tests.faults import distributed
from tests.helpers.same_end import differences

CHECKS = ("gradients=60", "loop", "metrics=40", "runs", "non-finite")
SABOTAGES = ("gradients=30!mean loss", "metrics=20!padded sampler", "runs!no merging", "non-finite!unchecked")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """All checks of two processes, in one launch of torchrun."""
    return distributed.ranks(2, *CHECKS, *SABOTAGES)


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes_are_as_one(found: dict[str, Any], check: str) -> None:
    """Gradients, scores, states, and what happens when a number is not finite."""
    assert found[check]["failures"] == []
    assert found[check]["held"] == found[check]["tried"] >= 4


def test_shards_of_every_kind_were_tried(found: dict[str, Any]) -> None:
    """Even, uneven and empty ones, in both precisions."""
    assert {"even shards", "uneven shards", "an empty shard"} == set(found["gradients=60"]["by"])
    assert len(found["loop"]["by"]) == 6


@pytest.mark.parametrize("check", SABOTAGES)
def test_sabotage(found: dict[str, Any], check: str) -> None:
    """The plain mean loss, a sampler that pads, statistics that are each process's own, steps by numbers that are
    not finite."""
    assert found[check]["held"] < found[check]["tried"]


def test_a_run_goes_from_two_processes_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal to the second process only; resumed alone, it ends near the run of two."""
    with distributed.drawn(training__epochs=2) as (folder, config):
        codes = distributed.stopped(folder, 2, 3, 1, "train", config, "--run", folder / "run")
        assert codes == [75, 75]
        done = distributed.classwise(1, "resume", folder / "run")
        assert done.returncode == 0, done.stderr
        assert "world_size 2 then, 1 now" in done.stderr
        one = distributed.classwise(1, "train", config, "--run", folder / "one", "--training.accumulate", "2")
        assert one.returncode == 0, one.stderr
        losses = [
            [row["train_loss"] for row in distributed.history(folder / name)] for name in ("run", "one")
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_mistake_is_said_once() -> None:
    """All processes end, and one of them says why."""
    with distributed.drawn() as (folder, config):
        image = sorted((folder / "사진").iterdir())[1]
        image.write_bytes(image.read_bytes()[:200])
        done = distributed.classwise(2, "train", config, "--run", folder / "run")
        assert done.returncode != 0
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")][1:] == []
        assert "cut short" in done.stderr
        assert not (folder / "run").exists()


def test_a_store_in_one_process_only() -> None:
    """The second process cannot keep decoded images: nobody waits for its word, and the end is the same."""
    with distributed.drawn(training__epochs=1) as (folder, config):
        assert distributed.classwise(2, "train", config, "--run", folder / "like").returncode == 0
        done = distributed.apart(folder, "no store", config, folder / "run")
        assert done.returncode == 0, done.stderr
        assert differences(folder / "like", folder / "run") == ""


def test_another_image_on_another_machine() -> None:
    """Each machine checks its own files, and an image that differs is named."""
    with distributed.drawn() as (folder, config):
        copy = folder / "copy"
        shutil.copytree(folder, copy)
        dataset = sorted((copy / "사진").iterdir())
        dataset[3].write_bytes(dataset[4].read_bytes())
        done = distributed.apart(folder, "machines", config, folder / "run", copy)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert dataset[3].name in errors[0]
        assert "all need the same files" in errors[0]
        assert not (folder / "run").exists()
