"""Power cuts: what a disk may hold afterwards, out of a log of the operations.

The model is harsher than a journalling file system: after a cut, a file's bytes are sure only as of its last fsync, a
name only as of the last fsync of the folder it stands in. What came later is there, missing, cut short, zeros or
garbage, in any mixture and in any order; a rename alone is never half done.
"""

import contextlib
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from classwise.errors import CheckpointError
from classwise.run.checkpoint import newest_checkpoint, write_checkpoint
from classwise.run.folder import new_folder
from tests.faults.counting import Count, Figure
from tests.faults.interposed import Operation, recorded
from tests.faults.states import files_of
from tests.faults.trials import scratch_folder


@dataclass
class Inode:
    """A file or folder on the simulated disk: all bytes written, and those that are sure."""

    is_folder: bool
    data: bytes = b""
    synced: bytes = b""
    names: dict[str, "Inode"] = field(default_factory=dict)


def log_of_saves(root: Path, saves: int = 4) -> list[Operation]:
    """A new run's folder and its saves, `best` and `last` in turns; after each, that it has returned."""
    log: list[Operation] = []
    with contextlib.ExitStack() as stack:
        log += recorded(root, lambda: stack.enter_context(new_folder("run", root / "runs" / "one")))
        for number in range(saves):
            files = files_of(number)
            names = ("best", "last") if number % 2 else ("last",)
            for name in names:
                place = root / "runs" / "one" / "checkpoints"
                log += recorded(root, lambda n=name, f=files, p=place: write_checkpoint(p, n, f))
            log.append(Operation("returned", "", str(number)))
    return log


def states(log: list[Operation], root: Path, count: int, seed: int = 0) -> Count:
    """So many cuts at random places of the log, each with what may be left of it."""
    found = Count()
    base = scratch_folder()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        cut = rng.randrange(1, len(log) + 1)
        returned = [int(operation.other) for operation in log[:cut] if operation.kind == "returned"]
        disk = _after_a_cut(log[:cut], str(root), rng)
        place = base / "disk"
        shutil.rmtree(place, ignore_errors=True)
        _lay_out(disk, place)
        problem = _problem(place / "runs" / "one" / "checkpoints", returned[-1] if returned else None)
        kind = (
            "before the first save"
            if not returned
            else "in a save"
            if log[cut - 1].kind != "returned"
            else "between"
        )
        found.add(problem is None, kind, f"state {number}, cut at {cut}: {problem}")
    shutil.rmtree(base)
    return found


def _problem(folder: Path, least: int | None) -> str | None:
    """What is wrong with a state in which the save of update `least` had returned."""
    try:
        update = newest_checkpoint(folder, lambda text: None).update
    except CheckpointError as error:
        return None if least is None else f"none is left, {least} had been saved: {error}"
    return None if least is None or update >= least else f"update {update} is left, {least} had been saved"


def _after_a_cut(log: list[Operation], root: str, rng: random.Random) -> Inode:
    """Replay the log; names that are not sure survive by chance and in any order."""
    top = Inode(True)
    live: dict[str, Inode] = {root: top}
    changes: list[tuple[Inode, Operation, Inode]] = []  # the folder, what was done in it, to what
    sure: set[int] = set()
    for operation in log:
        path, folder = operation.path, live.get(os.path.dirname(operation.path), top)
        if operation.kind in ("mkdir", "create"):
            live[path] = Inode(operation.kind == "mkdir")
            changes.append((folder, operation, live[path]))
        elif operation.kind == "write":
            live[path].data += operation.data
        elif operation.kind == "fsync":
            live[path].synced = live[path].data
            sure |= {i for i, (place, _, _) in enumerate(changes) if place is live[path]}
        elif operation.kind == "rename":
            moved = [known for known in live if known == path or known.startswith(path + "/")]
            live |= {operation.other + known[len(path) :]: live.pop(known) for known in moved}
            changes.append((folder, operation, live[operation.other]))
        elif operation.kind in ("unlink", "rmdir"):
            changes.append((folder, operation, live.pop(path)))
    # What is not sure may be there, in any order among itself.
    kept = [i for i in range(len(changes)) if i in sure or rng.random() < 0.5]
    loose = [i for i in kept if i not in sure]
    if rng.random() < 0.5:
        rng.shuffle(loose)
    order = iter(loose)
    for i in (i if i in sure else next(order) for i in kept):
        folder, operation, inode = changes[i]
        name = os.path.basename(operation.path)
        if operation.kind in ("mkdir", "create"):
            folder.names[name] = inode
        elif folder.names.get(name) is not inode:
            continue  # the name has not come that far, or is gone
        elif operation.kind == "rename":
            folder.names[os.path.basename(operation.other)] = folder.names.pop(name)
        else:
            del folder.names[name]
    _cut_short(top, rng)
    return top


def _cut_short(inode: Inode, rng: random.Random) -> None:
    """What is left of the files' bytes."""
    inode.data = _left_of(inode, rng)
    for inner in inode.names.values():
        _cut_short(inner, rng)


def _left_of(inode: Inode, rng: random.Random) -> bytes:
    """The bytes of a file after the cut."""
    if inode.data == inode.synced:
        return inode.synced
    fate = rng.randrange(4)
    rest = inode.data[len(inode.synced) :]
    if fate == 0:
        return inode.synced
    if fate == 1:
        return inode.synced + rest[: rng.randrange(len(rest) + 1)]
    return inode.synced + (bytes(len(rest)) if fate == 2 else rng.randbytes(len(rest)))


def _lay_out(inode: Inode, path: Path) -> None:
    if not inode.is_folder:
        path.write_bytes(inode.data)
        return
    path.mkdir()
    for name, inner in inode.names.items():
        _lay_out(inner, path / name)


def power_cuts(count: int = 10_000) -> Count:
    """The whole figure."""
    root = scratch_folder()
    log = log_of_saves(root)
    found = states(log, root, count)
    found.notes["operations in the log"] = len(log)
    shutil.rmtree(root)
    return found


FIGURES = [
    Figure(
        4,
        "power-cuts",
        "states of the disk after a power cut, with unsynced operations dropped, reordered or garbled",
        power_cuts,
    )
]
