"""Every config of the guide that is marked with `<!-- runs -->` trains, and gives what its section promises."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from classwise.compose.dataset import prepare
from classwise.config.base import sections_by_name
from classwise.config.load import load_config, make_config
from classwise.config.losses import LOSSES_BY_TYPE
from classwise.config.schema import Schedule
from classwise.console import Console
from classwise.demo.shapes import write_shapes
from classwise.metrics.scores import SCORES, TOP
from classwise.model.backbone import build_backbone
from classwise.run.checkpoint import read_checkpoint
from tests.helpers.scenes import command

ROOT = Path(__file__).parents[2]
GUIDE = [ROOT / "docs" / "guide.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
MARK = re.compile(r"<!-- runs(?:: (?P<key>[\w.]+)=(?P<values>\S+))? -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of the guide. `options` are laid over a config that its section offers in several forms."""

    page: str
    section: str
    language: str
    text: str
    runs: bool
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For the test's id."""
        section = re.sub(r"\W+", "-", self.section.lower()).strip("-")
        return f"{self.page}:{section}" + "".join(f":{value}" for value in self.options[1::2])

    @property
    def config(self) -> dict[str, Any]:
        return tomllib.loads(self.text)


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page with the heading that they stand under."""
    section, mark, fence = "", None, None
    text: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if fence is None and line.startswith("#"):
            section = line.lstrip("# ")
        elif fence is None and line.startswith("```"):
            fence, text = line[3:], []
        elif line == "```" and fence is not None:
            for options in _variants(mark):
                yield Block(page.stem, section, fence, "\n".join(text) + "\n", mark is not None, options)
            mark, fence = None, None
        elif fence is not None:
            text.append(line)
        elif line.strip():
            mark = MARK.fullmatch(line)


def _variants(mark: re.Match[str] | None) -> list[tuple[str, ...]]:
    if mark is None or mark["key"] is None:
        return [()]
    return [(f"--{mark['key']}", value) for value in mark["values"].split(",")]


ALL = [block for page in GUIDE for block in blocks(page)]
CONFIGS = [block for block in ALL if block.runs and block.language == "toml"]
SCRIPTS = [block for block in ALL if block.runs and block.language == "python"]
FRAGMENTS = [block for block in ALL if not block.runs and block.language == "toml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty drawn images where the guide expects them, and what its scripts make of them."""
    return drawn(tmp_path_factory.mktemp("guide"), rows=80)


