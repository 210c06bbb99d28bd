"""`init` and then `train`, with nothing set but what keeps the test short: what each kind of source ends as."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import classwise
from classwise.model.packaged_weights import PACKAGES
from classwise.model.timm_module import import_timm
from classwise.suggest.backbone import HUB_BACKBONE
from tests.helpers.scenes import Result, class_folder, command, draw, write_csv

SHORT = (
    *("--training.epochs", "1", "--training.device", "cpu", "--training.precision", "fp32"),
    *("--training.memory_format", "contiguous", "--training.threads", "1", "--data.workers", "0"),
    *("--model.image_size", "[32, 32]", "--report.resamples", "20"),
)
PACKAGE = next(iter(PACKAGES))
LEVELS = ("risk_low", "risk_mid", "risk_high")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(source: str) -> tuple[dict[str, Any], Result, classwise.Run]:
    """The config that `init` writes for the source, what `train` says, and its run."""
    command("init", source).ok()
    result = command("train", "classwise.toml", "--run", "run", *SHORT).ok()
    return tomllib.loads(Path("classwise.toml").read_text()), result, classwise.Run.open("run")


def draw_rows(count: int) -> list[tuple[str, int]]:
    """(path, kind of stripes) of images drawn below photos/."""
    rows = [(f"photos/{row:02}.png", row % 3) for row in range(count)]
    for row, (path, kind) in enumerate(rows):
        draw(Path(path), kind, row)
    return rows


def test_a_folder_of_photographs(here: Path) -> None:
    """Pretrained weights from the installed package; the first answer is a model that predicts."""
    class_folder(here / "photos", {"cat": 12, "dog": 12, "owl": 12})
    config, result, run = trained("photos")
    assert config["model"]["weights"] == f"package:{PACKAGE}"
    assert "first answer" in result.err
    assert run.metrics["metric"] == "macro_f1"

    # So few rows cannot choose between two models; whoever wants it gets the second one.
    rows = run.metrics["samples"]
    assert rows < 30
    assert f"not fine-tuned: {rows} validation rows could not show" in result.err
    assert "plan" not in run.metrics
    assert config["training"]["plan"] == "auto"
    asked = ("--training.plan", "probe_then_finetune", *SHORT)
    command("train", "classwise.toml", "--run", "asked", *asked).ok()
    assert classwise.Run.open("asked").metrics["plan"]["kept"] in ("first_answer", "finetuned")
    labels = {row["label"] for row in run.predict("photos/owl").rows(named=True)}
    assert labels == {"owl"}


def test_a_table_with_two_targets(here: Path) -> None:
    """All targets choose the model, by the mean of their main scores; each has a head that was fitted."""
    rows = [(path, "abc"[kind], "xy"[kind % 2]) for path, kind in draw_rows(36)]
    write_csv(here / "samples.csv", ("path", "shape", "side"), rows)
    config, result, run = trained("samples.csv")
    assert set(config["targets"]) == {"shape", "side"}
    assert config["selection"]["metric"] == "mean"
    parts = run.metrics["parts"]
    assert set(parts) == {"shape.macro_f1", "side.macro_f1"}
    assert run.metrics["value"] == pytest.approx(sum(parts.values()) / 2)
    assert re.search("first answer.* mean ", result.err)
    for row, (path, shape, side) in zip(run.predict("samples.csv").rows(named=True), rows, strict=True):
        assert (row["id"], row["shape"], row["side"]) == (path, shape, side)


def test_ordered_labels(here: Path) -> None:
    """Labels whose names say an order are levels, lowest first, and every prediction is one of them."""
    rows = [(path, LEVELS[kind]) for path, kind in draw_rows(36)]
    write_csv(here / "samples.csv", ("path", "risk"), rows)
    config, _, run = trained("samples.csv")
    assert config["targets"]["risk"]["type"] == "ordinal"
    assert config["targets"]["risk"]["labels"] == list(LEVELS)
    assert run.metrics["targets"]["risk"]["quadratic_kappa"] > 0
    assert {row["risk"] for row in run.predict("samples.csv").rows(named=True)} <= set(LEVELS)


def test_with_weights_from_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has fetched them before: they lie where the hub's client keeps them. (These are drawn.)"""
    class_folder(here / "photos", {"cat": 12, "dog": 12})
    folder = here / "hub" / f"models--timm--{HUB_BACKBONE}"
    for part, text in (("refs", "abc"), ("snapshots/abc", "")):
        (folder / part).mkdir(parents=True)
        if text:
            (folder / part / "main").write_text(text)
    torch.manual_seed(0)
    module = import_timm().create_model(HUB_BACKBONE.partition(".")[0])
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file(weights, folder / "snapshots/abc/model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    config, _, run = trained("photos")
    assert (config["model"]["backbone"], config["model"]["weights"]) == (HUB_BACKBONE, "pretrained")
    assert run.status["state"] == "finished"
    kept = load_file("run/checkpoints/first/model.safetensors")
    assert torch.equal(kept["backbone.conv_stem.weight"], weights["conv_stem.weight"])
