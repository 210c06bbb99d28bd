"""`classwise bench`: every stage of a run is timed, nothing is left behind, and the hints follow from the numbers."""

import copy
import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from classwise.bench import bench, stages
from classwise.bench.hints import hints_of
from classwise.bench.result import COMPUTING, READING, Bench, Stage
from classwise.bench.text import bench_text, print_bench
from classwise.cli import run_command
from classwise.config.load import load_config
from classwise.console import Console
from classwise.errors import ConfigError, DataError
from classwise.model.classifier import Classifier
from classwise.run.assembly import Parts
from classwise.training.tuning import TuningResult

UNMIXED = [name for name in COMPUTING if name != "mixing"]


@pytest.fixture
def config(tmp_path: Path, make_images: Callable[..., list[str]]) -> Path:
    """24 images of two classes, 20 of them for training: five updates an epoch."""
    make_images(tmp_path / "images", {"red": 14, "green": 10}, size=(40, 50), suffix=".jpg")
    text = """
        [data]
        source = "images"
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


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a millisecond whenever it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(ticks) / 1000)


def found_by(milliseconds: dict[str, float], **others: Any) -> Bench:
    """As `bench` gives it; whole updates take what the stages say, and one core is free for a reader."""
    made = tuple(Stage(name, value) for name, value in milliseconds.items())
    values: dict[str, Any] = {"workers": 0, "threads": 1, "cores": 2, "device": "cpu", "precision": "fp32"}
    found = Bench(made, **({"whole": 1.0, "batch": 4} | values | others))
    return found if "whole" in others else dataclasses.replace(found, whole=found.expected)


def plan(workers: int) -> TuningResult:
    """A way to train that was measured."""
    return TuningResult("bf16", 1, workers, 0.001)


def test_every_stage_is_timed_and_nothing_is_written(config: Path, tmp_path: Path) -> None:
    before, state = sorted(tmp_path.rglob("*")), torch.get_rng_state()
    threads = torch.get_num_threads()
    found = bench(config, [("data.cache", "off")], quiet=True)
    assert [stage.name for stage in found.stages] == [*READING, *UNMIXED, "metrics"]
    assert all(stage.milliseconds >= 0 for stage in found.stages)
    assert all(found.milliseconds(name) > 0 for name in {*READING, *UNMIXED} - {"transfer"})
    assert found.whole > 0
    assert sorted(tmp_path.rglob("*")) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_weights_stay_as_they_were(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own model is built, and only a copy of it is trained."""
    models: list[Classifier] = []
    build = stages.build_model

    def kept(*arguments: Any) -> Classifier:
        models.append(build(*arguments))
        return models[-1]

    monkeypatch.setattr(stages, "build_model", kept)
    first = {key: value.clone() for key, value in build(*_model_parts(config)).state_dict().items()}
    bench(config, quiet=True)
    (model,) = models
    assert all(torch.equal(value, first[key]) for key, value in model.state_dict().items())


def _model_parts(path: Path) -> tuple[Any, ...]:
    given = load_config(path)
    return given, stages.build_heads(given, stages.prepare(given, Console(quiet=True)))


