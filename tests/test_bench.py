"""`classwise bench`: every stage of a run is timed, nothing is left behind, and the hints follow from the numbers."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from classwise import bench as module
from classwise.bench import COMPUTING, READING, Bench, Stage, bench
from classwise.bench_text import bench_text
from classwise.cli import run_command
from classwise.config_file import load_config
from classwise.errors import ConfigError, DataError


@pytest.fixture
def config(tmp_path: Path, make_pictures: Callable[..., list[str]]) -> Path:
    """24 pictures of two classes."""
    make_pictures(tmp_path / "pictures", {"red": 14, "green": 10}, size=(40, 50), suffix=".jpg")
    text = """
        [data]
        source = "pictures"
        workers = 0
        [targets.label]
        column = "label"
        [model]
        image_size = [16, 16]
        [training]
        epochs = 1
        batch_size = 4
        precision = "fp32"
        threads = 1
    """
    (tmp_path / "classwise.toml").write_text(text)
    return tmp_path / "classwise.toml"


def found_by(stages: dict[str, float], **others: Any) -> Bench:
    """As `bench` gives it."""
    made = tuple(Stage(name, milliseconds, "") for name, milliseconds in stages.items())
    values: dict[str, Any] = {"workers": 0, "threads": 1, "device": "cpu", "precision": "fp32", "plans": ()}
    return Bench(made, 1.0, **(values | others), hints=())


def test_every_stage_is_timed_and_nothing_is_written(config: Path, tmp_path: Path) -> None:
    before, state = sorted(tmp_path.rglob("*")), torch.get_rng_state()
    threads = torch.get_num_threads()
    found = bench(config, [("data.cache", "off")], quiet=True)
    assert [stage.name for stage in found.stages] == [*READING, *COMPUTING, "metrics"]
    assert all(stage.milliseconds >= 0 for stage in found.stages)
    assert all(
        found.milliseconds(name) > 0 for name in ("decoding", "augmenting", "forward", "backward", "update")
    )
    assert found.whole > 0
    assert sorted(tmp_path.rglob("*")) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_stored_pictures_are_not_decoded(config: Path) -> None:
    names = [stage.name for stage in bench(config, quiet=True).stages]
    assert names == ["reading", "augmenting", "joining", *COMPUTING, "metrics"]


def test_stages_are_what_the_clock_says(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that stands still but for one stage, all of the time is that stage's."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    update = module._update

    def slow(parts: Any) -> None:
        now[0] += 0.006  # two windows of four pictures and one more: 12 in all
        update(parts)

    monkeypatch.setattr(module, "_update", slow)
    found = bench(config, [("data.cache", "off")], quiet=True)
    assert found.milliseconds("update") == pytest.approx(1000 * 3 * 0.006 / 12)
    assert found.milliseconds(*READING, "forward", "loss", "backward") == 0


def test_a_bad_config_and_a_bad_picture_are_errors(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss\.name"):
        bench(config, [("loss.name", "none such")], quiet=True)
    (tmp_path / "pictures/red/000.jpg").write_bytes(b"none")
    with pytest.raises(DataError, match=r"000\.jpg"):
        bench(config, quiet=True)


@pytest.mark.parametrize(
    ("stages", "others", "hint"),
    [
        ({"reading": 1.0, "forward": 2.0}, {}, "data.workers = 1"),
        ({"augmenting": 9.0, "forward": 2.0}, {"workers": 2}, "the readers set the pace (9.00 ms"),
        ({"decoding": 1.0, "augmenting": 1.0, "forward": 9.0}, {"workers": 1}, "the cache"),
        ({"update": 1.0, "forward": 1.0}, {}, "training.accumulate"),
        ({"backward": 8.0, "update": 1.0}, {}, "model.image_size than 16 x 16"),
        ({"forward": 1.0}, {}, 'training.precision = "auto"'),
    ],
)
def test_hints_follow_from_the_numbers(
    config: Path, stages: dict[str, float], others: dict[str, Any], hint: str
) -> None:
    hints = list(module._hints(found_by(stages, **others), load_config(config)))
    assert any(hint in text for text in hints)


def test_where_nothing_stands_out_it_is_said(config: Path) -> None:
    found = found_by({"augmenting": 1.0, "forward": 0.5, "loss": 1.0}, workers=1, plans=("fp32",))
    assert list(module._hints(found, load_config(config))) == []
    assert "nothing stands out" in bench_text(found)


def test_the_table(config: Path) -> None:
    found = found_by({"reading": 0.5, "forward": 2.0, "metrics": 0.001}, workers=2, plans=("bf16: 1 ms",))
    lines = bench_text(dataclasses.replace(found, hints=("more of it",))).splitlines()
    assert lines[1].startswith("reading")
    assert "0.500  ██████" in lines[1]
    assert "2.000  " + 24 * "█" in lines[2]
    assert "█" not in lines[3]
    assert any("in 2 workers, beside the model" in line for line in lines)
    assert any("1,000 pictures/s" in line for line in lines)
    assert "  bf16: 1 ms" in lines
    assert lines[-1] == "  - more of it"


def test_the_command(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", str(config), "--training.batch_size", "8", "--json"]) == 0
    out, err = capsys.readouterr()
    assert {stage["name"] for stage in json.loads(out)["stages"]} >= {*COMPUTING}
    assert "timing" in err
    assert run_command(["bench", str(config), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == ("stage       ms a picture", "")
    assert run_command(["bench", str(config), "--training.batch_sise", "8"]) == 1
    assert "training.batch_sise" in capsys.readouterr().err
