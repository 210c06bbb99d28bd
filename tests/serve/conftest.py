"""A run with every type of target, trained once, and its model."""

import os
from pathlib import Path

import pytest

from classwise.console import Console
from classwise.run.api import Run
from classwise.serve.model import ServedModel, served_model
from tests.helpers.scenes import MANY, command, many_table, write_config

EVERY_TYPE = {
    **MANY,
    "targets": {
        **MANY["targets"],
        "number": {"column": "size", "type": "regression", "edges": [3, 6]},
        "rank": {"column": "relevance", "type": "ranking", "query": "query"},
    },
    "joint": {"targets": ["label", "level"]},
    "model": {**MANY["model"], "image_size": [24, 24], "fit": "pad"},
    "report": {"resamples": 0, "baselines": False},
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images in `images` and the run `run`."""
    folder = tmp_path_factory.mktemp("served")
    many_table(folder)
    command("train", write_config(folder, EVERY_TYPE), "--run", folder / "run", "--quiet").ok()
    return folder


@pytest.fixture(scope="session")
def model(trained: Path) -> ServedModel:
    """The run's model with the engine that `auto` takes."""
    return served_model(Run.open(trained / "run"), "auto", None, Console(quiet=True))


@pytest.fixture(scope="session")
def files(trained: Path) -> list[tuple[str, bytes]]:
    """Name and content of the run's images."""
    paths = sorted((trained / "images").iterdir())
    return [(os.fsdecode(path.name), path.read_bytes()) for path in paths]
