"""Damaged checkpoints: flipped bits, cut and lengthened files, swapped, missing and replaced ones, the manifest too."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from classwise.errors import CheckpointError
from classwise.run.checkpoint import newest_checkpoint, read_checkpoint
from tests.faults.counting import Count, Figure
from tests.faults.states import NAMES, files_of, put, same_as
from tests.faults.trials import scratch_folder

Damage = Callable[[Path, dict[str, bytes], random.Random], str]


def flip(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """One bit of one file."""
    path = folder / rng.choice(NAMES)
    data = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return f"bit {bit} of {path.name}"


def garble(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """A stretch of zeros or of other bytes."""
    path = folder / rng.choice(NAMES)
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 16, 512, 4096)))
    before = bytes(data[start:end])
    after = bytes(end - start) if rng.random() < 0.5 else rng.randbytes(end - start)
    data[start:end] = after if after != before else bytes(byte ^ 255 for byte in before)
    path.write_bytes(data)
    return f"bytes {start} to {end} of {path.name}"


def cut(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """A file that ends early, from one byte to all of them."""
    path = folder / rng.choice(NAMES)
    size = path.stat().st_size
    left = rng.choice((0, size - 1, rng.randrange(size)))
    path.write_bytes(path.read_bytes()[:left])
    return f"{path.name} cut to {left} of {size}"


def lengthen(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """Bytes behind the end, a line's end among them."""
    path = folder / rng.choice(NAMES)
    more = rng.choice((b"\n", b" ", b"\0", rng.randbytes(rng.randrange(1, 200))))
    path.write_bytes(path.read_bytes() + more)
    return f"{len(more)} bytes behind {path.name}"


def swap(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """A file of another checkpoint of the same run, or two files under each other's names."""
    if rng.random() < 0.5:
        name = rng.choice(NAMES)
        (folder / name).write_bytes(other[name])
        return f"{name} of another update"
    one, two = rng.sample(NAMES, 2)
    (folder / one).rename(folder / "away")
    (folder / two).rename(folder / one)
    (folder / "away").rename(folder / two)
    return f"{one} and {two} swapped"


def lose(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """Files that are not there, or are something else."""
    path = folder / rng.choice(NAMES)
    path.unlink()
    what = rng.choice(("missing", "a folder", "a loose link"))
    if what == "a folder":
        path.mkdir()
    elif what == "a loose link":
        path.symlink_to(folder / "nothing")
    return f"{path.name}: {what}"


def rewrite(folder: Path, other: dict[str, bytes], rng: random.Random) -> str:
    """A manifest of the same meaning or nearly, written otherwise: spaces, order, numbers, doubled keys."""
    path = folder / "manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    kind = rng.choice(("spaces", "order", "number", "doubled", "schema", "files", "fingerprint"))
    if kind == "spaces":
        text = json.dumps(manifest, indent=rng.choice((None, 0, 2, 3)))
    elif kind == "order":
        keys = list(manifest)
        rng.shuffle(keys)
        keys = keys[::-1] if keys == list(manifest) else keys
        text = json.dumps({key: manifest[key] for key in keys}, indent=1) + "\n"
    elif kind == "number":
        size = manifest["files"]["state.json"]["size"]
        text = text.replace(
            f'"size": {size}', f'"size": {rng.choice((f"{size}.0", f"{size}e0", f"-{size}", "true"))}'
        )
    elif kind == "doubled":
        text = text.replace('"schema": ', '"schema": 1,\n "schema": ', 1)
    else:
        manifest[kind] = rng.choice((None, True, [], {}, "x", 10**30))
        text = json.dumps(manifest, indent=1) + "\n"
    path.write_text(text)
    return f"manifest: {kind}"


DAMAGES: dict[str, Damage] = {
    "bit flipped": flip,
    "garbled": garble,
    "cut short": cut,
    "lengthened": lengthen,
    "swapped": swap,
    "missing or replaced": lose,
    "manifest rewritten": rewrite,
}


def damages(tries: int = 10_000, seed: int = 0) -> Count:
    """So many damages to the newest checkpoint: noticed, said, and the good one before is gone on from; every tenth
    time that one is damaged as well, and nothing may be gone on from."""
    count = Count()
    last, best = files_of(3), files_of(2)
    root = scratch_folder()
    for number in range(tries):
        rng = random.Random(f"{seed} {number}")
        shutil.rmtree(root)
        put(root, "last", last)
        put(root, "best", best)
        kind = rng.choice(list(DAMAGES))
        what = DAMAGES[kind](root / "last", best, rng)
        both = number % 10 == 0
        if both:
            what += "; best: " + DAMAGES[rng.choice(list(DAMAGES))](root / "best", last, rng)
        problem = _unnoticed(root, best, both)
        count.add(problem is None, kind, f"{number}, {what}: {problem}")
    shutil.rmtree(root)
    return count


def _unnoticed(root: Path, best: dict[str, bytes], both: bool) -> str | None:
    try:
        read_checkpoint(root / "last")
        return "not noticed"
    except CheckpointError as error:
        if str(root / "last") not in str(error):
            return f"the message does not name it: {error}"
    said: list[str] = []
    try:
        found = newest_checkpoint(root, said.append)
    except CheckpointError as error:
        return None if both else f"no good one found: {error}"
    if both:
        return "none is good, but one was used"
    if not same_as(found, best) or len(said) != 1 or "going on from best (update 2)" not in said[0]:
        return f"went on from {found.folder.name}, saying {said}"
    return None


FIGURES = [
    Figure(
        5,
        "damage",
        "damages to a checkpoint: all noticed, the newest good one used and said, none good: refused",
        damages,
    )
]
