"""Small drawn data sets, configs and a way to run commands in this process, for the end-to-end tests."""

import contextlib
import csv
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tomli_w

from classwise.cli import run_command

# A loader that forks in a process with threads: Python 3.12 warns of it, and our workers do nothing but decode.
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

# Korean, a space, and both kinds of quote: what a careless path or format string trips over.
WEAR, WRONG, NONE = "착용", 'worn "so"', "it's off"
MASKS = (WEAR, WRONG, NONE)


@dataclass(frozen=True)
class Result:
    """What a command left behind: its exit code and the text of both streams."""

    code: int
    out: str
    err: str

    def ok(self) -> "Result":
        """The same result, if the command succeeded."""
        assert self.code == 0, self.err
        return self

    @property
    def path(self) -> Path:
        """The last line of stdout as a path, which is what most commands print."""
        return Path(self.out.strip().splitlines()[-1])


def command(*arguments: object) -> Result:
    """`classwise ARGUMENTS`, in this process."""
    if arguments[:1] in (("train",), ("resume",)):
        import torch  # noqa: F401  # or whether they say that they import it would depend on the tests before
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def draw(path: Path, kind: int, seed: int, size: int = 28) -> None:
    """A noisy PNG of stripes: lying (kind 0), standing (1), or none (2)."""
    rng = np.random.default_rng([kind, seed])
    image = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
    if kind == 0:
        image[(seed % 4) :: 4] += 120
    elif kind == 1:
        image[:, (seed % 4) :: 4] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, data = cv2.imencode(".png", image)
    assert encoded
    path.write_bytes(data.tobytes())


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A table as text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def class_folder(folder: Path, counts: Mapping[str, int]) -> Path:
    """One sub-folder per class, with so many images each."""
    for kind, (label, count) in enumerate(counts.items()):
        for seed in range(count):
            draw(folder / label / f"{seed:02}.png", kind, seed)
    return folder


def plain_rows(count: int) -> list[list[str]]:
    """`count` rows of path and label, the labels `a` and `b` in turn."""
    return [[f"images/{row:02}.png", "ab"[row % 2]] for row in range(count)]


def plain_table(folder: Path, count: int = 16, name: str = "samples.csv", first: int = 0) -> list[list[str]]:
    """samples.csv with the columns path and label, and its images; returns its rows."""
    rows = plain_rows(first + count)[first:]
    for number, (path, label) in enumerate(rows):
        draw(folder / path, "ab".index(label), first + number)
    write_csv(folder / name, ("path", "label"), rows)
    return rows


def people_table(folder: Path, people: int = 24) -> list[list[str]]:
    """samples.csv of people with three images each, in quoted and Korean names: path, 사람, mask, gender, age."""
    rows = []
    for person in range(people):
        gender, age = ("남", "여")[person % 2], 20 + 20 * (person % 3)
        for kind, mask in enumerate(MASKS):
            path = f'사진/person {person}, "{kind}".png'
            draw(folder / path, kind, person)
            rows.append([path, f"{person:03}-1", mask, gender, str(age)])
    write_csv(folder / "samples.csv", ("path", "사람", "mask", "gender", "age"), rows)
    return rows


def many_table(folder: Path, rows: int = 40) -> list[list[str]]:
    """samples.csv with an answer of every type an image, some cells empty; four queries of different lengths."""
    found = []
    for row in range(rows):
        kind = row % 3
        path = f"images/{row:02}.png"
        draw(folder / path, kind, row)
        cells = ["abc"[kind], str(row * 7 % 4), "|".join(("x", "y", "z")[: row % 4]) or "|", f"{row / 4:.2f}"]
        cells = ["" if row % 9 == k else cell for k, cell in enumerate(cells, start=2)]
        found.append([path, *cells, str(row % 3), f"q{min(row // 6, 3)}"])
    header = ("path", "label", "level", "tags", "size", "relevance", "query")
    write_csv(folder / "samples.csv", header, found)
    return found


PLAIN: dict[str, Any] = {
    "name": "plain",
    "data": {"source": "samples.csv", "augment": "light", "workers": 0, "valid": 0.25},
    "targets": {"label": {"column": "label"}},
    "model": {"backbone": "small_cnn", "image_size": [16, 16]},
    "training": {"epochs": 2, "batch_size": 8, "precision": "fp32", "device": "cpu"},
}
PEOPLE: dict[str, Any] = {
    **PLAIN,
    "name": "사람 이름",
    "data": {**PLAIN["data"], "group": "사람"},
    "targets": {
        "mask": {"column": "mask", "labels": list(MASKS), "loss": {"name": "focal"}},
        "gender": {"column": "gender"},
        "age": {"column": "age", "edges": [30, 60], "weight": 0.5},
    },
    "joint": {"targets": ["mask", "gender", "age"]},
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "model": {"backbone": "small_cnn", "image_size": [20, 16], "dropout": 0.1},
    "training": {**PLAIN["training"], "batch_size": 8, "accumulate": 2, "clip_norm": 1.0},
}


MANY: dict[str, Any] = {
    **PLAIN,
    "name": "many",
    "targets": {
        "label": {"column": "label"},
        "level": {"column": "level", "type": "ordinal", "weight": 0.5},
        "tags": {"column": "tags", "type": "multilabel"},
        "size": {"column": "size", "type": "regression", "loss": {"name": "huber"}},
    },
    "loss": {"name": "cross_entropy", "class_weights": "effective", "weights_from_epoch": 2},
    "model": {"backbone": "small_cnn", "image_size": [16, 16], "dropout": 0.1},
    "training": {
        **PLAIN["training"],
        **{"accumulate": 2, "clip_norm": 1.0},
        **{"freeze_epochs": 1, "ema": 0.9, "target_weights": "uncertainty"},
    },
    "selection": {"metric": "size.mae"},
    "report": {"resamples": 20},
}


def write_config(folder: Path, values: Mapping[str, Any] = PLAIN, **changes: Any) -> Path:
    """classwise.toml in `folder`; a change such as data__valid=0.5 sets that key, None removes it."""
    tree = _copy(values)
    for key, value in changes.items():
        *tables, last = key.split("__")
        here = tree
        for table in tables:
            here = here.setdefault(table, {})
        here.pop(last, None)
        if value is not None:
            here[last] = value
    path = folder / "classwise.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and every empty folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"(folder)"
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Nothing below `folder` is made, changed or removed meanwhile."""
    before = contents(folder)
    yield
    assert contents(folder) == before


@contextlib.contextmanager
def generators_untouched() -> Iterator[None]:
    """Python's, numpy's and torch's global generators stand where they stood."""
    import torch

    def states() -> tuple[Any, ...]:
        _, keys, position, *rest = np.random.get_state()
        return random.getstate(), keys.tolist(), position, rest, torch.get_rng_state().tolist()

    before = states()
    yield
    assert states() == before


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
