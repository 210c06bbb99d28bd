"""Decoded pictures on the disk: the same pixels as decoding gives, whatever happens to the store."""

import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from classwise.data import cache
from classwise.data.augment import PRESETS
from classwise.data.cache import PictureStore, store_folder
from classwise.data.images import check_images, least_size, read_image, store_image
from classwise.data.loader import Loader, Pictures

SIZE = (16, 16)
LEAST = least_size(SIZE)
Stores = Callable[..., PictureStore]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Pictures of every kind, large and small, upright and turned; two files hold the same."""
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for i in range(24):
        size = tuple(int(n) for n in rng.integers(20, 200, 2))
        small = rng.integers(60, 200, (5, 5, 3), dtype=np.uint8)
        image = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
        suffix = (".jpg", ".png", ".webp", ".bmp")[i % 4]
        data = cv2.imencode(suffix, image)[1].tobytes()
        if i % 8 == 0:
            exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
            data = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
        (tmp_path / "in" / f"{i:02}{suffix}").write_bytes(data)
    shutil.copy(tmp_path / "in/00.jpg", tmp_path / "in/copy.jpg")
    return sorted((tmp_path / "in").iterdir())


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Opens a store in a folder of this name, by default always the same."""
    opened = []

    def make(name: str = "store", limit: int = 10**9, reserve: int = 0) -> PictureStore:
        opened.append(PictureStore(tmp_path / "base" / name, limit, reserve))
        return opened[-1]

    yield make
    for store in opened:
        store.close()
    cache._maps.clear()


def fill(store: PictureStore, paths: list[Path]) -> None:
    assert check_images(paths, least=LEAST, store=store, threads=2) == []
    store.flush()


def assert_right(store: PictureStore, paths: list[Path], stored: int | None = None) -> None:
    """What is stored is what decoding gives; `stored` of them are."""
    found = store.of(paths)
    images = [found.get(row) for row in range(len(paths))]
    for image, path in zip(images, paths, strict=True):
        if image is not None:
            np.testing.assert_array_equal(image, read_image(path, least=LEAST))
    assert sum(image is not None for image in images) == (len(paths) if stored is None else stored)


def undecoded() -> Any:
    """Fails at the first picture that is decoded."""
    return mock.patch("classwise.data.images._decode", side_effect=AssertionError("decoded"))


