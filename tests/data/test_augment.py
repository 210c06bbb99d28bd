"""Augmentation: a function of the image and of the generator, off where it says off, and in its ranges."""

import dataclasses
import itertools
import random

import cv2
import numpy as np
import pytest
import torch

from classwise.data.augment import PRESETS, Augment, augment_geometry, augment_image
from classwise.data.fit import fit_image
from classwise.errors import ConfigError
from classwise.randomness import AUGMENT, generator

SIZES = {
    (28, 28): (28, 28),
    (375, 500): (224, 224),
    (500, 375): (128, 96),
    (40, 30): (64, 64),
    (1, 1): (8, 8),
}
# One value for each part that is far from off.
PARTS = {
    "flip": 1.0,
    "flip_vertical": 1.0,
    "quarter_turns": 1.0,
    "crop": 0.3,
    "ratio": 2.0,
    "rotate": 40.0,
    "translate": 0.3,
    "brightness": 0.6,
    "contrast": 0.6,
    "saturation": 0.9,
    "erase": 1.0,
}


def photo(height: int = 375, width: int = 500) -> np.ndarray:
    """A smooth coloured image in which every place looks different."""
    y, x, c = np.mgrid[:height, :width, :3]
    waves = np.sin(x * 9 / width + c) * np.cos(y * 7 / height - c) + 0.3 * x / width
    return (128 + 75 * waves).clip(0, 255).astype(np.uint8)


def ramps(height: int, width: int) -> np.ndarray:
    """Red is the column and green the row, as shares of 250: a pixel says where it comes from."""
    y, x = np.mgrid[:height, :width]
    blue = np.full_like(x, 100)
    return (
        np.stack([(x + 0.5) / width * 250, (y + 0.5) / height * 250, blue], axis=-1).round().astype(np.uint8)
    )


def draw(
    image_HWC: np.ndarray, augment: Augment, key: int = 0, size=(64, 64), fit: str = "squash"
) -> np.ndarray:
    """One augmented image with the generator of one place."""
    return augment_image(image_HWC, size, fit, augment, generator(0, AUGMENT, 1, key))


def test_none_is_fit_image_exactly() -> None:
    """With every part off, training sees what validation sees, for every fit and shape."""
    for (height, width), size in SIZES.items():
        for fit in ("squash", "crop", "pad"):
            image_HWC = photo(height, width)
            found = draw(image_HWC, PRESETS["none"], size=size, fit=fit)
            np.testing.assert_array_equal(found, fit_image(image_HWC, size, fit))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_every_preset_gives_images_of_the_size(preset: str, fit: str) -> None:
    """Shape, type and memory order hold for every shape of image, and the image itself is not touched."""
    for (height, width), size in SIZES.items():
        image_HWC = photo(height, width)
        before = image_HWC.copy()
        for key in range(5):
            found = draw(image_HWC, PRESETS[preset], key, size, fit)
            assert found.shape == (*size, 3)
            assert found.dtype == np.uint8
            assert found.flags.c_contiguous
        np.testing.assert_array_equal(image_HWC, before)


def test_presets_grow_in_strength() -> None:
    """Each preset is at least as strong as the one before it, part by part."""
    assert list(PRESETS) == ["none", "light", "standard", "strong"]
    values = [dataclasses.asdict(preset) for preset in PRESETS.values()]
    for weaker, stronger in itertools.pairwise(values):
        for part, value in stronger.items():
            assert value <= weaker[part] if part == "crop" else value >= weaker[part]


def test_the_result_is_a_function_of_the_generators_key() -> None:
    """The same key gives the same image, another key another one."""
    image_HWC, strong = photo(), PRESETS["strong"]
    first = [draw(image_HWC, strong, key) for key in range(20)]
    again = [draw(image_HWC, strong, key) for key in reversed(range(20))][::-1]
    np.testing.assert_array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 20


def test_no_global_generator_is_touched() -> None:
    """Python's, numpy's, torch's and OpenCV's generators neither change nor matter."""
    everything = Augment(**PARTS)
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        cv2.setRNGSeed(seed)
        before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
        results.append(draw(photo(), everything))
        assert random.getstate() == before[0]
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])
        assert torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(*results)


