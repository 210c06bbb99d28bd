"""The config of losses: one section a loss, and which losses belong to which type of target."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from classwise.config.base import Count, Floats, NotNegative, Positive, Probability, Section

ClassWeights = Literal["none", "inverse", "effective"] | Floats
_NAMES = (
    "cross_entropy | focal | balanced_softmax | logit_adjustment | ldam | gce | soft_f1 (class);"
    " bce | multilabel_focal | asymmetric (multilabel); corn (ordinal);"
    " mse | mae | smooth_l1 | huber (regression); pairwise_logistic | listnet (ranking); sum"
)


class _ClassWeighted(Section):
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

    name: Literal["cross_entropy"] = Field(description=_NAMES)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target spread evenly over all classes"
    )


class Focal(_ClassWeighted):
    """[loss] name = "focal" """

    name: Literal["focal"] = Field(description=_NAMES)
    gamma: NotNegative = Field(2.0, description="focusing: 0 is cross entropy (Lin et al. 2017)")


class BalancedSoftmax(Section):
    """[loss] name = "balanced_softmax" """

    name: Literal["balanced_softmax"] = Field(description=_NAMES)


class LogitAdjustment(Section):
    """[loss] name = "logit_adjustment" """

    name: Literal["logit_adjustment"] = Field(description=_NAMES)
    tau: NotNegative = Field(
        1.0, description="times the log prior that is added in training (Menon et al. 2021); 1 balances"
    )


class LDAM(_ClassWeighted):
    """[loss] name = "ldam" """

    name: Literal["ldam"] = Field(description=_NAMES)
    max_margin: Positive = Field(0.5, description="margin of the rarest class; others by count ** (-1/4)")
    scale: Positive = Field(
        30.0, description="of the cosine that stands for a logit with this loss (Cao et al. 2019)"
    )


class GeneralizedCrossEntropy(Section):
    """[loss] name = "gce" """

    name: Literal["gce"] = Field(description=_NAMES)
    q: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="1 is MAE, towards 0 cross entropy; for noisy labels (Zhang, Sabuncu 2018)"
    )


class SoftF1(Section):
    """[loss] name = "soft_f1" """

    name: Literal["soft_f1"] = Field(description=_NAMES)


class BinaryCrossEntropy(Section):
    """[loss] name = "bce" """

    name: Literal["bce"] = Field(description=_NAMES)
    pos_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: a label's positives weigh (rows without it) / (rows with it)"
    )


class MultilabelFocal(Section):
    """[loss] name = "multilabel_focal" """

    name: Literal["multilabel_focal"] = Field(description=_NAMES)
    gamma: NotNegative = Field(2.0, description="focusing: 0 is binary cross entropy (Lin et al. 2017)")
    alpha: Probability | None = Field(None, description="weight of positives, 1 - alpha of negatives")


class Asymmetric(Section):
    """[loss] name = "asymmetric" """

    name: Literal["asymmetric"] = Field(description=_NAMES)
    gamma_neg: NotNegative = Field(4.0, description="focusing of negatives (Ridnik et al. 2021)")
    gamma_pos: NotNegative = Field(1.0, description="focusing of positives")
    clip: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="negatives with a smaller probability than this cost nothing"
    )


class Corn(Section):
    """[loss] name = "corn" """

    name: Literal["corn"] = Field(description=_NAMES)


class MSE(Section):
    """[loss] name = "mse" """

    name: Literal["mse"] = Field(description=_NAMES)


class MAE(Section):
    """[loss] name = "mae" """

    name: Literal["mae"] = Field(description=_NAMES)


class SmoothL1(Section):
    """[loss] name = "smooth_l1" """

    name: Literal["smooth_l1"] = Field(description=_NAMES)
    beta: Positive = Field(1.0, description="below it squared, above it linear; in standard deviations")


class Huber(Section):
    """[loss] name = "huber" """

    name: Literal["huber"] = Field(description=_NAMES)
    delta: Positive = Field(1.0, description="below it squared, above it linear; in standard deviations")


class PairwiseLogistic(Section):
    """[loss] name = "pairwise_logistic" """

    name: Literal["pairwise_logistic"] = Field(description=_NAMES)


class ListNet(Section):
    """[loss] name = "listnet" """

    name: Literal["listnet"] = Field(description=_NAMES)


class WeightedSum(Section):
    """[loss] name = "sum" """

    name: Literal["sum"] = Field(description=_NAMES)
    terms: Annotated[tuple["Term", ...], Field(strict=False, min_length=1)] = Field(
        description="the losses to add, each with its own keys and a weight"
    )


class _Weighted(Section):
    weight: Positive = Field(1.0, description="factor of this term in the sum")


class CrossEntropyTerm(CrossEntropy, _Weighted): ...


class FocalTerm(Focal, _Weighted): ...


class BalancedSoftmaxTerm(BalancedSoftmax, _Weighted): ...


class LogitAdjustmentTerm(LogitAdjustment, _Weighted): ...


class LDAMTerm(LDAM, _Weighted): ...


class GeneralizedCrossEntropyTerm(GeneralizedCrossEntropy, _Weighted): ...


class SoftF1Term(SoftF1, _Weighted): ...


class BinaryCrossEntropyTerm(BinaryCrossEntropy, _Weighted): ...


class MultilabelFocalTerm(MultilabelFocal, _Weighted): ...


class AsymmetricTerm(Asymmetric, _Weighted): ...


class CornTerm(Corn, _Weighted): ...


class MSETerm(MSE, _Weighted): ...


class MAETerm(MAE, _Weighted): ...


class SmoothL1Term(SmoothL1, _Weighted): ...


class HuberTerm(Huber, _Weighted): ...


class PairwiseLogisticTerm(PairwiseLogistic, _Weighted): ...


class ListNetTerm(ListNet, _Weighted): ...


Term = Annotated[
    CrossEntropyTerm
    | FocalTerm
    | BalancedSoftmaxTerm
    | LogitAdjustmentTerm
    | LDAMTerm
    | GeneralizedCrossEntropyTerm
    | SoftF1Term
    | BinaryCrossEntropyTerm
    | MultilabelFocalTerm
    | AsymmetricTerm
    | CornTerm
    | MSETerm
    | MAETerm
    | SmoothL1Term
    | HuberTerm
    | PairwiseLogisticTerm
    | ListNetTerm,
    Field(discriminator="name"),
]
Loss = Annotated[
    CrossEntropy
    | Focal
    | BalancedSoftmax
    | LogitAdjustment
    | LDAM
    | GeneralizedCrossEntropy
    | SoftF1
    | BinaryCrossEntropy
    | MultilabelFocal
    | Asymmetric
    | Corn
    | MSE
    | MAE
    | SmoothL1
    | Huber
    | PairwiseLogistic
    | ListNet
    | WeightedSum,
    Field(discriminator="name"),
]

FAMILIES: dict[str, tuple[str, ...]] = {
    "class": ("cross_entropy", "focal", "balanced_softmax", "logit_adjustment", "ldam", "gce", "soft_f1"),
    "ordinal": ("corn",),
    "multilabel": ("bce", "multilabel_focal", "asymmetric"),
    "regression": ("mse", "mae", "smooth_l1", "huber"),
    "ranking": ("listnet", "pairwise_logistic"),
}
"""The losses of each type of target; the first is what a target of that type gets where none is given."""


def by_name(union: Any) -> dict[str, type[Section]]:
    """The sections of a discriminated union by their name."""
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["name"].annotation)[0]: member for member in members}


def fits(loss: Any, type: str) -> bool:
    """Whether a loss section (or a plain dict of one) is for targets of this type; a sum is what its terms are."""
    values = loss if isinstance(loss, dict) else loss.model_dump()
    if values.get("name") == "sum":
        terms = values.get("terms", ())
        if not isinstance(terms, list | tuple):
            return True  # whoever checks the section says what is wrong with it
        return all(term.get("name") in FAMILIES[type] for term in terms if isinstance(term, dict))
    return values.get("name") in FAMILIES[type]
