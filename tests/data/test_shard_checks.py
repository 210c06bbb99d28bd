"""What the check of images in shards remembers, and that checking in processes finds what checking in one does."""

import contextlib
import multiprocessing
import os
import signal
import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import polars as pl
import pytest

from classwise.data import checking, shard_checks
from classwise.data.cache import ImageCache
from classwise.data.checking import Checked, check_images
from classwise.data.forked import CAN_FORK, _received, results_of_forks
from classwise.data.pack_shards import pack
from classwise.data.pixel_format import ImageFacts, PixelFormat
from classwise.data.shard_index import key_of
from classwise.data.shard_rows import NO_KEY, keys_of_rows, rows_by_shard
from classwise.data.shards import forget_opened, member_of, open_shard
from classwise.data.sources import Samples, read_source
from classwise.data.texts import Texts
from classwise.errors import DataError, WorkerError

BAD = {3: b"", 8: b"\x89PNG\r\n\x1a\nno more", 9: None}
"""By number, the bytes of images that cannot be used."""


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test has remembered is not there for another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memory"))


def encoded(number: int, depth: type = np.uint8) -> bytes:
    image = np.random.default_rng(number).integers(0, 256, (6, 6, 3)).astype(depth)
    return cv2.imencode(".png", image)[1].tobytes()


