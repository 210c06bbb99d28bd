"""`classwise train FOLDER`: the config of `init` beside the run, with the same number, and nothing left where it
fails."""

import shutil
import tomllib
from pathlib import Path

import pytest

import classwise
from tests.helpers.scenes import class_folder, command, plain_table, untouched, write_config

OPTIONS = (
    *("--training.epochs", "1", "--training.precision", "fp32", "--training.device", "cpu"),
    *("--training.memory_format", "contiguous", "--training.threads", "1", "--data.workers", "0"),
    *("--model.image_size", "[16, 16]", "--report.resamples", "0", "--report.baselines", "false"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder of class folders."""
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "photos", {"cat": 8, "dog": 8})
    return tmp_path


def train(*arguments: object) -> str:
    """The run directory that the command prints."""
    return command("train", *arguments, *OPTIONS).ok().out.strip()


def test_a_folder_is_trained_as_init_and_train_would(here: Path) -> None:
    """The same config but for its place, the same table, options on top, and the same weights."""
    with untouched(here / "photos"):
        result = command("train", "photos", *OPTIONS).ok()
    assert result.out == "runs/photos\n"
    assert "runs/photos.toml: the config" in result.err
    assert "runs/photos.csv: 16 rows" in result.err
    assert "model: tf_efficientnet_lite0" in result.err
    written = Path("runs/photos.toml").read_text()
    assert tomllib.loads(written)["training"]["epochs"] > 1
    assert tomllib.loads(Path("runs/photos/config.toml").read_text())["training"]["epochs"] == 1

    command("init", "photos", "--out", "other").ok()
    by_init = Path("other/classwise.toml").read_text()
    renamed = written.replace("photos.toml", "classwise.toml").replace("photos.csv", "samples.csv")
    assert renamed.split() == by_init.split()  # comments are aligned behind the names
    assert Path("runs/photos.csv").read_bytes() == Path("other/samples.csv").read_bytes()
    command("train", "other/classwise.toml", *OPTIONS, "--run", "two").ok()
    weights = "checkpoints/last/model.safetensors"
    assert Path("runs/photos", weights).read_bytes() == Path("two", weights).read_bytes()

    # The config beside the run is one to train with, and the run goes on.
    assert train("runs/photos.toml") == "runs/photos-2"
    assert command("resume", "runs/photos").ok().out == "runs/photos\n"


def test_a_table_stays_where_it_is(here: Path) -> None:
    """Only the config is written: it names the table."""
    plain_table(here / "data", 16)
    assert train("data/samples.csv") == "runs/samples"
    assert sorted(path.name for path in Path("runs").iterdir()) == ["samples", "samples.toml"]
    data = tomllib.loads(Path("runs/samples.toml").read_text())["data"]
    assert data["source"] == "../data/samples.csv"


def test_config_and_run_have_the_same_number(here: Path) -> None:
    """The first that is free for all of them; no file is overwritten. A name on the command line is that of all."""
    Path("runs").mkdir()
    Path("runs/photos.toml").write_text("precious")
    (Path("runs") / "photos-2").mkdir()
    assert train("photos") == "runs/photos-3"
    assert Path("runs/photos-3.toml").is_file()
    assert Path("runs/photos-3.csv").is_file()
    assert Path("runs/photos.toml").read_text() == "precious"
    assert train("photos", "--name", "2024") == "runs/2024"
    assert Path("runs/2024.toml").is_file()


def test_a_name_with_a_line_break_ends_no_comment(here: Path) -> None:
    """The name of the config stands in a comment of it."""
    assert train("photos", "--name", "'a\nb = 1'") == "runs/'a\nb = 1'"
    written = Path("runs/'a\nb = 1'.toml").read_text()
    assert "b" not in tomllib.loads(written)


def test_beside_a_run_directory_of_ones_own_choice(here: Path) -> None:
    """The config is named like it; if there is such a file, the config alone is numbered."""
    Path("a").mkdir()
    Path("a/b.csv").write_text("precious")
    assert train("photos", "--run", "a/b") == "a/b"
    assert sorted(path.name for path in Path("a").iterdir()) == ["b", "b-2.csv", "b-2.toml", "b.csv"]


def test_a_config_in_the_folder_is_used(here: Path) -> None:
    """Somebody has written it for these images; it says so, and no other is written."""
    plain_table(here / "data", 16)
    write_config(here / "data", training__epochs=1, name="mine")
    result = command("train", "data").ok()
    assert result.out == "runs/mine\n"
    assert "config: data/classwise.toml, which is in the folder" in result.err
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]


def test_a_run_is_no_folder_of_images(here: Path) -> None:
    """The message has the two commands that may have been meant."""
    run = train("photos")
    with untouched(here):
        result = command("train", run)
    assert result.code == 1
    assert f"{run} is a run; go on with it: classwise resume {run}; or" in result.err
    assert f"classwise train {run}/config.toml" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("photos", "--training.epoch", "1"),
            "--training.epoch: no such key; did you mean --training.epochs?",
        ),
        (("photos", "--name", "../x"), "--name: found"),
        (("empty",), "found no images in sub-folders"),
        (("photos", "--run", "taken"), "taken already exists and is not overwritten"),
        (("photos", "--model.backbone", "nonsense"), "no backbone 'nonsense'"),
    ],
)
def test_nothing_is_left_where_training_cannot_begin(
    here: Path, arguments: tuple[str, ...], message: str
) -> None:
    """Neither the config nor its table, nor a folder for them."""
    Path("empty").mkdir()
    Path("taken").mkdir()
    Path("taken/file").touch()
    with untouched(here):
        result = command("train", *arguments, *OPTIONS)
    assert result.code == 1
    assert message in result.err


def test_a_broken_image_is_named_with_the_folder_that_was_given(here: Path) -> None:
    """Not with the table beside the run, which is gone by then; what helps is an option, as there is no config."""
    broken = next(Path("photos").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    message = command("train", "photos", *OPTIONS).err.partition("error: ")[2]
    assert "photos: 1 image cannot be used (--data.bad_images skip leaves such rows out)" in message
    assert "runs/" not in message
    assert "ends inside its chunk IDAT" in message


def test_an_older_run_is_no_reason_to_leave_files(here: Path) -> None:
    """--run names a run that is there: it is refused, and the config for it is removed again."""
    run = train("photos")
    with untouched(here):
        assert command("train", "photos", "--run", run, *OPTIONS).code == 1


def test_from_python(here: Path) -> None:
    """classwise.train and classwise.init take folders, as text or path, and train what the commands would."""
    overrides = [(key.removeprefix("--"), value) for key, value in zip(*[iter(OPTIONS)] * 2, strict=True)]
    run = classwise.train("photos", overrides=overrides, quiet=True)
    assert run.path == Path("runs/photos")
    path = classwise.init(here / "photos", out="new", quiet=True)
    assert path == Path("new/classwise.toml")
    shutil.rmtree("runs")
    assert classwise.train(path, overrides=overrides, quiet=True).path == Path("runs/photos")
    assert not Path("runs/photos.toml").exists()
