"""Failing disks: each file operation of a save fails in turn, a disk fills up at any point, and outputs likewise."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from classwise.console import Console
from classwise.data.table import write_table
from classwise.errors import CheckpointError, ClasswiseError
from classwise.files import write_bytes, write_json, write_text
from classwise.run.checkpoint import newest_checkpoint, write_checkpoint
from tests.faults.counting import Count, Figure
from tests.faults.interposed import FAULTS, in_a_child, recorded, with_fault
from tests.faults.states import files_of, put, same_as
from tests.faults.trials import scratch_folder
from tests.helpers.children import child_environment


def every_operation(faults: tuple[str, ...] = FAULTS, step: int = 1) -> Count:
    """A save over an earlier one, in which operation after operation fails."""
    count = Count()
    old, new, third = files_of(1), files_of(2), files_of(3)
    root = scratch_folder()
    put(root / "checkpoints", "last", old)
    total = len(recorded(root, lambda: write_checkpoint(root / "checkpoints", "last", new)))
    for fault in faults:
        for number in range(0, total, step):
            shutil.rmtree(root / "checkpoints")
            folder = put(root / "checkpoints", "last", old).parent
            save = lambda f=folder, n=number, x=fault: with_fault(  # noqa: E731
                root, n, x, lambda: write_checkpoint(f, "last", new)
            )
            problem = (
                _killed(save, folder, old, new) if "kill" in fault else _survived(save, folder, old, new)
            )
            if problem is None:
                write_checkpoint(folder, "last", third)
                left = sorted(path.name for path in folder.iterdir())
                if left != ["last"] or not same_as(newest_checkpoint(folder, print), third):
                    problem = f"the next save left {left}"
            count.add(problem is None, fault, f"operation {number}: {problem}")
    count.notes["operations of a save"] = total
    shutil.rmtree(root)
    return count


def _survived(
    save: Callable[[], Any], folder: Path, old: dict[str, bytes], new: dict[str, bytes]
) -> str | None:
    """What is wrong after a fault that the process survives."""
    try:
        save()
    except CheckpointError:
        pass
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    hidden = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    return f"{hidden} stayed" if hidden else _neither(folder, old, new)


def _killed(
    save: Callable[[], Any], folder: Path, old: dict[str, bytes], new: dict[str, bytes]
) -> str | None:
    code = in_a_child(save)
    return _neither(folder, old, new) if code == 9 else f"exit code {code}"


def _neither(folder: Path, old: dict[str, bytes], new: dict[str, bytes]) -> str | None:
    try:
        found = newest_checkpoint(folder, lambda text: None)
    except CheckpointError as error:
        return str(error)
    return None if same_as(found, old) or same_as(found, new) else "another checkpoint"


# The programs run in a mount namespace of their own, so that nothing is left mounted however they end.
ON_A_SMALL_DISK = """
from tests.faults.disk import small_disks
small_disks({sizes!r})
"""


def full_disks(sizes: int = 50) -> Count:
    """Saves on real file systems of so many sizes, from too small for a byte to large enough."""
    count = Count()
    new = sum(len(data) for data in files_of(2).values())
    old = sum(len(data) for data in files_of(1).values())
    page = 4096
    # From where only the old one fits to where both do.
    steps = [(old // page + 6 + i * (new // page + 12) / max(1, sizes - 1)) * page for i in range(sizes)]
    script = ON_A_SMALL_DISK.format(sizes=[int(step) // page * page for step in steps])
    found = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=600,
        env=child_environment(),
    )
    lines = [line.split("\t") for line in found.stdout.splitlines() if line.startswith("disk\t")]
    for _, outcome, problem in lines:
        count.add(not problem, outcome, problem)
    for _ in range(sizes - len(lines)):
        count.add(False, "not tried", found.stderr[-300:])
    return count


def small_disks(sizes: list[int]) -> None:
    """Run inside the namespace: prints a line for each size."""
    old, new, third = files_of(1), files_of(2), files_of(3)
    mount = Path(tempfile.mkdtemp())
    for size in sizes:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
        try:
            folder, problem, outcome = mount / "checkpoints", None, "fitted"
            try:
                put(folder, "last", old)
            except OSError:
                problem = "even the first one does not fit: the sizes are wrong"
            if problem is None:
                try:
                    write_checkpoint(folder, "last", new)
                except CheckpointError:
                    outcome = "full"
                hidden = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
                problem = f"{hidden} stayed" if hidden else _neither(folder, old, new)
            if problem is None and outcome == "full" and not same_as(newest_checkpoint(folder, print), old):
                problem = "the old one is gone"
            if problem is None:
                subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
                write_checkpoint(folder, "last", third)
                problem = None if same_as(newest_checkpoint(folder, print), third) else "the next save failed"
            print("disk", outcome, problem or "", sep="\t", flush=True)
        finally:
            subprocess.run(["umount", str(mount)], check=True)


def _frame(text: str) -> pl.DataFrame:
    return pl.DataFrame({"id": ["a", text], "mask": ["=1", "x"]})


# The writers of everything in a run directory, by name: the file, and how it is written.
OUTPUTS: dict[str, tuple[str, Callable[[Path, str], None]]] = {
    "CSV": ("predictions.csv", lambda path, text: write_table(_frame(text), path)),
    "Parquet": ("predictions.parquet", lambda path, text: write_table(_frame(text), path)),
    "JSON": ("metrics.json", lambda path, text: write_json(path, {"value": text})),
    "text": ("config.toml", lambda path, text: write_text(path, text * 100)),
    "page": ("report.html", lambda path, text: write_bytes(path, text.encode() * 5000)),
}


def outputs(faults: tuple[str, ...] = FAULTS, names: Sequence[str] = tuple(OUTPUTS)) -> Count:
    """Files of a run directory, new or over an earlier one, in which operation after operation fails."""
    count = Count()
    root = scratch_folder()
    for name in names:
        file, writer = OUTPUTS[name]
        path = root / file
        writer(path, "old")
        old = path.read_bytes()
        total = len(recorded(root, lambda w=writer, p=path: w(p, "new")))
        new = path.read_bytes()
        # What is written is in the bytes; a forked child must not start polars' threads.
        write = lambda p, _, data=new: write_bytes(p, data)  # noqa: E731
        for fault in faults:
            for number in range(total):
                for before in (old, None):
                    shutil.rmtree(root)
                    root.mkdir()
                    if before is not None:
                        path.write_bytes(before)
                    problem = _output_problem(root, path, number, fault, write, before, new)
                    count.add(problem is None, name, f"{fault} at operation {number}: {problem}")
    shutil.rmtree(root)
    _add_log(count, faults)
    return count


def _output_problem(
    root: Path,
    path: Path,
    number: int,
    fault: str,
    write: Callable[[Path, str], None],
    old: bytes | None,
    new: bytes,
) -> str | None:
    work = lambda: with_fault(root, number, fault, lambda: write(path, "new"))  # noqa: E731
    if "kill" in fault:
        code = in_a_child(work)
        if code != 9:
            return f"exit code {code}"
    else:
        try:
            work()
        except (OSError, ClasswiseError):
            pass
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        others = sorted(p.name for p in root.iterdir() if p != path)
        if others:
            return f"{others} stayed"
    found = path.read_bytes() if path.exists() else None
    return None if found in (old, new) else "neither the old nor the new file"


def _add_log(count: Count, faults: tuple[str, ...]) -> None:
    """A log that cannot be written must not end a run: lines are lost, said and counted."""
    for fault in [fault for fault in faults if "kill" not in fault]:
        for number in range(3):
            root = scratch_folder()
            console = Console(quiet=True)
            console.log_to(root / "log.txt")
            console.line("one")
            problem = None
            try:
                with_fault(root, number, fault, lambda c=console: [c.line(f"line {i}") for i in range(3)])
                console.line("after")
            except BaseException as error:
                problem = f"{type(error).__name__}: {error}"
            text = (root / "log.txt").read_text()
            if problem is None and not ("one" in text and text.endswith("after\n")):
                problem = f"the log holds {text!r}"
            if problem is None and console.lost_lines != 1:
                problem = f"{console.lost_lines} lost lines counted"
            count.add(problem is None, "log", f"{fault} at operation {number}: {problem}")
            shutil.rmtree(root)


FIGURES = [
    Figure(
        3,
        "disk-operations",
        "every file operation of a save fails in turn, in each of five ways",
        every_operation,
    ),
    Figure(3, "disk-full", "saves on real file systems of 50 sizes that fill up", full_disks),
    Figure(
        3,
        "disk-outputs",
        "every file operation of writing tables, metrics, config, report and log fails",
        outputs,
    ),
]
