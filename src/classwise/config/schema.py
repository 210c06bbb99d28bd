"""The config: one frozen tree, validated when it is made and written back with every key resolved.

Unknown keys are refused with the nearest known one, ranges are checked, and every message names the key as
it is in the file (`schedule.warmup_epochs`). The descriptions of the fields are the comments that `classwise init`
writes and the text of `classwise keys`.
"""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from classwise.config.base import Count, NotNegative, Positive, Section
from classwise.config.data import Data
from classwise.config.decision import Decision
from classwise.config.duplicates import find_duplicate
from classwise.config.folds import Folds
from classwise.config.inference import Inference
from classwise.config.losses import DEFAULT_LOSS, LOSSES_BY_TYPE, CrossEntropy, Loss, fits
from classwise.config.model import Model
from classwise.config.schedules import Cosine, Schedule
from classwise.config.targets import Joint, Target
from classwise.config.toml import toml_text
from classwise.config.training import Training
from classwise.errors import nearest
from classwise.own_parts.reference import is_own


class Optimizer(Section):
    """[optimizer]"""

    name: str = Field(
        "adamw",
        description="adam | adamw | sgd | adamp | sgdp | any other optimizer of torch or timm | one of your own,"
        " FILE.py:NAME",
    )
    lr: Positive = Field(1e-3, description="learning rate")
    weight_decay: NotNegative = Field(
        1e-2,
        description="weight decay of the weights of layers; not of norms, biases, layer scales, tokens, position"
        " embeddings and relative positions, nor of what a timm model exempts itself",
    )
    backbone_lr_factor: NotNegative = Field(
        1.0, description="learning rate of the backbone, as a multiple of lr; the heads always have lr"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="learning rate of each backbone layer, as a multiple of the next layer's; 1 = all the same",
    )
    frozen_below: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="backbone layers for which layer_decay leaves less than this fraction of the backbone's rate are"
        " not trained: they would hardly change, and a backward pass through their large maps takes time and memory;"
        " 0 = all are trained",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="momentum, if the optimizer has it (default: the optimizer's own; 0.9 for sgd and sgdp)",
    )
    nesterov: bool | None = Field(
        None, description="Nesterov momentum, if the optimizer has it (default: its own)"
    )
    betas: Annotated[tuple[float, float], Field(strict=False)] | None = Field(
        None, description="if the optimizer has them (default: the optimizer's own)"
    )
    eps: Positive | None = Field(None, description="if the optimizer has it (default: the optimizer's own)")
    options: dict[str, Any] | None = Field(
        None, description="further arguments of the optimizer, such as { amsgrad = true }"
    )


def _kind_of_prior(value: Any) -> str:
    return "shares" if isinstance(value, Mapping) else "name"


# By the kind of value, so that a message is about what was meant: a name, or one of the shares.
Prior = Annotated[
    Annotated[str, Tag("name")] | Annotated[dict[str, Positive], Tag("shares")], Discriminator(_kind_of_prior)
]
PRIORS = ("as_validation", "balanced")


class Selection(Section):
    """[selection]"""

    metric: str = Field(
        "macro_f1",
        description="metric that selects the best checkpoint: of [joint] if there is one, else of the only target;"
        ' or "age.macro_f1", "age.mae", ...; of one class "f1[old]", of the worst "worst_f1"; shares of several,'
        ' such as "0.7*macro_f1 + 0.3*f1[old]"; or "mean" of all targets\' main scores, the default of several'
        " targets without [joint]",
    )
    prior: Prior | None = Field(
        None,
        description="class shares where the model will be used, for the metric and the predictions: as_validation |"
        " balanced | { label = share, ... } (default: predictions as the loss makes them)",
    )
    first_epoch: Count | Annotated[float, Field(gt=0, lt=1)] = Field(
        0.8,
        description="the best checkpoint is selected from this epoch on; below 1: after this fraction of the epochs."
        " The fewer epochs to choose from, the less luck (default: 0.8; with patience: 1)",
    )
    patience: Count | None = Field(
        None, description="early stopping: epochs to wait for an improvement (default: off)"
    )

    @model_validator(mode="before")
    @classmethod
    def _stop_early_from_the_start(cls, values: Any) -> Any:
        """Who wants to stop early does not want to train for most of the epochs first."""
        if isinstance(values, Mapping) and values.get("patience") is not None:
            return {"first_epoch": 1, **values}
        return values

    @model_validator(mode="after")
    def _known_prior(self) -> "Selection":
        if isinstance(self.prior, str) and self.prior not in PRIORS:
            raise ValueError(
                f"prior: found {self.prior!r}, allowed: {', '.join(PRIORS)}, or a table {{ label = share, ... }}"
            )
        return self


