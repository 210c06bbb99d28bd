"""The config of losses: one section for each loss, with its name, the type of target that it is for, and its keys.

A new loss is a section here and a line in `LOSSES`. Everything else in the config is derived from these: which
sections [loss] and the terms of a sum can be, the names in messages and comments, the losses for each type of target.
A loss in the user's own file has a section too, `OwnLoss`, which any type of target and any key fit.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, create_model

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
from classwise.own_parts.reference import FORM, is_own

ClassWeights = Literal["none", "inverse", "effective"] | Floats


class LossSection(Section):
    """What the config knows of a loss. It cannot ask the module in losses/, which imports torch."""

    if TYPE_CHECKING:
        name: str  # a Literal in each section
    target_type: ClassVar[TargetType]
    soft_targets: ClassVar[bool] = True
    """Whether the loss accepts the mixed labels of mixup and CutMix."""
    balances_classes: ClassVar[bool] = False
    """Whether the loss itself corrects for the class frequencies."""


class _ClassWeighted(LossSection):
    """The keys of losses with class weights."""

    class_weights: ClassWeights = Field(
        "none",
        description="none | inverse | effective (class-balanced, Cui et al. 2019) | a list with one weight per class",
    )
    beta: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="for effective class weights: 0 gives equal weights, towards 1 inverse ones"
    )
    weights_from_epoch: Count = Field(
        1, description="first epoch with class weights (deferred re-weighting, Cao et al. 2019)"
    )
    normalize_by: Literal["rows", "weights"] = Field(
        "rows",
        description="what a weighted loss is divided by: rows = their number, so that class weights act as given;"
        " weights = the summed weights of the update, as torch does",
    )


class CrossEntropy(_ClassWeighted):
    """[loss] name = "cross_entropy" """

    name: Literal["cross_entropy"]
    target_type = "class"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="fraction of the label that is spread evenly over all classes"
    )


class Focal(_ClassWeighted):
    """[loss] name = "focal" """

    name: Literal["focal"]
    target_type = "class"
    gamma: NotNegative = Field(2.0, description="focusing parameter; 0 = cross entropy (Lin et al. 2017)")


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
        1.0, description="factor of the log prior that is added in training; 1 = balanced (Menon et al. 2021)"
    )


class LDAM(_ClassWeighted):
    """[loss] name = "ldam" """

    name: Literal["ldam"]
    target_type = "class"
    soft_targets = False
    max_margin: Positive = Field(
        0.5, description="margin of the rarest class; margins are proportional to count ** (-1/4)"
    )
    scale: Positive = Field(
        30.0, description="factor of the cosines that are the logits with this loss (Cao et al. 2019)"
    )


class GeneralizedCrossEntropy(LossSection):
    """[loss] name = "gce" """

    name: Literal["gce"]
    target_type = "class"
    q: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7,
        description="for noisy labels: 1 = mean absolute error, towards 0 cross entropy (Zhang and Sabuncu 2018)",
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
        "none", description="none | balanced: each label's positives are weighted by negatives / positives"
    )


class MultilabelFocal(LossSection):
    """[loss] name = "multilabel_focal" """

    name: Literal["multilabel_focal"]
    target_type = "multilabel"
    gamma: NotNegative = Field(
        2.0, description="focusing parameter; 0 = binary cross entropy (Lin et al. 2017)"
    )
    alpha: Probability | None = Field(
        None, description="weight of positives; that of negatives is 1 - alpha (default: no weighting)"
    )


class Asymmetric(LossSection):
    """[loss] name = "asymmetric" """

    name: Literal["asymmetric"]
    target_type = "multilabel"
    gamma_neg: NotNegative = Field(4.0, description="focusing parameter of negatives (Ridnik et al. 2021)")
    gamma_pos: NotNegative = Field(1.0, description="focusing parameter of positives")
    clip: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="subtracted from the probabilities of negatives; those below it cost nothing"
    )
    focusing_gradient: bool = Field(
        True,
        description="true: the gradient of the whole formula, as in the paper | false: the focusing factors are held"
        " constant, as in the authors' training script",
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
    beta: Positive = Field(
        1.0, description="error at which the loss turns from squared to linear, in standard deviations"
    )


class Huber(LossSection):
    """[loss] name = "huber" """

    name: Literal["huber"]
    target_type = "regression"
    delta: Positive = Field(
        1.0, description="error at which the loss turns from squared to linear, in standard deviations"
    )


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


class OwnLoss(LossSection):
    """[loss] name = "my_losses.py:MyLoss": further keys are arguments of it."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        description="a loss of your own, FILE.py:NAME, such as my_losses.py:MyLoss (docs/guide/own-parts.md); the file"
        " is relative to this one, and further keys of the table are its arguments"
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """The further keys of the table."""
        return dict(self.model_extra or {})


