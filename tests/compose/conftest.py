"""Noisy images and a table, for tests of what is composed of a config and them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from classwise.compose.dataset import prepare
from classwise.compose.losses import build_heads
from classwise.compose.state import build_model
from classwise.config.load import absolute_paths, make_config
from classwise.console import Console
from tests.helpers.noisy_images import SIDE, Scene


@pytest.fixture
def scene(tmp_path: Path, make_table: Callable[..., Path]) -> Callable[..., Scene]:
    """`scene(targets, **sections)`: 60 noisy images of SIDE x SIDE, of which 20 are for validation; the brighter,
    the larger `area` and `level`; three kinds, 6 to 3 to 1. Every seventh kind is unknown."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(60):
        kind, level = "aaaaaabbbc"[number % 10], number % 3
        image = rng.integers(0, 160, (SIDE, SIDE, 3)) + 25 * level
        image[:, :, "abc".index(kind)] += 14
        (tmp_path / f"{number:02}.png").write_bytes(
            cv2.imencode(".png", image.astype(np.uint8)[:, :, ::-1])[1].tobytes()
        )
        tags = "|".join(label for label, there in (("x", level > 0), ("y", kind == "b")) if there) or "|"
        unknown = number % 7 == 3
        rows.append(
            {
                **{"path": f"{number:02}.png", "kind": "" if unknown else kind, "tags": tags},
                **{"level": ("low", "mid", "high")[level], "area": 100 * level + int(rng.integers(0, 30))},
            }
        )
    make_table(tmp_path / "train.csv", rows[:40])
    make_table(tmp_path / "valid.csv", rows[40:])

    def build(targets: dict[str, Any], **sections: Any) -> Scene:
        data = {"source": "train.csv", "valid": "valid.csv", "workers": 0, "augment": "none"}
        training = {"epochs": 3, "batch_size": 8, "precision": "fp32", "threads": 1, "device": "cpu"}
        values = {"targets": targets, "model": {"image_size": [SIDE, SIDE]}} | sections
        values |= {
            "data": data | {"unlabeled": "skip"} | sections.get("data", {}),
            "training": training | sections.get("training", {}),
        }
        config = absolute_paths(make_config(values), tmp_path)
        splits = prepare(config, Console(quiet=True))
        heads = build_heads(config, splits)
        return Scene(config, splits, heads, build_model(config, heads))

    return build
