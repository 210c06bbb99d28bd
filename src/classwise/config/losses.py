"""The config of losses: one section for each loss, which says its name and the type of target that it is for.

A new loss is a section here and a line in `LOSSES`. Everything else follows from those two: the sections that [loss]
and the terms of a sum may be, the names in messages and comments, and the losses of each type of target.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model

from classwise.config.base import (
    Count,
    Floats,
    NotNegative,
    Positive,
    Probability,
    Section,
    TargetType,
    section_name,
)

ClassWeights = Literal["none", "inverse", "effective"] | Floats


class LossSection(Section):
    """What every loss says of itself. The config cannot ask the losses' modules: it is imported before them."""

    if TYPE_CHECKING:
        name: str  # each section allows one name only
    target_type: ClassVar[TargetType]
    soft_targets: ClassVar[bool] = True
    """Whether it takes the mixed labels of mixup and CutMix."""
    balances_classes: ClassVar[bool] = False
    """Whether it corrects for the class frequencies by itself."""


class _ClassWeighted(LossSection):
    """What losses with class weights have in common."""

    class_weights: ClassWeights = Field(
        "none",
        description="none | inverse | effective (class-balanced, Cui et al. 2019) | one number a class",
    )
    beta: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="of effective class weights: near 1 is near inverse, 0 is none"
    )
    weights_from_epoch: Count = Field(
        1, description="class weights apply from this epoch on (deferred re-weighting, Cao et al. 2019)"
    )


class CrossEntropy(_ClassWeighted):
    """[loss] name = "cross_entropy" """

    name: Literal["cross_entropy"]
    target_type = "class"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target spread evenly over all classes"
    )


class Focal(_ClassWeighted):
    """[loss] name = "focal" """

    name: Literal["focal"]
    target_type = "class"
    gamma: NotNegative = Field(2.0, description="focusing: 0 is cross entropy (Lin et al. 2017)")


class BalancedSoftmax(LossSection):
    """[loss] name = "balanced_softmax" """

    name: Literal["balanced_softmax"]
    target_type = "class"
    balances_classes = True


class LogitAdjustment(LossSection):
    """[loss] name = "logit_adjustment" """

    name: Literal["logit_adjustment"]
    target_type = "class"
    balances_classes = True
    tau: NotNegative = Field(
        1.0, description="times the log prior that is added in training (Menon et al. 2021); 1 balances"
    )


class LDAM(_ClassWeighted):
    """[loss] name = "ldam" """

    name: Literal["ldam"]
    target_type = "class"
    soft_targets = False
    max_margin: Positive = Field(0.5, description="margin of the rarest class; others by count ** (-1/4)")
    scale: Positive = Field(
        30.0, description="of the cosine that stands for a logit with this loss (Cao et al. 2019)"
    )


class GeneralizedCrossEntropy(LossSection):
    """[loss] name = "gce" """

    name: Literal["gce"]
    target_type = "class"
    q: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="1 is MAE, towards 0 cross entropy; for noisy labels (Zhang, Sabuncu 2018)"
    )


class SoftF1(LossSection):
    """[loss] name = "soft_f1" """

    name: Literal["soft_f1"]
    target_type = "class"
    soft_targets = False


class BinaryCrossEntropy(LossSection):
    """[loss] name = "bce" """

    name: Literal["bce"]
    target_type = "multilabel"
    pos_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: a label's positives weigh (rows without it) / (rows with it)"
    )


class MultilabelFocal(LossSection):
    """[loss] name = "multilabel_focal" """

    name: Literal["multilabel_focal"]
    target_type = "multilabel"
    gamma: NotNegative = Field(2.0, description="focusing: 0 is binary cross entropy (Lin et al. 2017)")
    alpha: Probability | None = Field(None, description="weight of positives, 1 - alpha of negatives")


class Asymmetric(LossSection):
    """[loss] name = "asymmetric" """

    name: Literal["asymmetric"]
    target_type = "multilabel"
    gamma_neg: NotNegative = Field(4.0, description="focusing of negatives (Ridnik et al. 2021)")
    gamma_pos: NotNegative = Field(1.0, description="focusing of positives")
    clip: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="negatives with a smaller probability than this cost nothing"
    )


