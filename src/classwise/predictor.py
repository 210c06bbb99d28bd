"""The best checkpoint of a run, ready to look at pictures."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from classwise.checkpoint import Checkpoint
from classwise.compose import Numbers, build_settings, device_of, encode, pictures_of, worker_count
from classwise.config import Config
from classwise.console import Console
from classwise.data.loader import Loader
from classwise.data.sources import Samples
from classwise.data.targets import ClassTarget
from classwise.errors import DataError
from classwise.infer.predict import predict_logits, predictions_table
from classwise.metrics.scoreboard import Scoreboard, flat_scores, joint_labels
from classwise.model.classifier import Classifier, ModelFacts, restore_classifier
from classwise.train import loop
from classwise.train.tuning import torch_threads


@dataclass(frozen=True)
class Predictor:
    """The best checkpoint, ready to look at pictures. It needs nothing but what the checkpoint holds."""

    model: Classifier
    targets: tuple[ClassTarget, ...]
    joint: tuple[str, ...]
    precision: str
    facts: dict[str, Any]

    @staticmethod
    def of(checkpoint: Checkpoint) -> "Predictor":
        """From a verified checkpoint."""
        facts = checkpoint.facts
        model = restore_classifier(ModelFacts.from_dict(facts["model"]), checkpoint.model)
        targets = tuple(ClassTarget.from_dict(target) for target in facts["targets"])
        return Predictor(model, targets, tuple(facts["joint"]), facts["precision"], facts)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target."""
        return {target.name: target.labels for target in self.targets}

    def answers(self) -> dict[str, list[str]]:
        """Every answer that may stand in a submission, by target and for `joint`."""
        possible = {name: list(labels) for name, labels in self.labels.items()}
        if self.joint:
            possible["joint"] = [str(k) for k in range(len(joint_labels(self.labels, self.joint)))]
        return possible

    def known_truth(self, samples: Samples, console: Console) -> dict[str, Numbers]:
        """Label numbers of the targets whose column is there and full of known labels. A column with other
        cells (placeholders, say) holds no truth, which is said."""
        truth: dict[str, Numbers] = {}
        for target in self.targets:
            if target.column in samples.frame.columns and samples.frame[target.column].null_count() == 0:
                try:
                    truth |= encode([target], samples)
                except DataError as error:
                    console.line(f"note: no true labels for {target.name!r}: {error}")
        return truth

    def logits(self, samples: Samples, config: Config) -> dict[str, torch.Tensor]:
        """logits_NK by target, in the order of the rows."""
        device = device_of("auto" if config.training.device.startswith("cuda") else config.training.device)
        workers = worker_count(config.data.workers, device)
        pictures = pictures_of(samples, self.model.facts, config.data.max_pixels)
        loader = Loader(pictures, {}, config.training.batch_size, workers)
        dtype = loop.PRECISIONS[self.precision]
        cast = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
        with torch_kept(), contextlib.closing(loader):
            set_threads(config)
            return predict_logits(self.model.to(device), loader, device, cast)

    def table(self, samples: Samples, truth: Mapping[str, Numbers], config: Config) -> pl.DataFrame:
        """Predictions as a table."""
        logits = self.logits(samples, config)
        return predictions_table(samples.ids, logits, self.labels, self.joint, truth)

    def score(
        self, logits: Mapping[str, torch.Tensor], labels: Mapping[str, Numbers], config: Config
    ) -> dict[str, Any]:
        """Logits against label numbers over the whole set."""
        board = Scoreboard(self.labels, self.joint)
        board.update(logits, {name: torch.from_numpy(numbers) for name, numbers in labels.items()})
        results = board.results()
        metric = build_settings(config, torch.device("cpu")).metric
        rows = len(next(iter(labels.values())))
        return {"metric": metric, "value": flat_scores(results)[metric], "samples": rows, **results}


@contextlib.contextmanager
def torch_kept() -> Iterator[None]:
    """torch's generators and number of threads are the caller's: they are found as they were left."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), torch_threads(torch.get_num_threads()):
        yield


def set_threads(config: Config) -> None:
    """As the run's config says: another number would give other last digits."""
    if isinstance(config.training.threads, int):
        torch.set_num_threads(config.training.threads)
