"""The config: one frozen tree, checked when it is made and written back with every key resolved.

Unknown keys are refused with the nearest known one, ranges are checked, and every message names the key as
it stands in the file (`schedule.warmup_epochs`). The descriptions of the fields are what `classwise init`
writes as comments and what `classwise train --help` shows.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from classwise.errors import nearest
from classwise.toml import toml_text

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
# TOML has lists only; everything else stays strict, so that "30" is not taken for 30.
Pair = Annotated[tuple[Count, Count], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Augment(Section):
    """[data.augment]: a preset, and its parts as keys."""

    preset: Literal["none", "light", "standard", "strong"] = Field(
        "light", description="none | light | standard | strong; a key below replaces that part of it"
    )
    flip: Probability | None = Field(None, description="probability of a left-right flip")
    crop: Annotated[float, Field(ge=0.01, le=1)] | None = Field(
        None, description="least share of the picture's area that a random crop keeps; 1 = no crop"
    )
    ratio: Annotated[float, Field(ge=1, le=4)] | None = Field(
        None, description="largest factor by which a crop changes the aspect; 1 = none"
    )
    rotate: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="largest rotation to either side, in degrees"
    )
    translate: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        None, description="largest shift, as a share of height and width"
    )
    brightness: Probability | None = Field(None, description="0.2 multiplies by 0.8 to 1.2")
    contrast: Probability | None = Field(
        None, description="0.2: the distance from mean grey times 0.8 to 1.2"
    )
    saturation: Probability | None = Field(
        None, description="0.2: the distance from own grey times 0.8 to 1.2"
    )
    erase: Probability | None = Field(None, description="probability that a random rectangle is erased")


def _preset(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


class Data(Section):
    """[data]"""

    source: str = Field(
        description="a table (.csv .tsv .parquet), or a folder with one sub-folder per class;"
        " relative to this file"
    )
    images: str = Field(
        ".", description="folder that the table's paths are relative to; no path may leave it"
    )
    path: str = Field("path", description="column with the picture's path")
    id: str | None = Field(None, description="column that names the row (default: the path column)")
    group: str | None = Field(
        None, description="column such as a person: rows of one group never stand on both sides of a split"
    )
    valid: Annotated[float, Field(gt=0, lt=1)] | str = Field(
        0.2, description="share of the rows to validate on, or the name of a table"
    )
    augment: Annotated[Augment, BeforeValidator(_preset)] = Field(
        Augment(), description="none | light | standard | strong, or a table [data.augment] with its parts"
    )
    sampling: Literal["shuffle", "balanced", "sqrt"] = Field(
        "shuffle",
        description="shuffle: every row once an epoch; balanced: every class equally often;"
        " sqrt: between the two",
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        "auto", description="processes that read pictures; 0 = the training process itself"
    )
    bad_images: Literal["error", "skip"] = Field(
        "error", description="error: refuse to start; skip: leave such rows out and count them"
    )
    max_pixels: Annotated[int, Field(ge=1, le=170_000_000)] = Field(
        100_000_000, description="a picture with more pixels than this is refused before it is decoded"
    )


ClassWeights = Literal["none", "inverse", "effective"] | Floats
_LOSSES = "cross_entropy | focal | balanced_softmax | soft_f1 | sum, each with its own keys"
_CLASS_WEIGHTS = "none | inverse | effective (Cui et al. 2019) | a list, one number a class"


class CrossEntropy(Section):
    """[loss] name = "cross_entropy" """

    name: Literal["cross_entropy"] = Field(description=_LOSSES)
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target spread evenly over all classes"
    )
    class_weights: ClassWeights = Field("none", description=_CLASS_WEIGHTS)


class Focal(Section):
    """[loss] name = "focal" """

    name: Literal["focal"] = Field(description=_LOSSES)
    gamma: NotNegative = Field(2.0, description="focusing: 0 is cross entropy (Lin et al. 2017)")
    class_weights: ClassWeights = Field("none", description=_CLASS_WEIGHTS)


class BalancedSoftmax(Section):
    """[loss] name = "balanced_softmax" """

    name: Literal["balanced_softmax"] = Field(description=_LOSSES)


class SoftF1(Section):
    """[loss] name = "soft_f1" """

    name: Literal["soft_f1"] = Field(description=_LOSSES)


class WeightedSum(Section):
    """[loss] name = "sum" """

    name: Literal["sum"] = Field(description=_LOSSES)
    terms: Annotated[tuple["Term", ...], Field(strict=False, min_length=1)] = Field(
        description="the losses to add, each with its own keys and a weight"
    )


class _Weighted(Section):
    weight: Positive = Field(1.0, description="factor of this term in the sum")


class CrossEntropyTerm(CrossEntropy, _Weighted): ...


class FocalTerm(Focal, _Weighted): ...


class BalancedSoftmaxTerm(BalancedSoftmax, _Weighted): ...


class SoftF1Term(SoftF1, _Weighted): ...


Term = Annotated[CrossEntropyTerm | FocalTerm | BalancedSoftmaxTerm | SoftF1Term, Field(discriminator="name")]
Loss = Annotated[CrossEntropy | Focal | BalancedSoftmax | SoftF1 | WeightedSum, Field(discriminator="name")]


class Target(Section):
    """[targets.NAME]"""

    column: str = Field(description="column with the answer")
    type: Literal["class"] = Field("class", description="class")
    labels: Annotated[Names, Field(min_length=2)] | None = Field(
        None, description="fixes the label list and its order (default: what the table holds, sorted)"
    )
    edges: Annotated[Floats, Field(min_length=1)] | None = Field(
        None, description="cuts a number column into classes: [30, 60] is <30, 30 to <60, >=60"
    )
    weight: Positive = Field(1.0, description="this target's factor in the sum of the losses")
    loss: Loss | None = Field(None, description="replaces [loss] for this target; without a name, changes it")

    @model_validator(mode="after")
    def _consistent(self) -> "Target":
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: a label stands twice")
        if self.edges and any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges: {list(self.edges)} must rise")
        if self.edges and self.labels and len(self.labels) != len(self.edges) + 1:
            raise ValueError(f"labels: {len(self.edges)} edges make {len(self.edges) + 1} classes")
        return self


class Joint(Section):
    """[joint]"""

    targets: Annotated[Names, Field(min_length=2)] = Field(
        description="class targets read as one class; the first counts most, as in mask * 6 + gender * 3 + age"
    )


class Model(Section):
    """[model]"""

    backbone: str = Field("small_cnn", description="small_cnn (built in), or any name that timm knows")
    weights: str = Field(
        "none", description='none | pretrained (timm\'s, from the hub) | a .safetensors path | "package:NAME"'
    )
    image_size: Annotated[tuple[int, int], Field(strict=False)] = Field(
        (64, 64), description="height, width that the model sees"
    )
    fit: Literal["squash", "crop", "pad"] = Field(
        "squash", description="squash | crop | pad: how a picture of another shape is brought to image_size"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="dropout between the backbone and the heads"
    )

    @model_validator(mode="after")
    def _sizes(self) -> "Model":
        if not all(8 <= side <= 4096 for side in self.image_size):
            raise ValueError(f"image_size: found {list(self.image_size)}, each side may be 8 to 4096")
        return self


class Optimizer(Section):
    """[optimizer]"""

    name: str = Field(
        "adamw", description="adam | adamw | sgd | adamp | sgdp | any other of torch's and timm's"
    )
    lr: Positive = Field(1e-3, description="learning rate")
    weight_decay: NotNegative = Field(1e-2, description="weight decay; never on norms and biases")
    backbone_lr_factor: NotNegative = Field(
        1.0, description="the backbone learns at lr times this, the heads at lr"
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="for optimizers that have it (default: the optimizer's own; sgd and sgdp 0.9)"
    )
    nesterov: bool | None = Field(None, description="for optimizers that have it")
    betas: Annotated[tuple[float, float], Field(strict=False)] | None = Field(
        None, description="for optimizers that have them (default: the optimizer's own)"
    )
    eps: Positive | None = Field(None, description="for optimizers that have it (default: its own)")


_SCHEDULES = "constant | step | cosine | plateau | onecycle, each with its own keys"


class _Schedule(Section):
    warmup_epochs: NotNegative = Field(
        0.0, description="the learning rate first rises linearly from 0 over so many epochs"
    )


class Constant(_Schedule):
    """[schedule] name = "constant" """

    name: Literal["constant"] = Field(description=_SCHEDULES)


class Step(_Schedule):
    """[schedule] name = "step" """

    name: Literal["step"] = Field(description=_SCHEDULES)
    step_size: Count = Field(10, description="epochs between two steps")
    gamma: Positive = Field(0.1, description="factor of each step")


class Cosine(_Schedule):
    """[schedule] name = "cosine" """

    name: Literal["cosine"] = Field(description=_SCHEDULES)
    T_max: Positive | None = Field(
        None, description="epochs from lr down to eta_min (default: all after the warm-up)"
    )
    eta_min: NotNegative = Field(0.0, description="the lowest learning rate")


class Plateau(_Schedule):
    """[schedule] name = "plateau" """

    name: Literal["plateau"] = Field(description=_SCHEDULES)
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of each reduction")
    patience: Annotated[int, Field(ge=0)] = Field(10, description="epochs without improvement before it")
    threshold: NotNegative = Field(1e-4, description="what counts as an improvement")
    threshold_mode: Literal["rel", "abs"] = Field("rel", description="rel | abs")
    cooldown: Annotated[int, Field(ge=0)] = Field(0, description="epochs to wait after a reduction")
    min_lr: NotNegative = Field(0.0, description="the lowest learning rate")


class OneCycle(_Schedule):
    """[schedule] name = "onecycle" """

    name: Literal["onecycle"] = Field(description=_SCHEDULES)
    max_lr: Positive | None = Field(None, description="the highest learning rate (default: optimizer.lr)")
    pct_start: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="share of the cycle that rises")
    anneal_strategy: Literal["cos", "linear"] = Field("cos", description="cos | linear")
    div_factor: Positive = Field(25.0, description="first learning rate = max_lr / div_factor")
    final_div_factor: Positive = Field(1e4, description="last one = first / final_div_factor")


Schedule = Annotated[Constant | Step | Cosine | Plateau | OneCycle, Field(discriminator="name")]


class Training(Section):
    """[training]"""

    epochs: Count = Field(30, description="passes over the training rows")
    batch_size: Count = Field(32, description="pictures in one (micro-)batch")
    accumulate: Count = Field(1, description="micro-batches in one update; the gradient is that of one batch")
    clip_norm: Positive | None = Field(
        None, description="largest norm of the gradient (default: no clipping)"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto (the faster of fp32 and bf16, measured here) | fp32 | bf16 | fp16"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="torch's threads on a CPU; auto is measured together with precision"
    )
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N")


class Selection(Section):
    """[selection]"""

    metric: str = Field(
        "macro_f1",
        description="chooses the best checkpoint: of [joint] if there is one, else of the only target;"
        ' or "age.macro_f1"',
    )
    first_epoch: Count = Field(
        1,
        description="an earlier epoch is never preferred to this or a later one (small, noisy validation sets)",
    )
    patience: Count | None = Field(None, description="early stopping: epochs without a better value")


TargetName = Annotated[str, Field(pattern=r"^[\w -]+$")]


class Config(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(42, description="every random number follows from it")
    name: Annotated[str, Field(pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$")] = Field(
        "run", description="the run's folder: runs/NAME, then runs/NAME-2, ...; never overwritten"
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

    @model_validator(mode="before")
    @classmethod
    def _lay_target_losses_over(cls, values: Any) -> Any:
        """A target's loss without a name changes the keys of [loss]; with a name it stands alone."""
        if not isinstance(values, Mapping) or not isinstance(values.get("targets"), Mapping):
            return values
        shared = values.get("loss", {"name": "cross_entropy"})
        targets = {}
        for name, target in values["targets"].items():
            own = target.get("loss") if isinstance(target, Mapping) else None
            if isinstance(own, Mapping) and "name" not in own and isinstance(shared, Mapping):
                target = {**target, "loss": {**shared, **own}}
            targets[name] = target
        return {**values, "targets": targets}

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        for name in self.joint.targets if self.joint else ():
            if name not in self.targets:
                raise ValueError(f"joint.targets: no target {name!r}; {nearest(name, self.targets)}")
        if self.selection.first_epoch > self.training.epochs:
            raise ValueError(
                f"selection.first_epoch: found {self.selection.first_epoch}, but training.epochs is"
                f" {self.training.epochs}"
            )
        if self.joint and len(set(self.joint.targets)) < len(self.joint.targets):
            raise ValueError("joint.targets: a target stands twice")
        for name, what in (("joint", "the joint class"), ("id", "the rows' ids")):
            if name in self.targets:
                raise ValueError(f"targets.{name}: this name is kept for {what}; choose another")
        return self

    def to_toml(self) -> str:
        """The file with every key resolved; keys without a value are left out."""
        return toml_text(self.model_dump())
