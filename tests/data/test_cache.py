"""Decoded images on the disk: the same pixels as decoding gives, whatever happens to the store."""

import contextlib
import gc
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

from classwise.data import cache, cache_files
from classwise.data.augment import PRESETS
from classwise.data.cache import CachedImages, ImageCache, cache_folder, content_key, pixels_key
from classwise.data.checking import check_image, check_images
from classwise.data.dataset import ImageDataset
from classwise.data.images import min_image_size, read_image
from classwise.data.loader import Loader

SIZE = (16, 16)
LEAST = min_image_size(SIZE)
Stores = Callable[..., ImageCache]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Images of every kind, large and small, upright and turned; two files hold the same."""
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

    def make(name: str = "store", limit: int = 10**9, reserve: int = 0) -> ImageCache:
        opened.append(ImageCache(tmp_path / "base" / name, limit, reserve))
        return opened[-1]

    yield make
    for store in opened:
        store.close()
    cache._maps.clear()


def fill(store: ImageCache, paths: list[Path]) -> None:
    assert check_images(paths, min_size=LEAST, cache=store, threads=2).bad == []
    store.flush()


def keys_of(paths: list[Path]) -> list[bytes]:
    return [content_key(path.read_bytes()) for path in paths]


def found_in(store: ImageCache, paths: list[Path]) -> CachedImages:
    return store.locate(keys_of(paths))


def assert_right(store: ImageCache, paths: list[Path], cached: int | None = None) -> None:
    """What is stored is what decoding gives; `cached` of them are."""
    found = found_in(store, paths)
    images = [found.get(row) for row in range(len(paths))]
    for image, path in zip(images, paths, strict=True):
        if image is not None:
            np.testing.assert_array_equal(image, read_image(path, min_size=LEAST))
    assert sum(image is not None for image in images) == (len(paths) if cached is None else cached)


def undecoded() -> Any:
    """Fails at the first image that is decoded."""
    return mock.patch("classwise.data.checking.decode", side_effect=AssertionError("decoded"))


def test_images_are_halved_as_long_as_they_stay_twice_the_size(paths: list[Path]) -> None:
    for path in paths:
        whole, found = read_image(path), read_image(path, min_size=LEAST)
        ratio = whole.shape[0] / found.shape[0]
        times = round(np.log2(ratio))
        assert found.shape[:2] == tuple((side - 1 >> times) + 1 for side in whole.shape[:2])
        assert times == 0 or min(found.shape[0] - LEAST[0], found.shape[1] - LEAST[1]) >= 0
        assert any((side + 1) // 2 < min_size for side, min_size in zip(found.shape, LEAST, strict=False))
        expected = cv2.resize(whole, found.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(expected.astype(int) - found).mean() < 3


def test_a_store_gives_what_decoding_gives(paths: list[Path], stores: Stores) -> None:
    store = stores()
    fill(store, paths)
    assert_right(store, paths)
    assert store.added == len(paths) - 1  # two files are one image
    again = stores()
    with undecoded():
        fill(again, paths)
    assert_right(again, paths)
    assert again.added == 0
    assert again.size == store.size > 0
    assert str(again).startswith(f"images: 0 decoded and kept, {len(paths) - 1} were there already; ")


@pytest.mark.parametrize("changes", [None, PRESETS["strong"]])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_a_store(
    paths: list[Path], stores: Stores, changes: Any, workers: int
) -> None:
    store = stores()
    fill(store, paths[:-3])  # some are missing
    batches = []
    for cached in (None, found_in(store, paths)):
        dataset = ImageDataset(paths, SIZE, "crop", 10**6, seed=3, augment=changes, cached=cached)
        loader = Loader(dataset, {"row": np.arange(len(paths))}, 8, workers)
        parts = list(np.array_split(np.random.default_rng(2).permutation(len(paths)), 4))
        batches.append([batch.images.numpy() for batch in loader.batches(parts, epoch=1)])
        loader.close()
    for plain, kept in zip(*batches, strict=True):
        np.testing.assert_array_equal(plain, kept)


def test_a_changed_file_is_another_image(paths: list[Path], stores: Stores) -> None:
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
    store = stores()
    found = check_images(paths, min_size=LEAST, cache=store)
    assert [error.path for error in found.bad] == [paths[3]]
    good = [path for path in paths if path != paths[3]]
    assert [paths[row] for row in found.good_rows] == good
    for row in found.good_rows:
        image = read_image(paths[row], min_size=LEAST)
        assert found.files[row] == content_key(paths[row].read_bytes())
        assert found.pixels[row] == pixels_key(image)
    assert (store.added, store.already_there) == (
        0,
        len(paths) - 2,
    )  # neither the bad one nor the copy is counted


def test_the_folder_stands_for_all_that_the_pixels_depend_on(tmp_path: Path) -> None:
    one = cache_folder(tmp_path, tmp_path / "a", (32, 32), 1000)
    assert one == cache_folder(tmp_path, tmp_path / "b/../a", (32, 32), 1000)
    others = [
        cache_folder(tmp_path, tmp_path / "a", (32, 16), 1000),
        cache_folder(tmp_path, tmp_path / "a", (32, 32), 999),
        cache_folder(tmp_path, tmp_path / "b", (32, 32), 1000),
    ]
    with mock.patch("classwise.data.cache.VERSION", 0):
        others.append(cache_folder(tmp_path, tmp_path / "a", (32, 32), 1000))
    for changed in ("importlib.metadata.version", "os.geteuid"):
        with mock.patch(changed, return_value="1.2.3"):
            others.append(cache_folder(tmp_path, tmp_path / "a", (32, 32), 1000))
    with mock.patch("cv2.__version__", "1.2.3"):  # by whatever package it came
        others.append(cache_folder(tmp_path, tmp_path / "a", (32, 32), 1000))
    assert len({one, *others}) == 8
    assert one.parent == tmp_path


@pytest.mark.parametrize("file", ["pixels", "index"])
def test_damage_is_noticed_and_mended(paths: list[Path], stores: Stores, tmp_path: Path, file: str) -> None:
    """A bit flipped anywhere, a file cut short anywhere: no wrong image, and afterwards all are there again."""
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


def test_an_image_damaged_without_a_look_at_its_file_is_not_used(paths: list[Path], stores: Stores) -> None:
    """What another process has stored is checked, too."""
    first = stores()
    fill(first, paths)
    os.pwrite(first._pixels, b"\xa5\x5a\xa5", 100)
    second = stores()
    (damaged,) = (key for key, record in first._records.items() if record["at"] == 0)
    assert_right(second, paths, len(paths) - keys_of(paths).count(damaged))


def test_the_limit_holds_and_is_said(paths: list[Path], stores: Stores) -> None:
    store = stores(limit=30_000)
    with mock.patch("classwise.data.cache.APPEND_BYTES", 5_000):
        fill(store, paths)
    assert 0 < store.size <= 30_000
    assert store.left_out > 0
    assert f"{store.left_out} not kept, since they may take 3e-05 GB (data.cache_gigabytes)" in str(store)
    kept = sum(key in store._records for key in keys_of(paths))
    assert_right(store, paths, kept)
    assert kept >= store.added > 0


def test_the_least_recently_used_stores_make_room(paths: list[Path], stores: Stores) -> None:
    old, used, new = (stores(name) for name in ("old", "in use", "new"))
    for store in (old, used):
        fill(store, paths)
    old.close()
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
    assert "of the disk are left free for other things" in str(store)
    assert_right(store, paths, 0)


@pytest.mark.parametrize("call", ["pwrite", "fstat", "open", "pread"])
def test_a_failing_disk_costs_nothing_but_time(paths: list[Path], stores: Stores, call: str) -> None:
    """Every operation of looking up, appending and reading again fails in turn, at any byte of it: a run gets right
    images all the same, and what is there afterwards is right."""
    real, whole = getattr(os, call), stores("whole")
    fill(whole, paths[::2])
    for number in itertools.count():
        name = f"{call} {number}"
        shutil.copytree(whole.folder, whole.folder.with_name(name))
        store, calls = stores(name), itertools.count()

        def failing(*arguments: Any, calls: Any = calls, number: int = number, **options: Any) -> Any:
            if next(calls) == number:
                if call == "pwrite":
                    real(arguments[0], bytes(arguments[1])[:7], arguments[2])
                raise OSError(28 if call == "pwrite" else 5, "No space left on device")
            return real(*arguments, **options)

        files = [(content_key(path.read_bytes()), read_image(path, min_size=LEAST)) for path in paths]
        # Each image by calls of its own, so that any of many may be the one that fails.
        with mock.patch.object(cache.os, call, failing), mock.patch.object(cache, "WRITE_BYTES", 1):
            for key, image in files:
                if not store.find(key):
                    store.add(key, image)
            store.flush()
            store.locate([key for key, _ in files])
            assert str(store).startswith("images: ")
        assert_right(store, paths, sum(map(store._records.is_verified, keys_of(paths))))
        after = stores(name)
        fill(after, paths)
        assert_right(after, paths)
        if next(calls) <= number:
            assert number > 2
            return


def test_a_kill_at_any_moment_leaves_a_good_store(paths: list[Path], stores: Stores, tmp_path: Path) -> None:
    """In a process that is killed within its n-th write: pixels or record, of the first, of some other image."""
    program = """
