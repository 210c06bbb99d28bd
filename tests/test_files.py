"""Files are written whole or not at all."""

import hashlib
import json
import math
import os
import stat
from pathlib import Path

import pytest

from classwise.errors import OutputError
from classwise.files import json_text, refuse_existing, sha256, write_bytes, write_json, write_text


def test_writing_replaces_the_whole_file(tmp_path):
    """What was there before is gone, and no temporary file is left."""
    path = tmp_path / "결과 1.csv"
    write_bytes(path, b"a long first version")
    write_text(path, "short, é 한\r\n")
    assert path.read_bytes() == "short, é 한\r\n".encode()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file(tmp_path, monkeypatch, step):
    """Where the disk is full, or the last step fails, the old bytes stay and nothing is left over."""
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*(os, "fsync") if step == "fsync" else (Path, "replace"), fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """The data is flushed before it takes the name, and the folder after: a power cut cannot leave half."""
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), fsync(fd))[1],
    )
    monkeypatch.setattr(Path, "replace", lambda a, b: (steps.append("name"), replace(a, b))[1])
    write_bytes(tmp_path / "out", b"x")
    assert steps == ["file", "name", "folder"]


def test_a_result_is_as_readable_as_any_other_file(tmp_path):
    """The mode is that of a file made the plain way, not a temporary file's private one."""
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_json_comes_back(tmp_path):
    """Any script stands readable in the file, and the order of the keys is kept."""
    value = {"b": [1, 2.5, None, True], "a": {"마스크": '쓴 "얼굴"'}}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert list(json.loads(text)) == ["b", "a"]
    assert "마스크" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_json_has_not(tmp_path, value):
    """Not-a-number would make a file that other programs cannot read; nothing is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": value})
    assert not list(tmp_path.iterdir())
    assert json_text({"loss": 1.5}) == '{\n "loss": 1.5\n}\n'


def test_sha256():
    """The digest is the standard one."""
    assert sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_existing_files_are_kept(tmp_path):
    """An output path that exists is refused unless forced; a folder, or no folder to be in, always is."""
    path = tmp_path / "out.csv"
    refuse_existing(path, force=False)
    path.touch()
    with pytest.raises(OutputError, match=r"out\.csv exists already; it is kept\. Use --force"):
        refuse_existing(path, force=False)
    refuse_existing(path, force=True)
    with pytest.raises(OutputError, match="is a folder"):
        refuse_existing(tmp_path, force=True)
    with pytest.raises(OutputError, match="there is no folder"):
        refuse_existing(tmp_path / "none" / "out.csv", force=True)
