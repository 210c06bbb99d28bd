"""Kept features: found again, never damaged ones, within their limit, and in a folder of one user alone."""

import io
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classwise.data import feature_cache as module
from classwise.data.feature_cache import (
    DIGEST_LENGTH,
    SHARE,
    Array,
    FolderFeatureCache,
    NoFeatureCache,
    feature_cache_of,
)

PLENTY = 2**20


def features(seed: int = 0, rows: int = 5) -> Array:
    """(2, rows, 3), as of two views."""
    return np.random.default_rng(seed).normal(size=(2, rows, 3)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> FolderFeatureCache:
    return FolderFeatureCache(tmp_path / "new" / "features", PLENTY)


def names(cache: FolderFeatureCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir())


def test_what_is_kept_is_found(cache: FolderFeatureCache) -> None:
    """By its key, to the bit, also by another process's cache object; another key has nothing."""
    assert cache.find("a") is None
    cache.keep("a", features())
    for reader in (cache, FolderFeatureCache(cache.folder, PLENTY)):
        found = reader.find("a")
        assert found is not None
        assert found.dtype == np.float32
        assert np.array_equal(found, features())
    assert cache.find("b") is None
    cache.keep("a", features(1))
    assert np.array_equal(cache.find("a"), features(1))
    assert names(cache) == ["a.npy"]


@pytest.mark.parametrize("at", [0, DIGEST_LENGTH + 5, -1])
def test_a_flipped_bit_is_noticed(cache: FolderFeatureCache, at: int) -> None:
    """In the hash, in the header, in the numbers; what is kept anew then replaces it."""
    cache.keep("a", features())
    file = cache.folder / "a.npy"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert cache.find("a") is None
    cache.keep("a", features())
    assert np.array_equal(cache.find("a"), features())


@pytest.mark.parametrize("length", [0, 10, DIGEST_LENGTH, DIGEST_LENGTH + 40])
def test_a_short_file_is_noticed(cache: FolderFeatureCache, length: int) -> None:
    """Cut anywhere."""
    cache.keep("a", features())
    file = cache.folder / "a.npy"
    file.write_bytes(file.read_bytes()[:length])
    assert cache.find("a") is None


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickles_and_other_arrays_are_not_read(cache: FolderFeatureCache, tmp_path: Path) -> None:
    """With a hash that is right: objects are never unpickled, and only float32 counts as features."""
    sprung = tmp_path / "sprung"
    for array in (np.array([Trap(sprung)], dtype=object), features().astype(np.float64)):
        cache.keep("a", features())
        file = io.BytesIO()
        np.save(file, array)
        data = file.getvalue()
        (cache.folder / "a.npy").write_bytes(module.sha256(data).encode() + data)
        assert cache.find("a") is None
    assert not sprung.exists()


def test_off_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder is made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = feature_cache_of("off", 10.0)
    assert isinstance(cache, NoFeatureCache)
    cache.keep("a", features())
    assert cache.find("a") is None
    assert list(tmp_path.iterdir()) == []


def test_where_features_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's cache folder, or in the one of data.cache, there in a folder for each user; and how much."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    name = f"features-{os.geteuid()}"
    for given, folder in (
        ("auto", tmp_path / "home" / "classwise" / name),
        (str(tmp_path / "there"), tmp_path / "there" / name),
    ):
        cache = feature_cache_of(given, 2.0)
        assert isinstance(cache, FolderFeatureCache)
        assert cache.folder == folder
        assert cache.limit == int(2 * SHARE * 2**30)
        cache.keep("a", features())
        assert (folder / "a.npy").exists()


def test_what_was_not_used_for_longest_makes_room(cache: FolderFeatureCache) -> None:
    """Used is also what was found, so the second file goes, not the first."""
    size = DIGEST_LENGTH + 128 + features().nbytes
    small = FolderFeatureCache(cache.folder, 3 * size)
    for number, key in enumerate("abc"):
        small.keep(key, features(number))
        os.utime(cache.folder / f"{key}.npy", (1000 + number, 1000 + number))
    assert small.find("a") is not None
    small.keep("d", features(3))
    assert names(cache) == ["a.npy", "c.npy", "d.npy"]
    assert np.array_equal(small.find("d"), features(3))


def test_more_than_the_limit_is_not_kept(cache: FolderFeatureCache) -> None:
    """And nothing is deleted for it."""
    small = FolderFeatureCache(cache.folder, 1000)
    small.keep("a", features())
    small.keep("big", features(rows=1000))
    assert names(cache) == ["a.npy"]


def test_a_full_disk_keeps_nothing(cache: FolderFeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk belongs to checkpoints first: RESERVE stays free."""
    monkeypatch.setattr(module, "RESERVE", 2**62)
    cache.keep("a", features())
    assert names(cache) == []


def test_a_write_that_fails_leaves_the_old_file(
    cache: FolderFeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No half of a file, no error, nothing beside it."""
    cache.keep("a", features())

    def failing(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        cache.keep("a", features(1))
    assert np.array_equal(cache.find("a"), features())
    assert names(cache) == ["a.npy"]


def test_the_folder_is_its_users_alone(cache: FolderFeatureCache) -> None:
    """Also one that was open to others before."""
    cache.folder.mkdir(parents=True, mode=0o777)
    cache.folder.chmod(0o777)
    cache.keep("a", features())
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((cache.folder / "a.npy").stat().st_mode) == 0o600


def test_links_are_not_followed(cache: FolderFeatureCache, tmp_path: Path) -> None:
    """Neither the folder nor a file may be one, and what a link points to is not written."""
    other = FolderFeatureCache(tmp_path / "other", PLENTY)
    other.keep("a", features())
    linked = FolderFeatureCache(tmp_path / "linked", PLENTY)
    linked.folder.symlink_to(other.folder)
    assert linked.find("a") is None
    linked.keep("b", features())
    assert names(other) == ["a.npy"]

    cache.keep("b", features(1))
    (cache.folder / "a.npy").symlink_to(other.folder / "a.npy")
    assert cache.find("a") is None
    cache.keep("a", features(2))
    assert np.array_equal(cache.find("a"), features(2))
    assert np.array_equal(other.find("a"), features())


def test_another_users_files_are_ignored(cache: FolderFeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns them could replace them."""
    cache.keep("a", features())
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    assert cache.find("a") is None
    cache.keep("b", features())
    assert names(cache) == ["a.npy"]


def test_what_is_no_folder_or_no_file(cache: FolderFeatureCache, tmp_path: Path) -> None:
    """A file in the folder's place, a folder or a pipe in a file's place: nothing is found, nothing waits."""
    (tmp_path / "file").write_text("x")
    blocked = FolderFeatureCache(tmp_path / "file", PLENTY)
    blocked.keep("a", features())
    assert blocked.find("a") is None
    cache.keep("b", features())
    (cache.folder / "a.npy").mkdir()
    os.mkfifo(cache.folder / "pipe.npy")
    assert cache.find("a") is None
    assert cache.find("pipe") is None


def _write(folder: Path, seed: int) -> None:
    cache = FolderFeatureCache(folder, PLENTY)
    for _ in range(50):
        cache.keep("a", features(seed))
        found = cache.find("a")
        if found is None or not any(np.array_equal(found, features(k)) for k in (0, 1)):
            os._exit(1)


def test_two_writers(cache: FolderFeatureCache) -> None:
    """What a reader finds at any moment is whole, and one of both."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(cache.folder, seed)) for seed in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert names(cache) == ["a.npy"]
