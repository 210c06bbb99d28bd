"""A backbone in the user's own file, and the test that it has to pass before a run begins.

The least that it has to be is a module that makes one vector of features of each image:

    class Net(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.layer = nn.Conv2d(channels, 64, 3)

        def forward(self, images):                    # (B, C, H, W), normalized, float
            return self.layer(images).mean((2, 3))    # (B, F)

It is made without arguments, but for `image_size` (height, width) and `channels` if it has parameters of these names.
A function that returns such a module will do as well.
"""

from collections.abc import Callable
from inspect import isclass
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from classwise.errors import ConfigError, ModelError
from classwise.own_parts.reference import short
from classwise.own_parts.source import SourceFile, admitted, failure_text, load, made_by

KEY = "model.backbone"
TOLERANCE = 1e-3
"""Of the largest feature: the same image in another batch may be computed in another order."""


def own_module(reference: str, image_size: tuple[int, int], channels: int) -> nn.Module:
    """The user's module with new random weights, from torch's global generator. Raises ConfigError, ModelError."""
    part = load(reference, KEY)
    source = admitted(reference, KEY)
    offered = {"image_size": image_size, "channels": channels}
    made = made_by(part, {}, offered=offered, source=source, table=KEY)
    if not isclass(part):
        made = _attempt(made, "it fails", reference, source)
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{KEY}: {short(reference)} is {type(made).__name__}, allowed: a torch.nn.Module, or a function that"
            " returns one"
        )
    return made


def count_own_features(module: nn.Module, reference: str, image_size: tuple[int, int], channels: int) -> int:
    """The number F of features (1, F) of one image. Raises ModelError for any other output, and with the line that
    fails."""
    was_training = module.training
    module.eval()
    with torch.no_grad():
        images = torch.zeros(1, channels, *image_size)
        source = admitted(reference, KEY)
        features = _attempt(
            lambda: module(images), f"it fails on images {tuple(images.shape)}", reference, source
        )
    module.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        hint = ""
        if isinstance(features, Tensor) and features.ndim == 4:
            hint = "; a mean over height and width, .mean((2, 3)), makes a vector of a map"
        raise ModelError(
            f"{KEY}: {short(reference)} makes {found} of one image, allowed: (1, F), a vector of features for each"
            f" image, without a layer for the classes, which classwise adds{hint}"
        )
    return features.shape[1]


def check_own_backbone(reference: str, image_size: tuple[int, int], channels: int) -> None:
    """Raise ModelError unless the user's module can be trained, saved and restored: its features are those of each
    image alone, gradients reach its parameters, and its state dict is all that it is made of."""
    source = admitted(reference, KEY)
    with torch.random.fork_rng(devices=[]):

        def new(seed: int) -> nn.Module:
            torch.default_generator.manual_seed(seed)
            return own_module(reference, image_size, channels)

        torch.default_generator.manual_seed(0)
        images_BCHW = torch.randn(4, channels, *image_size)
        complaint = _attempt(lambda: _complaint(new, images_BCHW), "it fails", reference, source)
    if complaint:
        raise ModelError(f"{KEY}: {short(reference)}: {complaint}")


def _complaint(new: Callable[[int], nn.Module], images_BCHW: Tensor) -> str:
    """What is wrong with modules that `new` makes from a seed; empty if nothing is."""
    module, same, other = new(1), new(1), new(2)
    if not _equal(module.state_dict(), same.state_dict()):
        return (
            "two modules that are made from the same seed have other weights, so a run could not be repeated; allowed:"
            " random numbers of torch alone"
        )
    return (
        _wrong_gradient(module, images_BCHW)
        or _wrong_features(module, images_BCHW)
        or _wrong_state(module, other, images_BCHW)
    )


def _wrong_gradient(module: nn.Module, images_BCHW: Tensor) -> str:
    """Whether every parameter that is to be trained gets a gradient; afterwards the statistics of norms have moved."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    features_BF = module.train()(images_BCHW)
    if features_BF.shape[:1] != images_BCHW.shape[:1] or features_BF.ndim != 2:
        return f"it makes {tuple(features_BF.shape)} of {len(images_BCHW)} images, allowed: ({len(images_BCHW)}, F)"
    if not bool(features_BF.isfinite().all()):
        return "its features of drawn images are not finite"
    if not trained:
        return ""
    if features_BF.requires_grad:
        (features_BF * torch.randn_like(features_BF)).sum().backward()
    without = [name for name, parameter in trained.items() if parameter.grad is None]
    module.zero_grad()
    if without:
        return (
            f"{len(without)} of its {len(trained)} parameters get no gradient, such as {without[0]!r}: they are not"
            " used in `forward`, or what they compute is detached; allowed: parameters that are used, or have"
            " requires_grad=False"
        )
    return ""


def _wrong_features(module: nn.Module, images_BCHW: Tensor) -> str:
    """Whether the features of an image in eval() are a function of that image alone."""
    features_BF = _features(module, images_BCHW)
    alone_BF = torch.cat([_features(module, image_1CHW) for image_1CHW in images_BCHW.split(1)])
    again_BF = _features(module, images_BCHW)
    limit = TOLERANCE * float(features_BF.abs().max())
    if float((features_BF - again_BF).abs().max()) > limit:
        return (
            "the same images have other features the second time, in eval(): dropout and other chance belong under"
            " `if self.training`, and nothing may be kept from one batch to the next"
        )
    if float((features_BF - alone_BF).abs().max()) > limit:
        return (
            "the features of an image depend on the other images of its batch, in eval(); allowed: statistics over a"
            " batch in training only, as torch.nn.BatchNorm2d does it"
        )
    return ""


def _wrong_state(module: nn.Module, other: nn.Module, images_BCHW: Tensor) -> str:
    """Whether a module with other weights becomes the same one by its state dict, as a checkpoint holds it."""
    state = module.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        return f"its state_dict has a {type(state[wrong[0]]).__name__} at {wrong[0]!r}; allowed: tensors"
    saved = save_tensors({name: tensor.detach().contiguous().clone() for name, tensor in state.items()})
    other.load_state_dict(load_tensors(saved))
    if not torch.equal(_features(module, images_BCHW), _features(other, images_BCHW)):
        return (
            "a module that has loaded its state_dict computes other features, so a checkpoint would not be the model: a"
            " tensor that it computes with is in no nn.Parameter and no buffer (self.register_buffer), or its numbers"
            " are drawn when it is made"
        )
    return ""


def _features(module: nn.Module, images_BCHW: Tensor) -> Tensor:
    with torch.no_grad():
        features_BF: Tensor = module.eval()(images_BCHW)
    return features_BF


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key])
        for key in a
        if isinstance(a[key], Tensor) and a[key].shape == b[key].shape
    )


def _attempt(work: Callable[[], Any], what: str, reference: str, source: SourceFile) -> Any:
    """What `work` returns. Raises ModelError with the line of the user's file that fails."""
    try:
        return work()
    except (ConfigError, ModelError):
        raise
    except Exception as error:  # the user's code raises anything
        raise ModelError(f"{KEY}: {short(reference)}: {what}: {failure_text(error, source)}") from error
