"""Whatever a GPU does to a batch is, byte for byte, what the CPU does to each image."""

import numpy as np
import pytest
import torch

from classwise.data.augment import (
    PRESETS,
    Augment,
    DeviceAugment,
    augment_geometry,
    augment_image,
    augment_on_host,
)
from classwise.data.device_augment import augment_on_device
from classwise.randomness import AUGMENT, generator

PARTS = {"flip": 1.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "erase": 1.0}


def dataset(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise, flat colours, black, white and gray."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for i, colour in enumerate(((0, 0, 0), (255, 255, 255), (127, 127, 127), (255, 0, 0), (3, 250, 77))):
        images[i % count] = colour if i < count else images[i % count]
    return images


def halves(
    images_BHWC: np.ndarray, augment: Augment, epoch: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(what the CPU makes of them, what a worker leaves for the device, and what the device has to do)."""
    size = images_BHWC.shape[1:3]
    rngs = [generator(3, AUGMENT, epoch, row) for row in range(len(images_BHWC))]
    whole = np.stack(
        [augment_image(x, size, "squash", augment, rng) for x, rng in zip(images_BHWC, rngs, strict=True)]
    )
    rngs = [generator(3, AUGMENT, epoch, row) for row in range(len(images_BHWC))]
    placed = [
        augment_geometry(x, size, "squash", augment, rng) for x, rng in zip(images_BHWC, rngs, strict=True)
    ]
    return (
        whole,
        np.stack([image for image, _ in placed]),
        np.array([device_augment for _, device_augment in placed]),
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (24, 16), (65, 33)])
@pytest.mark.parametrize("parts", [*PARTS, "all", "strong", "standard", "light", "none"])
def test_the_bytes_are_the_same(size: tuple[int, int], parts: str) -> None:
    augment = PRESETS.get(parts) or Augment(**(PARTS if parts == "all" else {parts: PARTS[parts]}))
    changed = 0
    for epoch in range(20):
        images = dataset(12, size, epoch)
        whole, placed, device_augment = halves(images, augment, epoch)
        found = augment_on_device(torch.from_numpy(placed), device_augment).numpy()
        np.testing.assert_array_equal(found, whole)
        changed += int((found != placed).any())
    assert bool(changed) == (parts != "none" and (parts, size) != ("flip", (1, 1)))


def test_every_colour_has_the_same_gray() -> None:
    """All 16.7 million of them, in slices: OpenCV's own numbers, at several saturations."""
    values = np.arange(256, dtype=np.uint8)
    for red in range(0, 256, 5):
        image = np.stack(np.broadcast_arrays(np.uint8(red), values[:, None], values[None, :]), axis=-1)
        for saturation in (0.0, 0.2509765625, 1.7431640625, 2.0):
            device_augment = DeviceAugment(0, 1, 1, saturation, 0, 0, 0, 0, 0)
            found = augment_on_device(
                torch.from_numpy(image)[None], np.array([device_augment], dtype=np.float64)
            )
            np.testing.assert_array_equal(found[0].numpy(), augment_on_host(image, device_augment))


def test_rounding_at_every_mean() -> None:
    """The table of an image's values is the same for factors and means of all kinds."""
    rng = np.random.default_rng(0)
    for size in ((3, 5), (31, 29)):
        images = rng.integers(0, 256, (2000, *size, 3), dtype=np.uint8)
        images = (images * rng.random((2000, 1, 1, 3))).astype(np.uint8)
        device_augment = np.ones((2000, 9))
        device_augment[:, 0] = device_augment[:, 4:] = 0
        device_augment[:, 1:3] = rng.random((2000, 2)) * 2
        device_augment[:500, 1:3] = device_augment[:500, 1:3].round(1)
        found = augment_on_device(torch.from_numpy(images), device_augment).numpy()
        wanted = np.stack(
            [
                augment_on_host(x, DeviceAugment(*f))
                for x, f in zip(images, device_augment.tolist(), strict=True)
            ]
        )
        np.testing.assert_array_equal(found, wanted)


def test_noise_is_noise() -> None:
    """The erased rectangle is full of bytes that are near uniform, and no two images' are alike."""
    device_augment = np.zeros((50, 9))
    device_augment[:, 1:4], device_augment[:, 6:8] = 1, 64
    device_augment[:, 8] = np.random.default_rng(0).integers(0, 2**32, 50)
    found = augment_on_device(torch.zeros(50, 64, 64, 3, dtype=torch.uint8), device_augment).numpy()
    counts = np.bincount(found.ravel(), minlength=256)
    expected = found.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 400  # chi squared with 255 degrees of freedom
    flat = found.reshape(50, -1).astype(np.float64)
    assert abs(np.corrcoef(flat) - np.eye(50)).max() < 0.05
    assert abs(np.corrcoef(flat[:, :-1].ravel(), flat[:, 1:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_the_bytes_are_the_same_for_other_numbers_of_channels(channels: int) -> None:
    """But for saturation, which only RGB has."""
    augment = Augment(**(PARTS | {"saturation": 0.0, "flip_vertical": 0.5}))
    rng = np.random.default_rng(channels)
    for epoch in range(10):
        images = rng.integers(0, 256, (6, 17, 11, channels), dtype=np.uint8)
        whole, placed, device_augment = halves(images, augment, epoch)
        found = augment_on_device(torch.from_numpy(placed), device_augment).numpy()
        np.testing.assert_array_equal(found, whole)
        assert (found != placed).any()
