"""The features of a frozen backbone for the images of a split, computed once for each model and set of images.

They are kept beside the decoded images, under a hash of all that they depend on: the backbone's weights, the images'
bytes and their order, the size and how images are brought to it, the engine, the versions and the threads. A second run
on the same data has them at once.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.compose.loaders import loader_of, split_images
from classwise.compose.remembered import backbone_digest, code_key, machine_of, package_versions
from classwise.compose.splits import DatasetSplits, Split, joined, taken
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.feature_cache import feature_cache_of
from classwise.data.sampling import batches_of
from classwise.errors import Interrupted
from classwise.files import json_text, sha256
from classwise.infer.feature_engine import feature_engine
from classwise.model.classifier import Classifier

VERSION = 2
"""Raised whenever the same key would lead to other features within one version of classwise, as while developing."""
PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "simplejpeg", "pillow", "onnxruntime")


@dataclass(frozen=True)
class Computing:
    """What features are computed with. `autocast` makes a block in the run's precision; `is_float32` says whether that
    is float32."""

    model: Classifier
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    is_float32: bool
    console: Console
    should_stop: Callable[[], bool]


def training_features(
    fitted: Split, splits: DatasetSplits, config: Config, computing: Computing, mirror: bool
) -> tuple[list[Tensor], Tensor]:
    """features_NF of the training rows that are `fitted`, as from `split_features`, and valid_NF of the validation
    rows. Raises ImageError, Interrupted."""
    if config.fold is not None:
        return _features_of_folds(fitted, splits, config, computing, mirror)
    views = split_features(fitted, config, computing, mirror, "training")
    valid_NF = views[0][:0]
    if len(splits.valid.samples):
        (valid_NF,) = split_features(splits.valid, config, computing, False, "validation")
    return views, valid_NF


def _features_of_folds(
    fitted: Split, splits: DatasetSplits, config: Config, computing: Computing, mirror: bool
) -> tuple[list[Tensor], Tensor]:
    """`training_features` of one fold: those of the rows of all folds are computed together, in an order that is the
    same for each fold, so that one of them does it for all, and all have the same bits."""
    everything = joined(splits.train, splits.valid)
    ids = everything.samples.ids
    order = sorted(range(len(ids)), key=ids.__getitem__)
    at = {ids[row]: place for place, row in enumerate(order)}
    ordered = taken(everything, np.array(order, dtype=np.int64))
    contents = ordered.samples.contents or ()
    ordered = dataclasses.replace(ordered, images_digest=sha256("".join(contents).encode()))
    views = split_features(ordered, config, computing, mirror, "all folds")
    train_rows = torch.tensor([at[id] for id in fitted.samples.ids])
    valid_rows = torch.tensor([at[id] for id in splits.valid.samples.ids])
    return [features_NF[train_rows] for features_NF in views], views[0][valid_rows]


def split_features(
    split: Split, config: Config, computing: Computing, mirror: bool, what: str
) -> list[Tensor]:
    """features_NF (float32, on the host) of the split's images, in order, and with `mirror` those of the mirrored
    images after them. `what`: the name of the split, for the progress bar. Raises ImageError, Interrupted."""
    cache = feature_cache_of(config.data.cache, config.data.cache_gigabytes)
    key = _key(split, config, computing, mirror)
    count = 2 if mirror else 1
    kept = cache.find(key)
    if kept is not None and kept.shape == (count, len(split.samples), computing.model.feature_count):
        return list(torch.from_numpy(kept).unbind())

    views = _computed(split, config, computing, mirror, what)
    cache.keep(key, torch.stack(views).numpy())
    return views


def _computed(split: Split, config: Config, computing: Computing, mirror: bool, what: str) -> list[Tensor]:
    """The features, from the images."""
    model, device = computing.model, computing.device
    was_training = model.training
    model.to(device)
    loader = loader_of(split_images(split, config, model.metadata), {}, config, device)
    images = len(split.samples) * (2 if mirror else 1)
    engine = feature_engine(model, device, computing.autocast, images=images, is_float32=computing.is_float32)
    order = batches_of(np.arange(len(loader.dataset)), loader.batch_size)
    plain, mirrored = [], []
    with contextlib.closing(loader):
        batches = loader.batches(order)
        for batch in computing.console.bar(batches, f"features for {what}", total=len(order)):
            plain.append(engine(batch.images))
            if mirror:
                mirrored.append(engine(batch.images.flip(3)))
            if computing.should_stop():
                raise Interrupted("stopped while the features for the first answer were computed")
    model.train(was_training)
    return [torch.cat(parts) for parts in (plain, mirrored) if parts]


def _key(split: Split, config: Config, computing: Computing, mirror: bool) -> str:
    """A hash of all that the features depend on."""
    training, model = config.training, computing.model
    not_backbone = ("heads", "cosine", "dropout")
    key = {
        "version": VERSION,
        "packages": package_versions(*PACKAGES),
        "machine": machine_of(computing.device),
        "backbone": backbone_digest(model.backbone),
        "model": {name: v for name, v in model.metadata.as_dict().items() if name not in not_backbone},
        "images": split.images_digest,
        "rows": [*split.samples.ids],
        "computed": [training.precision, training.memory_format, training.threads, training.batch_size],
        "mirror": mirror,
        "max_pixels": config.data.max_pixels,
        **code_key(config),
    }
    return sha256(json_text(key).encode())