class Corn(LossSection):
    """[loss] name = "corn" """

    name: Literal["corn"]
    target_type = "ordinal"


class MSE(LossSection):
    """[loss] name = "mse" """

    name: Literal["mse"]
    target_type = "regression"


class MAE(LossSection):
    """[loss] name = "mae" """

    name: Literal["mae"]
    target_type = "regression"


class SmoothL1(LossSection):
    """[loss] name = "smooth_l1" """

    name: Literal["smooth_l1"]
    target_type = "regression"
    beta: Positive = Field(1.0, description="below it squared, above it linear; in standard deviations")


class Huber(LossSection):
    """[loss] name = "huber" """

    name: Literal["huber"]
    target_type = "regression"
    delta: Positive = Field(1.0, description="below it squared, above it linear; in standard deviations")


class PairwiseLogistic(LossSection):
    """[loss] name = "pairwise_logistic" """

    name: Literal["pairwise_logistic"]
    target_type = "ranking"
    soft_targets = False


class ListNet(LossSection):
    """[loss] name = "listnet" """

    name: Literal["listnet"]
    target_type = "ranking"
    soft_targets = False


class _Weighted(Section):
    """What a loss has besides its own keys where it is a term of a sum."""

    weight: Positive = Field(1.0, description="factor of this term in the sum")


LOSSES: tuple[type[LossSection], ...] = (
    CrossEntropy,
    Focal,
    BalancedSoftmax,
    LogitAdjustment,
    LDAM,
    GeneralizedCrossEntropy,
    SoftF1,
    BinaryCrossEntropy,
    MultilabelFocal,
    Asymmetric,
    Corn,
    MSE,
    MAE,
    SmoothL1,
    Huber,
    PairwiseLogistic,
    ListNet,
)
"""Every loss, in the order in which lists and messages name them."""
TERMS = tuple(
    create_model(f"{section.__name__}Term", __base__=(section, _Weighted), __module__=__name__)
    for section in LOSSES
)
"""Each loss with the keys that it has as a term of a sum."""
# pickle looks classes up by name, and `compare` sends configs to the processes that train.
globals().update({term.__name__: term for term in TERMS})

if TYPE_CHECKING:  # a type checker cannot read a union that is computed
    Term = LossSection
else:
    Term = Annotated[reduce(or_, TERMS), Field(discriminator="name")]


class WeightedSum(Section):
    """[loss] name = "sum" """

    name: Literal["sum"]
    terms: Annotated[tuple[Term, ...], Field(strict=False, min_length=1)] = Field(
        description="the losses to add, each with its own keys and a weight"
    )


if TYPE_CHECKING:
    Loss = LossSection | WeightedSum
else:
    Loss = Annotated[reduce(or_, (*LOSSES, WeightedSum)), Field(discriminator="name")]

DEFAULT_LOSS: dict[TargetType, str] = {
    "class": "cross_entropy",
    "multilabel": "bce",
    "ordinal": "corn",
    "regression": "mse",
    "ranking": "listnet",
}
"""The loss of a target of each type where the config names none."""


def _losses_for(type: TargetType) -> tuple[str, ...]:
    names = [section_name(section) for section in LOSSES if section.target_type == type]
    return tuple(sorted(names, key=lambda name: name != DEFAULT_LOSS[type]))


LOSSES_BY_TYPE = {type: _losses_for(type) for type in DEFAULT_LOSS}
"""The names of the losses for each type of target, the default first."""
LOSS_NAMES = "; ".join([*(f"{' | '.join(names)} ({type})" for type, names in LOSSES_BY_TYPE.items()), "sum"])
"""Every loss by type, in one line: the comment behind the name of a loss."""


def fits(loss: Mapping[str, Any], type: TargetType) -> bool:
    """Whether a loss section, as plain values, is for targets of this type; a sum is if all its terms are."""
    if loss.get("name") != "sum":
        return loss.get("name") in LOSSES_BY_TYPE[type]
    terms = loss.get("terms", ())
    if not isinstance(terms, list | tuple):
        return True  # the validation of the section will say what is wrong with it
    return all(term.get("name") in LOSSES_BY_TYPE[type] for term in terms if isinstance(term, Mapping))
