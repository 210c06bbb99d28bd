"""Features of a split: computed once for all that they depend on, and anew for everything else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from classwise.compose import features as module
from classwise.compose.dataset import prepare
from classwise.compose.features import Computing, split_features
from classwise.compose.settings import build_settings
from classwise.console import Console
from classwise.errors import Interrupted
from classwise.training.loop import never
from tests.helpers.noisy_images import CPU, KIND, Scene, reference_features
from tests.helpers.tiny_runs import copy_of, same

Build = Callable[..., Scene]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is kept from another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "classwise"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each batch that went through the backbone."""
    batches: list[int] = []
    engine_of = module.feature_engine

    def noted(*arguments: Any, **options: Any) -> Callable[[Tensor], Tensor]:
        engine = engine_of(*arguments, **options)

        def run(images: Tensor) -> Tensor:
            batches.append(len(images))
            return engine(images)

        return run

    monkeypatch.setattr(module, "feature_engine", noted)
    return batches


def features_of(
    s: Scene, mirror: bool = False, split: Any = None, should_stop: Callable[[], bool] = never
) -> list[Tensor]:
    """The features of the training rows, or of another split."""
    autocast = build_settings(s.config, CPU).autocast
    is_float32 = s.config.training.precision == "fp32"
    computing = Computing(s.model, CPU, autocast, is_float32, Console(quiet=True), should_stop)
    return split_features(split or s.splits.train, s.config, computing, mirror, "training")


def test_the_backbone_on_every_image(scene: Build, computed: list[int]) -> None:
    """In the order of the rows, in eval mode, not augmented; and of each mirrored image."""
    s = scene({"kind": KIND}, data={"augment": "strong"})
    before = copy_of(s.model)
    s.model.train()
    plain, mirrored = features_of(s, mirror=True)
    assert plain.numpy() == pytest.approx(reference_features(s, s.splits.train), abs=1e-4)
    assert sum(computed) == 2 * len(s.splits.train.samples)
    assert s.model.training
    assert same(copy_of(s.model), before)

    # What a mirrored file would give.
    for path in s.splits.train.samples.paths:
        path.write_bytes(cv2.imencode(".png", cv2.imread(str(path))[:, ::-1])[1].tobytes())
    assert mirrored.numpy() == pytest.approx(reference_features(s, s.splits.train), abs=1e-4)


def test_a_second_run_has_them_at_once(scene: Build, computed: list[int], own_cache: Path) -> None:
    """The same bytes without a forward pass; also with other heads, another dropout and other labels, which features do
    not depend on."""
    first = features_of(scene({"kind": KIND}), mirror=True)
    computed.clear()
    second = features_of(scene({"kind": KIND}), mirror=True)
    assert computed == []
    assert len(second) == 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(list(own_cache.glob("features-*/*.npy"))) == 1

    other = scene({"kind": KIND}, model={"image_size": [12, 12], "dropout": 0.3}, loss={"name": "focal"})
    features_of(other, mirror=True)
    assert computed == []


def new_weight(s: Scene) -> Scene:
    with torch.no_grad():
        next(iter(s.model.backbone.parameters()))[0] += 1e-3
    return s


def new_statistics(s: Scene) -> Scene:
    next(buffer for buffer in s.model.backbone.buffers() if buffer.ndim)[0] += 1e-3
    return s


CHANGES: dict[str, Callable[[Build], Scene]] = {
    "a weight": lambda scene: new_weight(scene({"kind": KIND})),
    "a statistic": lambda scene: new_statistics(scene({"kind": KIND})),
    "the seed of the weights": lambda scene: scene({"kind": KIND}, seed=5),
    "the size": lambda scene: scene({"kind": KIND}, model={"image_size": [16, 16]}),
    "how images are fitted": lambda scene: scene(
        {"kind": KIND}, model={"image_size": [12, 12], "fit": "pad"}
    ),
    "the backbone": lambda scene: scene(
        {"kind": KIND}, model={"image_size": [12, 12], "backbone": "small_cnn_gn"}
    ),
    "the precision": lambda scene: scene({"kind": KIND}, training={"precision": "bf16"}),
    "the batch": lambda scene: scene({"kind": KIND}, training={"batch_size": 10}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_features_depend_on_makes_others(scene: Build, computed: list[int], change: str) -> None:
    """Nothing kept is taken for them."""
    features_of(scene({"kind": KIND}))
    computed.clear()
    s = CHANGES[change](scene)
    features_of(s)
    assert sum(computed) == len(s.splits.train.samples)


def test_another_image_or_order_makes_others(scene: Build, computed: list[int], tmp_path: Path) -> None:
    """One byte of one image is enough; so is another order of the rows, and one row less."""
    s = scene({"kind": KIND})
    features_of(s)
    computed.clear()
    path = s.splits.train.samples.paths[3]
    image = cv2.imread(str(path))
    image[0, 0, 0] ^= 1
    data = cv2.imencode(".png", image)[1].tobytes()
    splits = _prepared_with(s, path, data)
    features_of(s, split=splits.train)
    assert sum(computed) == len(s.splits.train.samples)
    features_of(s, split=splits.train)
    assert sum(computed) == len(s.splits.train.samples)

    backwards = np.arange(len(s.splits.train.samples))[::-1].tolist()
    for rows in (backwards, backwards[1:]):
        computed.clear()
        taken = dataclasses.replace(s.splits.train, samples=s.splits.train.samples.take(rows), cached=None)
        (found,) = features_of(s, split=taken)
        assert sum(computed) == len(rows)
        assert len(found) == len(rows)


def _prepared_with(s: Scene, path: Path, data: bytes) -> Any:
    """The same data, read again with one image changed."""
    path.write_bytes(data)
    return prepare(s.config, Console(quiet=True))


def test_mirrored_ones_are_kept_apart(scene: Build, computed: list[int]) -> None:
    """Asked for one view, two are not what is given."""
    s = scene({"kind": KIND})
    assert len(features_of(s, mirror=True)) == 2
    assert len(features_of(s)) == 1
    assert sum(computed) == 3 * len(s.splits.train.samples)


def test_kept_nowhere(scene: Build, computed: list[int], own_cache: Path) -> None:
    """With data.cache = "off" they are computed each time; a damaged file is computed anew as well."""
    rows = 0
    for _ in range(2):
        s = scene({"kind": KIND}, data={"cache": "off"})
        features_of(s)
        rows += len(s.splits.train.samples)
    assert sum(computed) == rows
    assert not list(own_cache.glob("features-*"))

    (first,) = features_of(scene({"kind": KIND}))
    (file,) = own_cache.glob("features-*/*.npy")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    computed.clear()
    (second,) = features_of(scene({"kind": KIND}))
    assert sum(computed) == rows / 2
    assert torch.equal(first, second)


def test_a_stop_while_they_are_computed(scene: Build, computed: list[int], own_cache: Path) -> None:
    """After the batch that is under way; nothing is kept of them."""
    with pytest.raises(Interrupted, match="features for the first answer"):
        features_of(scene({"kind": KIND}), should_stop=lambda: len(computed) >= 2)
    assert len(computed) == 2
    assert not list(own_cache.glob("features-*/*.npy"))
