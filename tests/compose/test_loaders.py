"""Loaders as the config says: augmentation, features of a frozen backbone, mixing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from classwise.compose.loaders import augmentation, build_data, evaluation_images, model_features
from classwise.data.augment import PRESETS
from tests.helpers.noisy_images import AREA, CPU, KIND, LEVEL, SIDE, TAGS, Scene, reference_features


def test_frozen_features_are_the_backbones_eval_outputs(scene: Callable[..., Scene]) -> None:
    """To float32's rounding, whatever the batches; and the model is in the mode that it was in."""
    s = scene({"kind": KIND})
    want = reference_features(s, s.splits.train)
    dataset = evaluation_images(s.splits.train.samples, s.model.metadata, 10**6)
    s.model.train()
    found = model_features(s.model, dataset, s.config, CPU)
    assert s.model.training
    assert found.shape == (len(want), s.model.feature_count)
    np.testing.assert_allclose(found.numpy(), want, atol=2e-6)


def test_batches_hold_features_while_the_backbone_is_frozen(scene: Callable[..., Scene]) -> None:
    """In the first `freeze_epochs` epochs each row's features, on both sides; then images."""
    s = scene({"kind": KIND}, training={"freeze_epochs": 2}, data={"augment": "strong"})
    data, valid = build_data(s.config, s.splits, s.model, CPU)
    pair = {
        "train": (lambda epoch: (b for window in data.updates(epoch) for b in window), s.splits.train),
        "valid": (valid.batches, s.splits.valid),
    }
    for batches, split in pair.values():
        want = reference_features(s, split)
        for epoch in (0, 1):
            rows = []
            for batch in batches(epoch):
                # Not augmented: the features are computed once, of the images as evaluation sees them.
                np.testing.assert_allclose(batch.images.numpy(), want[batch.rows], atol=2e-6)
                assert batch.targets["kind"].tolist() == split.labels["kind"][batch.rows].tolist()
                rows += batch.rows.tolist()
            assert sorted(rows) == list(range(len(want)))
        assert all(batch.images.shape[1:] == (3, SIDE, SIDE) for batch in batches(2))


def test_nothing_is_frozen_or_mixed_unless_asked(scene: Callable[..., Scene]) -> None:
    """By default the first batches are images already, and a window is handed on as it is."""
    s = scene({"kind": KIND})
    data, valid = build_data(s.config, s.splits, s.model, CPU)
    assert data.features is None
    assert next(data.updates(0))[0].images.dtype == torch.uint8
    assert next(valid.batches(0)).images.dtype == torch.uint8
    window = next(data.updates(0))
    assert data.mixing(window, 0) is window


def test_mixing_is_wired(scene: Callable[..., Scene]) -> None:
    """data.mixup, cutmix, mix_share and the seed arrive; labels of class and ordinal targets become shares, others
    are mixed as numbers, and what is unknown stays unknown."""
    mixed = {"mixup": 0.4, "cutmix": 0.7, "mix_share": 0.9}
    targets = {"kind": KIND, "level": LEVEL, "tags": TAGS, "area": AREA}
    s = scene(targets, data=mixed, seed=11, selection={"metric": "kind.macro_f1"})
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    mixing: Any = data.mixing
    assert (mixing.mixup, mixing.cutmix, mixing.share, mixing.seed) == (0.4, 0.7, 0.9, 11)
    assert mixing.classes == {"kind": 3, "level": 3}
    window = next(data.updates(0))
    found = data.mixing(window, 0)
    assert not torch.equal(found[0].images.float(), window[0].images.float())
    shares_BK, hard_B = found[0].targets["level"], window[0].targets["level"]
    assert torch.allclose(shares_BK.sum(dim=1), torch.ones(len(hard_B)))
    assert (shares_BK.gather(1, hard_B[:, None]) > 0).all()
    assert ((shares_BK > 0).sum(dim=1) > 1).any()
    assert (found[0].targets["kind"].sum(dim=1) < 1 - 1e-6).any() == (window[0].targets["kind"] < 0).any()
    assert found[0].targets["area"].min() >= window[0].targets["area"].min()
    assert not torch.equal(found[0].targets["area"], window[0].targets["area"])


def test_training_images_are_augmented_and_validation_is_not(scene: Callable[..., Scene]) -> None:
    """The preset with its parts; the validation images are the files' own pixels."""
    s = scene({"kind": KIND}, data={"augment": {"preset": "light", "flip": 1.0}})
    assert augmentation(s.config) == PRESETS["light"].__class__(**vars(PRESETS["light"]) | {"flip": 1.0})
    data, valid = build_data(s.config, s.splits, s.model, CPU)
    for batch in valid.batches():
        pixels = batch.images.permute(0, 2, 3, 1).reshape(len(batch), -1).numpy()
        assert (pixels == np.rint(255 * s.pixels[1][batch.rows])).all()
    batch = next(data.updates(0))[0]
    pixels = batch.images.permute(0, 2, 3, 1).reshape(len(batch), -1).numpy()
    assert (pixels != np.rint(255 * s.pixels[0][batch.rows])).any(axis=1).all()
