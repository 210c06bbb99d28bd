"""What a run has to beat: the most frequent label and a linear probe, scored once on the run's own split.

Both give raw outputs by target, as a model would, so the same heads decode them and the same metrics score them.
Nothing here draws random numbers.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.linear_probe import Probe, linear_probe, pixel_features, probe_rows
from classwise.compose.loaders import loader_of, model_features, split_images
from classwise.compose.prior import class_shares
from classwise.compose.raw_outputs import log_of, raw_class, raw_ordinal
from classwise.compose.settings import build_settings, metric_targets, own_metrics_of
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.data.dataset import ImageDataset
from classwise.data.sampling import batches_of
from classwise.errors import Interrupted
from classwise.metrics.collection import MetricCollection, score_of
from classwise.metrics.names import is_combined
from classwise.metrics.text import PROBES, SIMPLEST
from classwise.model.classifier import Classifier
from classwise.model.heads import Head
from classwise.training.loop import never

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


MOST_PROBED = 1000
"""Classes up to which the linear probe is fitted: of more, its solver takes gigabytes."""


@dataclass(frozen=True)
class Baselines:
    """The baselines' values of `metric` on the validation rows. `linear_probe` is None if there is none; `probe_on`
    says whether it was fitted on `features` of the backbone or on `pixels`. `notes` are for the console; `kind` is
    the type of the target that the metric is computed from (`class` for the joint class, `mean` for the mean of all
    targets)."""

    metric: str
    most_frequent: float
    linear_probe: float | None
    probe_on: str
    notes: tuple[str, ...] = ()
    kind: str = "class"

    def as_dict(self) -> dict[str, Any]:
        """The entry of status.json."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}

    @property
    def names(self) -> tuple[str, str]:
        """Both baselines as a sentence names them."""
        return f"the {SIMPLEST[self.kind]}", f"a {PROBES.get(self.kind, 'linear probe')} on {self.probe_on}"

    def __str__(self) -> str:
        simplest_name, probe_name = self.names
        probe = "" if self.linear_probe is None else f", {probe_name} {self.linear_probe:.4f}"
        return f"{self.metric}: {simplest_name} {self.most_frequent:.4f}{probe}"

    def not_beaten_by(self, value: float, higher_is_better: bool) -> dict[str, float]:
        """The baselines, by their name in a sentence, that are as good as a run's `value` or better."""
        scores = dict(zip(self.names, (self.most_frequent, self.linear_probe), strict=True))
        sign = 1 if higher_is_better else -1
        # `not >` rather than `<=`: a run whose value is NaN beats nothing.
        return {
            name: score
            for name, score in scores.items()
            if score is not None and not math.isnan(score) and not sign * value > sign * score
        }


def run_baselines(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: dict[str, Head],
    device: torch.device,
    should_stop: Callable[[], bool] = never,
) -> Baselines:
    """Score the most frequent label and a class-balanced linear probe on the run's own split.

    The probe is fitted on features of the backbone if its weights are pretrained, else, and where the run begins with
    such a probe of its own, on the pixels. `model` is
    moved to `device` for that, and otherwise left as it is. Raises ImageError, and Interrupted if asked to stop while
    images are read.
    """
    metric = build_settings(config, device).metric
    # Only the metric's own targets: a probe of any other would cost as much again and not be scored.
    heads = {name: heads[name] for name in metric_targets(metric, splits)}
    train_labels = {name: torch.from_numpy(values) for name, values in splits.train.labels.items()}
    valid_labels = {name: torch.from_numpy(values) for name, values in splits.valid.labels.items()}

    def score(outputs: Mapping[str, Tensor]) -> float:
        metrics = MetricCollection(
            heads,
            splits.label_lists,
            joint=splits.joint if "joint." in metric else (),
            selected=metric,
            only_selected=True,
            priors=class_shares(config, splits.label_lists),
            own=own_metrics_of(config),
        )
        metrics.update(outputs, valid_labels)
        value = score_of(metrics.compute(), metric)
        assert value is not None, "a metric without rows is refused before"
        return value

    many = [name for name, head in heads.items() if head.classes > MOST_PROBED]
    if many:
        note = f"linear probe: not fitted, since {many[0]!r} has more than {MOST_PROBED:,} classes"
        probe = Probe({}, (note,))
    else:
        probe = _probe(
            config,
            splits,
            model=model,
            heads=heads,
            train_labels=train_labels,
            device=device,
            should_stop=should_stop,
        )
    return Baselines(
        metric=metric,
        most_frequent=score(most_frequent(heads, train_labels, len(splits.valid.samples))),
        linear_probe=None if many else score(probe.outputs),
        probe_on="features" if probes_features(config) else "pixels",
        notes=probe.notes,
        kind=_kind(metric, heads),
    )