def test_opencvs_threads_do_not_matter() -> None:
    """One thread or four: the same bytes, so that results do not depend on the machine's cores."""
    everything, threads = Augment(**PARTS), cv2.getNumThreads()
    results = []
    for count in (1, 4):
        cv2.setNumThreads(count)
        results.append([draw(photo(), everything, key, (224, 224)) for key in range(3)])
    cv2.setNumThreads(threads)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_changes_the_image(part: str) -> None:
    """No part is read and ignored."""
    image_HWC = photo(64, 64)
    found = [draw(image_HWC, Augment(**{part: PARTS[part]}), key) for key in range(3)]
    assert all((image != image_HWC).any() for image in found)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_leaves_the_draws_of_the_others_alone(part: str) -> None:
    """The count of draws is fixed, so switching one part on does not reshuffle the rest."""
    states = []
    for augment in (Augment(), Augment(**{part: PARTS[part]})):
        rng = generator(7, AUGMENT)
        augment_image(photo(32, 32), (32, 32), "squash", augment, rng)
        states.append(rng.random())
    assert states[0] == states[1]


def test_the_fields_defaults_are_the_off_values() -> None:
    """PARTS names every field, so that the tests above leave none out."""
    assert set(PARTS) == {field.name for field in dataclasses.fields(Augment)}
    assert Augment() == PRESETS["none"]


@pytest.mark.parametrize(
    ("part", "value"),
    [("flip", 1.5), ("flip", -0.1), ("crop", 0.0), ("ratio", 0.5), ("rotate", 200), ("erase", float("nan"))],
)
def test_values_out_of_range_are_refused(part: str, value: float) -> None:
    """The message names the part, what was found and what is allowed."""
    with pytest.raises(ConfigError, match=rf"{part}: found {value}; allowed: .+ to .+"):
        Augment(**{part: value})


# Geometry.


def test_flip_vertical_mirrors_top_and_bottom_as_often_as_it_says() -> None:
    """Probability 1 always mirrors; 0.5 about every second time, independently of the other flip."""
    image_HWC = photo(32, 32)
    found = draw(image_HWC, Augment(flip_vertical=1), size=(32, 32))
    np.testing.assert_array_equal(found, image_HWC[::-1])
    both = [draw(image_HWC, Augment(flip=0.5, flip_vertical=0.5), key, size=(32, 32)) for key in range(400)]
    ways = [image_HWC, image_HWC[::-1], image_HWC[:, ::-1], image_HWC[::-1, ::-1]]
    counts = [sum(np.array_equal(image, way) for image in both) for way in ways]
    assert sum(counts) == 400
    assert min(counts) > 70


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_quarter_turns_turn_the_image_before_it_gets_its_size(fit: str) -> None:
    """Three turns, each as likely; an image that is not square is fitted as it lies then."""
    image_HWC, size = photo(40, 60), (32, 24)
    ways = [fit_image(np.ascontiguousarray(np.rot90(image_HWC, k)), size, fit) for k in range(4)]
    always = [draw(image_HWC, Augment(quarter_turns=1), key, size, fit) for key in range(300)]
    counts = [sum(np.array_equal(image, way) for image in always) for way in ways]
    assert counts[0] == 0
    assert sum(counts) == 300
    assert min(counts[1:]) > 70
    often = [draw(image_HWC, Augment(quarter_turns=0.75), key, size, fit) for key in range(400)]
    assert 70 < sum(np.array_equal(image, ways[0]) for image in often) < 130


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_numbers_of_channels_are_augmented_alike(channels: int) -> None:
    """Each channel as if it were the only one, but for what looks at all of them (brightness, contrast, noise)."""
    image_HWC = np.concatenate([photo(), photo()[..., ::-1]], axis=-1)[..., :channels]
    geometry = Augment(
        flip=0.5, flip_vertical=0.5, quarter_turns=0.5, crop=0.3, ratio=1.3, rotate=40, translate=0.2
    )
    for key, fit in enumerate(("squash", "crop", "pad") * 3):
        found = draw(image_HWC, geometry, key, fit=fit)
        assert found.shape == (64, 64, channels)
        for c in range(channels):
            alone = draw(np.ascontiguousarray(image_HWC[..., c : c + 1]), geometry, key, fit=fit)
            # OpenCV's bicubic rounds other than its one for a single channel, now and then.
            assert np.abs(found[..., c : c + 1].astype(int) - alone).max() <= 1
    everything = Augment(**(PARTS | {"saturation": 0.0}))
    assert draw(image_HWC, everything).shape == (64, 64, channels)