def test_pictures_are_halved_as_long_as_they_stay_twice_the_size(paths: list[Path]) -> None:
    for path in paths:
        whole, found = read_image(path), read_image(path, least=LEAST)
        ratio = whole.shape[0] / found.shape[0]
        times = round(np.log2(ratio))
        assert found.shape[:2] == tuple((side - 1 >> times) + 1 for side in whole.shape[:2])
        assert times == 0 or min(found.shape[0] - LEAST[0], found.shape[1] - LEAST[1]) >= 0
        assert any((side + 1) // 2 < least for side, least in zip(found.shape, LEAST, strict=False))
        expected = cv2.resize(whole, found.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(expected.astype(int) - found).mean() < 3


def test_a_store_gives_what_decoding_gives(paths: list[Path], stores: Stores) -> None:
    store = stores()
    fill(store, paths)
    assert_right(store, paths)
    assert store.added == len(paths) - 1  # two files are one picture
    again = stores()
    with undecoded():
        fill(again, paths)
    assert_right(again, paths)
    assert again.added == 0
    assert again.size == store.size > 0
    assert str(again).startswith(f"pictures: 0 decoded and kept, {len(paths)} were there already; ")


@pytest.mark.parametrize("changes", [None, PRESETS["strong"]])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_a_store(
    paths: list[Path], stores: Stores, changes: Any, workers: int
) -> None:
    store = stores()
    fill(store, paths[:-3])  # some are missing
    batches = []
    for stored in (None, store.of(paths)):
        pictures = Pictures(paths, SIZE, "crop", 10**6, seed=3, augment=changes, stored=stored)
        loader = Loader(pictures, {"row": np.arange(len(paths))}, 8, workers)
        parts = list(np.array_split(np.random.default_rng(2).permutation(len(paths)), 4))
        batches.append([batch.images.numpy() for batch in loader.batches(parts, epoch=1)])
        loader.close()
    for plain, kept in zip(*batches, strict=True):
        np.testing.assert_array_equal(plain, kept)


def test_a_changed_file_is_another_picture(paths: list[Path], stores: Stores) -> None:
    fill(stores(), paths)
    paths[1].write_bytes(paths[2].read_bytes())
    paths[5].write_bytes(cv2.imencode(".png", np.full((70, 90, 3), 7, np.uint8))[1].tobytes())
    store = stores()
    fill(store, paths)
    assert_right(store, paths)
    assert store.added == 1


def test_bad_files_are_found_with_a_store_too(paths: list[Path], stores: Stores) -> None:
    fill(stores(), paths)
    paths[3].write_bytes(paths[3].read_bytes()[:-200])
    found = check_images(paths, least=LEAST, store=stores())
    assert [error.path for error in found] == [paths[3]]


def test_the_folder_stands_for_all_that_the_pixels_depend_on(tmp_path: Path) -> None:
    one = store_folder(tmp_path, tmp_path / "a", (32, 32), 1000)
    assert one == store_folder(tmp_path, tmp_path / "b/../a", (32, 32), 1000)
    others = [
        store_folder(tmp_path, tmp_path / "a", (32, 16), 1000),
        store_folder(tmp_path, tmp_path / "a", (32, 32), 999),
        store_folder(tmp_path, tmp_path / "b", (32, 32), 1000),
    ]
    with mock.patch("classwise.data.cache.VERSION", 0):
        others.append(store_folder(tmp_path, tmp_path / "a", (32, 32), 1000))
    with mock.patch("importlib.metadata.version", return_value="1.2.3"):
        others.append(store_folder(tmp_path, tmp_path / "a", (32, 32), 1000))
    assert len({one, *others}) == 6
    assert one.parent == tmp_path


@pytest.mark.parametrize("file", ["pixels", "index"])
def test_damage_is_noticed_and_mended(paths: list[Path], stores: Stores, tmp_path: Path, file: str) -> None:
    """A bit flipped anywhere, a file cut short anywhere: no wrong picture, and afterwards all are there again."""
    rng = np.random.default_rng(4)
    for trial in range(30):
        name = f"{file} {trial}"
        fill(stores(name), paths)
        victim = tmp_path / "base" / name / file
        data = bytearray(victim.read_bytes())
        at = int(rng.integers(len(data)))
        if trial % 2:
            data[at] ^= 1 << int(rng.integers(8))
            victim.write_bytes(data)
        else:
            os.truncate(victim, at)
        store = stores(name)
        fill(store, paths)
        assert_right(store, paths)


def test_a_picture_damaged_without_a_look_at_its_file_is_not_used(paths: list[Path], stores: Stores) -> None:
    """What another process has stored is checked, too."""
    first = stores()
    fill(first, paths)
    os.pwrite(first._pixels, b"\xa5\x5a\xa5", 100)
    second = stores()
    second.learn(paths, first.keys(paths))
    second.flush()
    (damaged,) = (key.decode() for key, record in first._known.items() if record["at"] == 0)
    assert_right(second, paths, len(paths) - first.keys(paths).count(damaged))


def test_the_limit_holds_and_is_said(paths: list[Path], stores: Stores) -> None:
    store = stores(limit=30_000)
    with mock.patch("classwise.data.cache.AT_ONCE", 5_000):
        fill(store, paths)
    assert 0 < store.size <= 30_000
    assert store.left_out > 0
    assert f"{store.left_out} not kept, since they may take 3e-05 GB (data.cache_gigabytes)" in str(store)
    kept = sum(store.keys(paths).count(key) for key in {*store.keys(paths)} if key.encode() in store._known)
    assert_right(store, paths, kept)
    assert kept >= store.added > 0


def test_the_least_recently_used_stores_make_room(paths: list[Path], stores: Stores) -> None:
    old, used, new = (stores(name) for name in ("old", "in use", "new"))
    for store in (old, used):
        fill(store, paths)
    old.close()
    old.close = lambda: None  # type: ignore[method-assign]
    os.utime(used.folder / "in-use", (1, 1))  # older, but open
    new.limit = 2 * used.size
    fill(new, paths)
    assert_right(new, paths)
    assert not old.folder.exists()
    assert_right(used, paths)


def test_the_last_bytes_of_a_disk_are_left_to_others(paths: list[Path], stores: Stores) -> None:
    store = stores(reserve=shutil.disk_usage("/").total * 1000)
    fill(store, paths)
    assert (store.added, store.size) == (0, 0)
    assert "of the disk are left to other things" in str(store)
    assert_right(store, paths, 0)


@pytest.mark.parametrize("call", ["pwrite", "fstat", "open"])
def test_a_failing_disk_costs_nothing_but_time(paths: list[Path], stores: Stores, call: str) -> None:
    """Every operation of appending fails in turn, at any byte of it: what is there afterwards is right."""
    real = getattr(os, call)
    for number in itertools.count():
        store, calls = stores(f"{call} {number}"), itertools.count()

        def failing(*arguments: Any, calls: Any = calls, number: int = number, **options: Any) -> Any:
            if next(calls) == number:
                if call == "pwrite":
                    real(arguments[0], bytes(arguments[1])[:7], arguments[2])
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        for path in paths:
            store_image(path, store, 10**6, None, LEAST)
        with mock.patch(f"classwise.data.cache.os.{call}", failing):
            store._append()
        after = stores(f"{call} {number}")
        fill(after, paths)
        assert_right(after, paths)
        if next(calls) <= number:
            assert number > (3 if call == "pwrite" else 0)
            return


def test_a_kill_at_any_moment_leaves_a_good_store(paths: list[Path], stores: Stores, tmp_path: Path) -> None:
    """In a process that is killed within its n-th write, for every n."""
    program = """
import os, signal, sys
from pathlib import Path
from unittest import mock
from classwise.data import cache
from classwise.data.images import check_images
folder, number, paths = Path(sys.argv[1]), int(sys.argv[2]), [Path(p) for p in sys.argv[3:]]
real, calls = os.pwrite, 0
def pwrite(handle, data, at):
    global calls
    calls += 1
    if calls == number:
        real(handle, bytes(data)[: len(data) // 2], at)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(handle, data, at)
os.pwrite = pwrite
cache.AT_ONCE = 1
store = cache.PictureStore(folder, 10**9, 0)
check_images(paths, least=(32, 32), store=store, threads=2)
"""
    for number in (1, 2, 3, 8, 21):
        folder = tmp_path / "base" / f"killed {number}"
        command = [sys.executable, "-c", program, str(folder), str(number), *map(str, paths)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -9
        store = stores(folder.name)
        fill(store, paths)
        assert_right(store, paths)


def _fill_in_a_process(folder: Path, paths: list[Path]) -> None:
    store = PictureStore(folder, 10**9, 0)
    with mock.patch("classwise.data.cache.AT_ONCE", 1000):
        fill(store, paths)
        assert_right(store, paths)


def test_processes_that_fill_a_store_together(paths: list[Path], stores: Stores, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "base" / "store"
    together = [context.Process(target=_fill_in_a_process, args=(folder, paths)) for _ in range(3)]
    for process in together:
        process.start()
    for process in together:
        process.join(120)
        assert process.exitcode == 0
    after = stores()
    with undecoded():
        fill(after, paths)
    assert_right(after, paths)


def test_a_store_that_is_deleted_and_made_again_is_not_mistaken(paths: list[Path], stores: Stores) -> None:
    """Somebody clears the cache while a run goes on: it reads the files again, or what it has mapped."""
    store = stores()
    fill(store, paths)
    found = store.of(paths)
    shutil.rmtree(store.folder)
    assert found.get(0) is None
    other = stores()
    fill(other, paths[::-1])
    assert found.get(0) is None
    assert_right(other, paths)
