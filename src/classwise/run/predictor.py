"""The best checkpoint of a run, ready to look at images."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from classwise.compose.image_check import check_with_progress, refuse_bad
from classwise.compose.labels import Labels
from classwise.compose.loaders import evaluation_images, loader_of
from classwise.compose.settings import build_settings, device_of
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.data.cache import CachedImages
from classwise.data.sources import Samples
from classwise.data.targets import MultilabelTarget, Target, target_from_dict
from classwise.errors import DataError, ImageError
from classwise.infer.engines import engine_of
from classwise.infer.predict import predict_outputs, predictions_table
from classwise.infer.submission import Possible, possible_labels
from classwise.metrics.collection import MetricCollection, flat_scores
from classwise.model.classifier import Classifier
from classwise.model.heads import Head, head_from_dict
from classwise.run.checkpoint import Checkpoint, reading, restored_model
from classwise.training import loop
from classwise.training.tuning import FORMATS, torch_threads


@dataclass(frozen=True)
class Predictor:
    """The best checkpoint, ready to look at images. It needs nothing but what the checkpoint holds."""

    model: Classifier
    targets: tuple[Target, ...]
    heads: dict[str, Head]
    joint: tuple[str, ...]
    precision: str
    metadata: dict[str, Any]

    @staticmethod
    def of(checkpoint: Checkpoint) -> "Predictor":
        """From a verified checkpoint."""
        metadata, model = checkpoint.metadata, restored_model(checkpoint)
        with reading(checkpoint):
            targets = tuple(target_from_dict(target) for target in metadata["targets"])
            heads = {name: head_from_dict(metadata["heads"][name]) for name in model.metadata.heads}
            joint, precision = tuple(metadata["joint"]), metadata["precision"]
            if [target.name for target in targets] != list(heads) or not {*joint} <= {*heads}:
                raise ValueError("targets, heads and joint do not fit each other")
            if precision not in loop.PRECISIONS:
                raise ValueError(f"precision {precision!r:.50}")
            memory_format = metadata["memory_format"]
            if memory_format not in FORMATS:
                raise ValueError(f"memory format {memory_format!r:.50}")
            model.arrange(FORMATS[memory_format])
            return Predictor(model, targets, heads, joint, precision, metadata)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target that has one."""
        return {target.name: target.labels for target in self.targets if target.labels}

    @property
    def separators(self) -> dict[str, str]:
        """What stands between the labels of every multilabel target."""
        return {t.name: t.separator or "|" for t in self.targets if isinstance(t, MultilabelTarget)}

    def allowed_answers(self) -> dict[str, Possible]:
        """Every answer that may stand in a submission, by target and for `joint`."""
        return possible_labels(self.heads, self.labels, self.joint, self.separators)

    def known_truth(self, samples: Samples, console: Console) -> Labels:
        """Answers of the targets whose columns are there and hold nothing but answers. A column with other cells
        (placeholders, say) holds no truth, which is said."""
        truth: Labels = {}
        for target in self.targets:
            if set(target.columns) <= set(samples.frame.columns):
                try:
                    found = target.encode(samples.frame, samples.where)
                except DataError as error:
                    console.line(f"note: no true answers for {target.name!r}: {error}")
                else:
                    truth |= {target.name: found} if target.known(found).any() else {}
        return truth

    def outputs(
        self,
        samples: Samples,
        config: Config,
        should_stop: Callable[[], bool] = loop.never,
        engine: str = "torch",
        console: Console | None = None,
        cached: CachedImages | None = None,
    ) -> dict[str, torch.Tensor]:
        """Raw outputs (N, outputs) by target, in the order of the rows; the console says how far it is, and which
        engine `auto` takes. Images that are `cached` are not decoded again. Raises DataError with all the files
        that cannot be used, Interrupted if asked to stop, ModelError where the engine cannot be had."""
        console = console or Console(quiet=True)
        device = device_of("auto" if config.training.device.startswith("cuda") else config.training.device)
        dataset = evaluation_images(samples, self.model.metadata, config.data.max_pixels, cached)
        loader = loader_of(dataset, {}, config, device)
        batches = -(-len(dataset) // loader.batch_size)
        with preserve_torch_state(), contextlib.closing(loader):
            set_threads(config)
            dtype = loop.PRECISIONS[self.precision]
            run = engine_of(engine, self.model.to(device), device, dtype, batches, console.line)

            def watch(found: Iterable[Batch], count: int) -> Iterable[Batch]:
                return console.bar(found, "predicting", count)

            try:
                return predict_outputs(run, loader, should_stop, watch)
            except ImageError:
                # One is known; whoever mends it wants to know of the others.
                found = check_with_progress(samples.paths, config.data.max_pixels, console, samples.root)
                refuse_bad(found.bad, samples.where)
                raise

    def table(
        self, samples: Samples, outputs: Mapping[str, torch.Tensor], truth: Mapping[str, Any]
    ) -> pl.DataFrame:
        """Predictions as a table, with the true answers where they are known."""
        return predictions_table(
            samples.ids, outputs, self.heads, self.labels, self.joint, truth, self.separators
        )

    def score(
        self,
        outputs: Mapping[str, torch.Tensor],
        true_labels: Labels,
        groups: Sequence[str] | None,
        config: Config,
    ) -> dict[str, Any]:
        """Outputs against answers over the whole set, with intervals by the bootstrap (over groups, where the data
        has groups)."""
        resamples = config.report.resamples
        board = MetricCollection(self.heads, self.labels, self.joint, keep_rows=resamples > 0)
        board.update(outputs, {name: torch.from_numpy(values) for name, values in true_labels.items()})
        results = board.compute(groups, config.seed, resamples)
        metric = build_settings(config, torch.device("cpu")).metric
        target = metric.rpartition(".")[0] or next(iter(self.heads))
        rows = (results["joint"] if target == "joint" else results["targets"][target])["samples"]
        value = flat_scores(results).get(metric)
        if value is None:
            raise DataError(f"{metric} cannot be measured: no row has an answer for {target!r}")
        return {"metric": metric, "value": value, "samples": rows, **results}


@contextlib.contextmanager
def preserve_torch_state() -> Iterator[None]:
    """torch's generators and number of threads are the caller's: they are found as they were left."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), torch_threads(torch.get_num_threads()):
        yield


def set_threads(config: Config) -> None:
    """As the run's config says: another number would give other last digits."""
    if isinstance(config.training.threads, int):
        torch.set_num_threads(config.training.threads)