def test_flip_mirrors_left_and_right_as_often_as_it_says() -> None:
    """Probability 1 always mirrors; 0.5 about every second time, and nothing else happens."""
    image_HWC = photo(32, 32)
    np.testing.assert_array_equal(draw(image_HWC, Augment(flip=1), size=(32, 32)), image_HWC[:, ::-1])
    flipped = [
        (draw(image_HWC, Augment(flip=0.5), key, (32, 32)) == image_HWC[:, ::-1]).all() for key in range(400)
    ]
    assert 150 < sum(flipped) < 250


def test_crop_keeps_the_promised_share_all_over_the_image() -> None:
    """Areas fill the range from the least share to 1, and the corners are reached."""
    image_HWC = ramps(300, 200)
    areas, starts = [], []
    for key in range(300):
        found = draw(image_HWC, Augment(crop=0.5), key).astype(float) / 250
        width, height = (found[:, -1, 0] - found[:, 0, 0]).mean(), (found[-1, :, 1] - found[0, :, 1]).mean()
        areas.append(width * height * (64 / 63) ** 2)
        starts.append(found[0, 0, :2])
    assert min(areas) == pytest.approx(0.5, abs=0.03)
    assert max(areas) == pytest.approx(1.0, abs=0.03)
    assert np.mean(areas) == pytest.approx(0.75, abs=0.03)
    assert np.max(starts, axis=0).min() > 0.2
    assert np.min(starts, axis=0).max() < 0.03


def test_ratio_stretches_both_ways_within_its_bound() -> None:
    """Width over height changes by up to the factor, in both directions, also without a crop."""
    for crop in (1.0, 0.25):
        ratios = []
        for key in range(200):
            found = draw(ramps(300, 300), Augment(crop=crop, ratio=1.5), key, (128, 128)).astype(float)
            width, height = (
                (found[:, -1, 0] - found[:, 0, 0]).mean(),
                (found[-1, :, 1] - found[0, :, 1]).mean(),
            )
            ratios.append(width / height)
        assert max(ratios) < 1.5 * 1.04
        assert min(ratios) > 1 / 1.5 / 1.04
        assert max(ratios) > 1.3
        assert min(ratios) < 1 / 1.3