class _Weighted(Section):
    """The key that a loss has only as a term of a sum."""

    weight: Positive = Field(1.0, description="weight of this term in the sum")


class OwnLossTerm(OwnLoss, _Weighted):
    """A loss of the user's own as a term of a sum; its key `weight` is that of the term."""

    model_config = ConfigDict(extra="allow")


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
"""Every loss, in the order of `classwise keys` and of messages."""
TERMS = tuple(
    create_model(f"{section.__name__}Term", __base__=(section, _Weighted), __module__=__name__)
    for section in LOSSES
)
"""Every loss as a term of a sum: its section, and `weight`."""
# pickle finds classes by their names, and `compare` sends configs to the processes that train.
globals().update({term.__name__: term for term in TERMS})


def _tag(values: Any) -> str | None:
    """Which section a table is validated by: that of its name, or the one of the user's own losses."""
    name = values.get("name") if isinstance(values, Mapping) else getattr(values, "name", None)
    return FORM if is_own(name) else None if name is None else str(name)


def _by_name(*sections: type[Section]) -> Any:
    """The union of the sections, told apart by `name`."""
    return Annotated[
        reduce(or_, (Annotated[section, Tag(section_name(section))] for section in sections)),
        Discriminator(_tag),
    ]


if TYPE_CHECKING:  # type checkers cannot evaluate a computed union
    Term = LossSection
else:
    Term = _by_name(*TERMS, OwnLossTerm)


class WeightedSum(Section):
    """[loss] name = "sum" """

    name: Literal["sum"]
    terms: Annotated[tuple[Term, ...], Field(strict=False, min_length=1)] = Field(
        description="the losses to add up, each with its own keys and a weight"
    )


if TYPE_CHECKING:
    Loss = LossSection | WeightedSum
else:
    Loss = _by_name(*LOSSES, WeightedSum, OwnLoss)

DEFAULT_LOSS: dict[TargetType, str] = {
    "class": "cross_entropy",
    "multilabel": "bce",
    "ordinal": "corn",
    "regression": "mse",
    "ranking": "listnet",
}
"""The loss for each type of target if the config gives none."""


def _losses_for(type: TargetType) -> tuple[str, ...]:
    names = [section_name(section) for section in LOSSES if section.target_type == type]
    return tuple(sorted(names, key=lambda name: name != DEFAULT_LOSS[type]))


LOSSES_BY_TYPE = {type: _losses_for(type) for type in DEFAULT_LOSS}
"""The names of the losses for each type of target, the default first."""
LOSS_NAMES = "; ".join(
    [*(f"{' | '.join(names)} ({type})" for type, names in LOSSES_BY_TYPE.items()), "sum", FORM]
)
"""The comment behind the name of a loss: every loss, by type of target."""


def fits(loss: Mapping[str, Any], type: TargetType) -> bool:
    """Whether a loss, as plain values, is for targets of this type; a sum is if all its terms are, and of the user's
    own losses nobody knows before they are tried."""
    if loss.get("name") != "sum":
        return _is_for(loss, type)
    terms = loss.get("terms", ())
    if not isinstance(terms, list | tuple):
        return True  # validation refuses it, with a better message
    return all(_is_for(term, type) for term in terms if isinstance(term, Mapping))


def _is_for(loss: Mapping[str, Any], type: TargetType) -> bool:
    return loss.get("name") in LOSSES_BY_TYPE[type] or is_own(loss.get("name"))
