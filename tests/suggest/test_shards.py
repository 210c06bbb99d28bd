"""`init` on shards: their columns as those of a table, and the parts of a split by their names."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from classwise.config.load import load_config
from classwise.datacheck.rows import rows_of
from classwise.errors import DataError
from classwise.suggest.config import init, look_at
from tests.helpers.refusals import says
from tests.helpers.scenes import class_folder, command


def png(seed: int) -> bytes:
    image = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def write_shard(path: Path, rows: range) -> None:
    """Images of two classes, as `datasets` writes them, with a column of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(row), "path": f"{row}.png"} for row in rows]
    columns = {
        "image": images,
        "label": [f"kind {row % 2}" for row in rows],
        "image_id": [f"n{row}" for row in rows],
    }
    pl.DataFrame(columns).write_parquet(path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data set as it lies on a hub: shards of three parts in the folder `data`."""
    folder = tmp_path / "birds"
    write_shard(folder / "data/train-00000-of-00002.parquet", range(20))
    write_shard(folder / "data/train-00001-of-00002.parquet", range(20, 40))
    write_shard(folder / "data/validation-00000-of-00001.parquet", range(40, 50))
    write_shard(folder / "data/test-00000-of-00001.parquet", range(50, 60))
    (folder / "README.md").write_text("# Birds")
    return folder


def test_parts_of_a_split_are_named_each(repository: Path, tmp_path: Path) -> None:
    """Training rows are the source, validation rows data.valid, and the test is kept out; paths are relative."""
    config_file = init(repository, tmp_path / "out", hub=False, scratch=True, quiet=True)
    says(
        config_file.read_text(),
        'source = "../birds/data/train-*.parquet"',
        'valid = "../birds/data/validation-*.parquet"',
        "test: test-*.parquet kept out",
    )
    config = load_config(config_file)
    assert config.data.id == "image_id"
    assert config.targets["label"].column == "label"
    rows = rows_of(config_file, ())
    assert [part.name for part in rows.parts] == ["train", "valid"]
    assert [len(part.samples) for part in rows.parts] == [40, 10]


def test_the_size_is_that_of_the_images_in_shards(repository: Path) -> None:
    """They are read for it as files are."""
    config = look_at(repository / "data/train-00000-of-00002.parquet", hub=False, scratch=True).config
    assert config.model.image_size[0] < config.model.image_size[1]
    assert config.data.source.endswith("train-00000-of-00002.parquet")


def test_shards_without_labels_or_a_training_part_are_refused(repository: Path, tmp_path: Path) -> None:
    """There is nothing to learn from them."""
    for shard in (repository / "data").glob("train-*"):
        shard.unlink()
    with pytest.raises(DataError, match="found shards of test, valid, and none to train on"):
        look_at(repository, hub=False)
    bare = pl.DataFrame({"image": [{"bytes": png(0), "path": "0.png"}]})
    bare.write_parquet(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="its images have no labels"):
        look_at(tmp_path / "bare.parquet", hub=False)


def test_check_reads_shards_and_writes_no_table_for_them(tmp_path: Path) -> None:
    """A copy in two sets is found; what would write a table is refused before anything is looked at."""
    class_folder(tmp_path / "photos", {"a": 12, "b": 12})
    class_folder(tmp_path / "test", {"a": 2})
    for name in ("photos", "test"):
        command("pack", tmp_path / name, tmp_path / f"{name}-shards", "--format", "tar").ok()
    out = tmp_path / "out"
    command("check", tmp_path / "photos-shards", "--against", tmp_path / "test-shards", "--out", out).ok()
    found = pl.read_csv(out / "check.csv").filter(pl.col("kind") == "exact-copy")
    assert found.height == 2
    for option in ("--write-groups", "--fix"):
        refused = command("check", tmp_path / "photos-shards", option, "--out", tmp_path / "never")
        assert refused.code == 1
        says(refused.err, f"{option}: found with shards, whose table is in them")
    assert not (tmp_path / "never").exists()
