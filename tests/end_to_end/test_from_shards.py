"""From files, Parquet, tar and zip: the same images are the same run, to the byte."""

import shutil
from pathlib import Path

import pytest

from classwise.data.shards import forget_opened
from tests.helpers.refusals import says
from tests.helpers.same_end import timeless_history
from tests.helpers.scenes import FORKS, PEOPLE, class_folder, command, people_table, write_config
from tests.helpers.tables import read_csv

FORMATS = ("parquet", "tar", "zip")
SAME = (
    *(
        f"checkpoints/{name}/{part}.safetensors"
        for name in ("best", "last")
        for part in ("model", "training")
    ),
    "predictions.csv",
    "metrics.json",
)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, predictions and scores are the same bytes, and so is all that the history says."""
    assert [name for name in SAME if (one / name).read_bytes() != (other / name).read_bytes()] == []
    assert timeless_history(one) == timeless_history(other)
    columns = ("id", "group", "split", "content")
    rows = [[[row[name] for name in columns] for row in read_csv(run / "split.csv")] for run in (one, other)]
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 images of people with three targets in a table, trained on as files; and the same as shards of each kind."""
    folder = tmp_path_factory.mktemp("shards")
    people_table(folder)
    config = write_config(folder, PEOPLE, data__cache="off", data__images=".")
    command("train", config, "--run", folder / "files").ok()
    command("predict", folder / "files", folder / "samples.csv", "--out", folder / "predicted.csv").ok()
    for kind in FORMATS:
        said = command("pack", config, folder / kind, "--format", kind, "--shard-mb", 1).ok()
        assert said.path == folder / kind
        says(said.err, "72 images in 1 shard")
    return folder


@FORKS
@pytest.mark.parametrize("kind", FORMATS)
def test_shards_train_to_the_same_bytes(folder: Path, kind: str) -> None:
    """Three targets, groups and augmentation, with workers that read the shards themselves."""
    config = write_config(folder, PEOPLE, data__cache="off", data__source=kind, data__workers=2)
    run = folder / f"run-{kind}"
    command("train", config, "--run", run).ok()
    assert_same_run(folder / "files", run)

    # And predicts the same from them.
    command("predict", run, folder / kind, "--out", run / "predicted.csv").ok()
    assert (run / "predicted.csv").read_bytes() == (folder / "predicted.csv").read_bytes()


def test_several_shards_and_the_image_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few images each, by a pattern; decoded images are cached as those of files are."""
    monkeypatch.setattr("classwise.compose.packing.MEGABYTE", 10_000)
    command("pack", folder / "classwise.toml", folder / "many", "--format", "parquet", "--shard-mb", 1).ok()
    shards = sorted((folder / "many").iterdir())
    assert len(shards) > 5
    config = write_config(folder, PEOPLE, data__source="many/images-*.parquet")
    said = command("train", config, "--run", folder / "run-many").ok().err
    says(said, "images: 72 decoded and kept")
    assert_same_run(folder / "files", folder / "run-many")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_on_shards_is_resumed_to_the_same_bytes(folder: Path, kind: str, tmp_path: Path) -> None:
    """Stopped after the first epoch, and gone on with from the shards."""
    config = write_config(folder, PEOPLE, data__cache="off", data__source=kind)
    run = tmp_path / "run"
    options = ("--training.epochs", 1, "--schedule.name", "constant")
    command("train", config, "--run", run, *options).ok()
    command("resume", run, "--epochs", 2).ok()
    whole = tmp_path / "whole"
    command("train", config, "--run", whole, "--schedule.name", "constant").ok()
    assert_same_run(whole, run)


def test_class_folders_as_shards(tmp_path: Path) -> None:
    """Without a table, with no option: a folder, packed, is the same source; so is a zip that a person made of it."""
    class_folder(tmp_path / "photos", {"a": 9, "b": 7})
    config = write_config(tmp_path, data__source="photos")
    command("train", config, "--run", tmp_path / "files").ok()
    shutil.make_archive(str(tmp_path / "by-hand"), "zip", tmp_path / "photos")
    shutil.make_archive(str(tmp_path / "by-hand"), "tar", tmp_path / "photos")
    for kind in FORMATS:
        command("pack", tmp_path / "photos", tmp_path / kind, "--format", kind).ok()
    for source in (*FORMATS, "by-hand.zip", "by-hand.tar"):
        config = write_config(tmp_path, data__source=source, data__cache="off")
        command("train", config, "--run", tmp_path / f"run-{source}").ok()
        assert_same_run(tmp_path / "files", tmp_path / f"run-{source}")
        scores = command("evaluate", tmp_path / "files", tmp_path / source).ok()
        says(scores.out, "macro F1")


def test_a_shard_that_changes_stops_the_run(folder: Path, tmp_path: Path) -> None:
    """Between the start and a later look: the message names the shard and says what to do."""
    shutil.copytree(folder / "tar", tmp_path / "tar")
    config = write_config(folder, PEOPLE, data__source=str(tmp_path / "tar"), data__cache="off")
    command("train", config, "--run", tmp_path / "run", "--training.epochs", 1).ok()
    shard = next((tmp_path / "tar").iterdir())
    data = shard.read_bytes()

    # Other images under the same names: a resumed run would not be the same.
    shard.write_bytes(data.replace(b"IDAT", b"iDAT", 1))
    forget_opened()
    said = command("resume", tmp_path / "run", "--epochs", 2)
    assert said.code == 1
    says(said.err, "1 image", "00000000.png")

    shard.write_bytes(data[: len(data) // 2])
    forget_opened()
    said = command("resume", tmp_path / "run", "--epochs", 2)
    assert said.code == 1
    says(said.err, "cut short", shard.name)
