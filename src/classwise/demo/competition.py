"""A drawn data set in the tree and the proportions of a face-mask competition: 18 classes, seven images a person.

    train/train.csv                                          id,gender,race,age,path: one row per person
    train/images/{id}_{gender}_{race}_{age}/{kind}.{ext}     and `._*` files, as macOS leaves behind
    eval/info.csv                                            ImageID,ans: the template, ans 0 everywhere
    eval/images/{40 hex}.jpg
    eval/truth.csv                                           the true answers, which a competition keeps to itself

Class = mask * 6 + gender * 3 + age: mask worn 0, worn wrongly 1, absent 2; male 0, female 1; age below 30 0,
below 60 1, else 2. Every byte is a function of (people, seed).
"""

import csv
import hashlib
import io
import multiprocessing
import os
import signal
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from classwise.demo.canvas import Colour, Image, mix
from classwise.demo.faces import KINDS, Look, Person, draw_face
from classwise.errors import DataError

# Groups in the competition's training set: gender, youngest age, oldest age, number of people.
GROUPS = (
    ("male", 18, 29, 553),
    ("male", 30, 59, 409),
    ("male", 60, 60, 83),
    ("female", 18, 29, 728),
    ("female", 30, 59, 818),
    ("female", 60, 60, 109),
)
LEAST = 2  # people per group, so that a split can have one of each on both sides
RACE = "Asian"
TRAIN, EVAL = 2700, 1800  # people in the competition's two parts

_SKINS: tuple[Colour, ...] = (
    (250, 222, 198),
    (244, 208, 178),
    (236, 194, 160),
    (224, 178, 142),
    (206, 158, 122),
)
_HAIRS: tuple[Colour, ...] = ((38, 32, 34), (52, 38, 34), (74, 50, 38), (104, 70, 48), (140, 98, 64))
_CLOTHES: tuple[Colour, ...] = (
    (58, 84, 130), (196, 84, 78), (92, 138, 104), (232, 222, 208), (66, 66, 74), (222, 172, 84),
    (132, 108, 164), (104, 164, 184), (216, 148, 164), (120, 92, 76), (240, 240, 242), (150, 156, 164),
)  # fmt: skip


def class_number(kind: str, gender: str, age: int) -> int:
    """The class, 0 to 17, of an image of `kind` (one of KINDS) of a person of this gender and age."""
    mask = {"incorrect_mask": 1, "normal": 2}.get(kind, 0)
    return mask * 6 + (gender == "female") * 3 + (age >= 30) + (age >= 60)


def group_sizes(people: int) -> list[int]:
    """How many of `people` are in each of GROUPS: proportionally (largest remainder), but at least LEAST."""
    weights = np.array([group[3] for group in GROUPS])
    sizes, remainders = np.divmod(people * weights, weights.sum())
    order = np.argsort(-remainders, kind="stable")
    sizes[order[: people - sizes.sum()]] += 1
    while sizes.min() < LEAST:
        sizes[sizes.argmin()] += 1
        sizes[sizes.argmax()] -= 1
    return [int(size) for size in sizes]


