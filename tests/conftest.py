"""Drawn images and tables that several test files start from."""

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.browser import Browser, browsing

# No test depends on timing: an example may take long on a busy machine.
settings.register_profile("classwise", deadline=None)
settings.load_profile("classwise")

# The tensors here are small: threads that wait for each other make the tests many times slower on a busy machine.
# Before torch is imported, and for the commands that tests start as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Decoded images are kept for this run of the tests alone, by the commands that they start as well.
_cache = tempfile.TemporaryDirectory(prefix="classwise-tests-")
os.environ["XDG_CACHE_HOME"] = _cache.name

# Nothing is asked of the Hugging Face hub, and what a machine has of it makes no difference; before its client is
# imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = f"{_cache.name}/huggingface"

# Far apart in hue, so that even a mean colour tells the classes apart.
COLOURS = [(220, 40, 40), (40, 180, 60), (50, 60, 220), (230, 200, 40), (160, 50, 200), (40, 200, 210)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, where both kinds are asked for: short ones are left for the worker that is done early."""
    items.sort(key=lambda item: item.get_closest_marker("full") is None)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower with several threads, and whole runs are compared byte by byte, where the number
    of threads counts. A run sets it as its config says, so each file begins with one again."""
    torch = sys.modules.get("torch")  # a file that does not import it need not wait for it
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, for all tests of a file."""
    with browsing() as found:
        yield found


@pytest.fixture
def make_images() -> Callable[..., list[str]]:
    """`make_images(folder, {label: count}, size=(height, width), suffix=".png")` draws a folder of class
    folders and returns the paths relative to it. No two images are alike; labels may be in any script."""
    return _make_images


@pytest.fixture
def make_table() -> Callable[..., Path]:
    """`make_table(path, rows)` writes rows (dicts with the same keys) as .csv or .tsv and returns `path`."""
    return _make_table


def _make_images(
    folder: Path, counts: Mapping[str, int], size: tuple[int, int] = (24, 32), suffix: str = ".png"
) -> list[str]:
    names = []
    for k, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            name = f"{label}/{i:03d}{suffix}"
            # cv2.imwrite does not take every name; bytes do.
            (folder / name).write_bytes(cv2.imencode(suffix, _image(k, i, size)[:, :, ::-1])[1].tobytes())
            names.append(name)
    return names


def _image(k: int, i: int, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8 RGB in the class's colour, each with its own smooth shading."""
    rng = np.random.default_rng((k, i))
    shade = cv2.resize(rng.uniform(-35, 35, (4, 4, 3)), size[::-1], interpolation=cv2.INTER_LINEAR)
    return (np.array(COLOURS[k % len(COLOURS)]) + shade).clip(0, 255).astype(np.uint8)


def _make_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path
