"""From the config to the loaders: images as training and as evaluation see them, batches, features."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.settings import build_settings, worker_count
from classwise.compose.splits import DatasetSplits, Split
from classwise.compose.weighted_labels import row_weighting
from classwise.config.schema import Config
from classwise.data.augment import PRESETS, Augment
from classwise.data.cache import CachedImages
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.loader import FeatureLoader, Loader
from classwise.data.memory_images import MemoryImages
from classwise.data.mixing import Mixing
from classwise.data.own_augment import OwnAugment
from classwise.data.row_paths import RowPaths
from classwise.data.sources import Samples
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.infer.features import features_of
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.own_parts.reference import is_own
from classwise.training.loop import never


def build_data(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    processes: Processes = SINGLE_PROCESS,
    micro_batches_per_update: int | None = None,
) -> tuple[TrainingData, ValidationData]:
    """The training and the validation rows as batches. `micro_batches_per_update`: of all processes together
    (default: `training.accumulate` for each process)."""
    training = config.training
    on_gpu = device.type == "cuda"

    # A GPU has time to spare for the part of the augmentation that needs an image's own pixels alone.
    train_images = training_images(config, splits, model.metadata)
    on_host = not on_gpu or train_images.own_augment is not None
    train_images = dataclasses.replace(train_images, augments_on_host=on_host)
    valid_images = split_images(splits.valid, config, model.metadata)

    # While the backbone is frozen, training sees features of images that are not augmented.
    plain_images = split_images(splits.train, config, model.metadata)
    train_features = _frozen_features(config, model, device, plain_images, splits.train)
    valid_features = _frozen_features(config, model, device, valid_images, splits.valid)

    train = TrainingData(
        loader=loader_of(train_images, splits.train.labels, config, device, pin_memory=on_gpu),
        ids=splits.train.samples.ids,
        classes=splits.classes(splits.train),
        sampling=config.data.sampling,
        seed=config.seed,
        micro_batches_per_update=micro_batches_per_update or training.accumulate * processes.world_size,
        queries=splits.queries(splits.train),
        rank=processes.rank,
        world_size=processes.world_size,
        features=train_features,
        frozen_epochs=training.freeze_epochs,
        mixing=_mixing(config, splits, processes.rank),
    )
    valid = ValidationData(
        loader=loader_of(valid_images, splits.valid.labels, config, device, pin_memory=on_gpu),
        queries=splits.queries(splits.valid),
        features=valid_features,
        frozen_epochs=training.freeze_epochs,
        rank=processes.rank,
        world_size=processes.world_size,
    )
    return train, valid


def loader_of(
    dataset: ImageDataset,
    labels: Mapping[str, npt.NDArray[Any]],
    config: Config,
    device: torch.device,
    pin_memory: bool = False,
) -> Loader:
    """Batches of the images with their labels by target, with the batch size and the workers of the config."""
    data = config.data
    return Loader(
        dataset,
        labels,
        batch_size=config.training.batch_size,
        workers=worker_count(data.workers, device),
        pin_memory=pin_memory,
        start=data.start_method,
        timeout=data.worker_timeout,
    )


def training_images(config: Config, splits: DatasetSplits, metadata: ModelMetadata) -> ImageDataset:
    """The training images, augmented."""
    images = split_images(splits.train, config, metadata)
    return dataclasses.replace(
        images, seed=config.seed, augment=augmentation(config), own_augment=own_augmentation(config)
    )


def split_images(split: Split, config: Config, metadata: ModelMetadata) -> ImageDataset:
    """The images of a split, not augmented, from the cache where it has them."""
    return evaluation_images(split.samples, metadata, config.data.max_pixels, cached=split.cached)


def evaluation_images(
    samples: Samples,
    metadata: ModelMetadata,
    max_pixels: int,
    cached: CachedImages | MemoryImages | None = None,
) -> ImageDataset:
    """Images as validation and prediction see them: brought to the model's size, not augmented."""
    return ImageDataset(
        paths=RowPaths(samples.root, samples.names),
        size=metadata.image_size,
        fit=metadata.fit,
        max_pixels=max_pixels,
        root=samples.allowed_folders,
        cached=cached,
        pixels=metadata.pixels,
    )


def augmentation(config: Config) -> Augment:
    """The preset; keys that the config gives replace those of the preset, which are all off beside an augmentation of
    the user's own. Only RGB has a saturation to change."""
    overrides = config.data.augment.model_dump(exclude={"preset"}, exclude_none=True)
    if config.model.channels != 3:
        overrides["saturation"] = 0.0
    preset = config.data.augment.preset
    return dataclasses.replace(PRESETS["none" if is_own(preset) else preset], **overrides)


def own_augmentation(config: Config) -> OwnAugment | None:
    """The augmentation of the user's own, if the config names one."""
    preset = config.data.augment.preset
    return OwnAugment.of(preset) if is_own(preset) else None


def model_features(
    model: Classifier,
    dataset: ImageDataset,
    config: Config,
    device: torch.device,
    should_stop: Callable[[], bool] = never,
) -> Tensor:
    """The backbone's features_ND of all images, in order, computed in the run's precision. Raises Interrupted if asked
    to stop."""
    loader = loader_of(dataset, {}, config, device)
    with contextlib.closing(loader):
        return features_of(model, loader, device, build_settings(config, device).autocast(), should_stop)


def _frozen_features(
    config: Config, model: Classifier, device: torch.device, dataset: ImageDataset, split: Split
) -> FeatureLoader | None:
    """Features for the epochs in which the backbone is frozen, computed when they are first needed."""
    if not config.training.freeze_epochs:
        return None
    return FeatureLoader(
        compute=lambda: model_features(model, dataset, config, device),
        targets=split.labels,
        pin_memory=device.type == "cuda",
    )


def _mixing(config: Config, splits: DatasetSplits, rank: int) -> Mixing:
    """Mixup and CutMix as the config says, which may be neither."""
    class_counts = {
        target.name: len(target.labels) for target in splits.targets if target.type in ("class", "ordinal")
    }
    return Mixing(
        mixup=config.data.mixup,
        cutmix=config.data.cutmix,
        share=config.data.mix_share,
        seed=config.seed,
        classes=class_counts,
        rank=rank,
        weighting=row_weighting(splits),
    )
