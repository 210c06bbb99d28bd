"""The data of a run once it is split: rows, labels and images of both sides, and what is counted of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.compose.labels import Labels
from classwise.data.cache import CachedImages, ImageCache
from classwise.data.sources import Samples
from classwise.data.targets import RankingTarget, RegressionTarget, Target
from classwise.errors import ImageError
from classwise.files import json_text, sha256
from classwise.metrics.collection import joint_labels
from classwise.metrics.joint import joint_number

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One side of the split: its rows, their answers by target as a batch holds them (targets.py), a hash over the
    bytes of their images, and where these are kept decoded, if they are."""

    samples: Samples
    labels: Labels
    contents: str = ""
    cached: CachedImages | None = None


@dataclass(frozen=True)
class DatasetSplits:
    """The data of a run, read, checked and split. `bad` are the images that were left out; `cache` keeps the
    decoded ones, and is held open until `close`."""

    targets: tuple[Target, ...]
    joint: tuple[str, ...]
    train: Split
    valid: Split
    bad: tuple[ImageError, ...]
    warnings: tuple[str, ...]
    cache: ImageCache | None = None

    def close(self) -> None:
        """Let other runs delete the decoded images."""
        if self.cache is not None:
            self.cache.close()

    @property
    def both(self) -> tuple[Split, Split]:
        """Training and validation."""
        return self.train, self.valid

    @property
    def label_lists(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target that has one."""
        return {target.name: target.labels for target in self.targets if target.labels}

    def target(self, name: str) -> Target:
        """The target of that name."""
        return next(target for target in self.targets if target.name == name)

    def class_numbers(self, split: Split) -> dict[str, Numbers]:
        """Class numbers (N,) of the targets that can be read as a class, -1 where unknown."""
        return {t.name: t.class_numbers(split.labels[t.name]) for t in self.targets if t.is_class_like}

    def classes(self, split: Split) -> Numbers | None:
        """What sampling balances: the joint class, or all class targets' labels together, -1 where one of them is
        unknown; None where no target can be read as a class."""
        numbers = self.class_numbers(split)
        names = self.joint or tuple(numbers)
        if not names:
            return None
        return joint_number([numbers[name] for name in names], [len(self.label_lists[n]) for n in names])

    def queries(self, split: Split) -> Numbers | None:
        """What batches keep whole: the query numbers of the ranking target, where there is one."""
        for target in self.targets:
            if isinstance(target, RankingTarget):
                queries: Numbers = split.labels[target.name][:, 1]
                return queries
        return None


def label_counts(splits: DatasetSplits, split: Split) -> dict[str, list[int]]:
    """Rows of each label, by target (those with labels) and, where there is one, for `joint`."""
    counts = {}
    for target in splits.targets:
        labels = split.labels[target.name]
        if target.is_class_like:
            counts[target.name] = _count(target.class_numbers(labels), len(target.labels))
        elif target.labels:  # multilabel
            counts[target.name] = [int(n) for n in (labels == 1).sum(axis=0)]
    if splits.joint:
        numbers = splits.classes(split)
        assert numbers is not None
        size = len(joint_labels(splits.label_lists, splits.joint))
        counts["joint"] = _count(numbers, size)
    return counts


def masked_counts(splits: DatasetSplits, split: Split) -> dict[str, int]:
    """Rows without an answer, by target."""
    return {t.name: int((~t.known(split.labels[t.name])).sum()) for t in splits.targets}


def value_summary(splits: DatasetSplits, split: Split) -> dict[str, dict[str, float]]:
    """Least, mean and largest value of every regression target, and how many rows have one."""
    metadata = {}
    for target in splits.targets:
        if isinstance(target, RegressionTarget):
            values = split.labels[target.name]
            known = values[np.isfinite(values)]
            metadata[target.name] = {"known": len(known)} | (
                {"min": float(known.min()), "mean": float(known.mean()), "max": float(known.max())}
                if len(known)
                else {}
            )
    return metadata


def _count(numbers_N: Numbers, size: int) -> list[int]:
    counts: list[int] = np.bincount(numbers_N[numbers_N >= 0], minlength=size).tolist()
    return counts


def data_digest(splits: DatasetSplits) -> str:
    """A hash over what a run learns from: both sides' ids, image names, images and answers, in order."""
    pair = [
        [
            list(split.samples.ids),
            list(split.samples.names),
            split.contents,
            {name: sha256(values.tobytes()) for name, values in split.labels.items()},
        ]
        for split in (splits.train, splits.valid)
    ]
    return sha256(json_text(pair).encode())