def angles(fit: str, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Angles in degrees by which 30 images of a disc with a mark east of its middle were turned."""
    found = []
    height, width = shape
    y, x = np.mgrid[:height, :width]
    mark = np.exp(-((x - width * 0.7) ** 2 + (y - (height - 1) / 2) ** 2) / (2 * (width / 25) ** 2)) * 250
    image_HWC = mark.astype(np.uint8)[..., None].repeat(3, axis=-1)
    for key in range(30):
        turned = draw(image_HWC, Augment(rotate=30), key, size, fit)[..., 0].astype(float)
        turned[turned < 60] = 0
        rows, columns = np.mgrid[: size[0], : size[1]]
        weight = turned.sum()
        # The middle of the image is at size / 2 - 0.5 in pixel numbers.
        down = (turned * rows).sum() / weight - (size[0] / 2 - 0.5)
        right = (turned * columns).sum() / weight - (size[1] / 2 - 0.5)
        found.append(np.degrees(np.arctan2(down, right)))
    return np.array(found)


@pytest.mark.parametrize(
    ("size", "shape"), [((64, 64), (64, 64)), ((50, 50), (400, 400)), ((90, 90), (40, 40))]
)
def test_rotation_turns_about_the_middle_within_its_bound(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    """A mark moves on a circle about the middle, up to the angle both ways, at every scale."""
    found = angles("squash", size, shape)
    assert abs(found).max() <= 31.5
    assert found.max() > 20
    assert found.min() < -20


@pytest.mark.parametrize(
    ("height", "width", "size"), [(375, 500, (224, 224)), (28, 28, (28, 28)), (20, 30, (64, 96))]
)
def test_a_warp_by_nothing_is_the_fit(height: int, width: int, size: tuple[int, int]) -> None:
    """The warp and the plain resize see the same place: an angle near zero moves nothing by half a pixel."""
    image_HWC = photo(height, width)
    for fit in ("squash", "crop", "pad"):
        found = draw(image_HWC, Augment(rotate=1e-9), 0, size, fit).astype(float)
        expected = fit_image(image_HWC, size, fit).astype(float)
        inside = (expected != 128).all(axis=-1)
        inside[:2] = inside[-2:] = inside[:, :2] = inside[:, -2:] = (
            False  # edges are interpolated their own way
        )
        inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert abs(found - expected)[inside].mean() < 0.6
        assert abs(found - expected)[inside].max() <= 5


def test_translation_shifts_and_mirrors_at_the_edge() -> None:
    """A shift moves a mark by up to its share of the size, and leaves no black border."""
    image_HWC = np.full((60, 60, 3), 90, np.uint8)
    image_HWC[29:31, 29:31] = 255
    places = []
    for key in range(60):
        found = draw(image_HWC, Augment(translate=0.2), key, (60, 60))
        assert found.min() >= 60  # bicubic undershoot beside the mark, but no black
        places.append(np.argwhere(found[..., 0] > 150).mean(axis=0) - 29.5)
    assert abs(np.array(places)).max() <= 12.6
    assert (np.max(places, axis=0) > 9).all()
    assert (np.min(places, axis=0) < -9).all()


@pytest.mark.parametrize("shape", [(10, 200), (200, 10), (1, 50)])
def test_no_image_is_only_padding(shape: tuple[int, int]) -> None:
    """Even the smallest part of a padded sliver shows some of the image."""
    image_HWC = np.full((*shape, 3), 255, np.uint8)
    hardest = Augment(crop=0.01, ratio=2, rotate=45, translate=0.5)
    for key in range(200):
        assert (draw(image_HWC, hardest, key, (32, 32), "pad") > 128).any()


def test_padding_is_mid_gray_under_augmentation_too() -> None:
    """What fit "pad" adds is the same gray in training as in validation."""
    image_HWC = np.full((20, 100, 3), 250, np.uint8)
    for augment in (Augment(rotate=5), Augment(crop=0.9), Augment(translate=0.1)):
        found = draw(image_HWC, augment, 3, (64, 64), "pad")
        values, counts = np.unique(found, return_counts=True)
        assert set(values[np.argsort(counts)[-2:]]) == {128, 250}


def test_shrinking_does_not_alias_with_any_geometry() -> None:
    """A one-pixel checkerboard turns gray, turned or not; a warp alone would show moire."""
    board = (np.indices((400, 500)).sum(axis=0)[..., None].repeat(3, axis=-1) % 2 * 255).astype(np.uint8)
    for augment in (Augment(crop=0.6), Augment(rotate=15), Augment(crop=0.8, rotate=30, translate=0.1)):
        for key in range(5):
            found = draw(board, augment, key, (64, 64)).astype(float)
            assert abs(found - 127.5).max() < 60


# Colour.


def test_brightness_is_a_factor_about_black() -> None:
    """Mid-range values are multiplied by one factor in the range, which both ends reach."""
    image_HWC = np.full((8, 8, 3), (60, 90, 120), np.uint8)
    factors = []
    for key in range(200):
        found = draw(image_HWC, Augment(brightness=0.5), key, (8, 8))
        factors.append(found[0, 0] / [60, 90, 120])
    assert np.ptp(factors, axis=1).max() < 0.02
    assert np.min(factors) == pytest.approx(0.5, abs=0.03)
    assert np.max(factors) == pytest.approx(1.5, abs=0.03)


def test_contrast_is_a_factor_about_the_mean() -> None:
    """The mean of a gray image stays, the distance from it is scaled."""
    gray = np.tile(np.arange(100, 156, dtype=np.uint8)[:, None, None], (1, 56, 3))
    spreads = []
    for key in range(100):
        found = draw(gray, Augment(contrast=0.5), key, (56, 56)).astype(float)
        assert found.mean() == pytest.approx(gray.mean(), abs=0.6)
        spreads.append(found.std() / gray.std())
    assert min(spreads) == pytest.approx(0.5, abs=0.04)
    assert max(spreads) == pytest.approx(1.5, abs=0.04)


def test_the_changes_of_light_are_drawn_apart() -> None:
    """Over many images, none of brightness, contrast and saturation says anything of another."""
    augment = Augment(brightness=0.5, contrast=0.5, saturation=0.5)
    image_HWC = photo(8, 8)
    drawn = [
        augment_geometry(
            image_HWC, size=(8, 8), fit="squash", augment=augment, rng=generator(0, AUGMENT, 1, key)
        )
        for key in range(400)
    ]
    factors_N3 = np.array([(rest.brightness, rest.contrast, rest.saturation) for _, rest in drawn])
    correlation_33 = np.corrcoef(factors_N3.T)
    assert np.abs(correlation_33 - np.eye(3)).max() < 0.15


def test_saturation_reaches_gray_and_keeps_the_luma() -> None:
    """Pillow's own gray stays as it was, while the colours move to it or away from it."""
    image_HWC = np.full((8, 8, 3), (120, 90, 100), np.uint8)
    luma = image_HWC[0, 0] @ [0.299, 0.587, 0.114]
    spreads = []
    for key in range(200):
        found = draw(image_HWC, Augment(saturation=1), key, (8, 8))[0, 0].astype(float)
        assert found @ [0.299, 0.587, 0.114] == pytest.approx(luma, abs=1.1)
        spreads.append(np.ptp(found) / 30)
    assert min(spreads) < 0.05
    assert max(spreads) > 1.9


@pytest.mark.parametrize("preset", ["light", "standard"])
def test_gray_images_stay_gray(preset: str) -> None:
    """The three channels of a gray image remain equal, byte for byte."""
    gray = photo(28, 28)[..., :1].repeat(3, axis=-1)
    for key in range(20):
        found = draw(gray, PRESETS[preset], key, (28, 28))
        assert (found == found[..., :1]).all()


# Erasing.


def test_erasing_fills_one_rectangle_with_noise() -> None:
    """The rectangle has the paper's share and aspect, its noise spans all values, the rest is untouched."""
    image_HWC = np.zeros((100, 120, 3), np.uint8)
    shares, aspects, corners = [], [], []
    for key in range(200):
        found = draw(image_HWC, Augment(erase=1), key, (100, 120))
        rows, columns = np.flatnonzero(found.any(axis=(1, 2))), np.flatnonzero(found.any(axis=(0, 2)))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        inner = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (inner > 0).mean() > 0.97
        assert inner.mean() == pytest.approx(127.5, abs=12)
        shares.append(height * width / 12_000)
        aspects.append(height / width)
        corners.append((rows[0], columns[0]))
    assert 0.01 < min(shares) < 0.06
    assert 0.35 < max(shares) < 0.42
    assert min(aspects) > 0.27
    assert max(aspects) < 3.7
    assert np.ptp(corners, axis=0).min() > 60


def test_erasing_happens_as_often_as_it_says() -> None:
    """Probability 0.25 erases about a quarter of the images."""
    image_HWC = photo(16, 16)
    changed = [(draw(image_HWC, Augment(erase=0.25), key, (16, 16)) != image_HWC).any() for key in range(400)]
    assert 70 < sum(changed) < 130
