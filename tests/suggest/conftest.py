"""A folder for each test that has nothing beside it."""

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """One level below pytest's: `init` also looks for a table's images in the folders beside it, which are those of
    other tests."""
    folder = tmp_path / "own"
    folder.mkdir()
    return folder