def test_the_updates_are_real_ones(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed changes the copy's weights, and begins with the run's first update."""
    changed: list[float] = []
    whole = stages.whole_updates

    def watched(parts: Parts) -> float:
        before = torch.cat([p.detach().flatten().clone() for p in parts.state.parameters])
        assert parts.state.progress.update == 0
        found = whole(parts)
        after = torch.cat([p.detach().flatten() for p in parts.state.parameters])
        changed.append(float((after - before).norm()))
        return found

    monkeypatch.setattr(stages, "whole_updates", watched)
    bench(config, quiet=True)
    assert changed[0] > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        [("model.dropout", "0.3"), ("training.clip_norm", "0.5"), ("data.mixup", "0.4")],
        [("training.ema", "0.9"), ("training.accumulate", "2"), ("training.micro_batch", "3")],
    ],
)
def test_an_update_under_the_clock_is_that_of_the_loop(
    config: Path, monkeypatch: pytest.MonkeyPatch, options: list[tuple[str, str]]
) -> None:
    """To the last bit: else something else would be timed."""
    ends: list[dict[str, torch.Tensor]] = []

    def both(parts: Parts, *_: Any) -> Bench:
        stages.begin(parts)
        updates = stages.first_updates(parts)
        twin = dataclasses.replace(parts, state=copy.deepcopy(parts.state))
        clock = stages.StageClock(parts.settings.device)
        with stages.clocked(twin, clock) as timed:
            stages.loop.train_one_epoch(timed.state, clock.updates(updates), timed.data, timed.settings)
        stages.loop.train_one_epoch(parts.state, iter(updates), parts.data, parts.settings)
        assert {"transfer", "forward", "loss", "backward", "update"} <= clock.spent.keys()
        assert "forward" not in vars(twin.state)  # what is timed is taken off again
        for state in (twin.state, parts.state):
            averages = {f"average.{key}": value for key, value in state.average.model.state_dict().items()}
            ends.append(state.model.state_dict() | averages)
        assert twin.state.progress.update == parts.state.progress.update >= 2
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "measure", both)
    with pytest.raises(KeyboardInterrupt):
        bench(config, options, quiet=True)
    one, other = ends
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.usefixtures("counting")
def test_the_sums_are_those_of_the_stages(config: Path) -> None:
    """Every span takes one tick: a reader's stage is one tick a pass, an update's one an update, of 12 images."""
    found = bench(config, [("data.cache", "off")], quiet=True)
    assert found.milliseconds("augmenting") == pytest.approx(1 / 12)
    assert found.milliseconds("joining") == pytest.approx(1 / 4)
    for name in ("transfer", "forward", "backward"):
        assert found.milliseconds(name) == pytest.approx(3 / 12)
    # Three spans of the loss: the normalizer, the way from the forward pass, and the criterion. Five of the update:
    # mixing that does nothing, zero_grad, seeding, the step, and the loop's own clock, which ticks as well.
    assert found.milliseconds("loss") == pytest.approx(9 / 12)
    assert found.milliseconds("update") == pytest.approx(15 / 12)
    assert found.reading + found.computing == pytest.approx(found.expected)
    assert sum(found.share(stage) or 0 for stage in found.stages) == pytest.approx(1)
    assert found.share(found.stages[-1]) is None


def test_stages_are_what_the_clock_says(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that stands still but for one stage, all of the time is that stage's."""
    now = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    decoded = stages._decoded

    def slow(*arguments: Any) -> Any:
        now[0] += 0.006
        return decoded(*arguments)

    monkeypatch.setattr(stages, "_decoded", slow)
    found = bench(config, [("data.cache", "off")], quiet=True)
    assert found.milliseconds("decoding") == pytest.approx(6)
    assert found.reading == pytest.approx(6)
    assert (found.computing, found.whole) == (0, 0)
    assert found.bound == "decoding"
    assert "whole updates; the stages explain 0 %" in bench_text(found)


def test_stored_images_are_not_decoded(config: Path) -> None:
    names = [stage.name for stage in bench(config, quiet=True).stages]
    assert names == ["reading", "augmenting", "joining", *UNMIXED, "metrics"]


@pytest.mark.parametrize(
    "options",
    [
        {"data.mixup": "0.2"},
        {"training.accumulate": "2", "training.micro_batch": "3", "training.ema": "0.9"},
        {"training.batch_size": "64"},
        {"training.freeze_epochs": "1", "training.epochs": "3", "optimizer.lr": "0.1"},
        {"data.workers": "1", "data.augment": "none"},
        {"schedule.name": "onecycle", "schedule.max_lr": "0.01"},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_any_run_can_be_timed(config: Path, options: dict[str, str]) -> None:
    """Mixed, accumulated and cut images; fewer updates an epoch than are timed; a backbone that thaws; workers."""
    found = bench(config, list(options.items()), quiet=True)
    names = [stage.name for stage in found.stages]
    assert ("mixing" in names) == ("data.mixup" in options)
    assert "reading" in names
    assert found.whole > 0
    assert found.workers == int(options.get("data.workers", "0"))


def test_a_frozen_backbone_reads_nothing(config: Path) -> None:
    """Where every epoch looks at features, readers have no part in an update."""
    found = bench(config, [("training.freeze_epochs", "1")], quiet=True)
    assert [stage.name for stage in found.stages] == [*UNMIXED, "metrics"]
    assert found.reading == 0


def test_a_bad_config_and_a_bad_image_are_errors(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss\.name"):
        bench(config, [("loss.name", "none such")], quiet=True)
    (tmp_path / "images/red/000.jpg").write_bytes(b"none")
    with pytest.raises(DataError, match=r"000\.jpg"):
        bench(config, quiet=True)


@pytest.mark.parametrize(
    ("milliseconds", "others", "hint"),
    [
        (
            {"reading": 1, "decoding": 2, "forward": 2},
            {},
            "takes longer than training on it (3.00 and 2.00 ms",
        ),
        ({"reading": 1, "forward": 2}, {}, "data.workers = 1 would hide it, up to 1.5 times faster"),
        ({"reading": 9, "forward": 2}, {}, "data.workers = 1 would hide a part of it"),
        ({"augmenting": 9, "forward": 2}, {"workers": 2, "cores": 8}, "data.workers = 5 would keep up"),
        ({"augmenting": 9, "forward": 2}, {"workers": 2}, "all 2 cores are already used for reading"),
        (
            {"augmenting": 9, "forward": 1},
            {"workers": 2, "cores": 3},
            "data.workers = 3 would bring it to 3.00 ms at best: there are no more cores",
        ),
        ({"augmenting": 9, "forward": 2}, {"workers": 2}, "a lighter data.augment than 'light'"),
        ({"decoding": 9, "forward": 2}, {"workers": 1}, "does not hold all of them"),
        ({"update": 1, "forward": 1}, {}, "a larger training.batch_size than 4"),
        ({"transfer": 1, "forward": 1}, {"device": "cuda"}, "moving the images to cuda takes 1.00 of 2.00"),
        (
            {"backward": 8, "update": 1},
            {},
            "forward and backward are 89 % of the time: a smaller model.image_size",
        ),
        ({"forward": 2, "backward": 2}, {"other": ("bf16", 3.0)}, "bf16 would be faster"),
        ({"forward": 2}, {"whole": 5.0}, "whole updates take 5.00 ms an image, the stages explain 2.00"),
    ],
)
def test_hints_follow_from_the_numbers(
    config: Path, milliseconds: dict[str, float], others: dict[str, Any], hint: str
) -> None:
    hints = list(hints_of(found_by(milliseconds, **others), load_config(config)))
    assert any(hint in text for text in hints), hints


@pytest.mark.parametrize(
    ("milliseconds", "others"),
    [
        ({"decoding": 3, "augmenting": 5, "loss": 10}, {"workers": 1}),
        ({"decoding": 3, "forward": 0.5, "loss": 10}, {"plans": (plan(0), plan(1)), "workers": 1}),
        ({"forward": 1, "loss": 1}, {"other": ("bf16", 0.95)}),
        ({"reading": 1, "forward": 1, "loss": 1}, {"cores": 1}),
        ({"reading": 1, "forward": 1, "loss": 1}, {"plans": (plan(0), plan(1))}),
    ],
)
def test_what_would_not_help_is_not_said(
    config: Path, milliseconds: dict[str, float], others: dict[str, Any]
) -> None:
    """What readers do beside the model, what has been measured already, what there is no core for."""
    found = found_by(milliseconds, **others)
    assert list(hints_of(found, load_config(config))) == []
    assert "nothing stands out" in bench_text(found)


def test_what_bounds_a_run() -> None:
    """The large stages of the side that sets the pace."""
    work = {"reading": 1.0, "decoding": 5.0, "forward": 2.0, "backward": 2.0, "metrics": 99.0}
    assert found_by(work).bound == "decoding"
    assert found_by(work, workers=1).bound == "decoding"
    assert found_by(work, workers=2).bound == "forward and backward"
    assert found_by(work, workers=1).expected == 6
    assert found_by(work, workers=2).expected == 4
    assert found_by(work).expected == 10
    even = {"decoding": 2.0, "forward": 2.0, "backward": 2.0}
    assert found_by(even).bound == "decoding, forward and backward"
    assert found_by(work, whole=20.0).explained == 0.5


def test_the_plain_text() -> None:
    found = found_by({"reading": 0.5, "forward": 2.0, "metrics": 0.0001}, workers=2, plans=(plan(2),))
    lines = bench_text(dataclasses.replace(found, hints=("more of it",))).splitlines()
    assert lines[0] == "stage    ms an image  share"
    assert lines[1] == "reading         0.500   20 %"
    assert lines[3] == "metrics       < 0.001"
    assert "reading       0.500 ms  a reader; 2 workers beside the model" in lines
    assert "measured      2.000 ms  whole updates, 500 images/s; the stages explain 100 %" in lines
    assert f"  {plan(2)}" in lines
    assert lines[-2:] == ["bound by forward", "- more of it"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bars as long as there is room, no line cut in two, and no cell of numbers cut short from 80 columns on."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    found = found_by({"augmenting": 0.5, "forward": 2.0}, hints=("long " * 30,), plans=(plan(0),))
    print_bench(found)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        longest = max(line.count("█") for line in lines)
        assert longest == min(40, width - 68)
        assert any("augmenting" in line and "0.500" in line and "20 %" in line for line in lines)


def test_the_command(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table on stdout, plain where nobody watches, or JSON; messages on stderr."""
    assert run_command(["bench", str(config), "--training.batch_size", "8", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert {stage["name"] for stage in found["stages"]} >= {*UNMIXED}
    assert found["expected"] == pytest.approx(found["reading"] + found["computing"])
    assert (found["batch"], found["other"][0]) == (8, "bf16")
    assert "timing" in err
    assert run_command(["bench", str(config), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == ("stage       ms an image  share", "")
    assert run_command(["bench", str(config), "--training.batch_sise", "8"]) == 1
    assert "training.batch_sise" in capsys.readouterr().err


def test_a_stage_that_comes_again_adds_up(counting: None) -> None:
    """The seconds of a stage are those of all updates; what is not timed is in none."""
    clock = stages.StageClock(torch.device("cpu"))
    for _ in range(3):
        for stage in ("forward", "loss", None):
            clock.enter(stage)
    assert clock.spent == pytest.approx({"forward": 0.003, "loss": 0.003})
