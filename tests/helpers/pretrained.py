"""Runs that begin with a linear probe: a tiny backbone of timm's whose weights lie in a file, and configs for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from classwise.model.backbone import build_backbone
from tests.helpers.scenes import PLAIN, write_config

BACKBONE = "test_resnet"


def save_weights(path: Path, seed: int = 0, name: str = BACKBONE, size: int = 32) -> Path:
    """Weights for a backbone, drawn from the seed; its batch norms have seen some drawn images, so that its features
    are not those of the start."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = build_backbone(name, "none", (size, size)).module
        with torch.no_grad():
            for _ in range(10):
                module.train()(torch.randn(8, 3, size, size))
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    return path


def probed_config(folder: Path, values: Mapping[str, Any] = PLAIN, **changes: Any) -> Path:
    """classwise.toml in `folder` for the tiny backbone with weights of a file beside it, and the plan of two stages.
    Changes as for `write_config`."""
    weights = folder / "weights.safetensors"
    if not weights.exists():
        save_weights(weights)
    model = {"backbone": BACKBONE, "weights": str(weights), "image_size": [32, 32]}
    given = {f"model__{key}": value for key, value in model.items()} | {
        "training__plan": "probe_then_finetune",
        "optimizer__lr": 1e-3,
        "report__resamples": 20,
    }
    return write_config(folder, values, **(given | changes))
