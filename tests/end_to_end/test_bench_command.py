"""`classwise bench` on data as people have it: several targets, names in any script, a run beside it."""

import json
from pathlib import Path

import pytest

from classwise.bench.result import COMPUTING, READING
from tests.helpers.scenes import (
    FORKS,
    MANY,
    PEOPLE,
    command,
    generators_untouched,
    many_table,
    people_table,
    untouched,
    write_config,
)


@FORKS
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_is_timed_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Neither a run's folder nor anything else beside the config, and no global generator moved."""
    monkeypatch.chdir(tmp_path)
    people_table(tmp_path)
    write_config(tmp_path, PEOPLE, data__workers=workers, data__cache="off")
    with untouched(tmp_path), generators_untouched():
        shown = command("bench", "classwise.toml").ok()
    lines = shown.out.splitlines()
    assert lines[0].split() == ["stage", "ms", "an", "image", "share"]
    names = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert names == [*READING, *(name for name in COMPUTING if name != "mixing"), "metrics"]
    assert any(line.startswith("bound by ") for line in lines)
    assert lines[-1].startswith("- ")
    assert "timing each stage" in shown.err


def test_every_type_of_target_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned weights between targets, an average of the weights, and a backbone that thaws after an epoch."""
    monkeypatch.chdir(tmp_path)
    many_table(tmp_path)
    write_config(tmp_path, MANY)
    with untouched(tmp_path):
        found = json.loads(command("bench", "classwise.toml", "--json", "--quiet").ok().out)
    assert found["whole"] > 0
    assert {"reading", "augmenting"} < {stage["name"] for stage in found["stages"]}
    assert sum(stage["share"] or 0 for stage in found["stages"]) == pytest.approx(1)


def test_a_run_goes_on_as_if_nobody_had_timed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights with and without a `bench` before, in one process."""
    monkeypatch.chdir(tmp_path)
    people_table(tmp_path, people=9)
    write_config(tmp_path, PEOPLE, training__epochs=1)
    command("train", "classwise.toml", "--run", "before", "--quiet").ok()
    command("bench", "classwise.toml", "--quiet").ok()
    command("train", "classwise.toml", "--run", "after", "--quiet").ok()
    assert Path("before/predictions.csv").read_bytes() == Path("after/predictions.csv").read_bytes()
