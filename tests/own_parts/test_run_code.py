"""The copies in a run directory, and who may run them."""

import json
from pathlib import Path

import pytest

from classwise.errors import CheckpointError, TrustError
from classwise.own_parts.run_code import (
    copies_in,
    lies_in_a_run,
    read_code,
    require_trust,
    trust_option,
    write_code,
)
from classwise.own_parts.source import SourceFile

ONE, OTHER = SourceFile("/a/my_part.py", b"one = 1\n"), SourceFile("/b/my_part.py", b"other = 2\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with two files of the same name."""
    write_code(tmp_path, list(copies_in(tmp_path, [ONE, OTHER]).values()))
    return tmp_path


def test_copies_are_read_as_they_were_written(run: Path) -> None:
    """Two files of one name get two."""
    found = read_code(run)
    assert [source.content for source in found] == [ONE.content, OTHER.content]
    assert [Path(source.path).name for source in found] == ["my_part.py", "my_part_2.py"]
    files = json.loads((run / "code/manifest.json").read_text())["files"]
    assert files["my_part.py"] == {"size": 8, "sha256": ONE.digest}


def test_a_run_without_code_has_no_folder_for_it(tmp_path: Path) -> None:
    """Nothing is written, and nothing is found."""
    write_code(tmp_path, [])
    assert not list(tmp_path.iterdir())
    assert read_code(tmp_path) == []


def test_a_changed_copy_is_refused_by_name(run: Path) -> None:
    """With both digests."""
    (run / "code/my_part_2.py").write_text("other = 3\n")
    with pytest.raises(
        CheckpointError, match=rf"my_part_2\.py has changed .* was {OTHER.digest[:8]} and is [0-9a-f]{{8}}\."
    ):
        read_code(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "manifest.json is damaged"),
        ("[]", "manifest.json is damaged"),
        ('{"files": {"../evil.py": {"sha256": "0"}}}', r"damaged: found '\.\./evil\.py'"),
        ('{"files": {"gone.py": {"sha256": "0"}}}', r"gone\.py cannot be read: No such file"),
    ],
)
def test_a_manifest_that_does_not_do_is_refused(run: Path, text: str, message: str) -> None:
    """Nor does one lead out of the folder."""
    (run / "code/manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_code(run)


@pytest.mark.parametrize(
    "trust",
    [
        f"{ONE.digest[:8]},{OTHER.digest[:8]}",
        f" {OTHER.digest} , {ONE.digest[:12].upper()}",
        [ONE.digest[:8], OTHER.digest],
    ],
)
def test_every_file_has_to_be_trusted(trust: str | list[str]) -> None:
    """By the beginning of its digest, in any order."""
    require_trust("runs/x", [ONE, OTHER], trust)


@pytest.mark.parametrize("trust", ["", (), ONE.digest[:8], [OTHER.digest]])
def test_a_file_that_is_not_trusted_is_named(trust: str | list[str]) -> None:
    """With the option that would trust all of them."""
    option = f" --trust {ONE.digest[:8]},{OTHER.digest[:8]}"
    with pytest.raises(TrustError, match=rf"^runs/x has code of its own, .*code/my_part\.py.* add{option}$"):
        require_trust("runs/x", [ONE, OTHER], trust)
    assert trust_option([ONE, OTHER]) == option


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        (ONE.digest[:7], "at least the first 8 characters"),
        ("yes", "found 'yes', allowed: at least"),
        (ONE.digest + "0", "at least the first 8 characters"),
        (
            "0123abcd",
            rf"0123abcd is not the digest of a file of runs/x, which has code/my_part\.py \({ONE.digest[:8]}\)",
        ),
    ],
)
def test_a_wrong_digest_is_refused(trust: str, message: str) -> None:
    """Too short, none at all, or of another file."""
    with pytest.raises(TrustError, match=rf"^--trust: .*{message}"):
        require_trust("runs/x", [ONE], trust)


def test_trust_in_a_run_without_code_is_refused() -> None:
    """It would have no effect."""
    with pytest.raises(TrustError, match="which has no code of its own"):
        require_trust("runs/x", [], ONE.digest)


def test_only_copies_of_a_run_lie_in_one(run: Path) -> None:
    """A folder named `code` of the user's own, also beside a config.toml, does not count."""
    path = str(run / "code/my_part.py")
    assert not lies_in_a_run(path)
    (run / "config.toml").touch()
    assert lies_in_a_run(path)
    assert not lies_in_a_run(str(run / "my_part.py"))
    (run / "code/manifest.json").unlink()
    assert not lies_in_a_run(path)
