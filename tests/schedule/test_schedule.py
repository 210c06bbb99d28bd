"""`classwise schedule`: the rates that `train` uses, in the terminal and as a file; what it refuses."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from classwise.config.load import load_config
from classwise.schedule.drawing import DOTS, drawing_of, thinned
from classwise.schedule.rates import Rates, rates_of
from tests.helpers.scenes import PLAIN, command, plain_table, write_config

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import draw_schedules

IMAGES = Path(draw_schedules.__file__).parent / "images"


def config(folder: Path, **changes: Any) -> Path:
    return write_config(folder, PLAIN, **changes)


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "cosine", "warmup_epochs": 1.5},
        {"name": "step", "step_size": 2, "gamma": 0.5},
        {"name": "plateau", "patience": 0, "factor": 0.5, "threshold": 10.0},
        {"name": "onecycle", "max_lr": 0.01},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_the_rates_are_those_of_training(schedule: dict[str, Any], tmp_path: Path) -> None:
    """At the last update of every epoch, as history.jsonl has them; of plateau with the recorded results."""
    plain_table(tmp_path, 16)
    path = config(tmp_path, schedule=schedule, training__epochs=5)
    run = command("train", path, "--run", tmp_path / "run").ok().path
    command("schedule", path, "--metric", run).ok()

    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    scores = [row["valid"]["macro_f1"] for row in history]
    (line,) = rates_of(load_config(path), "it", 2, scores)  # 12 rows in batches of 8
    assert [lr for _, lr in line.points[1::2]] == pytest.approx([row["lr"] for row in history], rel=1e-12)
    assert [epoch for epoch, _ in line.points] == [update / 2 for update in range(10)]


def test_the_updates_are_counted_as_for_training(tmp_path: Path) -> None:
    """By the split and the accumulation; images are read for it, but nothing is written beside them."""
    plain_table(tmp_path, 40)
    path = config(tmp_path, training__accumulate=2, training__epochs=3)
    assert "classwise: 3 epochs of 2 updates" in command("schedule", path).ok().err
    assert "classwise: 3 epochs of 7 updates" in command("schedule", path, "--updates", 7).ok().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classwise.toml", "images", "samples.csv"]


def test_the_backbone_has_a_line_of_its_own(tmp_path: Path) -> None:
    """Where it has other rates; with a layer decay those of its last layer. A frozen one has none."""
    changes = {"training__epochs": 4, "optimizer__lr": 0.1}
    path = config(tmp_path, **changes, optimizer__backbone_lr_factor=0.2, optimizer__layer_decay=0.5)
    heads, backbone = rates_of(load_config(path), "it", 5)
    assert (heads.name, backbone.name) == ("it, heads", "it, backbone")
    ratios = [a / b for (_, a), (_, b) in zip(backbone.points, heads.points, strict=True)]
    assert ratios == pytest.approx([0.1] * 20)
    result = command("schedule", path, "--updates", 5).ok()
    assert "classwise, backbone: cosine, from 0.01 to " in result.out
    (alone,) = rates_of(load_config(config(tmp_path, **changes, optimizer__backbone_lr_factor=0.0)), "it", 5)
    assert alone.name == "it"


def test_what_plateau_is_assumed_to_see(tmp_path: Path) -> None:
    """Better in the first half, then not: the first reduction comes `patience` epochs later, and it is said."""
    path = config(tmp_path, training__epochs=10, schedule={"name": "plateau", "patience": 2, "factor": 0.1})
    for metric, expected in (("macro_f1", 8), ("log_loss", 8)):
        (line,) = rates_of(load_config(path, [("selection.metric", metric)]), "it", 1)
        assert line.note == f"assumed: {metric} improves up to epoch 5, not after"
        first = line.points[0][1]
        assert [lr < first for _, lr in line.points].index(True) == expected
    assert (
        "assumed: macro_f1 improves up to epoch 5, not after"
        in command("schedule", path, "--updates", 1).ok().out
    )


def test_a_chart_in_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal; where the encoding has no braille, ASCII alone."""
    path = config(tmp_path, training__epochs=4)
    for columns in (40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = command("schedule", path, "--updates", 9).ok().out
        chart = [line for line in text.splitlines() if line.startswith(("│", "┌", "└"))]
        assert len(chart) == 10
        assert max(map(len, chart)) <= columns
        assert "x: epoch; y: learning rate, x 1e-3" in text
    from classwise.schedule.command import text_of

    rates = rates_of(load_config(path), "it", 9)
    assert text_of(rates, 80, "ascii").isascii()
    assert not text_of(rates, 80, "utf-8").isascii()


def test_files(tmp_path: Path) -> None:
    """One chart of all configs, as an SVG that names them or as a PNG of it; nothing is overwritten."""
    one, two = config(tmp_path), tmp_path / "two.toml"
    two.write_text(one.read_text())
    out = tmp_path / "rates.svg"
    result = command("schedule", one, two, "--updates", 5, "--out", out).ok()
    assert result.path == out
    texts = [node.text for node in ET.parse(out).iter() if node.tag.endswith("text")]
    assert {"classwise: cosine", "two: cosine"} <= set(texts)

    before = out.read_bytes()
    assert "exists" in command("schedule", two, "--updates", 5, "--out", out).err
    assert out.read_bytes() == before
    command("schedule", two, "--updates", 5, "--out", out, "--force").ok()
    assert out.read_bytes() != before

    image = tmp_path / "rates.png"
    command("schedule", one, "--updates", 5, "--out", image).ok()
    pixels = cv2.imdecode(np.frombuffer(image.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[1] > 700
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_a_png_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, and no file is left."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    result = command("schedule", config(tmp_path), "--updates", 5, "--out", tmp_path / "rates.png")
    assert result.code == 1
    assert 'pip install "classwise[png]"' in result.err
    assert not (tmp_path / "rates.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "schedule: found no config"),
        (("classwise.toml", "--updates", "0"), "--updates: found 0, allowed: 1 or more"),
        (("classwise.toml", "--updates", "3", "--out", "rates.pdf"), "a name that ends in .svg or .png"),
        (
            ("classwise.toml", "--updates", "3", "--metric", "no"),
            "--metric: found 'no', which has no readable",
        ),
        (("classwise.toml", "--updates", "3", "--schedule.nam", "step"), "schedule.nam"),
        (
            ("classwise.toml", "--updates", "3", "--schedule.name", "step", "--schedule.warmup_epochs", "9"),
            "schedule.warmup_epochs: found 9",
        ),
        (("classwise.toml", "--schedule.name", "step", "classwise.toml"), "where an option such as"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, and without a file."""
    monkeypatch.chdir(tmp_path)
    config(tmp_path)
    result = command("schedule", *arguments)
    assert result.code == 1
    assert message in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["classwise.toml"]


def test_a_plan_without_updates_is_refused(tmp_path: Path) -> None:
    """A probe is fitted, not trained by updates."""
    path = config(tmp_path, training__plan="probe", model__backbone="test_resnet", model__weights="none")
    result = command("schedule", path, "--updates", 3)
    assert result.code == 1
    assert "training.plan" in result.err


def test_more_lines_than_can_be_told_apart(tmp_path: Path) -> None:
    """Seven lines in one image; the terminal has a chart for each."""
    first = config(tmp_path)
    paths = [tmp_path / f"{k}.toml" for k in range(7)]
    for path in paths:
        path.write_text(first.read_text())
    assert command("schedule", *paths, "--updates", 3).ok().out.count("x: epoch") == 7
    result = command("schedule", *paths, "--updates", 3, "--out", tmp_path / "a.svg")
    assert "--out: found 7 lines; allowed: up to 6" in result.err


def test_thinning_keeps_ends_and_jumps() -> None:
    """A drawing of a long run has few points, and still drops where the rate does."""
    points = tuple((i / 100, 1.0 if i < 77_777 else 0.1) for i in range(100_000))
    line = Rates("it", "", "step", points)
    kept = thinned(line)
    assert DOTS <= len(kept) <= DOTS + 4
    assert {points[0], points[-1], points[77_776], points[77_777]} <= set(kept)
    assert "polyline" in drawing_of([line])


def test_the_charts_of_the_guide(tmp_path: Path) -> None:
    """They are what the command draws for the guide's own configs; every schedule has one, and the page shows it."""
    drawn = draw_schedules.draw(tmp_path)
    assert len(drawn) == 7
    page = draw_schedules.PAGE.read_text(encoding="utf-8")
    for path in drawn:
        assert path.read_bytes() == (IMAGES / path.name).read_bytes(), path.name
        assert f"(../images/{path.name})" in page
