"""The blocks of docs/guide/python.md that are marked run one after the other, as a reader would run them."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import classwise

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "python.md"
BLOCK = re.compile(r"<!-- in order -->\n```python\n(.*?)```", re.DOTALL)


def test_the_page_runs(
    tmp_path: Path, make_images: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a folder of class folders and a run that was trained on it; with what the comments promise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    make_images(tmp_path / "photos", {"cat": 12, "dog": 12, "eel": 12}, size=(20, 20))
    overrides = [("training.epochs", "2"), ("report.baselines", "false"), ("report.resamples", "0")]
    classwise.train("photos", run="runs/photos", overrides=overrides, quiet=True)

    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)

    model, images = names["model"], names["images"]
    assert images.shape[0] == 2
    assert images.dtype == torch.uint8
    assert model.labels["label"] == ("cat", "dog", "eel")
    probabilities = names["classifier"].predict_proba(names["paths"][:2])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (tmp_path / "to-upload" / "README.md").is_file()
    assert Path("mine.pt").is_file()