import os, signal, sys
from pathlib import Path
from unittest import mock
from classwise.data import cache
from classwise.data.checking import check_images
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
cache.APPEND_BYTES = 1
store = cache.ImageCache(folder, 10**9, 0)
check_images(paths, min_size=(32, 32), cache=store, threads=2)
"""
    for number in (1, 2, 3, 8, 21):
        folder = tmp_path / "base" / f"killed {number}"
        command = [sys.executable, "-c", program, str(folder), str(number), *map(str, paths)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -9
        store = stores(folder.name)
        fill(store, paths)
        assert_right(store, paths)


def _fill_in_a_process(folder: Path, paths: list[Path]) -> None:
    store = ImageCache(folder, 10**9, 0)
    with mock.patch("classwise.data.cache.APPEND_BYTES", 1000):
        fill(store, paths)
        assert_right(store, paths)


def test_processes_that_fill_a_store_together(paths: list[Path], stores: Stores, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "base" / "store"
    together = [context.Process(target=_fill_in_a_process, args=(folder, paths)) for _ in range(2)]
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
    found = found_in(store, paths)
    shutil.rmtree(store.folder)
    assert found.get(0) is None
    other = stores()
    fill(other, paths[::-1])
    assert found.get(0) is None
    assert_right(other, paths)
    size = (other.folder / "index").stat().st_size
    store.add(b"new", read_image(paths[0]))
    store.flush()  # neither into the other's index nor out of it
    assert store.full == "the disk says: deleted meanwhile"
    assert (other.folder / "index").stat().st_size == size


def test_a_store_that_has_grown_is_read_to_its_end(paths: list[Path], stores: Stores) -> None:
    """A second run in the same process, over more images."""
    first = stores()
    fill(first, paths[:5])
    assert_right(first, paths[:5])  # maps what is there
    second = stores()
    fill(second, paths)
    assert_right(second, paths)


def test_a_closed_store_leaves_nothing_open(paths: list[Path], tmp_path: Path) -> None:
    """Closed, or forgotten: no handle, no map, and no lock that would keep it from being deleted."""

    def held() -> list[str]:
        """The open files of the store; other tests' handles may be closed at any time."""
        links = []
        for handle in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                links.append(str(handle.readlink()))
        return [link for link in links if link.startswith(str(tmp_path / "store"))]

    for close in (True, False):
        store = ImageCache(tmp_path / "store", 10**9, 0)
        fill(store, paths)
        assert_right(store, paths)
        assert held()
        if close:
            store.close()
            store.close()
        del store
        gc.collect()
        assert held() == []
        assert tmp_path / "store" / "pixels" not in cache._maps
    assert cache.delete_unused(tmp_path / "store")


