"""The data of a run once it is split: rows, labels and images of each split, and what is counted of them."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.compose.labels import Labels
from classwise.data.cache import CachedImages, ImageCache
from classwise.data.sampling import expected_draws
from classwise.data.sources import Samples
from classwise.data.targets import RankingTarget, RegressionTarget, Target
from classwise.data.texts import Texts, json_items
from classwise.errors import ImageError
from classwise.files import json_text, sha256
from classwise.metrics.joint import joint_number

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The training, validation or test rows: their labels by target (encoded as data/targets.py says), a hash over
    the bytes of their images, the decoded images, if they are cached, and the weights (N,) of the training rows in the
    loss, with a mean of 1, where the config gives some."""

    samples: Samples
    labels: Labels
    images_digest: str = ""
    cached: CachedImages | None = None
    weights: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class DatasetSplits:
    """The data of a run, read, checked and split. `bad` are the images that were left out; `cache` holds the decoded
    images, and is locked until `close`. `test` is None unless the config wants test rows."""

    targets: tuple[Target, ...]
    joint: tuple[str, ...]
    train: Split
    valid: Split
    bad: tuple[ImageError, ...]
    warnings: tuple[str, ...]
    cache: ImageCache | None = None
    test: Split | None = None

    def close(self) -> None:
        """Unlock the image cache, so that other runs may delete from it."""
        if self.cache is not None:
            self.cache.close()

    @property
    def by_name(self) -> dict[str, Split]:
        """The splits that there are, by their names in split.csv: `train`, `valid` and `test`."""
        splits = {"train": self.train, "valid": self.valid}
        return splits if self.test is None else {**splits, "test": self.test}

    @property
    def label_lists(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target that has one."""
        return {target.name: target.labels for target in self.targets if target.labels}

    def target(self, name: str) -> Target:
        """The target of that name."""
        return next(target for target in self.targets if target.name == name)

    def class_numbers(self, split: Split) -> dict[str, Numbers]:
        """Class numbers (N,) of the targets that can be read as a class, -1 for rows without a label."""
        return {
            target.name: target.class_numbers(split.labels[target.name])
            for target in self.targets
            if target.is_class_like
        }

    def classes(self, split: Split) -> Numbers | None:
        """The classes (N,) that sampling balances: the combinations of labels that occur, of the joint targets or,
        without a joint, of all class targets. They are numbered from 0 in sorted order; -1 for rows that lack one of
        the labels. None if no target can be read as a class."""
        class_numbers = self.class_numbers(split)
        names = self.joint or tuple(class_numbers)
        return combination_numbers([class_numbers[name] for name in names]) if names else None

    def joint_classes(self, split: Split) -> Numbers:
        """The joint class (N,) of each row, numbered over all combinations of labels (see metrics/joint.py); -1 for
        rows that lack one of the labels. Only where there is a joint."""
        class_numbers = self.class_numbers(split)
        sizes = [len(self.label_lists[name]) for name in self.joint]
        return joint_number([class_numbers[name] for name in self.joint], sizes)

    def queries(self, split: Split) -> Numbers | None:
        """The query number (N,) of each row, which batches keep whole; None without a ranking target."""
        for target in self.targets:
            if isinstance(target, RankingTarget):
                queries: Numbers = split.labels[target.name][:, 1]
                return queries
        return None


TEXTS = "\0"
"""In place of many texts; a target has no such name."""


def taken(split: Split, rows: Numbers) -> Split:
    """Some rows of a split."""
    return Split(
        samples=split.samples.take(rows),
        labels={name: values[rows] for name, values in split.labels.items()},
        images_digest=split.images_digest,  # that of all images tells apart those of some rows, too
        cached=None if split.cached is None else split.cached.take(rows),
        weights=None if split.weights is None else split.weights[rows],
    )


def joined(first: Split, second: Split) -> Split:
    """The rows of two splits of one source, of which the first comes first; without weights."""
    samples = first.samples.with_rows(second.samples)
    return Split(
        samples=samples,
        labels={name: np.concatenate([values, second.labels[name]]) for name, values in first.labels.items()},
        images_digest=sha256((first.images_digest + second.images_digest).encode()),
        cached=first.cached.with_images(second.cached) if first.cached and second.cached else None,
    )


def combination_numbers(classes: Sequence[Numbers]) -> Numbers:
    """Which combination of the targets' `classes` (N,) each row has (N,): numbered from 0 in sorted order, -1 where one
    is -1.

    Only combinations that occur get a number: of 40 targets with two classes each there could be 2 ** 40.
    """
    is_labeled_N = np.logical_and.reduce([class_N >= 0 for class_N in classes])
    code_N = np.zeros(int(is_labeled_N.sum()), np.int64)
    for class_N in classes:
        labeled = class_N[is_labeled_N]
        # Numbers without gaps after each target, so that their products stay small.
        code_N = _without_gaps(code_N * (int(labeled.max(initial=0)) + 1) + labeled)
    number_N = np.full(len(is_labeled_N), -1, dtype=np.int64)
    number_N[is_labeled_N] = code_N
    return number_N


def _without_gaps(number_N: Numbers) -> Numbers:
    """The same numbers, from 0, counted from 0 by their order."""
    most = int(number_N.max(initial=0)) + 1
    if most > 4 * len(number_N) + 1024:
        rank_N: Numbers = np.unique(number_N, return_inverse=True)[1].reshape(-1)
        return rank_N
    occurs = np.zeros(most, np.int64)
    occurs[number_N] = 1
    ranks: Numbers = (np.cumsum(occurs) - 1)[number_N]
    return ranks


def label_counts(splits: DatasetSplits, split: Split) -> dict[str, list[int]]:
    """Rows with each label, by target; for targets with a label list and, if there is one, for `joint`."""
    counts = {}
    for target in splits.targets:
        labels = split.labels[target.name]
        if target.is_class_like:
            counts[target.name] = _count(target.class_numbers(labels), len(target.labels))
        elif target.labels:  # multilabel: a row may count several times
            counts[target.name] = [int(count) for count in (labels == 1).sum(axis=0)]
    if splits.joint:
        size = math.prod(len(splits.label_lists[name]) for name in splits.joint)
        counts["joint"] = _count(splits.joint_classes(split), size)
    return counts


def weighted_counts(splits: DatasetSplits, name: str) -> list[float]:
    """What the loss sees of each label of a target in training: the rows, or the sum of their weights."""
    weights_N = splits.train.weights
    if weights_N is None:
        return list(label_counts(splits, splits.train).get(name, []))
    target, labels = splits.target(name), splits.train.labels[name]
    if target.is_class_like:
        class_N = target.class_numbers(labels)
        known_N = class_N >= 0
        counts: list[float] = np.bincount(
            class_N[known_N], weights=weights_N[known_N], minlength=len(target.labels)
        ).tolist()
        return counts
    return (weights_N @ (labels == 1)).tolist() if target.labels else []


def drawn_counts(splits: DatasetSplits, sampling: str, name: str) -> list[float]:
    """Training rows of each class of a target that an epoch draws on average, with their weights: `weighted_counts`,
    unless `data.sampling` prefers some classes."""
    class_N = splits.class_numbers(splits.train)[name]
    sampled_N = splits.classes(splits.train)
    assert sampled_N is not None
    is_labeled_N = class_N >= 0
    draws_N = expected_draws(sampling, sampled_N)
    if splits.train.weights is not None:
        draws_N = draws_N * splits.train.weights
    draws_N = draws_N[is_labeled_N]
    size = len(splits.label_lists[name])
    counts: list[float] = np.bincount(class_N[is_labeled_N], weights=draws_N, minlength=size).tolist()
    return counts


def masked_counts(splits: DatasetSplits, split: Split) -> dict[str, int]:
    """Rows without a label, by target."""
    return {
        target.name: int((~target.is_labeled(split.labels[target.name])).sum()) for target in splits.targets
    }


def value_summary(splits: DatasetSplits, split: Split) -> dict[str, dict[str, float]]:
    """For every regression target: how many rows have a value (`known`), and `min`, `mean` and `max` of these."""
    summaries: dict[str, dict[str, float]] = {}
    for target in splits.targets:
        if isinstance(target, RegressionTarget):
            values = split.labels[target.name]
            values = values[np.isfinite(values)]
            summary: dict[str, float] = {"known": len(values)}
            if len(values):
                summary["min"] = float(values.min())
                summary["mean"] = float(values.mean())
                summary["max"] = float(values.max())
            summaries[target.name] = summary
    return summaries


def data_digest(splits: DatasetSplits) -> str:
    """A hash over what a run learns from and is scored on: ids, image names, image bytes and labels of each split, in
    order."""
    listed: list[Sequence[str]] = []

    def place_of(texts: Sequence[str]) -> list[str]:
        listed.append(texts)
        return [TEXTS] if len(texts) else []

    contents = [
        [
            place_of(split.samples.ids),
            place_of(split.samples.names),
            split.images_digest,
            {name: sha256(labels.tobytes()) for name, labels in split.labels.items()},
            *([] if split.weights is None else [sha256(split.weights.tobytes())]),
        ]
        for split in splits.by_name.values()
    ]
    # What json_text of the texts themselves gives: a million of them, one by one, take seconds.
    before, *after = json_text(contents).encode().split(json.dumps(TEXTS).encode())
    digest = hashlib.sha256(before)
    for texts, more in zip([texts for texts in listed if len(texts)], after, strict=True):
        for part in json_items(Texts.of(texts), between=b",\n   "):
            digest.update(part)
        digest.update(more)
    return digest.hexdigest()


def _count(numbers_N: Numbers, size: int) -> list[int]:
    """Rows of each class number; -1 is not counted."""
    counts: list[int] = np.bincount(numbers_N[numbers_N >= 0], minlength=size).tolist()
    return counts
