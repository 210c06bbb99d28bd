"""Layouts of public data sets, and those that people bring: each is what it is, or refused for what it is; none is
silently something else."""

from pathlib import Path

import pytest

from tests.suggest.brought_layouts import BROUGHT
from tests.suggest.folder_layouts import FOLDERS
from tests.suggest.layouts import Layout, differences, seen
from tests.suggest.table_layouts import TABLES


@pytest.mark.parametrize(
    "layout", [*FOLDERS, *TABLES, *BROUGHT], ids=lambda layout: f"{layout.name}, {layout.origin}"
)
def test_a_layout(tmp_path: Path, layout: Layout) -> None:
    """Targets, their types and labels, the split, and what the user is told."""
    assert differences(layout, seen(layout, tmp_path)) == []