def write_shard(path: Path, images: list[bytes | None]) -> None:
    cells = [{"bytes": data, "path": f"{path.stem}-{number}.png"} for number, data in enumerate(images)]
    image = pl.Series("image", cells, dtype=pl.Struct({"bytes": pl.Binary, "path": pl.String}))
    pl.DataFrame([image, pl.Series("label", ["a", "b"] * (len(images) // 2))]).write_parquet(path)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of ten images, some of which cannot be used, one of 16 bits, and two the same."""
    (tmp_path / "shards").mkdir()
    for shard in range(3):
        images: list[bytes | None] = [encoded(10 * shard + number) for number in range(10)]
        images[1] = encoded(5, np.uint16)
        images[2] = images[4]
        write_shard(
            tmp_path / "shards" / f"part-{shard}.parquet", [BAD.get(k, data) for k, data in enumerate(images)]
        )
    return tmp_path / "shards"


def rows(folder: Path) -> Samples:
    return read_source(folder, folder, "path", None, None)


def check(
    folder: Path, remember: bool = True, min_size: tuple[int, int] = (8, 8), cache=None, **options
) -> Checked:
    samples = rows(folder)
    return check_images(
        samples.paths,
        root=samples.allowed_folders,
        min_size=min_size,
        cache=cache,
        remember=remember,
        **options,
    )


def assert_same(found: Checked, expected: Checked) -> None:
    assert found.files.tolist() == expected.files.tolist()
    assert found.pixels.tolist() == expected.pixels.tolist()
    assert found.facts == expected.facts
    assert [str(error) for error in found.bad] == [str(error) for error in expected.bad]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes of each image that is decoded and can be."""
    seen: list[bytes] = []
    real = checking.decode

    def decode(kind, data, **options):
        if data != BAD[8]:
            seen.append(data)
        return real(kind, data, **options)

    monkeypatch.setattr(checking, "decode", decode)
    return seen


def test_what_is_remembered_is_what_was_found(shards, decoded):
    """The hashes, the facts and the errors in their order; and no good image is decoded again."""
    expected = check(shards, remember=False)
    assert len(expected.bad) == 9
    assert expected.facts == {
        path: ImageFacts(bits=16, lowest=f.lowest, highest=f.highest) for path, f in expected.facts.items()
    }
    assert len(expected.facts) == 3
    decoded.clear()
    assert_same(check(shards), expected)
    assert len(decoded) == 21
    decoded.clear()
    assert_same(check(shards), expected)
    assert decoded == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_images_in_archives_are_remembered_by_their_names(shards, tmp_path, make_images, decoded, kind):
    make_images(tmp_path / "photos", {"cat": 5, "마스크 착용": 4})
    pack(
        read_source(tmp_path / "photos", tmp_path / "photos", "path", None, None),
        "path",
        tmp_path / kind,
        kind,
        900,
    )
    first = check(tmp_path / kind)
    assert len(decoded) == 9
    assert_same(check(tmp_path / kind), first)
    assert len(decoded) == 9


def test_a_shard_that_has_changed_is_checked_anew(shards, decoded):
    """It alone; and what was remembered of it as it was before is removed."""
    before = check(shards)
    path = shards / "part-1.parquet"
    write_shard(path, [encoded(100 + number) for number in range(10)])
    forget_opened()
    decoded.clear()
    after = check(shards)
    assert len(decoded) == 10
    assert not set(before.files[10:20].tolist()) & set(after.files[10:20].tolist())
    assert after.files[20:].tolist() == before.files[20:].tolist()
    assert len(after.bad) == 6
    assert len(list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.checks"))) == 3


def test_the_same_size_at_another_time_is_another_shard(shards, decoded):
    """As the index sees it."""
    check(shards)
    os.utime(shards / "part-0.parquet", (1, 1))
    forget_opened()
    decoded.clear()
    check(shards)
    assert len(decoded) == 7


def test_another_way_to_decode_remembers_for_itself(shards, decoded, monkeypatch):
    """Another size, other channels, other versions of the decoders; each is remembered beside the others."""
    ways = ({}, {"min_size": (2, 2)}, {"pixels": PixelFormat(1)})
    found = [check(shards, **way) for way in ways]
    assert found[0].pixels.tolist() != found[2].pixels.tolist()
    decoded.clear()
    for way, expected in zip(ways, found, strict=True):
        assert_same(check(shards, **way), expected)
    assert decoded == []
    monkeypatch.setattr(shard_checks, "decoder_versions", lambda: ["opencv 99"])
    check(shards)
    assert len(decoded) == 21


def test_a_damaged_memory_is_none(shards, decoded):
    expected = check(shards)
    for number, path in enumerate(sorted(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.checks"))):
        data = path.read_bytes()
        path.write_bytes([data[:100], b"", data.replace(b"unused_channels", b"other__channels")][number])
    decoded.clear()
    assert_same(check(shards), expected)
    assert len(decoded) == 21


def test_without_being_asked_nothing_is_remembered(shards):
    check(shards, remember=False)
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.checks"))


def test_rows_that_come_later_are_remembered_beside_the_others(shards, decoded):
    """A process that checks a part of the rows does not forget the others."""
    samples = rows(shards)
    for part in (range(0, 30, 2), range(1, 30, 2)):
        check_images(samples.paths.take(part), root=samples.shards, min_size=(8, 8), remember=True)
    decoded.clear()
    check(shards)
    assert decoded == []


def test_a_cache_gets_images_whose_check_is_remembered(shards, tmp_path, decoded):
    """It has no image yet: all are decoded once more; then one of them is damaged there."""
    expected = check(shards)
    for missing in (16, 1):  # each shard has two equal images, and one that all have
        cache = ImageCache(tmp_path / "cache", 10**9, 0)
        decoded.clear()
        assert_same(check(shards, cache=cache), expected)
        cache.flush()
        located = cache.locate(expected.files)
        assert (located.at >= 0).sum() == 21
        assert len(set(decoded)) == missing
        with (tmp_path / "cache" / "pixels").open("r+b") as pixels:
            pixels.seek(int(located.at[0]))
            pixels.write(b"\x00\x01\x02")
        cache.close()


def test_a_full_cache_is_no_reason_to_decode_again(shards, tmp_path, decoded):
    """What is known already is only counted."""
    check(shards)
    cache = ImageCache(tmp_path / "cache", 50, 0)
    cache.full = "there is no room"
    decoded.clear()
    check(shards, cache=cache)
    assert decoded == []
    assert cache.left_out == 21
    cache.close()


def test_rows_by_shard_are_what_each_path_says(shards, tmp_path):
    """As `member_of` takes it apart, and as the shard's index finds it."""
    samples = rows(shards)
    found = {}
    for part in rows_by_shard(samples.paths, np.arange(30)[::-1].copy(), samples.shards):
        for row, place in zip(part.rows.tolist(), open_shard(part.shard).places_of(part.keys), strict=True):
            found[row] = part.shard, place
    for row, path in enumerate(samples.paths):
        member = member_of(path)
        assert found[row] == (member.shard, open_shard(member.shard).place_of(member.name))


def test_keys_of_names():
    """Of Parquet, the digits before a dot; of archives, a hash of the name."""
    names = [
        "x/0.png",
        "x/17",
        "x/018.a.b",
        "x/",
        "x/a",
        "x/1a.png",
        "x/.png",
        "x/" + "9" * 18,
        "x/" + "9" * 19,
        "x/٣.png",
    ]
    keys = keys_of_rows(Texts.of(names), np.arange(len(names)), 2, Path("x.parquet"))
    none = int(NO_KEY)
    assert keys.tolist() == [0, 17, 18, none, none, none, none, 10**18 - 1, none, none]
    keys = keys_of_rows(Texts.of(names), np.arange(len(names)), 2, Path("x.tar"))
    assert keys.tolist() == [key_of(name[2:]) for name in names]


forks = pytest.mark.skipif(not CAN_FORK, reason="this system does not fork")


@forks
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_find_what_one_does(shards, tmp_path, monkeypatch, processes):
    """The same hashes, facts and errors, and the same images in the cache, of which each is counted once."""
    alone = ImageCache(tmp_path / "alone", 10**9, 0)
    expected = check(shards, remember=False, cache=alone, threads=1)
    monkeypatch.setattr(checking, "FORKED_FROM", 1)
    monkeypatch.setattr(checking, "SMALL_PER_TASK", 2)
    monkeypatch.setattr(checking, "core_count", lambda: processes)
    together = ImageCache(tmp_path / "together", 10**9, 0)
    assert_same(check(shards, cache=together), expected)
    for cache in (alone, together):
        cache.flush()
    here, there = together.locate(expected.files), alone.locate(expected.files)
    for row in range(30):
        mine, other = here.get(row), there.get(row)
        assert (mine is None) == (other is None)
        assert mine is None or (mine == other).all()
    assert together.added == alone.added
    assert together.size == alone.size
    assert (
        str(together).split(";")[0] == str(alone).split(";")[0].partition(",")[0]
        or together.already_there <= 6
    )
    for cache in (alone, together):
        cache.close()


@forks
def test_a_shard_that_changes_under_processes_is_the_error_that_it_is(shards, monkeypatch):
    monkeypatch.setattr(checking, "FORKED_FROM", 1)
    monkeypatch.setattr(checking, "core_count", lambda: 2)
    samples = rows(shards)
    write_shard(shards / "part-2.parquet", [encoded(number) for number in range(12)])
    forget_opened()
    with pytest.raises(DataError, match=r"part-2.parquet: this shard has changed since its rows were read"):
        check_images(samples.paths, root=samples.shards)


@forks
def test_results_of_forks_come_in_order_and_end():
    ends: list[int] = []
    found = results_of_forks(lambda number: number**2, 11, processes=3, end=os.getpid, take_end=ends.append)
    assert list(found) == [number**2 for number in range(11)]
    assert len(set(ends)) == 3
    for pid in ends:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@forks
def test_the_first_error_of_forks_is_raised():
    def work(number: int) -> int:
        if number in (4, 5):
            raise DataError(f"number {number}")
        return number

    found = results_of_forks(work, 9, processes=2, end=lambda: None, take_end=lambda end: None)
    with pytest.raises(DataError, match="number 4"):
        list(found)


@forks
def test_a_fork_that_is_killed_is_an_error():
    def work(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    found = results_of_forks(work, 9, processes=2, end=lambda: None, take_end=lambda end: None)
    with pytest.raises(WorkerError, match=r"exit code -9"):
        list(found)


def test_half_a_message_of_a_fork_is_an_error():
    """A process that is killed while it sends."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    os.write(theirs.fileno(), struct.pack("!i", 100) + bytes(10))
    theirs.close()
    killed = SimpleNamespace(join=lambda: None, exitcode=-9)
    with contextlib.closing(ours), pytest.raises(WorkerError, match=r"exit code -9"):
        _received(ours, killed)