TrackerName = Literal["tensorboard", "mlflow", "wandb", "csv"]


class Report(Section):
    """[report]"""

    baselines: bool = Field(
        True, description="also score the most frequent class and a balanced linear probe on the same split"
    )
    resamples: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1000, description="draws behind the 95 % confidence intervals; 0 = no intervals"
    )
    row_weights: bool = Field(
        False,
        description="also score with the rows weighted by their column data.weight (metrics.json: row_weighted)",
    )
    live: bool = Field(
        False,
        description="write report.html again after each epoch; until the run ends, the page reloads itself",
    )
    explanations: Annotated[int, Field(ge=0, le=20)] = Field(
        2,
        description="heat maps in the report, of the worst mistakes of each rare class and of as many of its most"
        " certain hits; 0 = none",
    )
    trackers: Annotated[tuple[TrackerName, ...], Field(strict=False)] = Field(
        (), description="where the run can be watched beside others: tensorboard, mlflow, wandb, csv"
    )


TargetName = Annotated[str, Field(pattern=r"^[\w -]+$")]
RESERVED_NAMES = {"joint": "the joint class", "id": "the ids of the rows"}
"""Names that no target can have, since predictions use them for something else."""


class Config(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(42, description="seed of all random numbers")
    name: Annotated[str, Field(pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$")] = Field(
        "run", description="name of the run directory: runs/NAME, or runs/NAME-2, ... if it exists"
    )
    data: Data
    targets: Annotated[dict[TargetName, Target], Field(min_length=1)]
    joint: Joint | None = None
    model: Model = Model()
    loss: Loss = CrossEntropy(name="cross_entropy")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Cosine(name="cosine")
    training: Training = Training()
    selection: Selection = Selection()
    report: Report = Report()
    inference: Inference = Inference()
    folds: Folds | None = None
    decision: Decision | None = None

    @model_validator(mode="before")
    @classmethod
    def _resolve_target_losses(cls, values: Any) -> Any:
        return resolve_target_losses(values)

    @model_validator(mode="before")
    @classmethod
    def _resolve_metric(cls, values: Any) -> Any:
        return resolve_default_metric(values)

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        # The targets of the joint class exist, once each, and have classes.
        for name in self.joint.targets if self.joint else ():
            if name not in self.targets:
                raise ValueError(f"joint.targets: no target {name!r}; {nearest(name, self.targets)}")
            if not self.targets[name].class_like:
                raise ValueError(
                    f"joint.targets: {name!r} has type {self.targets[name].type!r}; allowed: class, ordinal, or"
                    " regression with edges"
                )
        duplicate = find_duplicate(self.joint.targets if self.joint else ())
        if duplicate is not None:
            raise ValueError(f"joint.targets: found {duplicate!r} twice; duplicates are not allowed")

        # Epochs are within training.epochs.
        if self.first_epoch > self.training.epochs:
            raise ValueError(
                f"selection.first_epoch: found {self.selection.first_epoch}, but training.epochs is"
                f" {self.training.epochs}"
            )
        if self.training.freeze_epochs > self.training.epochs:
            raise ValueError(
                f"training.freeze_epochs: found {self.training.freeze_epochs}, but training.epochs is"
                f" {self.training.epochs}"
            )

        restarts = self.schedule.restart_after or ()
        limits = (self.training.freeze_epochs, *restarts, self.training.epochs)
        if restarts and any(later <= earlier for earlier, later in itertools.pairwise(limits)):
            raise ValueError(
                f"schedule.restart_after: found {list(restarts)}, must be epochs in ascending order, after"
                f" training.freeze_epochs = {self.training.freeze_epochs} and before training.epochs ="
                f" {self.training.epochs}"
            )

        # A loss that the file gives is for one of the targets, or it would have no effect.
        types = sorted({target.type for target in self.targets.values()})
        if "loss" in self.model_fields_set and not any(fits(self.loss.model_dump(), type) for type in types):
            raise ValueError(
                f"loss.name: found {self.loss.name!r}, which is for none of the targets (their types:"
                f" {', '.join(types)})"
            )
        shared_by = {target.type for target in self.targets.values() if target.loss is None}
        if _has_own(self.loss) and len(shared_by) > 1:
            raise ValueError(
                f"loss.name: found {self.loss.name!r} for targets of several types ({', '.join(sorted(shared_by))}),"
                " which one loss cannot be for; allowed: a loss of your own in [targets.NAME.loss]"
            )
        self._check_costs()
        for name, use in RESERVED_NAMES.items():
            if name in self.targets:
                raise ValueError(f"targets.{name}: this name is reserved for {use}; choose another")
        return self

    def _check_costs(self) -> None:
        """Costs are those of a target with classes. Raises ValueError."""
        for name in (self.decision and self.decision.costs) or {}:
            if name not in self.targets:
                raise ValueError(f"decision.costs: no target {name!r}; {nearest(name, self.targets)}")
            if self.targets[name].type not in ("class", "ordinal"):
                raise ValueError(
                    f"decision.costs: {name!r} has type {self.targets[name].type!r}; allowed: class, ordinal"
                )

    @model_validator(mode="after")
    def _one_source_of_validation_rows(self) -> "Config":
        """Where one fold is trained, its rows are those of validation."""
        if self.fold is None:
            return self
        if isinstance(self.data.valid, str) or not self.data.has_valid:
            raise ValueError(
                f"data.valid: found {self.data.valid!r} beside folds.fold = {self.fold}, whose rows of data.source are"
                " the validation rows; allowed: a share, which the fold replaces"
            )
        if self.data.valid_fold is not None:
            raise ValueError(
                f"data.valid_fold: found {self.data.valid_fold!r} beside folds.fold = {self.fold}; allowed: one of them"
            )
        return self

    @property
    def fold(self) -> int | None:
        """The fold that is for validation, where there is one (folds.fold)."""
        return None if self.folds is None else self.folds.fold

    @property
    def is_on_all_folds(self) -> bool:
        """Whether this is a model on the rows of all folds (folds.last, folds.soup): the test rows are those of the
        folds."""
        if self.folds is None or self.folds.fold is not None:
            return False
        return (self.folds.last or self.folds.soup) and not self.data.has_valid

    @property
    def is_of_folds(self) -> bool:
        """Whether this is the model of one fold, or of all."""
        return self.fold is not None or self.is_on_all_folds

    @property
    def split_seed(self) -> int:
        """The seed of the split: that of the run, unless the folds have one of their own."""
        if self.folds is None or not self.is_of_folds or self.folds.seed is None:
            return self.seed
        return self.folds.seed

    @property
    def first_epoch(self) -> int:
        """The first epoch that can be selected, counted from 1: as given, or the one after a fraction of all epochs."""
        first_epoch = self.selection.first_epoch
        return first_epoch if isinstance(first_epoch, int) else int(first_epoch * self.training.epochs) + 1

    @property
    def plan(self) -> str:
        """training.plan without `auto`: heads are fitted first where the backbone's features mean something. Heads of
        cosines, which LDAM has, and those that freeze_epochs trains, are not fitted; nor are heads fitted to rows that
        data.sampling draws more often than others. What starts from a run has heads to go on from."""
        if self.training.plan != "auto":
            return self.training.plan
        is_plain = self.data.sampling == "shuffle" and not self.training.freeze_epochs
        has_features = self.model.weights != "none" and not self.model.starts_from_run
        can_probe = has_features and is_plain and not self.has_cosines
        return "probe_then_finetune" if can_probe else "finetune"

    @property
    def has_cosines(self) -> bool:
        """Whether a target's loss is LDAM, alone or in a sum, whose heads compute cosines."""
        losses = [self.loss_of(name) for name in self.targets]
        return any(
            "ldam" in (loss.name, *(term.name for term in getattr(loss, "terms", ()))) for loss in losses
        )

    @property
    def has_ranking(self) -> bool:
        """Whether there is a ranking target."""
        return any(target.type == "ranking" for target in self.targets.values())

    def loss_of(self, name: str) -> Any:
        """The loss section that a target is trained with."""
        return self.targets[name].loss or self.loss

    def to_dict(self) -> dict[str, Any]:
        """Every key resolved, as plain values; without [loss] if every target has a loss of its own."""
        values = self.model_dump()
        if all(target.loss is not None for target in self.targets.values()):
            del values["loss"]
        return values

    def to_toml(self) -> str:
        """The file with every key resolved; keys without a value are left out."""
        return toml_text(self.to_dict())


def _has_own(loss: Any) -> bool:
    """Whether a loss, or a term of it, is the user's own."""
    return is_own(loss.name) or any(is_own(term.name) for term in getattr(loss, "terms", ()))


def resolve_default_metric(values: Any) -> Any:
    """The tree of plain values with selection.metric = "mean" where it is not given and there are several targets
    without a joint class. Invalid values are left for validation to refuse."""
    if not isinstance(values, Mapping) or values.get("joint") is not None:
        return values
    targets, selection = values.get("targets"), values.get("selection", {})
    if not isinstance(targets, Mapping) or len(targets) < 2:
        return values
    if isinstance(selection, Selection) and "metric" not in selection.model_fields_set:
        return {**values, "selection": selection.model_copy(update={"metric": "mean"})}
    if isinstance(selection, Mapping) and "metric" not in selection:
        return {**values, "selection": {**selection, "metric": "mean"}}
    return values


def resolve_target_losses(values: Any) -> Any:
    """The tree of plain values with every target's loss in full: a loss without a name changes [loss] or, where [loss]
    is for another type of target, the default loss of its type. Invalid values are left for validation to refuse."""
    if not isinstance(values, Mapping) or not isinstance(values.get("targets"), Mapping):
        return values
    shared = values.get("loss", {"name": "cross_entropy"})
    targets = {
        name: _with_resolved_loss(target, shared) if isinstance(target, Mapping) else target
        for name, target in values["targets"].items()
    }
    return {**values, "targets": targets}


def _with_resolved_loss(target: Mapping[str, Any], shared: Any) -> dict[str, Any]:
    """One target's table with its loss in full; `shared` is the table [loss]."""
    resolved = dict(target)
    type = resolved.get("type", "class")
    if not (isinstance(type, str) and type in DEFAULT_LOSS and isinstance(shared, Mapping)):
        return resolved
    if type == "multilabel" and "columns" not in resolved:
        resolved.setdefault("separator", "|")

    # Without a loss of its own the target keeps None, which stands for [loss], if that is for its type.
    loss = resolved.get("loss")
    usable = (
        fits(shared, type) or shared.get("name") not in _LOSS_NAMES
    )  # validation refuses a misspelled name
    base = shared if usable else {"name": DEFAULT_LOSS[type]}
    if isinstance(loss, Mapping) and "name" not in loss:
        resolved["loss"] = {**base, **loss}
    elif loss is None and not usable:
        resolved["loss"] = base
    return resolved


_LOSS_NAMES = [*(name for names in LOSSES_BY_TYPE.values() for name in names), "sum"]
