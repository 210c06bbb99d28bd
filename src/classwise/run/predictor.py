"""The best checkpoint of a run as a model for inference: its outputs, predictions and scores."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from classwise.allocator import kept_memory
from classwise.compose.image_check import check_with_progress, refuse_bad
from classwise.compose.labels import Labels
from classwise.compose.loaders import evaluation_images, loader_of
from classwise.compose.prior import class_shares
from classwise.compose.settings import device_of, own_metrics_of, selection_metric
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.data.cache import CachedImages
from classwise.data.memory_images import MemoryImages
from classwise.data.sources import Samples
from classwise.data.targets import MultilabelTarget, Target, target_from_dict
from classwise.data.transform import ImageTransform
from classwise.errors import DataError, ImageError
from classwise.infer.decided import with_abstentions
from classwise.infer.engines import Engine, engine_of
from classwise.infer.ensemble import as_decoded, joined_mean_engine, mean_engine, undecoded
from classwise.infer.module import TrainedModel
from classwise.infer.predict import predict_outputs, predictions_table
from classwise.infer.submission import Possible, possible_labels
from classwise.infer.tta import VIEWS, tta_engine
from classwise.metrics.collection import MetricCollection, own_metrics, parts_of, score_of
from classwise.metrics.mean import NO_INTERVAL, NO_INTERVAL_OF_SHARES, is_mean, mean_parts
from classwise.metrics.names import is_combined, split_metric
from classwise.metrics.own import counted_rows
from classwise.metrics.scores import AT_PRIOR
from classwise.model.classifier import Classifier, joined_heads, joined_name, share_backbone
from classwise.model.heads import Head, head_from_dict
from classwise.run.checkpoint import Checkpoint, reading, restored_model
from classwise.run.unseen import UnseenLabels
from classwise.training import loop
from classwise.training.tuning import FORMATS, torch_threads


@dataclass(frozen=True)
class Predictor:
    """A trained model and how its outputs are decoded: all that inference needs, read from a checkpoint alone. Of an
    ensemble, `members` are its models, whose probabilities or logits (`ensemble`) are averaged; the others are the
    first one's, but for `heads`, which take the mean (infer/ensemble.py), as they do with test-time augmentation
    (`tta`, infer/tta.py). `shares_backbone`: of an ensemble, whether its models differ in their heads alone."""

    model: Classifier
    targets: tuple[Target, ...]
    heads: dict[str, Head]
    joint: tuple[str, ...]
    precision: str
    metadata: dict[str, Any]
    members: tuple["Predictor", ...] = ()
    ensemble: str = "probabilities"
    tta: str = "none"
    shares_backbone: bool = False

    @staticmethod
    def of(checkpoint: Checkpoint) -> "Predictor":
        """From a verified checkpoint. Raises CheckpointError if its contents do not fit each other, ModelError."""
        metadata = checkpoint.metadata
        model = restored_model(checkpoint)
        with reading(checkpoint):
            # A checkpoint may be whole by its hashes and still not be ours: its parts have to fit each other.
            targets = tuple(target_from_dict(target) for target in metadata["targets"])
            heads = {name: head_from_dict(metadata["heads"][name]) for name in model.metadata.heads}
            joint = tuple(metadata["joint"])
            if [target.name for target in targets] != list(heads) or not set(joint) <= set(heads):
                raise ValueError("targets, heads and joint do not fit each other")

            # Inference computes as validation did.
            precision = metadata["precision"]
            if precision not in loop.PRECISIONS:
                raise ValueError(f"precision {precision!r:.50}")
            memory_format = metadata["memory_format"]
            if memory_format not in FORMATS:
                raise ValueError(f"memory format {memory_format!r:.50}")

            model.arrange(FORMATS[memory_format])
            return Predictor(
                model=model,
                targets=targets,
                heads=heads,
                joint=joint,
                precision=precision,
                metadata=metadata,
            )

    @staticmethod
    def mean_of(members: Sequence["Predictor"], ensemble: str = "probabilities") -> "Predictor":
        """The ensemble of models for the same targets, each with its own test-time augmentation, if any. Models with
        the same backbone hold it together from now on."""
        first = members[0]
        is_alike = (
            len({(member.precision, member.tta, member.model.memory_format) for member in members}) == 1
        )
        return dataclasses.replace(
            first,
            heads=as_decoded(first.heads),
            members=tuple(members),
            ensemble=ensemble,
            shares_backbone=is_alike and share_backbone([member.model for member in members]),
        )

    def with_tta(self, tta: str) -> "Predictor":
        """The single model with this test-time augmentation."""
        if tta == "none":
            return self
        return dataclasses.replace(self, heads=as_decoded(self.heads), tta=tta)

    def module(self, max_pixels: int) -> TrainedModel:
        """The model, or all of them, as a plain module in eval mode, whose transform refuses images of more than
        `max_pixels` pixels."""
        members = self.members or (self,)
        properties = self.model.metadata
        return TrainedModel(
            models=[member.model for member in members],
            heads=[undecoded(member.heads) for member in members],
            answer_heads=self.heads,
            transform=ImageTransform(properties.image_size, properties.fit, properties.pixels, max_pixels),
            labels=self.labels,
            joint=self.joint,
            precision=self.precision,
            tta=members[0].tta,
            ensemble=self.ensemble,
        ).eval()

    @property
    def inference(self) -> dict[str, Any]:
        """What metrics.json says of how the predictions were made; empty where one model sees each image once."""
        found = {} if self.tta == "none" else {"tta": self.tta}
        if self.members:
            found = {"tta": self.tta, "ensemble": self.ensemble}
        return {"inference": found} if found else {}

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target that has one."""
        return {target.name: target.labels for target in self.targets if target.labels}

    @property
    def separators(self) -> dict[str, str]:
        """What separates the labels in a cell of each multilabel target."""
        return {t.name: t.separator or "|" for t in self.targets if isinstance(t, MultilabelTarget)}

    def possible_labels(self) -> dict[str, Possible]:
        """What a submission may contain, by target and for `joint`."""
        return possible_labels(self.heads, self.labels, self.joint, self.separators)

    def true_labels(self, samples: Samples, console: Console) -> Labels:
        """The labels of the targets whose columns the table has. A column with anything else in it, such as
        placeholders, is left out with a note."""
        labels: Labels = {}
        for target in self.targets:
            if not set(target.columns) <= set(samples.frame.columns):
                continue
            try:
                values = target.encode(samples.frame, samples.where)
            except DataError as error:
                console.line(f"note: no true labels for {target.name!r}: {error}")
                continue
            if target.is_labeled(values).any():
                labels[target.name] = values
        return labels

    def outputs(
        self,
        samples: Samples,
        config: Config,
        should_stop: Callable[[], bool] = loop.never,
        engine: str = "torch",
        console: Console | None = None,
        cached: CachedImages | MemoryImages | None = None,
        hint: str = "",
    ) -> dict[str, torch.Tensor]:
        """Outputs (N, outputs) by target as `heads` take them, in row order. The console shows the progress, and the
        engine that `auto` takes. Images that are `cached` are not decoded again. `hint`: what to do about images that
        cannot be used, for the message.

        Raises DataError with every file that cannot be used, Interrupted if asked to stop, ModelError if the engine
        is not available.
        """
        # A run that was trained on a GPU may be used on a machine without one.
        console = console or Console(quiet=True)
        device = device_of("auto" if config.training.device.startswith("cuda") else config.training.device)
        dataset = evaluation_images(samples, self.model.metadata, config.data.max_pixels, cached)
        loader = loader_of(dataset, {}, config, device)

        def watch(batches: Iterable[Batch], count: int) -> Iterable[Batch]:
            return console.bar(batches, "predicting", count)

        with preserve_torch_state(), contextlib.closing(loader):
            set_threads(config)
            batches = -(-len(dataset) // loader.batch_size)
            run = self._engine(engine, device, batches, console.line)
            try:
                return predict_outputs(run, loader, should_stop=should_stop, watch=watch)
            except ImageError:
                # The error names the first bad file only; whoever repairs it wants to know of all.
                checked = check_with_progress(
                    samples.paths,
                    max_pixels=config.data.max_pixels,
                    console=console,
                    root=samples.allowed_folders,
                    pixels=self.model.metadata.pixels,
                )
                refuse_bad(checked.bad, samples.where, hint)
                raise

    def _engine(self, name: str, device: torch.device, batches: int, say: Callable[[str], None]) -> Engine:
        """What computes the outputs; see `engine_of`."""

        def make(model: Classifier, predictor: Predictor) -> Engine:
            return engine_of(
                name=name,
                model=model.to(device),
                device=device,
                dtype=loop.PRECISIONS[predictor.precision],
                batches=batches * len(VIEWS[predictor.tta]),
                say=say,
            )

        return self.engine_of_models(make)

    def engine_of_models(self, make: Callable[[Classifier, "Predictor"], Engine]) -> Engine:
        """What computes the outputs that `heads` take. `make` gives the engine of one model, with its own heads and
        without other views; the predictor it is given has the model's precision and its `tta`."""
        if self.shares_backbone:
            return self._joined_engine(make)
        if self.members:
            engines = [member.engine_of_models(make) for member in self.members]
            return mean_engine(engines, [member.heads for member in self.members], self.ensemble)
        return tta_engine(make(self.model, self), undecoded(self.heads), self.tta)

    def _joined_engine(self, make: Callable[[Classifier, "Predictor"], Engine]) -> Engine:
        """What computes the outputs of an ensemble whose models share their backbone, which sees each image once."""
        first = self.members[0]
        heads = {
            joined_name(number, target): head
            for number, member in enumerate(self.members)
            for target, head in undecoded(member.heads).items()
        }
        joined = joined_heads([member.model for member in self.members])
        engine = tta_engine(make(joined, first), heads, first.tta)
        return joined_mean_engine(engine, [member.heads for member in self.members], self.ensemble)

    def table(
        self,
        samples: Samples,
        outputs: Mapping[str, torch.Tensor],
        true_labels: Mapping[str, Any],
        in_full: bool | None = None,
    ) -> pl.DataFrame:
        """Predictions as a table, one row per sample, with the true labels of those targets that have them. `in_full`:
        whether the probabilities of all classes are written (default: unless there are very many). Where answers
        below a probability are marked, NAME_abstain says which."""
        table = predictions_table(
            ids=samples.ids,
            outputs=outputs,
            heads=self.heads,
            labels=self.labels,
            joint=self.joint,
            truth=true_labels,
            separator=self.separators,
            in_full=in_full,
        )
        return with_abstentions(table, outputs, self.heads, self.joint)

    def score(
        self,
        outputs: Mapping[str, torch.Tensor],
        true_labels: Labels,
        groups: Sequence[str] | None,
        config: Config,
        unseen: UnseenLabels | None = None,
        row_weights: npt.NDArray[np.float64] | None = None,
    ) -> dict[str, Any]:
        """Metrics over the whole set as in metrics.json, with intervals that take the rows of one of the `groups` as
        similar to each other. `unseen`: labels of the rows that the model does not know. `row_weights` (N,): also
        score with these. Raises DataError if no row has
        a label for the metric that selects."""
        metric = selection_metric(config)
        new = unseen.unseen if unseen else {}
        heads = unseen.heads(self.heads) if unseen else self.heads
        labels = {name: (*known, *new.get(name, ())) for name, known in self.labels.items()}
        # Nobody expects what the model has never seen: at given class shares it has none.
        shares = class_shares(config, self.labels)
        shares |= {name: (*shares[name], *(0.0 for _ in new[name])) for name in new if name in shares}
        joint = () if set(self.joint) & new.keys() else self.joint
        results = self._counted(
            outputs, true_labels, groups, config, heads, labels, joint, shares, row_weights
        )
        if joint != self.joint:
            # The joint class has no number for such rows, so it is scored on the others.
            known = {
                name: np.where(true_labels[name] < len(self.labels[name]), true_labels[name], -1)
                for name in self.joint
            }
            parts = {name: self.heads[name] for name in self.joint}
            shares = {
                name: part for name, part in class_shares(config, self.labels).items() if name == "joint"
            }
            joint_results = self._counted(
                outputs, known, groups, config, parts, self.labels, self.joint, shares, row_weights
            )
            results["joint"] = joint_results["joint"]
        for name in new:
            results["targets"][name] |= self._own_of_known_rows(config, name, outputs, true_labels)

        # The headline: the metric that selected the checkpoint, and the rows that it was computed from.
        value = score_of(results, metric)
        if is_combined(metric):
            return self._combined(metric, value, results, rows=len(next(iter(outputs.values())))) | results
        target = split_metric(metric)[0] or next(iter(self.heads))
        rows = (results["joint"] if target == "joint" else results["targets"][target])["samples"]
        if value is None:
            raise DataError(_unscored_text(metric, target, rows))
        return {"metric": metric, "value": value, "samples": rows, **results}

    def _counted(
        self,
        outputs: Mapping[str, torch.Tensor],
        true_labels: Labels,
        groups: Sequence[str] | None,
        config: Config,
        heads: Mapping[str, Head],
        labels: Mapping[str, Sequence[str]],
        joint: Sequence[str],
        shares: Mapping[str, Sequence[float]],
        row_weights: npt.NDArray[np.float64] | None,
    ) -> dict[str, Any]:
        """The scores of all targets, and of the joint class; metrics of the user's own, of targets whose labels the
        model knows."""
        resamples = config.report.resamples
        own = {
            name: references
            for name, references in own_metrics_of(config).items()
            if tuple(labels.get(name, ())) == self.labels.get(name, ())
        }
        metrics = MetricCollection(
            heads,
            labels=labels,
            joint=joint,
            keep_rows=resamples > 0 or row_weights is not None,
            selected=selection_metric(config),
            priors=shares,
            own=own,
        )
        metrics.update(
            outputs, {name: torch.from_numpy(values) for name, values in true_labels.items()}, copy=False
        )
        return metrics.compute(groups, config.seed, resamples, row_weights)

    def _own_of_known_rows(
        self, config: Config, name: str, outputs: Mapping[str, torch.Tensor], true_labels: Labels
    ) -> dict[str, dict[str, float | None]]:
        """The entry `own` of a target with labels that the model has never seen: over the rows of the others, since the
        user's code knows of no further labels. Empty without such a metric or such a row."""
        head, labels = self.heads[name], self.labels[name]
        known = torch.from_numpy(true_labels[name])
        known = known[:, : len(labels)] if known.ndim == 2 else known.masked_fill(known >= len(labels), -1)
        decoded = head.decode(outputs[name])
        metrics = own_metrics(config.targets[name].metrics or (), name, head, labels)
        if not metrics or not counted_rows(decoded, known, head.type).any():
            return {}
        for metric in metrics:
            metric.update(decoded, known)
        return {"own": {metric.name: metric.compute() for metric in metrics}}

    def _combined(
        self, metric: str, value: float | None, results: Mapping[str, Any], rows: int
    ) -> dict[str, Any]:
        """The headline of the mean of all targets, or of shares of several scores, with its `parts`; every row has a
        label of at least one target. Raises DataError where a part cannot be measured."""
        if value is None and not is_mean(metric):
            raise DataError(_unscored_text(metric, "", rows))
        if value is None:
            unlabeled = [name for name, scores in results["targets"].items() if not scores["samples"]]
            raise DataError(
                f"{metric} cannot be computed: no row has a label for {' and '.join(map(repr, unlabeled))}"
            )
        reason = NO_INTERVAL if is_mean(metric) else NO_INTERVAL_OF_SHARES
        if is_mean(metric):
            parts = mean_parts(results, at_prior=metric.endswith(AT_PRIOR))
        else:
            parts = parts_of(results, metric) or {}
        headline = {"metric": metric, "value": value, "samples": rows, "parts": parts}
        has_intervals = any("intervals" in scores for scores in results["targets"].values())
        return headline | ({"no_interval": {metric: reason}} if has_intervals else {})


def unscored(config: Config) -> dict[str, Any]:
    """What metrics.json says where there are no rows to score: the validation rows of a run on all rows."""
    return {"metric": selection_metric(config), "value": None, "samples": 0, "targets": {}}


def _unscored_text(metric: str, target: str, rows: int) -> str:
    """Why a metric has no value on `rows` labeled rows."""
    if not rows:
        return f"{metric} cannot be computed: no row has a label for {target!r}"
    return f"{metric} cannot be computed: no row is of the class, or all rows are of one class"


@contextlib.contextmanager
def preserve_torch_state() -> Iterator[None]:
    """Restore torch's random state and number of threads at the end of the block: they belong to the caller, as the
    memory does that is kept until then."""
    devices = list(range(torch.cuda.device_count()))
    with (
        torch.random.fork_rng(devices=devices),
        torch_threads(torch.get_num_threads()),
        kept_memory(),
    ):
        yield


def set_threads(config: Config) -> None:
    """Set torch's number of threads to the config's: another number would change the last digits."""
    if isinstance(config.training.threads, int):
        torch.set_num_threads(config.training.threads)
