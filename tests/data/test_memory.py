"""What is remembered between runs: found again for its own key alone, whatever has happened to the files."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from classwise.data import memory
from classwise.data.memory import FolderMemory, NoMemory, memory_of

KEY: dict[str, Any] = {"model": "한 net", "size": (64, 48), "options": {"b": 1, "a": [None, True]}, "lr": 0.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "remembered"


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_is_kept_is_recalled(folder: Path) -> None:
    """By another process too, as the same values to the last digit, in whatever order the key's entries come."""
    found = [{"seconds": 0.1 + 0.2, "name": "착용"}]
    FolderMemory(folder).keep("measured", KEY, found)
    assert FolderMemory(folder).recall("measured", dict(reversed(KEY.items()))) == found
    FolderMemory(folder).keep("measured", KEY, found * 2)
    assert FolderMemory(folder).recall("measured", KEY) == found * 2


def test_another_key_or_kind_is_not(folder: Path) -> None:
    """Also where a file has the name of another key's."""
    kept = FolderMemory(folder)
    kept.keep("measured", KEY, 1)
    assert kept.recall("baselines", KEY) is None
    assert kept.recall("measured", KEY | {"lr": 0.2}) is None
    path = only_file(folder)
    entry = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(entry | {"key": entry["key"] | {"lr": 0.2}}))
    assert kept.recall("measured", KEY) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b'{"schema": 99}',
        b"[" * 100_000,
        b" " * (memory.MOST_BYTES + 1),
        b'{"schema": 1, "kind": "measured", "key": NaN, "found": 1}',
    ],
    ids=["empty", "cut off", "a list", "no text", "null", "newer", "deep", "large", "NaN"],
)
def test_a_damaged_file_is_no_finding_and_is_replaced(folder: Path, data: bytes) -> None:
    """It raises nothing, and the next finding takes its place."""
    kept = FolderMemory(folder)
    kept.keep("measured", KEY, 1)
    only_file(folder).write_bytes(data)
    assert kept.recall("measured", KEY) is None
    kept.keep("measured", KEY, 2)
    assert kept.recall("measured", KEY) == 2


def test_folder_and_files_are_their_users_alone(folder: Path) -> None:
    """Nobody else can read or write them."""
    FolderMemory(folder).keep("measured", KEY, 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_file(folder).stat().st_mode & 0o777 == 0o600


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    """A link in place of a file, or of the folder, is not read, and nothing is written to where it leads."""
    kept = FolderMemory(folder)
    kept.keep("measured", KEY, 1)
    path = only_file(folder)
    elsewhere = tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    before = elsewhere.read_bytes()
    path.symlink_to(elsewhere)
    assert kept.recall("measured", KEY) is None
    kept.keep("measured", KEY, 2)
    assert (elsewhere.read_bytes(), path.is_symlink()) == (before, False)
    assert kept.recall("measured", KEY) == 2

    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert FolderMemory(linked).recall("measured", KEY) is None
    FolderMemory(linked).keep("measured", KEY, 3)
    assert kept.recall("measured", KEY) == 2


def test_a_file_of_another_user_does_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could put anything there; the folder neither."""
    kept = FolderMemory(folder)
    kept.keep("measured", KEY, 1)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert kept.recall("measured", KEY) is None
    kept.keep("measured", KEY, 2)
    monkeypatch.undo()
    assert kept.recall("measured", KEY) == 1


def test_what_cannot_be_written_is_forgotten(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in place of the folder, a full disk, NaN: no error, no partial file."""
    (tmp_path / "file").write_text("x")
    FolderMemory(tmp_path / "file").keep("measured", KEY, 1)
    assert FolderMemory(tmp_path / "file").recall("measured", KEY) is None

    kept = FolderMemory(folder)
    kept.keep("measured", KEY, float("nan"))
    monkeypatch.setattr(os, "replace", _full)
    kept.keep("measured", KEY, 1)
    assert not list(folder.glob("*")) + list(folder.glob(".*"))
    assert kept.recall("measured", KEY) is None


def _full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def test_writers_at_once_leave_one_whole_finding(folder: Path) -> None:
    """Of several that write the same key, one stays; readers meanwhile see a whole one."""
    kept = FolderMemory(folder)
    kept.keep("measured", KEY, ["0"] * 2000)
    seen = []

    def write(number: int) -> None:
        for _ in range(20):
            FolderMemory(folder).keep("measured", KEY, [str(number)] * 2000)
            seen.append(FolderMemory(folder).recall("measured", KEY))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert all(len(found) == 2000 and len(set(found)) == 1 for found in seen)
    assert [path.suffix for path in folder.iterdir()] == [".json"]


def test_the_oldest_are_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder does not grow for ever; the newest stays."""
    monkeypatch.setattr(memory, "MOST_FILES", 4)
    kept = FolderMemory(folder)
    for number in range(5):
        kept.keep("measured", {"n": number}, number)
        path = folder / memory._file_name("measured", {"n": number})
        if path.exists():
            os.utime(path, (number, number))
    assert [kept.recall("measured", {"n": number}) for number in (0, 1, 4)] == [None, None, 4]
    assert len(list(folder.iterdir())) == 3


def test_where_findings_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the image caches: in the user cache directory, or in the folder that data.cache names; off is off."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = f"remembered-{os.geteuid()}"
    found, named = memory_of("auto"), memory_of(str(tmp_path / "mine"))
    assert isinstance(found, FolderMemory)
    assert isinstance(named, FolderMemory)
    assert (found.folder, named.folder) == (tmp_path / "classwise" / name, tmp_path / "mine" / name)
    off = memory_of("off")
    assert isinstance(off, NoMemory)
    off.keep("measured", KEY, 1)
    assert off.recall("measured", KEY) is None
    assert not list(tmp_path.iterdir())