def drawn(folder: Path, rows: int) -> Path:
    """Shapes in `folder`, after the guide's scripts."""
    write_shapes(folder / "classwise-shapes", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for script in SCRIPTS:
            exec(compile(script.text, script.name, "exec"), {})  # our own documentation
    return folder


def small(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is changed to make a config quick: fewer and smaller images and epochs, and the epochs that its keys
    count moved along with them."""
    training, schedule, loss = (config.get(table, {}) for table in ("training", "schedule", "loss"))
    frozen = training.get("freeze_epochs", 0)
    epochs = 3 if frozen and schedule.get("warmup_epochs") else 2
    changes: dict[str, Any] = {
        "training.epochs": epochs,
        "training.batch_size": 16,
        "training.precision": "fp32",
        "training.device": "cpu",
        "model.image_size": [32, 32] if "backbone" in config["model"] else [16, 16],
        "data.workers": 0,
        "report.resamples": 50,
    }
    if "weights" in config["model"] and not frozen and "plan" not in training:
        changes["training.plan"] = "probe_then_finetune"  # which so few validation rows would leave out
    if frozen:
        changes["training.freeze_epochs"] = epochs if frozen == training["epochs"] else 1
    if "weights_from_epoch" in loss:
        changes["loss.weights_from_epoch"] = 2
    if "first_epoch" in config.get("selection", {}):
        changes["selection.first_epoch"] = 2
    changes |= {f"schedule.{key}": 1 for key in ("step_size", "T_0") if key in schedule}
    return changes


@dataclass(frozen=True)
class Trained:
    """What a run left behind."""

    path: Path
    asked: dict[str, Any]

    def json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return found

    @property
    def metrics(self) -> dict[str, Any]:
        return self.json("metrics.json")

    @property
    def status(self) -> dict[str, Any]:
        return self.json("status.json")

    @property
    def history(self) -> list[dict[str, Any]]:
        lines = (self.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def lrs(self) -> list[float]:
        """At the end of each epoch."""
        return [row["lr"] for row in self.history]

    @property
    def resolved(self) -> dict[str, Any]:
        return tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8"))


def has(target: str, *scores: str) -> Callable[[Trained], None]:
    """The target has these scores, with their intervals or the reasons why there are none."""

    def check(run: Trained) -> None:
        found = run.metrics["targets"][target]
        assert all(isinstance(found[score], float) for score in scores)
        assert set(scores) <= {*found["intervals"], *found.get("no_interval", {})}

    return check


def _joint(run: Trained) -> None:
    assert len(run.metrics["joint"]["labels"]) == 5 * 4 * 3
    assert run.metrics["metric"] == "joint.macro_f1"
    columns = pl.read_csv(run.path / "predictions.csv", n_rows=1).columns
    assert "joint" in columns
    assert "joint_p" not in columns


def _masked(run: Trained) -> None:
    samples = {name: scores["samples"] for name, scores in run.metrics["targets"].items()}
    masked = run.status["data"]["masked"]
    assert {name: count + masked[name]["valid"] for name, count in samples.items()} == dict.fromkeys(
        samples, run.status["data"]["valid"]
    )
    assert min(sum(masked[name].values()) for name in ("colour", "size")) > 0
    assert run.status["data"]["rows"] < 80
    assert any("left out" in warning for warning in run.status["data"]["warnings"])


def _learned_weights(run: Trained) -> None:
    weights = run.history[-1]["target_weights"]
    assert set(weights) == {"colour", "area"}
    assert 1.0 not in weights.values()


def _late_weights(run: Trained) -> None:
    assert read_checkpoint(run.path / "checkpoints" / "best").metadata["model"]["cosine"] == {"colour": 30.0}
    assert run.resolved["loss"]["weights_from_epoch"] == 2


def _adjusted(run: Trained) -> None:
    head = read_checkpoint(run.path / "checkpoints" / "best").metadata["heads"]["colour"]
    assert len(head["adjustment"]) == 5
    assert min(head["adjustment"]) > 0


def _steps_down(run: Trained) -> None:
    assert run.lrs[1] == pytest.approx(run.lrs[0] * run.asked["schedule"]["gamma"])


def _starts_again(run: Trained) -> None:
    assert run.lrs[0] < 1e-3 / 4
    schedule = run.resolved["schedule"]
    assert (schedule["T_0"], schedule["T_mult"]) == (1, 2)
    assert run.lrs[1] > run.lrs[0]  # half of the second cosine, which is twice as long


def _warmed_up(run: Trained) -> None:
    assert 0 < run.lrs[0] < run.lrs[1] == 1e-3


def _less_is_better(run: Trained) -> None:
    values = [row["valid"]["log_loss"] for row in run.history]
    # Summed batch by batch while training, and over all rows in the end.
    assert run.status["best"]["value"] == pytest.approx(min(values), rel=1e-12)


def _averaged(run: Trained) -> None:
    """What is kept is not the weights that go on learning, and batch norm's statistics are not theirs either."""
    checkpoint = read_checkpoint(run.path / "checkpoints" / "last")
    for name in ("backbone.stem.conv.weight", "backbone.stem.norm.running_mean"):
        assert not checkpoint.model[name].equal(checkpoint.training[f"model.{name}"])


def _frozen_first(run: Trained) -> None:
    assert [row.get("frozen", False) for row in run.history] == [True, False, False]
    assert run.lrs[0] == pytest.approx(1e-3)
    assert run.status["baselines"]["probe_on"] == "features"


def _frozen(run: Trained) -> None:
    assert all(row["frozen"] for row in run.history)


def _norms_stay(run: Trained) -> None:
    """The statistics are those of the package, whose weights have moved on."""
    model = read_checkpoint(run.path / "checkpoints" / "last").model
    given = build_backbone(run.asked["model"]["backbone"], run.asked["model"]["weights"], (32, 32)).module
    assert all(buffer.equal(model[f"backbone.{name}"]) for name, buffer in given.named_buffers())
    assert not any(weight.equal(model[f"backbone.{name}"]) for name, weight in given.named_parameters())


def _warned(run: Trained) -> None:
    assert any("overweight" in warning for warning in run.status["data"]["warnings"])


def _in_order(run: Trained) -> None:
    for name, (low, high) in run.metrics["targets"]["colour"]["intervals"].items():
        assert low <= high, name


def _baselines(run: Trained) -> None:
    found = run.status["baselines"]
    assert found["metric"] == "macro_f1"
    assert found["probe_on"] == "pixels"
    assert 0 < found["most_frequent"] < 1
    assert 0 < found["linear_probe"] <= 1


PROMISES: dict[str, Callable[[Trained], None]] = {
    "Ordinal": has("size", "mae_levels", "quadratic_kappa", "macro_f1"),
    "Regression": has("area", "mae", "mse", "rmse", "r2"),
    "Multilabel": has("tags", "map", "micro_f1", "macro_f1", "sample_f1"),
    "Ranking": has("match", "mrr", "ndcg", "map", "ndcg_at_5", "ndcg_at_10"),
    "Empty cells": _masked,
    "A joint class": _joint,
    "Weights between targets": _learned_weights,
    "Logit adjustment after training": _adjusted,
    "LDAM, and deferred re-weighting": _late_weights,
    "Constant, with warm-up": _warmed_up,
    "Step": _steps_down,
    "Cosine with restarts": _starts_again,
    "Plateau, with warm-up": _less_is_better,
    "An average of the weights": _averaged,
    "Linear probing, then fine-tuning": _frozen_first,
    "A linear probe alone": _frozen,
    "Batch norm": _norms_stay,
    "Keys that undo each other": _warned,
    "Intervals": _in_order,
    "Baselines": _baselines,
}


@pytest.mark.parametrize("block", CONFIGS, ids=[block.name for block in CONFIGS])
def test_a_config_of_the_guide_trains(block: Block, folder: Path, tmp_path: Path) -> None:
    """As it stands but for its size; each target has all scores of its type, and the section's promise holds."""
    config = folder / "classwise.toml"
    config.write_text(block.text, encoding="utf-8")
    changes = [word for key, value in small(block.config).items() for word in (f"--{key}", value)]
    command("train", config, "--run", tmp_path / "run", "--quiet", *changes, *block.options).ok()
    run = Trained(tmp_path / "run", block.config)
    assert run.status["state"] == "finished"
    assert len(run.history) == small(block.config)["training.epochs"]
    for name, target in block.config["targets"].items():
        found = run.metrics["targets"][name]
        assert found["type"] == target.get("type", "class")
        scores = [key for key in SCORES[found["type"]] if key not in TOP or TOP[key] < len(found["labels"])]
        assert set(scores) <= set(found)
        assert set(scores) == {*found["intervals"], *found.get("no_interval", {})}
    PROMISES.get(block.section, lambda run: None)(run)


def test_the_folds_of_the_guide_are_trained(folder: Path, tmp_path: Path) -> None:
    """Its config is one for `train`, too."""
    (block,) = [block for block in CONFIGS if block.page == "folds"]
    config = folder / "classwise.toml"
    config.write_text(block.text, encoding="utf-8")
    changes = [word for key, value in small(block.config).items() for word in (f"--{key}", value)]
    command("folds", config, "--run", tmp_path / "F", "--quiet", *changes).ok()
    found = pl.read_parquet(tmp_path / "F/oof.parquet")
    assert sorted(set(found["fold"])) == list(range(block.config["folds"]["count"]))
    assert found.height == pl.read_csv(folder / "classwise-shapes/colour.csv").height


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data that `classwise demo --shapes` draws, all of it, and what the guide's scripts make of it."""
    return drawn(tmp_path_factory.mktemp("whole"), rows=600)


@pytest.mark.parametrize("page", GUIDE[1:], ids=lambda page: page.stem)
def test_a_config_of_the_guide_reads_the_demos_data(page: Path, whole: Path) -> None:
    """Unchanged: no cell, label or group of the whole table is in its way."""
    config = whole / "classwise.toml"
    for block in (block for block in CONFIGS if block.page == page.stem):
        config.write_text(block.text, encoding="utf-8")
        splits = prepare(load_config(config), Console(quiet=True))
        rows = sum(len(split.samples) for split in splits.by_name.values())
        assert rows > 500, block.name


def test_every_promise_belongs_to_a_section() -> None:
    """A section that was renamed would lose its check without a word."""
    assert set(PROMISES) <= {block.section for block in CONFIGS}


def test_the_guide_runs_every_type_loss_and_schedule() -> None:
    """And every means that the config has a switch for, each in a config of its own section."""
    losses, schedules, types, keys = set(), set(), set(), set()
    for block in CONFIGS:
        config = block.config
        tables = [config.get("loss", {}), *(t.get("loss", {}) for t in config["targets"].values())]
        losses |= {table.get("name") for table in tables}
        losses |= {term["name"] for table in tables for term in table.get("terms", ())}
        losses |= set(block.options[1::2])
        schedules.add(config.get("schedule", {}).get("name"))
        types |= {target.get("type", "class") for target in config["targets"].values()}
        keys |= {f"{table}.{key}" for table, content in config.items() for key in content}
        keys |= {f"target.{key}" for target in config["targets"].values() for key in target}
        keys |= {f"loss.{key}" for table in tables for key in table}
    assert {name for family in LOSSES_BY_TYPE.values() for name in family} | {"sum"} <= losses
    assert set(sections_by_name(Schedule)) <= schedules
    assert set(LOSSES_BY_TYPE) == types
    assert keys >= {
        *("target.columns", "target.separator", "target.query", "target.edges", "target.adjust"),
        *("target.weight", "target.loss", "joint.targets", "data.sampling", "data.mixup", "data.cutmix"),
        "data.test",
        *("loss.class_weights", "loss.weights_from_epoch", "loss.label_smoothing", "loss.pos_weight"),
        *("optimizer.layer_decay", "optimizer.backbone_lr_factor", "optimizer.options"),
        "optimizer.frozen_below",
        *("schedule.warmup_epochs", "training.ema", "training.freeze_epochs", "training.target_weights"),
        *("selection.metric", "selection.first_epoch", "report.resamples", "report.baselines"),
    }


BASE: dict[str, Any] = {"data": {"source": "samples.csv"}, "targets": {"label": {"column": "label"}}}


@pytest.mark.parametrize("block", FRAGMENTS, ids=[block.name for block in FRAGMENTS])
def test_a_part_of_a_config_is_one(block: Block) -> None:
    """What the guide shows without the rest of the file has only keys and values that there are."""
    part = block.config
    targets = {name: {"column": name} for name in part.get("joint", {}).get("targets", ())}
    base = {**BASE, "targets": targets or BASE["targets"]}
    tables = {table: {**base.get(table, {}), **part[table]} for table in part}
    make_config({**base, **tables})


def _slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that there is and, after a #, one of its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in map(_slug, headings), link


def test_the_reading_order_names_what_is_there() -> None:
    """Each row's files exist, and hold the functions and classes that one is told to look for."""
    text = (ROOT / "docs" / "reading-order.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    for topic, files, names in rows:
        paths = [ROOT / "src" / "classwise" / name for name in re.findall(r"`([\w/]+\.py)`", files)]
        source = "".join(path.read_text(encoding="utf-8") for path in paths)
        for name in re.findall(r"`([\w.]+)`", names):
            if not name.endswith(".py"):
                assert re.search(rf"\b{name.rpartition('.')[2]}\b", source), (topic, name)
