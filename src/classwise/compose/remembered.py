"""What a run need not find out again: which way to train is the fastest here, and the baselines of its data.

Each is remembered together with all that it depends on. With `data.cache = "off"` nothing is.
"""

import dataclasses
import importlib.metadata
import math
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from classwise.compose.baselines import Baselines, probes_features
from classwise.compose.loaders import augmentation
from classwise.compose.prior import class_shares
from classwise.compose.settings import build_settings, core_count, metric_targets
from classwise.compose.splits import DatasetSplits, data_digest
from classwise.config.own_parts import digests_in
from classwise.config.schema import Config
from classwise.data.memory import Memory
from classwise.files import sha256
from classwise.metrics.text import SIMPLEST
from classwise.model.classifier import Classifier
from classwise.model.heads import Head, head_as_dict
from classwise.training.loop import PRECISIONS
from classwise.training.tuning import FORMATS, TuningResult
from classwise.version import __version__

VERSION = 2
"""Raised whenever the same key would lead to something else, within one version of classwise."""

COMPUTING_PACKAGES = ("torch", "timm", "numpy")
READING_PACKAGES = ("opencv-python-headless", "simplejpeg", "pillow", "tifffile", "imagecodecs", "pi-heif")


def measuring_key(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    world_size: int,
    chunk: int | None,
) -> dict[str, Any]:
    """What the fastest way to train depends on: the model and what it is given, how an image is read, the optimizer,
    what the config leaves open, the `chunk` of images that is computed at once (None: the whole batch, if the config
    does not say), the machine, and the versions.

    Not the rows themselves: another table of the same folder has images of the same kind.
    """
    training = config.training
    return {
        "version": VERSION,
        "packages": package_versions(*COMPUTING_PACKAGES, *READING_PACKAGES),
        "machine": machine_of(device),
        "processes": world_size,
        "threads": torch.get_num_threads(),
        "model": model.metadata.as_dict(),
        "batch": [training.batch_size, chunk or training.micro_batch, training.batch_norm],
        "optimizer": config.optimizer.model_dump(mode="json", exclude={"lr"}),
        "learns_target_weights": training.target_weights,
        "given": [training.precision, training.threads, training.memory_format, training.compile],
        "reading": {
            "images": config.data.images,
            "cached": splits.train.cached is not None,
            "augment": dataclasses.asdict(augmentation(config)),
            "workers": config.data.workers,
            "queries": splits.queries(splits.train) is not None,
        },
        **code_key(config),
    }


def recall_results(memory: Memory, key: Mapping[str, Any]) -> list[TuningResult]:
    """The measured ways to train, the fastest first; empty where none are remembered."""
    found = memory.recall("measured", key)
    try:
        results = [TuningResult(**entry) for entry in found]
        return results if all(map(_is_way_to_train, results)) else []
    except TypeError:  # no list of mappings, other names, or values of other types
        return []


def keep_results(memory: Memory, key: Mapping[str, Any], results: list[TuningResult]) -> None:
    """Remember what was measured."""
    memory.keep("measured", key, [dataclasses.asdict(result) for result in results])


def baselines_key(
    config: Config, splits: DatasetSplits, model: Classifier, heads: Mapping[str, Head], device: torch.device
) -> dict[str, Any]:
    """What the baselines depend on: the rows, labels and images of each split, what is scored and how, how images are
    brought to the model's size and, with pretrained weights, all that decides their features."""
    metric = build_settings(config, device).metric
    key: dict[str, Any] = {
        "version": VERSION,
        "packages": package_versions(*COMPUTING_PACKAGES, *READING_PACKAGES, "scikit-learn"),
        "machine": machine_of(device),
        "data": data_digest(splits),
        "metric": metric,
        "joint": list(splits.joint),
        "heads": {name: head_as_dict(heads[name]) for name in metric_targets(metric, splits)},
        "shares": class_shares(config, splits.label_lists),
        "image": [
            model.metadata.image_size,
            model.metadata.fit,
            config.data.max_pixels,
            *model.metadata.pixels,
        ],
        "features": None,
        **code_key(config),
    }
    if probes_features(config):
        training = config.training
        key["features"] = {
            "model": model.metadata.as_dict(),
            "weights": backbone_digest(model.backbone),
            "computed": [training.precision, training.memory_format, training.threads, training.batch_size],
        }
    return key


def code_key(config: Config) -> dict[str, Any]:
    """What depends on the user's own code, if the config names any: its bytes, wherever the file is."""
    digests = digests_in(config)
    return {"code": digests} if digests else {}


def recall_baselines(memory: Memory, key: Mapping[str, Any]) -> Baselines | None:
    """The remembered baselines; None where there are none."""
    found = memory.recall("baselines", key)
    try:
        baselines = Baselines(**{**found, "notes": tuple(found["notes"])})
        is_valid = (
            baselines.metric == key["metric"]
            and _is_number(baselines.most_frequent)
            and (baselines.linear_probe is None or _is_number(baselines.linear_probe))
            and baselines.probe_on in ("features", "pixels")
            and baselines.kind in SIMPLEST
            and all(isinstance(note, str) for note in baselines.notes)
        )
    except (TypeError, KeyError):
        return None
    return baselines if is_valid else None


def keep_baselines(memory: Memory, key: Mapping[str, Any], baselines: Baselines) -> None:
    """Remember the baselines."""
    memory.keep("baselines", key, dataclasses.asdict(baselines))


def _is_way_to_train(result: TuningResult) -> bool:
    """Whether every value is one that a config can have."""
    return (
        result.precision in PRECISIONS
        and result.memory_format in FORMATS
        and _is_count(result.threads, 1, 1024)
        and _is_count(result.workers, 0, 256)
        and _is_number(result.seconds)
        and isinstance(result.compile, bool)
        and (result.fused is None or isinstance(result.fused, bool))
    )


def _is_count(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def package_versions(*packages: str) -> dict[str, str]:
    """Of classwise and these packages; OpenCV has several names, of which not every one is installed."""
    versions = {"classwise": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def machine_of(device: torch.device) -> dict[str, Any]:
    """What computes: the processor, the cores that this process may use, and the GPU."""
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": core_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    """The processor's model, as far as the system tells."""
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def backbone_digest(backbone: torch.nn.Module) -> str:
    """A hash over the weights and buffers of a network, by their names."""
    parts = []
    for name, tensor in sorted(backbone.state_dict().items()):
        data = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        parts.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {sha256(data)}")
    return sha256("\n".join(parts).encode())
