"""Macro F1 on the validation rows, as classwise counts it and as it is logged elsewhere."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.functional.classification import multiclass_f1_score

from classwise.demo.fashion import LABELS
from twin.runs import bundled, config_of, options_of, quiet_trainer

CLASSES = len(LABELS)
CHILD = Path(__file__).with_name("padded.py")


@dataclass(frozen=True)
class MacroF1:
    """Of one model on the same rows: by classwise, by scikit-learn over all ten classes, as the epoch's mean of batch
    values that `self.log` makes, and by a torchmetrics object."""

    classwise: float
    sklearn: float
    mean_of_batches: float
    torchmetrics: float


def macro_f1(options: Mapping[str, str]) -> MacroF1:
    """Train by-hand.toml with these keys in Lightning, and log macro F1 in each of the ways in its last validation."""
    from classwise.integrations.lightning import LitClassifier, from_config

    class Logging(LitClassifier):  # type: ignore[misc]
        """What a tutorial's validation_step logs, beside classwise's own."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.metric: Metric = MulticlassF1Score(CLASSES, average="macro")
            self.rows: list[tuple[Tensor, Tensor]] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            predicted, labels = self.model(batch.images)["label"].argmax(dim=1), batch.targets["label"]
            value = multiclass_f1_score(predicted, labels, CLASSES, average="macro")
            self.log("batches", value, batch_size=len(labels))
            self.metric(predicted, labels)
            self.log("metric", self.metric, on_step=False, on_epoch=True, batch_size=len(labels))
            self.rows.append((predicted, labels))

    module, data = from_config(config_of(options))
    logging = Logging(module.parts)
    trainer = quiet_trainer(**module.trainer_options())
    trainer.fit(logging, data)
    logging.rows.clear()
    (logged,) = trainer.validate(logging, data, verbose=False)
    predicted, labels = (torch.cat(part) for part in zip(*logging.rows, strict=True))
    every = f1_score(labels, predicted, labels=range(CLASSES), average="macro", zero_division=0)
    return MacroF1(logged["valid_macro_f1"], float(every), logged["batches"], logged["metric"])


def without_rare_classes(folder: Path) -> dict[str, str]:
    """Keys with which the validation rows have no image of the three rarest classes."""
    lines = (folder / "test.csv").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.rpartition(",")[2] not in LABELS[-3:]]
    path = folder / "test-without-rare.csv"
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return options_of(folder, **{"data.valid": str(path)})


def padded_rows(rows: int, processes: int = 2) -> dict[str, float]:
    """What Lightning's own sampler makes of the validation of so many rows in several processes: `counted` rows, and
    the share of `hits`, of which there is exactly one, in the first row."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        done = subprocess.run(
            [sys.executable, *command, str(CHILD), str(rows), str(out)],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
        return found


def score_table(folder: Path) -> list[str]:
    """Markdown: macro F1 in each way, of all ten classes and without the three rarest; and the padded validation."""
    lines = [
        "| validation rows | classwise | scikit-learn, all labels | mean of batches (`self.log` of each value) |"
        " torchmetrics object |",
        "|---|---|---|---|---|",
    ]
    bundled(folder)
    sets = {
        "1,000, ten classes": options_of(folder),
        "700, without the three rarest": without_rare_classes(folder),
    }
    for name, options in sets.items():
        found = macro_f1(options)
        values = (found.classwise, found.sklearn, found.mean_of_batches, found.torchmetrics)
        lines.append(f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |")
    padded = padded_rows(101)
    lines += [
        "",
        f"Validation of 101 rows in two processes, of which one, the first, is a hit: Lightning counts"
        f" {padded['counted']:.0f} rows and a share of hits of {padded['hits']:.5f}; right is {1 / 101:.5f}, which is"
        " what classwise's loop counts in any number of processes.",
    ]
    return lines