def _kind(metric: str, heads: Mapping[str, Head]) -> str:
    """What `Baselines.kind` says of a metric and the targets that it is computed from."""
    if is_combined(metric):
        return "mean"
    return next(iter(heads.values())).type if len(heads) == 1 else "class"


def _probe(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: Mapping[str, Head],
    train_labels: Mapping[str, Tensor],
    device: torch.device,
    should_stop: Callable[[], bool],
) -> Probe:
    """The linear probe on the features or the pixels of all images that it needs."""
    train_images = split_images(splits.train, config, model.metadata)
    valid_images = split_images(splits.valid, config, model.metadata)
    probed_rows = None
    if probes_features(config):
        # Features are expensive, so only rows that the probe will be fitted on get any.
        probed_rows = probe_rows(heads, train_labels, model.feature_count)
        train_images = train_images.take(probed_rows.tolist())
        model.to(device)
        train_inputs = model_features(model, train_images, config, device, should_stop).numpy()
        valid_inputs = model_features(model, valid_images, config, device, should_stop).numpy()
    else:
        train_inputs, valid_inputs = pixel_features(
            train=_pixel_batches(train_images, config, device, should_stop),
            valid=_pixel_batches(valid_images, config, device, should_stop),
        )
    return linear_probe(
        heads,
        train_features_ND=train_inputs,
        train_targets=train_labels,
        valid_features_MD=valid_inputs,
        standardize=probes_features(config),
        rows=probed_rows,
    )


def probes_features(config: Config) -> bool:
    """Whether the probe sees features of the backbone: if they mean something before training, and are not what the
    run's own first answer is fitted to."""
    return config.model.weights != "none" and config.plan == "finetune"


def _pixel_batches(
    dataset: ImageDataset, config: Config, device: torch.device, should_stop: Callable[[], bool]
) -> Iterator[npt.NDArray[np.uint8]]:
    """images_BHWC of all images, in order. Raises Interrupted if asked to stop."""
    loader = loader_of(dataset, {}, config, device)
    with contextlib.closing(loader):
        for batch in loader.batches(batches_of(np.arange(len(dataset)), loader.batch_size)):
            yield batch.images.permute(0, 2, 3, 1).numpy()
            if should_stop():
                raise Interrupted("stopped while the baselines were scored")


def most_frequent(heads: Mapping[str, Head], targets: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Raw outputs (rows, outputs), float64, by target: the same for every row, from the labels of the training rows.

    class: the log-frequencies, so that the most frequent class is predicted. ordinal: the distribution of the levels,
    so that its median is predicted. multilabel: the log-odds of each label's frequency. regression: 0, which decodes
    to the training mean. ranking: 0 for all. Rows and cells without a label are left out.
    """
    outputs = {}
    for name, head in heads.items():
        labels = targets[name].cpu().numpy()
        output_O = torch.from_numpy(_MOST_FREQUENT[head.type](head, labels))
        outputs[name] = output_O.expand(rows, -1)
    return outputs


def _frequent_class(head: Head, labels_N: Numbers) -> Floats:
    return raw_class(head, _log_frequencies(head, labels_N))


def _frequent_level(head: Head, labels_N: Numbers) -> Floats:
    return raw_ordinal(_log_frequencies(head, labels_N))


def _frequent_labels(head: Head, cells_NL: Floats) -> Floats:
    labeled_L = (~np.isnan(cells_NL)).sum(axis=0)
    positives_L = np.nansum(cells_NL, axis=0)
    # A label without any cell gets even odds.
    share_L = np.divide(positives_L, labeled_L, out=np.full(len(labeled_L), 0.5), where=labeled_L > 0)
    return log_of(share_L) - log_of(1 - share_L)


def _zeros(head: Head, targets_N: npt.NDArray[Any]) -> Floats:
    return np.zeros(head.outputs)


_MOST_FREQUENT: dict[str, Callable[[Head, npt.NDArray[Any]], Floats]] = {
    "class": _frequent_class,
    "ordinal": _frequent_level,
    "multilabel": _frequent_labels,
    "regression": _zeros,
    "ranking": _zeros,
}


def _log_frequencies(head: Head, labels_N: Numbers) -> Floats:
    counts_K = np.bincount(labels_N[labels_N >= 0], minlength=head.classes)
    return log_of(counts_K / max(1, counts_K.sum()))