def test_runs_that_make_room_at_once(
    paths: list[Path], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that another run has deleted in between, or deletes now, stops nothing."""
    old = [stores(name) for name in ("old", "older")]
    for store in old:
        fill(store, paths)
        store.close()
    new = stores("new")
    real, victims = cache.delete_unused, iter(old)

    def faster(folder: Path) -> bool:
        shutil.rmtree(next(victims).folder)  # the other run
        return real(folder)

    monkeypatch.setattr(cache, "delete_unused", faster)
    new.limit = 1  # room is needed
    fill(new, paths[:1])
    assert "data.cache_gigabytes" in new.full
    new.limit, new.full = 10**9, ""
    fill(new, paths)
    assert_right(new, paths)


def test_a_store_that_is_deleted_while_it_is_opened(
    paths: list[Path], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run makes room in the moment before the lock is there: the store is made again."""
    fill(stores(), paths)
    folder = stores().folder
    real, times = cache_files.fcntl.flock, itertools.count()

    def late(handle: int, what: int) -> None:
        if next(times) < 3:
            shutil.rmtree(folder)
        real(handle, what)

    monkeypatch.setattr(cache_files.fcntl, "flock", late)
    store = stores()
    assert next(times) == 4
    assert (folder / "in-use").stat().st_ino == os.fstat(store._opened["in-use"]).st_ino
    fill(store, paths)
    assert_right(store, paths)


def test_a_store_made_again_under_a_waiting_hand_is_not_deleted(
    paths: list[Path], stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes room locks the file that it has opened, which may be no longer the store's."""
    folder, real = stores().folder, cache_files.fcntl.flock
    made: list[ImageCache] = []

    def late(handle: int, what: int) -> None:
        monkeypatch.undo()
        shutil.rmtree(folder)
        made.append(stores())
        real(handle, what)

    monkeypatch.setattr(cache_files.fcntl, "flock", late)
    assert not cache.delete_unused(folder)
    fill(made[0], paths)
    assert_right(made[0], paths)
    assert_right(stores(), [], 0)
    assert (folder / "pixels").exists()


def test_making_room_deletes_no_file_of_others(paths: list[Path], stores: Stores, tmp_path: Path) -> None:
    """A folder that looks like a store may hold something else, too."""
    old, new = stores("old"), stores("new")
    fill(old, paths)
    new.limit = old.size
    old.close()
    (old.folder / "thesis.txt").write_text("three years")
    fill(new, paths)
    assert_right(new, paths)
    assert [path.name for path in old.folder.iterdir()] == ["thesis.txt"]


def test_a_second_record_is_not_taken_for_the_checked_one(paths: list[Path], stores: Stores) -> None:
    """Another process has found an image damaged and stored it again, badly: what was found whole is used."""
    store = stores()
    fill(store, paths)
    key = keys_of(paths)[3]
    record = store._records[key].copy()
    record["at"] = store.size
    os.pwrite(store._pixels, b"\xaa" * 3 * int(record["height"]) * int(record["width"]), store.size)
    with (store.folder / "index").open("ab") as index:
        index.write(record.tobytes())
    store.flush()
    assert_right(store, paths)
    later = stores()  # which sees the later one first, checks it, and stores the image anew
    fill(later, paths)
    assert_right(later, paths)
    assert later.added == 1


def test_runs_that_begin_together_store_once(paths: list[Path], stores: Stores) -> None:
    one, other, alone = stores(), stores(), stores("alone")
    fill(alone, paths)
    for path in paths:
        for store in (one, other):
            check_image(path, min_size=LEAST, cache=store)
    for store in (one, other):
        store.flush()
        assert_right(store, paths)
    assert one.size == alone.size
    assert (one.added, other.added, other.already_there) == (alone.added, 0, alone.added)


def test_a_store_is_for_its_user_alone(paths: list[Path], tmp_path: Path, stores: Stores) -> None:
    store = stores()
    fill(store, paths)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in store.folder.iterdir()} == {0o600}
    store.folder.chmod(0o777)
    assert stores().folder.stat().st_mode & 0o777 == 0o700
    with (
        mock.patch("os.geteuid", return_value=os.geteuid() + 1),
        pytest.raises(OSError, match="another user"),
    ):
        stores()


@pytest.mark.parametrize("name", ["", "in-use", "pixels", "index"])
def test_links_are_not_followed(paths: list[Path], tmp_path: Path, stores: Stores, name: str) -> None:
    folder, target = tmp_path / "base" / "store", tmp_path / "target"
    if name:
        folder.mkdir(parents=True)
        target.write_bytes(b"precious")
    else:
        folder.parent.mkdir()
        target.mkdir()
    (folder / name if name else folder).symlink_to(target)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        stores()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert target.read_bytes() == b"precious" if name else not list(target.iterdir())
