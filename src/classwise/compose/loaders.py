"""From the config to the loaders: images as training and as evaluation see them, batches, frozen features."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.settings import build_settings, worker_count
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.schema import Config
from classwise.data.augment import PRESETS, Augment
from classwise.data.cache import CachedImages
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.loader import FeatureLoader, Loader
from classwise.data.mixing import Mixing
from classwise.data.sources import Samples
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.infer.features import features_of
from classwise.model.classifier import Classifier, ModelMetadata


def build_data(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    processes: Processes = SINGLE_PROCESS,
    window: int | None = None,
) -> tuple[TrainingData, ValidationData]:
    """The loaders of both sides. `window`: the micro-batches of an update over all processes (default: as many as
    the config says for each). Raises ConfigError."""
    data, t = config.data, config.training
    pin = device.type == "cuda"
    # A GPU has time to spare for what an image's own pixels are enough for.
    dataset = dataclasses.replace(training_images(config, splits, model.metadata), augments_on_host=not pin)
    loader = loader_of(dataset, splits.train.labels, config, device, pin)
    seen = evaluation_images(splits.valid.samples, model.metadata, data.max_pixels, splits.valid.cached)
    valid = loader_of(seen, splits.valid.labels, config, device, pin)
    plain = evaluation_images(splits.train.samples, model.metadata, data.max_pixels, splits.train.cached)
    frozen = [
        _frozen(config, model, device, p, split) for p, split in ((plain, splits.train), (seen, splits.valid))
    ]
    train = TrainingData(
        loader,
        splits.train.samples.ids,
        splits.classes(splits.train),
        data.sampling,
        config.seed,
        window or t.accumulate * processes.world_size,
        queries=splits.queries(splits.train),
        rank=processes.rank,
        world_size=processes.world_size,
        features=frozen[0],
        frozen_epochs=t.freeze_epochs,
        mixing=_mixing(config, splits, processes.rank),
    )
    return train, ValidationData(
        valid,
        splits.queries(splits.valid),
        frozen[1],
        t.freeze_epochs,
        processes.rank,
        processes.world_size,
    )


def loader_of(
    dataset: ImageDataset,
    labels: Mapping[str, npt.NDArray[Any]],
    config: Config,
    device: torch.device,
    pin_memory: bool = False,
) -> Loader:
    """Batches as the config says."""
    d = config.data
    workers = worker_count(d.workers, device)
    size = config.training.batch_size
    return Loader(dataset, labels, size, workers, pin_memory, d.start_method, d.worker_timeout)


def evaluation_images(
    samples: Samples, metadata: ModelMetadata, max_pixels: int, cached: CachedImages | None = None
) -> ImageDataset:
    """Images as evaluation sees them."""
    return ImageDataset(
        samples.paths, metadata.image_size, metadata.fit, max_pixels, root=samples.root, cached=cached
    )


def training_images(config: Config, splits: DatasetSplits, metadata: ModelMetadata) -> ImageDataset:
    plain = evaluation_images(splits.train.samples, metadata, config.data.max_pixels, splits.train.cached)
    return dataclasses.replace(plain, seed=config.seed, augment=augmentation(config))


def augmentation(config: Config) -> Augment:
    """The preset with its parts replaced by those that the config gives."""
    given = config.data.augment.model_dump(exclude={"preset"}, exclude_none=True)
    return dataclasses.replace(PRESETS[config.data.augment.preset], **given)


def _mixing(config: Config, splits: DatasetSplits, rank: int) -> Mixing:
    classes = {t.name: len(t.labels) for t in splits.targets if t.type in ("class", "ordinal")}
    d = config.data
    return Mixing(d.mixup, d.cutmix, d.mix_share, config.seed, classes, rank)


def _frozen(
    config: Config, model: Classifier, device: torch.device, dataset: ImageDataset, split: Split
) -> FeatureLoader | None:
    """Features of one side for the epochs in which the backbone is frozen, made when they are first needed."""
    if not config.training.freeze_epochs:
        return None
    pin = device.type == "cuda"
    return FeatureLoader(lambda: model_features(model, dataset, config, device), split.labels, pin)


def model_features(model: Classifier, dataset: ImageDataset, config: Config, device: torch.device) -> Tensor:
    """features_ND of images, as evaluation sees them, in the run's precision."""
    loader = loader_of(dataset, {}, config, device)
    with contextlib.closing(loader):
        return features_of(model, loader, device, build_settings(config, device).autocast())
