"""The mean over views of an image, against ttach on the same model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import ttach
from torch import Tensor, nn

from classwise.data.fit import resize_image
from classwise.infer.engines import torch_engine
from classwise.infer.tta import VIEWS, enlarged, mirrored, tta_engine
from classwise.model.classifier import Classifier, build_classifier
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

HEADS: dict[str, Head] = {
    "kind": ClassHead(4, adjustment=(0.5, 0.0, -1.0, 0.2)),
    "level": OrdinalHead(3),
    "tags": MultilabelHead(5),
    "size": RegressionHead(mean=10.0, std=3.0),
    "rank": RankingHead(),
}
AS_USED: dict[str, Callable[[Tensor], Tensor]] = {
    "class": lambda decoded: decoded.softmax(dim=1),
    "ordinal": lambda decoded: decoded.exp(),
    "multilabel": lambda decoded: decoded.sigmoid(),
    "regression": lambda decoded: decoded[:, None],
    "ranking": lambda decoded: decoded[:, None],
}
"""From what a head decodes to what is averaged, by type."""


@pytest.fixture(scope="module")
def model() -> Classifier:
    """A small network for images that are not square, with outputs far from each other."""
    heads = {name: head.outputs for name, head in HEADS.items()}
    built = build_classifier("small_cnn", "none", (32, 24), "squash", 0.0, heads, seed=3)
    with torch.no_grad():
        for head in built.heads:
            head.weight.mul_(20)
    return built.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.integers(0, 256, (7, 3, 32, 24), dtype=np.uint8))


class Probabilities(nn.Module):
    """What one target says, as it is averaged."""

    def __init__(self, model: Classifier, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, images_BCHW: Tensor) -> Tensor:
        head = HEADS[self.name]
        return AS_USED[head.type](head.decode(self.model(images_BCHW)[self.name]).double())


class Enlarge(ttach.base.ImageOnlyTransform):  # type: ignore[misc]
    """The middle of an image at its full size, as a transform of ttach's."""

    identity_param = False

    def __init__(self) -> None:
        super().__init__("apply", [False, True])

    def apply_aug_image(self, image: Tensor, apply: bool = False, **_: object) -> Tensor:
        if not apply:
            return image
        middle = ttach.functional.center_crop(image, 28, 20)  # two of 32 and of 24 pixels off at each side
        resized = [resize_image(one.permute(1, 2, 0).numpy(), (32, 24)) for one in middle]
        return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def test_flip_is_the_mean_of_ttach(model: Classifier, images: Tensor) -> None:
    compare(model, images, "flip", ttach.Compose([ttach.HorizontalFlip()]))


def test_flip_and_scale_are_the_mean_of_ttach(model: Classifier, images: Tensor) -> None:
    compare(model, images, "flip+scale", ttach.Compose([Enlarge(), ttach.HorizontalFlip()]))


def compare(model: Classifier, images_BCHW: Tensor, tta: str, transforms: ttach.Compose) -> None:
    """Every type of target, and that the mean is not what a single view says."""
    engine = torch_engine(model, torch.device("cpu"), torch.float32)
    found = tta_engine(engine, HEADS, tta)(images_BCHW)
    for name, head in HEADS.items():
        module = Probabilities(model, name)
        wrapped = ttach.ClassificationTTAWrapper(module, transforms, merge_mode="mean")
        with torch.no_grad():
            expected, alone = wrapped(images_BCHW), module(images_BCHW)
        ours = found[name]
        if head.type in ("class", "ordinal"):
            ours = ours.exp()
        elif head.type == "multilabel":
            ours = ours.sigmoid()
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
        assert float((ours - alone).abs().max()) > 1e-3


@pytest.mark.parametrize("tta", VIEWS)
def test_views_of_an_image_do_not_depend_on_its_batch(images: Tensor, tta: str) -> None:
    for view in VIEWS[tta]:
        together = view(images)
        assert together.shape == images.shape
        assert together.dtype == torch.uint8
        assert torch.equal(together, torch.cat([view(images[i : i + 2]) for i in range(0, 7, 2)]))


def test_views_are_in_a_fixed_order(images: Tensor) -> None:
    seen: list[Tensor] = []

    def engine(images_BCHW: Tensor) -> dict[str, Tensor]:
        seen.append(images_BCHW)
        return {"kind": torch.zeros(len(images_BCHW), 4)}

    tta_engine(engine, {"kind": ClassHead(4)}, "flip+scale")(images)
    big = enlarged(images)
    expected = [images, mirrored(images), big, mirrored(big)]
    assert len(seen) == 4
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))


def test_the_enlarged_middle_commutes_with_the_mirror(images: Tensor) -> None:
    """As many pixels are cut off on the left as on the right, up to the rounding of the interpolation."""
    difference = enlarged(mirrored(images)).int() - mirrored(enlarged(images)).int()
    assert int(difference.abs().max()) <= 1


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_the_smallest_image_is_enlarged_too(channels: int) -> None:
    images_BCHW = torch.arange(64 * channels, dtype=torch.uint8).reshape(1, channels, 8, 8)
    found = enlarged(images_BCHW)
    assert found.shape == images_BCHW.shape
    assert not torch.equal(found, images_BCHW)


def test_one_view_is_the_engine_itself() -> None:
    def engine(images_BCHW: Tensor) -> dict[str, Tensor]:
        return {}

    assert tta_engine(engine, HEADS, "none") is engine
