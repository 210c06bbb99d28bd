"""What a run that goes on compares with the run that it was."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from classwise.compose.dataset import prepare
from classwise.compose.splits import DatasetSplits, data_digest
from classwise.config.load import absolute_paths, make_config
from classwise.console import Console
from classwise.errors import CheckpointError
from classwise.run.folder import RunFolder, split_table
from classwise.run.resume_checks import refuse_changed_data


def test_other_groups_are_other_data(
    tmp_path: Path, make_images: Callable[..., list[str]], make_table: Callable[..., Path]
) -> None:
    """Also where rows, sides, labels and images stay the same: groups are what the intervals resample."""
    paths = make_images(tmp_path, {"red": 8, "green": 8}, size=(8, 8))
    rows = [
        {"path": path, "label": path.split("/")[0], "person": number // 2}
        for number, path in enumerate(paths)
    ]
    make_table(tmp_path / "samples.csv", rows)
    values = {
        "data": {"source": "samples.csv", "group": "person", "valid": 0.25},
        "targets": {"label": {"column": "label"}},
        "model": {"image_size": [8, 8]},
    }
    splits = prepare(absolute_paths(make_config(values), tmp_path), Console(quiet=True), use_cache=False)
    folder = RunFolder(tmp_path)
    folder.write_split(split_table(splits))
    metadata = {"targets": [target.as_dict() for target in splits.targets], "data": data_digest(splits)}
    refuse_changed_data(folder, splits, metadata)

    with pytest.raises(CheckpointError, match="the data is not what the run was trained on"):
        refuse_changed_data(folder, _with_groups(splits, "other"), metadata)


def _with_groups(splits: DatasetSplits, group: str) -> DatasetSplits:
    """The same splits, in which the first training row belongs to another group."""
    samples = splits.train.samples
    assert samples.groups is not None
    samples = dataclasses.replace(samples, groups=(group, *samples.groups[1:]))
    return dataclasses.replace(splits, train=dataclasses.replace(splits.train, samples=samples))