def look_of(gender: str, age: int, rng: np.random.Generator) -> Look:
    """A random look. No single feature decides the gender, and age shows as noisy ramps, so that a person of 27
    looks much like one of 32; those of 60 are grayer and more lined than their neighbors of 59."""
    female = float(gender == "female")
    old = float(age >= 60)

    def around(mean: float, spread: float, low: float = 0.0, high: float = 1.0) -> float:
        return float(np.clip(rng.normal(mean, spread), low, high))

    def ramp(middle: float, width: float, noise: float) -> float:
        return float(1 / (1 + np.exp(-(felt + rng.normal(0, noise) - middle) / width)))

    def one_of(male_shares: Sequence[float], female_shares: Sequence[float], *names: str) -> str:
        return str(rng.choice(names, p=female_shares if female else male_shares))

    felt = age + rng.normal(0, 3.0)
    gray = float(np.clip(ramp(56, 4, 3) * 0.5 + old * around(0.42, 0.12), 0, 1))
    wrinkles = float(np.clip(0.72 * ramp(37, 4.5, 3) + old * around(0.26, 0.08), 0, 1))
    dull = 0.25 * ramp(38, 5, 4)
    return Look(
        skin=mix(mix(*_pair(_SKINS, rng), rng.random()), (196, 164, 136), dull),
        hair=mix(mix(*_pair(_HAIRS, rng), rng.random()), (208, 208, 212), 0.85 * gray),
        clothes=mix(*_pair(_CLOTHES, rng), 0.25 * rng.random()),
        collar=str(rng.choice(["round", "vee", "shirt", "hood", "high"])),
        style=one_of((0.45, 0.25, 0.08, 0.22), (0.14, 0.26, 0.32, 0.28), "up", "side", "centre", "fringe"),
        length=around(0.62, 0.22) if rng.random() < 0.09 + 0.77 * female else around(0.08, 0.06),
        bun=bool(rng.random() < 0.02 + 0.12 * female),
        volume=around(0.45, 0.22),
        hairline=around((0.75 - 0.6 * female) * ramp(46, 6, 4), 0.12),
        part=around(0.0, 0.6, -1, 1),
        gray=gray,
        width=around(1.02 - 0.035 * female, 0.025, 0.92, 1.08),
        jaw=around(0.70 - 0.40 * female, 0.17),
        chin=around(4 - 5 * female, 4, -8, 12),
        brow=around(9.7 - 3.6 * female, 1.5, 4, 13),
        brow_height=around(1.5 + 2.5 * female - 2 * old, 2, -3, 8),
        eye=around(8.4 + 1.4 * female - 1.2 * ramp(50, 6, 3), 0.9, 5.5, 12),
        eye_width=around(20.5, 1.2, 17, 24),
        eye_tilt=around(1.0, 1.5, -3, 5),
        spacing=around(37, 1.6, 33, 41),
        lash=around(0.17 + 0.45 * female, 0.17),
        nose=around(14.5 - 1.8 * female, 1.6, 10, 19),
        lips=around(0.38 + 0.24 * female, 0.18),
        lip_red=around(0.26 + 0.34 * female, 0.18),
        stubble=around(0.65, 0.25) if rng.random() < 0.42 * (1 - female) else 0.0,
        earring=bool(rng.random() < 0.04 + 0.36 * female),
        glasses=str(rng.choice(["none", "round", "square"], p=[0.72, 0.14, 0.14])),
        wrinkles=wrinkles,
        bags=float(np.clip(0.75 * ramp(36, 4.5, 4) + 0.22 * old, 0, 1)),
        spots=around(0.6 * ramp(50, 5, 3) + 0.15 * old, 0.08),
        droop=3 * ramp(52, 6, 3) + 1.5 * old,
    )


def _pair(colours: Sequence[Colour], rng: np.random.Generator) -> tuple[Colour, Colour]:
    first, second = rng.choice(len(colours), 2, replace=False)
    return colours[first], colours[second]


@dataclass(frozen=True)
class _Sitting:
    """One person's seven images: `number` seeds their random draws, `files` are the paths in the order of KINDS."""

    person: Person
    number: int
    files: tuple[str, ...]


