"""examples/by_hand.py, the training process in plain PyTorch, and the run of examples/by-hand.toml."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import classwise
from classwise.demo.fashion import write_fashion

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_loop_by_hand_is_equal_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the bundled images, with four micro-batches to an update and a short last one; here for one epoch."""
    write_fashion(tmp_path)
    places = {"source": tmp_path / "train.csv", "images": tmp_path, "valid": tmp_path / "test.csv"}
    options = [(f"data.{key}", str(path)) for key, path in places.items()]
    options += [("training.epochs", "1"), ("report.baselines", "false"), ("report.resamples", "0")]
    run = classwise.train(EXAMPLES / "by-hand.toml", tmp_path / "run", options, quiet=True)

    spec = importlib.util.spec_from_file_location("by_hand", EXAMPLES / "by_hand.py")
    assert spec is not None
    assert spec.loader is not None
    by_hand = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(by_hand)
    monkeypatch.setattr(by_hand, "EPOCHS", 1)
    ours = by_hand.train()
    theirs = load_file(run.path / "checkpoints" / "best" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_loop_by_hand_stays_short() -> None:
    """Under 80 lines, and of classwise only the images."""
    text = (EXAMPLES / "by_hand.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    imports = [line for line in text.splitlines() if "import" in line and "classwise" in line]
    assert imports == ["from classwise.demo.fashion import read_bundle"]
