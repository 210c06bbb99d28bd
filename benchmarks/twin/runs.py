"""The run of examples/by-hand.toml and variations of it: by `classwise train`, and in Lightning."""

import csv
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.compose.autotune import resolve_auto
from classwise.compose.dataset import prepare
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.demo.fashion import write_fashion
from classwise.distributed import SINGLE_PROCESS
from classwise.run.assembly import Parts, assemble, new_model
from classwise.run.predictor import set_threads
from classwise.training import loop

CONFIG = Path(__file__).parents[2] / "examples" / "by-hand.toml"
WEIGHTED = {"loss.class_weights": "inverse", "loss.normalize_by": "weights"}
RUNS: dict[str, dict[str, str]] = {
    "no accumulation": {"training.accumulate": "1"},
    "no accumulation, class weights": {"training.accumulate": "1", **WEIGHTED},
    "4 micro-batches, the last update has 3": {},
    "the same, SGD": {"optimizer.name": "sgd", "optimizer.lr": "0.05"},
    "the same, class weights": WEIGHTED,
    "the same, class weights, augmentation, dropout, clipping, EMA": {
        **WEIGHTED,
        "data.augment": "standard",
        "model.dropout": "0.2",
        "training.clip_norm": "1.0",
        "training.ema": "0.9",
    },
    "4 micro-batches, mixup, bf16, plateau": {
        "data.mixup": "0.2",
        "training.precision": "bf16",
        "schedule.name": "plateau",
        "schedule.patience": "0",
    },
}


SHOES = ("Sandal", "Sneaker", "Ankle boot")


@dataclass(frozen=True)
class Ended:
    """What a run has come to: the weights that are evaluated, by name, and macro F1 on the validation rows."""

    weights: dict[str, Tensor]
    macro_f1: float


def options_of(folder: Path, **changes: str) -> dict[str, str]:
    """Where the images lie that `bundled` wrote, as keys of by-hand.toml, and other keys."""
    places = {
        "data.source": folder / "train.csv",
        "data.images": folder,
        "data.valid": folder / "test.csv",
        "data.workers": 0,
    }
    return {key: str(value) for key, value in places.items()} | changes


def bundled(folder: Path) -> Path:
    """The bundled images in `folder`, written once."""
    if not (folder / "train.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_fashion(folder)
    return folder


def write_rows(folder: Path, split: str, rows: int, unlabeled: int = 0) -> Path:
    """A table of some rows of a split, the same every time, with a second target: shoe or not. Of the last `unlabeled`
    rows the label is unknown."""
    with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        given = list(csv.DictReader(file))
    chosen = [given[i] for i in np.random.default_rng(1).permutation(len(given))[:rows]]
    path = folder / f"{split}-{rows}-{unlabeled}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "shoe"])
        for number, row in enumerate(chosen):
            label = row["label"] if number < rows - unlabeled else ""
            table.writerow([row["path"], label, "yes" if row["label"] in SHOES else "no"])
    return path


def config_of(options: Mapping[str, str]) -> Config:
    """by-hand.toml with these keys."""
    return load_config(CONFIG, list(options.items()))


@contextmanager
def new_parts(options: Mapping[str, str]) -> Iterator[Parts]:
    """The parts of a run at update 0, as `classwise train` makes them."""
    config = config_of(options)
    with closing(prepare(config, Console(True))) as splits:
        made = new_model(config, splits, SINGLE_PROCESS)
        resolved, device, _ = resolve_auto(config, splits, made.model, Console(True))
        set_threads(resolved)
        yield assemble(resolved, splits, made.model, made.heads, device)


def run_classwise(options: Mapping[str, str]) -> Ended:
    """To the end by classwise's loop."""
    with new_parts(options) as parts:
        loop.train(
            parts.state, parts.data, parts.valid, parts.metrics, parts.settings, loop.NULL_CHECKPOINTER
        )
        return Ended(_weights(parts), parts.state.progress.history[-1]["valid"]["macro_f1"])


def run_lightning(options: Mapping[str, str], exact: bool) -> Ended:
    """To the end by Lightning's Trainer; `exact` as in LitClassifier."""
    from classwise.integrations.lightning import from_config

    module, data = from_config(config_of(options), exact=exact)
    trainer = quiet_trainer(**module.trainer_options())
    trainer.fit(module, data)
    return Ended(_weights(module.parts), float(trainer.callback_metrics["valid_macro_f1"]))


def quiet_trainer(**options: Any) -> Any:
    """A Trainer that writes and prints nothing."""
    import pytorch_lightning as pl

    warnings.filterwarnings("ignore", module="pytorch_lightning")  # its advice: more workers, and others
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(**quiet, enable_model_summary=False, **options)


def largest_difference(a: Ended, b: Ended) -> float:
    """Between two weights of the same name."""
    return max(float((a.weights[name] - b.weights[name]).abs().max()) for name in a.weights)


def equal_bits(a: Ended, b: Ended) -> bool:
    """Whether all weights are the same numbers."""
    return all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def run_table(folder: Path) -> list[str]:
    """Markdown: each variation in Lightning, with the exact loss and as Lightning divides."""
    lines = [
        "| run of two epochs | `from_config(...)`: largest difference of a weight | `exact=False`: largest difference |"
        " macro F1: classwise, `exact=False` |",
        "|---|---|---|---|",
    ]
    for name, changes in RUNS.items():
        options = options_of(bundled(folder), **changes)
        ours, exact, plain = (
            run_classwise(options),
            run_lightning(options, exact=True),
            run_lightning(options, exact=False),
        )
        cells = [name, *(difference_text(ours, other) for other in (exact, plain))]
        lines.append(f"| {' | '.join(cells)} | {ours.macro_f1:.4f}, {plain.macro_f1:.4f} |")
    return lines


def difference_text(ours: Ended, other: Ended) -> str:
    """The largest difference, or that there is none."""
    return "0, equal to the bit" if equal_bits(ours, other) else f"{largest_difference(ours, other):.1e}"


def _weights(parts: Parts) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in parts.state.average.model.state_dict().items()}
