"""No failing disk and no power cut leaves a run without a whole checkpoint; and what would, without the protection."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from classwise.run import checkpoint as checkpoints
from classwise.run.checkpoint import write_checkpoint
from tests.faults import disk, power
from tests.faults.interposed import recorded
from tests.faults.states import files_of


def test_every_operation_of_a_save_fails_in_turn() -> None:
    """Disk full, input/output errors, short writes, and kills right before and after."""
    count = disk.every_operation()
    count.check()
    assert count.notes["operations of a save"] > 15
    assert set(count.by) == set(disk.FAULTS)


@pytest.mark.parametrize(
    "names", [("CSV", "page"), pytest.param(tuple(disk.OUTPUTS), marks=pytest.mark.full)], ids=["some", "all"]
)
def test_every_operation_of_other_outputs_fails_in_turn(names: tuple[str, ...]) -> None:
    """Tables, metrics, config, report: the old file or the new one. The log: lines are lost, and counted."""
    count = disk.outputs(names=names)
    count.check()
    assert {*names, "log"} == set(count.by)


CAN_MOUNT = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="mounting a small file system needs root")
def test_real_disks_that_fill_up() -> None:
    """Some of them too small for two checkpoints."""
    count = disk.full_disks(6)
    count.check()
    assert count.by["full"]
    assert count.by["fitted"]


def test_a_power_cut_leaves_a_checkpoint() -> None:
    """600 states, most of them cut in the middle of a save."""
    count = power.power_cuts(600)
    count.check()
    assert count.by["in a save"] > 300


# Sabotage: each takes one protection out, and the promise breaks.


def write_in_place(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """As many programs save: over what is there."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        with (folder / name / file).open("wb") as opened:
            opened.write(data)


def remove_first(folder: Path, name: str, files: dict[str, bytes]) -> None:
    """The old one goes before the new one is there."""
    shutil.rmtree(folder / name, ignore_errors=True)
    write_checkpoint(folder, name, files)


def unsynced_files(path: Path, data: bytes) -> None:
    """No fsync."""
    with path.open("xb") as file:
        file.write(data)


@pytest.mark.full
@pytest.mark.parametrize("save", [write_in_place, remove_first])
def test_sabotage_of_a_save(monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    """A disk that fails then leaves nothing."""
    monkeypatch.setattr(disk, "write_checkpoint", save)
    count = disk.every_operation(("ENOSPC", "kill before", "kill after"))
    assert count.held < count.tried


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("_write_flushed", unsynced_files),
        ("sync_folder", lambda folder: None),
        ("make_folder", lambda folder: folder.mkdir(exist_ok=True)),
    ],
)
def test_sabotage_of_flushing(monkeypatch: pytest.MonkeyPatch, name: str, sabotage: Any) -> None:
    """Without a flush of the files, of the folder's names, or of the folder's own name, a power cut takes what a
    save had said was kept."""
    monkeypatch.setattr(checkpoints, name, sabotage)
    count = power.power_cuts(300)
    assert count.held < count.tried


@pytest.mark.full
def test_sabotage_of_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting the old one before the new name is flushed."""
    real = checkpoints.sync_folder
    late: list[Path] = []

    def postponed(folder: Path) -> None:
        if folder.name == "checkpoints":
            late.append(folder)
        else:
            real(folder)

    monkeypatch.setattr(checkpoints, "sync_folder", postponed)
    count = power.power_cuts(300)
    assert late
    assert count.held < count.tried


def test_the_operations_are_really_seen(tmp_path: Path) -> None:
    """The recorder sees each kind that a save is made of."""
    write_checkpoint(tmp_path / "checkpoints", "last", files_of(0))
    found = recorded(tmp_path, lambda: write_checkpoint(tmp_path / "checkpoints", "last", files_of(1)))
    assert {"mkdir", "create", "write", "fsync", "rename", "unlink", "rmdir"} == {one.kind for one in found}
    assert [one.kind for one in found].count("fsync") == 6
    assert os.fsync is not None
