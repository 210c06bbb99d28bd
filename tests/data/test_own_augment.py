"""An augmentation of the user's own: applied, tried and refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from classwise.data.augment import PRESETS
from classwise.data.dataset import ImageDataset
from classwise.data.own_augment import OwnAugment, check_own_augment
from classwise.errors import ConfigError, ImageError
from tests.helpers.own_parts import guide_files, own_part
from tests.helpers.scenes import draw, generators_untouched

NOISE = "def Part(image, rng):\n    return image ^ rng.integers(0, 2, image.shape, dtype='uint8')\n"
IMAGE_HWC = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def own(tmp_path: Path, code: str) -> OwnAugment:
    """The function of a new file."""
    return OwnAugment.of(own_part(tmp_path, code))


def dataset(tmp_path: Path, code: str, preset: str = "none") -> ImageDataset:
    """Two drawn images of 12 pixels, augmented."""
    for row in range(2):
        draw(tmp_path / f"{row}.png", 0, row)
    paths = [tmp_path / f"{row}.png" for row in range(2)]
    return ImageDataset(
        paths, (12, 12), "squash", 10**6, seed=5, augment=PRESETS[preset], own_augment=own(tmp_path, code)
    )


def test_it_comes_after_the_parts_of_the_preset(tmp_path: Path) -> None:
    """Inverting twice gives the image that the preset makes."""
    inverted = dataset(tmp_path, "def Part(image, rng):\n    return 255 - image\n", "strong")
    plain = dataset(tmp_path, "def Part(image, rng):\n    return image\n", "strong")
    assert np.array_equal(255 - inverted[3, 1][0], plain[3, 1][0])


def test_an_image_is_a_function_of_seed_epoch_and_row(tmp_path: Path) -> None:
    """In any order, in a copy as a worker has it; another epoch or row gives another one."""
    images = dataset(tmp_path, NOISE)
    copied = pickle.loads(pickle.dumps(images))
    found = {(epoch, row): images[epoch, row][0] for epoch in range(2) for row in range(2)}
    for place in reversed(found):
        assert np.array_equal(copied[place][0], found[place])
    assert len({image.tobytes() for image in found.values()}) == 4


def test_a_copy_needs_no_file(tmp_path: Path) -> None:
    """A worker gets the code from its parent."""
    augment = own(tmp_path, NOISE)
    copied = pickle.loads(pickle.dumps(augment))
    (tmp_path / "my_part.py").unlink()
    one, other = (each(IMAGE_HWC, np.random.default_rng(1)) for each in (augment, copied))
    assert np.array_equal(one, other)


def test_the_image_that_it_gets_is_its_own(tmp_path: Path) -> None:
    """It may be written to; the cache's pixels, which are read-only, stay."""
    image_HWC = IMAGE_HWC.copy()
    image_HWC.flags.writeable = False
    changed_HWC = own(tmp_path, "def Part(image, rng):\n    image[:] = 7\n    return image[::-1]\n")(
        image_HWC, np.random.default_rng(0)
    )
    assert (changed_HWC == 7).all()
    assert changed_HWC.flags.c_contiguous
    assert np.array_equal(image_HWC, IMAGE_HWC)


@pytest.mark.parametrize("code", [NOISE, guide_files()["my_augment.py"] + "\nPart = augment\n"])
def test_what_takes_its_chance_from_the_generator_passes(tmp_path: Path, code: str) -> None:
    """And the caller's global generators are as before."""
    with generators_untouched():
        check_own_augment(own(tmp_path, code), (20, 16), 3)


def body(text: str) -> str:
    """A function with this body."""
    return f"import random\nimport numpy as np\nimport torch\nn = [0]\ndef Part(image, rng):\n    {text}\n"


WRONG = {
    "random": (body("return image + random.randrange(9)"), "second time; allowed: chance from `rng` alone"),
    "numpy": (
        body("return image + np.random.randint(9, dtype='uint8')"),
        "not from random, np.random or torch",
    ),
    "torch": (body("return image + int(torch.randint(9, ()))"), "not from random, np.random or torch"),
    "state": (body("n[0] += 1; return image + n[0]"), "nothing that is kept between two calls"),
    "float": (
        body("return image / 2"),
        r"makes \(20, 16, 3\) float64 of an image \(20, 16, 3\) uint8; .*\.astype",
    ),
    "shape": (body("return image[2:]"), r"makes \(18, 16, 3\) uint8 of an image \(20, 16, 3\)"),
    "nothing": (body("image[:] = 0"), r"makes NoneType of an image"),
    "fails": (body("return image.foo"), r"fails: AttributeError: .* \(line 6: return image\.foo\)"),
    "class": ("class Part: pass\n", "is a class, allowed: a function of an image and a generator"),
}


@pytest.mark.parametrize(("code", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_augmentation_is_refused_with_the_reason(tmp_path: Path, code: str, message: str) -> None:
    """Before any epoch is trained."""
    with pytest.raises(ConfigError, match=rf"^data\.augment: my_part\.py:Part .*{message}"):
        check_own_augment(own(tmp_path, code), (20, 16), 3)


def test_a_failure_later_names_the_image(tmp_path: Path) -> None:
    """And the line of the user's file."""
    item = dataset(tmp_path, body("return image if image.sum() < 0 else image.foo"))[0, 1]
    assert isinstance(item, ImageError)
    assert "1.png: data.augment: my_part.py:Part fails: AttributeError" in str(item)
    assert "(line 6: return image if" in str(item)
