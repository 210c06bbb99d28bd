"""What a run has to beat: the most frequent answer and a linear probe, scored once on the run's own split."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.linear_probe import linear_probe, pixel_features, probe_rows
from classwise.compose.loaders import evaluation_images, loader_of, model_features
from classwise.compose.raw_outputs import log_of, raw_class, raw_ordinal
from classwise.compose.settings import build_settings, metric_targets
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.data.dataset import ImageDataset
from classwise.data.sampling import batches_of
from classwise.metrics.collection import MetricCollection
from classwise.metrics.text import PROBES, SIMPLEST
from classwise.model.classifier import Classifier
from classwise.model.heads import Head

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Baselines:
    """The scores of the baselines: values of `metric` on the validation rows. `linear_probe` is None where there is
    none; it was fitted on `features` of the backbone or on `pixels`. `notes` are what the reader should know, `kind`
    is the type of the target that the metric is of (the joint class is a class)."""

    metric: str
    most_frequent: float
    linear_probe: float | None
    probe_on: str
    notes: tuple[str, ...] = ()
    kind: str = "class"

    def as_dict(self) -> dict[str, Any]:
        """As in status.json."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called."""
        return f"the {SIMPLEST[self.kind]}", f"a {PROBES.get(self.kind, 'linear probe')} on {self.probe_on}"

    def __str__(self) -> str:
        probe = "" if self.linear_probe is None else f", {self.names[1]} {self.linear_probe:.4f}"
        return f"{self.metric}: {self.names[0]} {self.most_frequent:.4f}{probe}"

    def not_beaten_by(self, value: float, higher_is_better: bool) -> dict[str, float]:
        """The baselines, by readable name, that are as good as a run's `value` or better."""
        scores = dict(zip(self.names, (self.most_frequent, self.linear_probe), strict=True))
        sign = 1 if higher_is_better else -1
        return {
            name: score
            for name, score in scores.items()
            if score is not None and not math.isnan(score) and not sign * value > sign * score
        }


def run_baselines(
    config: Config, splits: DatasetSplits, model: Classifier, heads: dict[str, Head], device: torch.device
) -> Baselines:
    """The most frequent answer and a balanced linear probe on the same split: what a run has to beat.

    The probe looks at features of the backbone where its weights were learnt before, else at the pixels.
    """
    labels = [
        {name: torch.from_numpy(values) for name, values in split.labels.items()}
        for split in (splits.train, splits.valid)
    ]
    metric = build_settings(config, device).metric
    # Only what the metric is of: a probe of each target would cost as much again for nothing.
    heads = {name: heads[name] for name in metric_targets(metric, splits)}

    def value(outputs: Mapping[str, Tensor]) -> float:
        joint = splits.joint if metric.startswith("joint.") else ()
        board = MetricCollection(heads, splits.label_lists, joint)
        board.update(outputs, labels[1])
        target, _, score = metric.rpartition(".")
        results = board.compute()
        scores = results["joint"] if joint else results["targets"][target or splits.targets[0].name]
        return float(scores[score])

    seen = [
        evaluation_images(split.samples, model.metadata, config.data.max_pixels, split.cached)
        for split in (splits.train, splits.valid)
    ]
    pretrained, rows = config.model.weights != "none", None
    if pretrained:
        rows = probe_rows(heads, labels[0], model.feature_count)  # no more images than the probe will look at
        seen[0] = seen[0].take(rows.tolist())
        train, valid = (model_features(model.to(device), p, config, device).numpy() for p in seen)
    else:
        train, valid = pixel_features(*(_pixel_batches(p, config, device) for p in seen))
    probe = linear_probe(heads, train, labels[0], valid, standardise=pretrained, rows=rows)
    return Baselines(
        metric,
        value(most_frequent(heads, labels[0], len(splits.valid.samples))),
        value(probe.outputs),
        "features" if pretrained else "pixels",
        probe.notes,
        next(iter(heads.values())).type if len(heads) == 1 else "class",
    )


def _pixel_batches(
    dataset: ImageDataset, config: Config, device: torch.device
) -> Iterator[npt.NDArray[np.uint8]]:
    """images_BHWC of all images, in order."""
    loader = loader_of(dataset, {}, config, device)
    with contextlib.closing(loader):
        for batch in loader.batches(batches_of(np.arange(len(dataset)), loader.batch_size)):
            yield batch.images.permute(0, 2, 3, 1).numpy()


def most_frequent(heads: Mapping[str, Head], targets: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Raw outputs (rows, outputs), float64, by target: the same for every row, from the training rows' targets.

    class: the log-frequencies, so the answer is the most frequent class. ordinal: the distribution of the levels,
    so the answer is its median. multilabel: the log-odds of each label's frequency. regression: 0, which is the
    training mean. ranking: 0 for all. Rows and cells without a known target count nowhere.
    """
    found = {}
    for name, head in heads.items():
        once_O = torch.from_numpy(_FREQUENT[head.type](head, targets[name].cpu().numpy()))
        found[name] = once_O.expand(rows, -1).clone()
    return found


def _frequent_class(head: Head, labels_N: Numbers) -> Floats:
    return raw_class(head, _log_frequencies(head, labels_N))


def _frequent_level(head: Head, labels_N: Numbers) -> Floats:
    return raw_ordinal(_log_frequencies(head, labels_N))


def _frequent_labels(head: Head, cells_NL: Floats) -> Floats:
    known_L = (~np.isnan(cells_NL)).sum(axis=0)
    present_L = np.nansum(cells_NL, axis=0)
    share_L = np.divide(present_L, known_L, out=np.full(len(known_L), 0.5), where=known_L > 0)
    return log_of(share_L) - log_of(1 - share_L)


def _no_answer(head: Head, targets_N: npt.NDArray[Any]) -> Floats:
    return np.zeros(head.outputs)


_FREQUENT: dict[str, Callable[[Head, npt.NDArray[Any]], Floats]] = {
    "class": _frequent_class,
    "ordinal": _frequent_level,
    "multilabel": _frequent_labels,
    "regression": _no_answer,
    "ranking": _no_answer,
}


def _log_frequencies(head: Head, labels_N: Numbers) -> Floats:
    counts_K = np.bincount(labels_N[labels_N >= 0], minlength=head.classes)
    return log_of(counts_K / max(1, counts_K.sum()))