def write_competition(
    folder: Path,
    people: int = 300,
    seed: int = 42,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the data set of `people` training people, and two thirds as many for evaluation, into `folder`.

    `processes` draw in parallel (default: one per core); the bytes do not depend on it. `progress` is called after each
    person with the number of images written and their total. Each file appears under its name only when it is
    complete, and the tables come last. Raises DataError for fewer people than the six groups need.
    """
    if people < LEAST * len(GROUPS):
        raise DataError(
            f"people = {people}: allowed: at least {LEAST * len(GROUPS)}, {LEAST} in each of six groups"
        )
    train = _train_sittings(people, seed)
    evaluation = _eval_sittings(max(LEAST * len(GROUPS), round(people * EVAL / TRAIN)), people, seed)
    _draw_all(folder, [*train, *evaluation], seed, processes, progress)
    _write_junk(folder, train)
    truth = [
        (Path(file).name, class_number(kind, sitting.person.gender, sitting.person.age))
        for sitting in evaluation
        for file, kind in zip(sitting.files, KINDS, strict=True)
    ]
    truth = [truth[row] for row in np.random.default_rng([seed, 3]).permutation(len(truth))]
    persons = sorted(
        (sitting.person for sitting in train), key=lambda person: (person.id, _folder_name(person))
    )
    _write_table(folder / "eval/truth.csv", ("ImageID", "ans"), truth)
    _write_table(folder / "eval/info.csv", ("ImageID", "ans"), [(name, 0) for name, _ in truth])
    rows = [(person.id, person.gender, RACE, person.age, _folder_name(person)) for person in persons]
    _write_table(folder / "train/train.csv", ("id", "gender", "race", "age", "path"), rows)


def _train_sittings(people: int, seed: int) -> list[_Sitting]:
    cast = _cast(people, seed, first=0)
    # Two oddities of the real table, which a reader must handle: an id that occurs twice, for different people, and one
    # that is not a number.
    one = people // 2
    twin = next(
        i % people for i in range(one + 1, one + people) if cast[i % people].gender != cast[one].gender
    )
    cast[twin] = replace(cast[twin], id=cast[one].id)
    odd = next(i for i in (min(people, 600) - 1, 0, 1) if i not in (one, twin))
    cast[odd] = replace(cast[odd], id="000600-1")
    return [
        _Sitting(
            person, i, tuple(f"train/images/{_folder_name(person)}/{kind}{_extension(i)}" for kind in KINDS)
        )
        for i, person in enumerate(cast)
    ]


def _eval_sittings(people: int, first: int, seed: int) -> list[_Sitting]:
    """`first` is the first person's number; it must differ from those in training, so that no look is repeated."""
    return [
        _Sitting(person, i, tuple(f"eval/images/{_digest(f'{seed}/{i}/{kind}')}.jpg" for kind in KINDS))
        for i, person in enumerate(_cast(people, seed, first), start=first)
    ]


def _cast(people: int, seed: int, first: int) -> list[Person]:
    """People of all groups in random order, numbered from `first`."""
    rng = np.random.default_rng([seed, 0, first])
    groups = [group for group, size in zip(GROUPS, group_sizes(people), strict=True) for _ in range(size)]
    cast = []
    for number, row in enumerate(rng.permutation(people), start=first):
        gender, youngest, oldest, _ = groups[row]
        age = _age(youngest, oldest, rng)
        look = look_of(gender, age, np.random.default_rng([seed, 1, number]))
        cast.append(Person(f"{number + 1:06d}", gender, age, look))
    return cast


def _age(youngest: int, oldest: int, rng: np.random.Generator) -> int:
    """Students in their early twenties, parents in their fifties, and some in between."""
    peak = {18: 22, 30: 54, 60: 60}[youngest]
    if youngest == oldest or rng.random() < 0.3:
        return int(rng.integers(youngest, oldest + 1))
    return int(rng.triangular(youngest, peak, oldest + 1))


def _folder_name(person: Person) -> str:
    return f"{person.id}_{person.gender}_{RACE}_{person.age}"


def _extension(number: int) -> str:
    return ".jpeg" if number % 10 == 3 else ".png" if number % 50 == 7 else ".jpg"


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _draw_all(
    folder: Path,
    sittings: Sequence[_Sitting],
    seed: int,
    processes: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    for parent in {(folder / file).parent for sitting in sittings for file in sitting.files}:
        parent.mkdir(parents=True, exist_ok=True)
    draw = partial(_draw_person, folder, seed)
    processes = processes or min(os.cpu_count() or 1, 16)
    if processes == 1:
        _count(map(draw, sittings), len(sittings), progress)
        return
    # spawn: a fork of a process whose libraries run threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_start_worker) as pool:
        _count(pool.map(draw, sittings, chunksize=4), len(sittings), progress)


def _count(done: Iterable[None], people: int, progress: Callable[[int, int], None] | None) -> None:
    for count, _ in enumerate(done, start=1):
        if progress is not None:
            progress(count * len(KINDS), people * len(KINDS))


def _start_worker() -> None:
    """Ctrl-C is handled by the parent, which then assigns no more people."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _draw_person(folder: Path, seed: int, sitting: _Sitting) -> None:
    for shot, (file, kind) in enumerate(zip(sitting.files, KINDS, strict=True)):
        rng = np.random.default_rng([seed, 2, sitting.number, shot])
        _write(folder / file, _encode(draw_face(sitting.person, kind, rng), Path(file).suffix))


def _encode(image: Image, extension: str) -> bytes:
    if extension == ".png":
        fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        return bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), fast)[1])
    return bytes(simplejpeg.encode_jpeg(image, quality=88, colorspace="RGB", colorsubsampling="420"))


def _write_junk(folder: Path, sittings: Sequence[_Sitting]) -> None:
    """AppleDouble files, which macOS leaves beside files and folders on non-Apple disks; for every tenth person."""
    entries = struct.pack(">6I", 9, 50, 32, 2, 82, 0)  # Finder info, and an empty resource fork
    junk = struct.pack(">2I16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 2) + entries + bytes(32)
    for sitting in sittings[3::10]:
        paths = [folder / file for file in sitting.files]
        for path in (*paths, paths[0].parent):
            _write(path.with_name("._" + path.name), junk)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    _write(path, text.getvalue().encode())


def _write(path: Path, data: bytes) -> None:
    """Write the complete file or nothing under its final name."""
    partial_path = path.with_name(path.name + ".part")
    partial_path.write_bytes(data)
    partial_path.replace(path)
