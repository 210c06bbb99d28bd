"""A sheet of training images as the model sees them: augmented, at the model's size and, where the run does so, mixed.

It is made once, when a run begins, from the same data sets, augmentation and mixing as the run's batches, and kept as
augmented.json, so that the report can be written again without the images. The images are those of the first epoch that
trains on images, as a function of (seed, epoch, row): the same run has the same sheet."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.loaders import augmentation, own_augmentation
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.data.augment import Augment
from classwise.data.batch import Batch
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData
from classwise.data.mixing import Mixing
from classwise.data.pixel_format import shown_channels
from classwise.data.targets import MultilabelTarget, Target
from classwise.errors import ImageError
from classwise.report.names import short_number
from classwise.report.thumbnails import encode

IMAGES = 24
"""Augmented images: the classes in turn, the rarest first."""
MIXED = 8
"""Mixed images of each kind of mixing, made of the first of these."""
LONGEST_SIDE = 256
"""Pixels; larger images are stored smaller."""
LEAST_SHARE = 0.005
"""Of a class in a mixed label; a smaller one would read as 0%."""


def augmented_images(config: Config, splits: DatasetSplits, data: TrainingData) -> dict[str, Any] | None:
    """The content of augmented.json: `epoch`, `size` (height, width) and `sheets`, each a `kind` (`augmented`, `mixup`
    or `cutmix`) and its `images` with `id`, `labels` by target and the image itself, `uri`, a data URI. None where the
    run never trains on changed images: a linear probe, a frozen backbone, or neither augmentation nor mixing.

    Raises ImageError."""
    training = config.training
    if config.plan == "probe" or training.freeze_epochs >= training.epochs:
        return None
    is_augmented = augmentation(config) != Augment() or own_augmentation(config) is not None
    mixing = data.mixing if isinstance(data.mixing, Mixing) and data.mixing.is_on else None
    if not is_augmented and mixing is None:
        return None

    rows = sheet_rows(splits, IMAGES)
    batch = _batch(data.loader.dataset, splits, rows, epoch=training.freeze_epochs)
    ids = [splits.train.samples.ids[row] for row in rows]
    sheets = [_sheet("augmented", batch, ids, splits.targets)] if is_augmented else []
    if mixing is not None and len(rows) > 1:
        kinds = [kind for kind in ("mixup", "cutmix") if getattr(mixing, kind)]
        sheets += [_sheet(kind, _mixed(mixing, kind, batch), ids, splits.targets) for kind in kinds]
    return {"epoch": training.freeze_epochs + 1, "size": list(data.loader.dataset.size), "sheets": sheets}


def sheet_rows(splits: DatasetSplits, most: int) -> list[int]:
    """At most `most` training rows: of each class in turn, the rarest first, evenly spaced over its rows. Rows that
    lack a label are left out; without classes all rows are of one."""
    classes_N = splits.classes(splits.train)
    if classes_N is None or (classes_N < 0).all():
        classes_N = np.zeros(len(splits.train.samples), dtype=np.int64)
    numbers, counts = np.unique(classes_N[classes_N >= 0], return_counts=True)
    order = np.argsort(counts, kind="stable")
    size_of_class = dict(zip(numbers[order].tolist(), counts[order].tolist(), strict=True))

    # As many of each class as there are turns, until its rows or the room are used up.
    turns = [
        (turn, number)
        for turn in range(min(most, max(size_of_class.values())))
        for number, size in size_of_class.items()
        if turn < size
    ][:most]
    taken = Counter(number for _, number in turns)
    rows_of_class = {number: _spaced(np.flatnonzero(classes_N == number), n) for number, n in taken.items()}
    return [rows_of_class[number][turn] for turn, number in turns]


def _spaced(rows_N: npt.NDArray[np.int64], most: int) -> list[int]:
    if len(rows_N) > most:
        rows_N = rows_N[np.linspace(0, len(rows_N) - 1, most).round().astype(int)]
    return list(map(int, rows_N))


def _batch(dataset: ImageDataset, splits: DatasetSplits, rows: Sequence[int], epoch: int) -> Batch:
    """The rows as a batch of that epoch, with all of the augmentation done here: the bytes are those of any device."""
    on_host = dataclasses.replace(dataset, augments_on_host=True)
    images = []
    for row in rows:
        item = on_host[epoch, row]
        if isinstance(item, ImageError):
            raise item
        images.append(item[0])
    images_BCHW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    targets = {name: torch.from_numpy(labels[rows]) for name, labels in splits.train.labels.items()}
    return Batch(images_BCHW, targets, np.asarray(rows, dtype=np.int64))


def _mixed(mixing: Mixing, kind: str, batch: Batch) -> Batch:
    """The first images mixed among themselves as one update would be, whatever share of the updates is mixed."""
    off = {"mixup": 0.0, "cutmix": 0.0, kind: getattr(mixing, kind)}
    alone = dataclasses.replace(mixing, **off, share=1.0, weighting=None)
    first = Batch(
        batch.images[:MIXED],
        {name: labels[:MIXED] for name, labels in batch.targets.items()},
        batch.rows[:MIXED],
    )
    return alone([first], 0)[0]


def _sheet(kind: str, batch: Batch, ids: Sequence[str], targets: Sequence[Target]) -> dict[str, Any]:
    images_BHWC = batch.images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    images = []
    for place, image_HWC in enumerate(images_BHWC):
        thumbnail = encode(shown_channels(image_HWC), longest_side=LONGEST_SIDE)
        labels = {name: labels_B[place] for name, labels_B in batch.targets.items()}
        images.append({"id": ids[place], "labels": _label_texts(targets, labels), "uri": thumbnail.uri})
    return {"kind": kind, "images": images}


def _label_texts(targets: Sequence[Target], labels: Mapping[str, Tensor]) -> dict[str, str]:
    """The label of one row by target, in words; empty where it is not known."""
    return {target.name: _label_text(target, labels[target.name]) for target in targets}


def _label_text(target: Target, label: Tensor) -> str:
    """`red`, or of a mixed row `red 70% + green 30%`; several labels with commas; a number as it is."""
    values = label.double().reshape(-1).tolist()
    if isinstance(target, MultilabelTarget):
        found = zip(target.labels, values, strict=True)
        # A mixed label is there in part.
        return ", ".join(name if v == 1 else f"{name} {v:.0%}" for name, v in found if v >= LEAST_SHARE)
    if target.type in ("class", "ordinal"):
        if label.ndim == 0:
            return target.labels[int(label)] if int(label) >= 0 else ""
        shares = sorted(zip(values, target.labels, strict=True), key=lambda share: -share[0])
        parts = [(name, share) for share, name in shares if share >= LEAST_SHARE]
        return " + ".join(name if share > 1 - LEAST_SHARE else f"{name} {share:.0%}" for name, share in parts)
    if target.type == "ranking":
        return "" if values[0] < 0 else short_number(values[0])
    return "" if values[0] != values[0] else short_number(values[0])  # NaN is not equal to itself
