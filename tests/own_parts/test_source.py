"""Loading a part: what may run, and what the messages say."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from classwise.errors import ConfigError, TrustError
from classwise.own_parts.source import SourceFile, admit, load, made_by, part_of, read_source
from tests.helpers.own_parts import own_part

KEY = "loss.name"


@pytest.fixture(autouse=True)
def modules_untouched() -> Iterator[None]:
    """The modules of these files do not stay."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_nothing_runs_that_was_not_admitted(tmp_path: Path) -> None:
    """The file would leave a mark."""
    path = tmp_path / "my_part.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef Part(): pass\n")
    with pytest.raises(TrustError, match=r"^loss\.name: .*my_part\.py is code that was not trusted"):
        load(f"{path}:Part", KEY)
    assert not (tmp_path / "ran").exists()


def test_what_runs_are_the_bytes_that_were_admitted(tmp_path: Path) -> None:
    """Not those that the file holds by then."""
    reference = own_part(tmp_path, "def Part(): return 'read'\n")
    (tmp_path / "my_part.py").write_text("def Part(): return 'swapped'\n")
    assert load(reference, KEY)() == "read"


def test_a_copy_with_the_same_bytes_is_the_same_module(tmp_path: Path) -> None:
    """So that what was made by the one is an instance of the other's class, also through pickle."""
    one = own_part(tmp_path, "class Part: pass\n")
    (tmp_path / "code").mkdir()
    other = own_part(tmp_path / "code", "class Part: pass\n")
    assert load(one, KEY) is load(other, KEY)
    assert isinstance(pickle.loads(pickle.dumps(load(one, KEY)())), load(other, KEY))


def test_a_changed_file_is_another_module(tmp_path: Path) -> None:
    """In one process, as in a notebook: the new code is used once it is admitted."""
    first = load(own_part(tmp_path, "def Part(): return 1\n"), KEY)
    second = load(own_part(tmp_path, "def Part(): return 2\n"), KEY)
    assert (first(), second()) == (1, 2)


def test_the_digest_is_that_of_sha256sum() -> None:
    """The well-known SHA-256 of `abc` (FIPS 180-2, appendix B.1)."""
    assert SourceFile("/a.py", b"abc").digest.startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (
            "x = nme\n",
            "Part",
            r"cannot be imported: NameError: name 'nme' is not defined \(line 1: x = nme\)",
        ),
        ("\ndef f(:\n", "f", r"cannot be imported: SyntaxError: invalid syntax \(line 2: def f\(:\)"),
        (
            "import no_such_thing\n",
            "f",
            r"ModuleNotFoundError: No module named 'no_such_thing' \(line 1: import no_",
        ),
        ("import json\njson.loads('{')\n", "f", r"JSONDecodeError: .* \(line 2: json\.loads\('\{'\)\)"),
        ("import sys\nsys.exit(3)\n", "f", r"cannot be imported: SystemExit: 3 \(line 2: sys\.exit\(3\)\)"),
        ("class Part: pass\n", "Prt", r"defines no such part: 'Prt'; did you mean 'Part'\?"),
        ("class Part: pass\n", "", r"defines no such part: no name behind the colon; allowed: Part"),
        ("Part = {}\n", "Part", r"'Part' of .*my_part\.py is a dict, allowed: a class or a function"),
    ],
)
def test_a_file_that_does_not_do_names_its_line(tmp_path: Path, code: str, name: str, message: str) -> None:
    """What failed and where, in the user's own file."""
    with pytest.raises(ConfigError, match=rf"^loss\.name: .*{message}"):
        load(own_part(tmp_path, code, name), KEY)


def test_a_failed_import_leaves_no_module(tmp_path: Path) -> None:
    """The second attempt says the same as the first."""
    reference = own_part(tmp_path, "class Part: pass\nraise ValueError('later')\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"ValueError: later \(line 2"):
            load(reference, KEY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With what its path is relative to; and a folder is no file."""
    with pytest.raises(
        ConfigError, match=r"^loss\.name: there is no file .*gone\.py; paths are relative to the config"
    ):
        read_source(str(tmp_path / "gone.py"), KEY)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_source(str(tmp_path), KEY)


CODE = """
class Part:
    def __init__(self, scale, gamma=2.0):
        if gamma < 0:
            raise ValueError("negative")
        self.values = scale, gamma

def either(outputs, targets, gamma=2.0):
    return outputs, targets, gamma
"""


def made(tmp_path: Path, name: str, keys: dict[str, object], **offered: object) -> object:
    """A part with these keys of the table [loss]."""
    source = SourceFile(str(tmp_path / "my_part.py"), CODE.encode())
    return made_by(part_of(source, name, KEY), keys, offered, source, "loss")


def test_keys_of_the_table_are_arguments(tmp_path: Path) -> None:
    """Before those that classwise offers, of which only those are given that the class asks for."""
    assert made(tmp_path, "Part", {"gamma": 1.0}, scale=3, other=4).values == (3, 1.0)
    assert made(tmp_path, "Part", {"scale": 5}, scale=3).values == (5, 2.0)


def test_keys_are_arguments_of_every_call_of_a_function(tmp_path: Path) -> None:
    """It is called with the rest later."""
    assert made(tmp_path, "either", {"gamma": 1.0})("outputs", "targets") == ("outputs", "targets", 1.0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scale": 1, "gama": 1.0}, r"^loss\.gama: Part of .* has no such argument; did you mean 'gamma'\?"),
        ({"gamma": 1.0}, r"^loss\.scale: missing; Part of .*my_part\.py needs it"),
        (
            {"scale": 1, "gamma": -1},
            r"^loss: Part of .* cannot be made: ValueError: negative \(line 5: raise Value",
        ),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    """As the config's own keys are."""
    with pytest.raises(ConfigError, match=message):
        made(tmp_path, "Part", keys)


def test_admitting_twice_takes_the_later(tmp_path: Path) -> None:
    """As when a file was edited between two runs of one process."""
    admit(SourceFile("/nowhere/my_part.py", b"def Part(): return 1\n"))
    admit(SourceFile("/nowhere/my_part.py", b"def Part(): return 2\n"))
    assert load("/nowhere/my_part.py:Part", KEY)() == 2
