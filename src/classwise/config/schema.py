"""The config: one frozen tree, checked when it is made and written back with every key resolved.

Unknown keys are refused with the nearest known one, ranges are checked, and every message names the key as
it stands in the file (`schedule.warmup_epochs`). The descriptions of the fields are what `classwise init`
writes as comments and what `classwise train --help` shows.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from classwise.config.base import (
    Count,
    Floats,
    Names,
    NotNegative,
    Positive,
    Probability,
    Section,
    TargetType,
)
from classwise.config.losses import DEFAULT_LOSS, LOSSES_BY_TYPE, CrossEntropy, Loss, fits
from classwise.config.toml import toml_text
from classwise.errors import nearest


class Augment(Section):
    """[data.augment]: a preset, and its parts as keys."""

    preset: Literal["none", "light", "standard", "strong"] = Field(
        "light", description="none | light | standard | strong; a key below replaces that part of it"
    )
    flip: Probability | None = Field(None, description="probability of a left-right flip")
    crop: Annotated[float, Field(ge=0.01, le=1)] | None = Field(
        None, description="least share of the image's area that a random crop keeps; 1 = no crop"
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
    path: str = Field("path", description="column with the image's path")
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
    mixup: NotNegative = Field(
        0.0, description="alpha of mixup's Beta distribution (Zhang et al. 2018); 0 = off, 0.2 is common"
    )
    cutmix: NotNegative = Field(
        0.0, description="alpha of CutMix's Beta distribution (Yun et al. 2019); 0 = off, 1 is common"
    )
    mix_share: Probability = Field(
        1.0, description="share of the updates that are mixed; with mixup and cutmix on, half of them each"
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        "auto", description="processes that read images; 0 = the training process itself"
    )
    start_method: Literal["auto", "fork", "spawn", "forkserver"] = Field(
        "auto",
        description="how those processes are started: fork | spawn | forkserver | auto (fork on Linux, else Python's"
        " own choice)",
    )
    worker_timeout: NotNegative = Field(
        120.0, description="a worker that spends so many seconds on one file is an error; 0 = no limit"
    )
    bad_images: Literal["error", "skip"] = Field(
        "error", description="error: refuse to start; skip: leave such rows out and count them"
    )
    unlabeled: Literal["error", "skip"] = Field(
        "error",
        description="rows without an answer for any target: refuse to start, or leave them out and say so",
    )
    cache: str = Field(
        "auto",
        description="auto: keep decoded images on the disk, where programs keep such things; off; or a folder",
    )
    cache_gigabytes: Positive = Field(
        10.0, description="the most that the decoded images of all data sets there may take together"
    )
    max_pixels: Annotated[int, Field(ge=1, le=170_000_000)] = Field(
        100_000_000, description="an image with more pixels than this is refused before it is decoded"
    )


class Target(Section):
    """[targets.NAME]"""

    column: str | None = Field(None, description="column with the answer")
    columns: Annotated[Names, Field(min_length=2)] | None = Field(
        None, description="multilabel: one column of 0 and 1 for each label, in place of `column`"
    )
    type: TargetType = Field("class", description="class | ordinal | multilabel | regression | ranking")
    labels: Annotated[Names, Field(min_length=2)] | None = Field(
        None, description="fixes the label list and its order (default: what the table holds, sorted)"
    )
    edges: Annotated[Floats, Field(min_length=1)] | None = Field(
        None, description="cuts a number column into classes: [30, 60] is <30, 30 to <60, >=60"
    )
    separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="multilabel: what stands between the labels of a cell (default: |)"
    )
    query: str | None = Field(None, description="ranking: column that says which rows are ranked together")
    weight: Positive = Field(1.0, description="this target's factor in the sum of the losses")
    adjust: NotNegative | None = Field(
        None,
        description="class: post-hoc logit adjustment, answers less this times the log prior (Menon 2021)",
    )
    loss: Loss | None = Field(None, description="replaces [loss] for this target; without a name, changes it")

    @model_validator(mode="after")
    def _consistent(self) -> "Target":
        if self.column is None and self.columns is None:
            raise ValueError("column: missing")
        if self.column is not None and self.columns is not None:
            raise ValueError("columns: found beside column; allowed: one of them")
        for key, types in _KEYS_OF_TYPES.items():
            if getattr(self, key) is not None and self.type not in types:
                raise ValueError(f"{key}: found with type {self.type!r}, allowed for {', '.join(types)}")
        if self.type == "ranking" and self.query is None:
            raise ValueError(
                "query: missing; a ranking target needs the column that says what is ranked together"
            )
        if self.separator is not None and self.columns is not None:
            raise ValueError("separator: goes with one column, not with columns")
        if self.labels and self.columns:
            raise ValueError("labels: the columns' names are the labels")
        if self.columns and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: a column stands twice")
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: a label stands twice")
        if self.edges and any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges: {list(self.edges)} must rise")
        if self.edges and self.labels and len(self.labels) != len(self.edges) + 1:
            raise ValueError(f"labels: {len(self.edges)} edges make {len(self.edges) + 1} classes")
        if self.loss is not None and not fits(self.loss.model_dump(), self.type):
            raise ValueError(
                f"loss.name: found {self.loss.name!r}, which is not for targets of type {self.type!r};"
                f" allowed: {', '.join(LOSSES_BY_TYPE[self.type])}"
            )
        return self

    def has_use_for(self, key: str) -> bool:
        """Whether a key means anything for this type of target."""
        return self.type in _KEYS_OF_TYPES.get(key, (self.type,))

    @property
    def class_like(self) -> bool:
        """Whether its answers can be read as one class, and so take part in a joint class."""
        return self.type in ("class", "ordinal") or (self.type == "regression" and self.edges is not None)


_KEYS_OF_TYPES = {
    "columns": ("multilabel",),
    "labels": ("class", "ordinal", "multilabel", "regression"),
    "edges": ("class", "ordinal", "regression"),
    "separator": ("multilabel",),
    "query": ("ranking",),
    "adjust": ("class",),
}


class Joint(Section):
    """[joint]"""

    targets: Annotated[Names, Field(min_length=2)] = Field(
        description="targets read as one class (class, ordinal, or a regression with edges); the first counts"
        " most, as in mask * 6 + gender * 3 + age"
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
        "squash", description="squash | crop | pad: how an image of another shape is brought to image_size"
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
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="each layer of the backbone learns at this times the rate of the next one; 1 = all alike",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="for optimizers that have it (default: the optimizer's own; sgd and sgdp 0.9)"
    )
    nesterov: bool | None = Field(None, description="for optimizers that have it")
    betas: Annotated[tuple[float, float], Field(strict=False)] | None = Field(
        None, description="for optimizers that have them (default: the optimizer's own)"
    )
    eps: Positive | None = Field(None, description="for optimizers that have it (default: its own)")
    options: dict[str, Any] | None = Field(
        None, description="a table of any other arguments of that optimizer, such as { amsgrad = true }"
    )


class _Schedule(Section):
    warmup_epochs: NotNegative = Field(
        0.0, description="the learning rate first rises linearly from 0 over so many epochs"
    )


class Constant(_Schedule):
    """[schedule] name = "constant" """

    name: Literal["constant"]


class Step(_Schedule):
    """[schedule] name = "step" """

    name: Literal["step"]
    step_size: Count = Field(10, description="epochs between two steps")
    gamma: Positive = Field(0.1, description="factor of each step")


class Cosine(_Schedule):
    """[schedule] name = "cosine" """

    name: Literal["cosine"]
    T_max: Positive | None = Field(
        None, description="epochs from lr down to eta_min (default: all after the warm-up)"
    )
    eta_min: NotNegative = Field(0.0, description="the lowest learning rate")


class Restarts(_Schedule):
    """[schedule] name = "restarts" """

    name: Literal["restarts"]
    T_0: Count = Field(10, description="epochs of the first cosine")
    T_mult: Count = Field(1, description="each cosine is so many times as long as the one before")
    eta_min: NotNegative = Field(0.0, description="the lowest learning rate")


class Polynomial(_Schedule):
    """[schedule] name = "polynomial" """

    name: Literal["polynomial"]
    power: Positive = Field(1.0, description="1 is a straight line down to 0")
    total_epochs: Positive | None = Field(
        None, description="epochs until the learning rate is 0 (default: all after the warm-up)"
    )


class Plateau(_Schedule):
    """[schedule] name = "plateau" """

    name: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor of each reduction")
    patience: Annotated[int, Field(ge=0)] = Field(10, description="epochs without improvement before it")
    threshold: NotNegative = Field(1e-4, description="what counts as an improvement")
    threshold_mode: Literal["rel", "abs"] = Field("rel", description="rel | abs")
    cooldown: Annotated[int, Field(ge=0)] = Field(0, description="epochs to wait after a reduction")
    min_lr: NotNegative = Field(0.0, description="the lowest learning rate")


class OneCycle(_Schedule):
    """[schedule] name = "onecycle" """

    name: Literal["onecycle"]
    max_lr: Positive | None = Field(None, description="the highest learning rate (default: optimizer.lr)")
    pct_start: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="share of the cycle that rises")
    anneal_strategy: Literal["cos", "linear"] = Field("cos", description="cos | linear")
    div_factor: Positive = Field(25.0, description="first learning rate = max_lr / div_factor")
    final_div_factor: Positive = Field(1e4, description="last one = first / final_div_factor")


Schedule = Annotated[
    Constant | Step | Cosine | Restarts | Polynomial | Plateau | OneCycle, Field(discriminator="name")
]


class Training(Section):
    """[training]"""

    epochs: Count = Field(30, description="passes over the training rows")
    batch_size: Count = Field(32, description="images in one (micro-)batch")
    micro_batch: Count | Literal["auto"] = Field(
        "auto",
        description="images that are computed at once; the gradient stays that of the batch. auto: all of a batch,"
        " half as many each time that the device's memory runs out",
    )
    accumulate: Count = Field(
        1, description="micro-batches of each process in one update; the gradient is that of one batch"
    )
    clip_norm: Positive | None = Field(
        None, description="largest norm of the gradient (default: no clipping)"
    )
    freeze_epochs: Annotated[int, Field(ge=0)] = Field(
        0,
        description="epochs at the start in which only the heads learn, on features computed once (linear"
        " probing); then everything is fine-tuned. As many as epochs: a linear probe",
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of an average of the weights, such as 0.999, which is then what is evaluated"
    )
    target_weights: Literal["fixed", "uncertainty"] = Field(
        "fixed",
        description="fixed: targets.NAME.weight; uncertainty: times weights that are learnt (Kendall 2018)",
    )
    checkpoint_minutes: NotNegative = Field(
        10.0,
        description="also save within an epoch, when so many minutes have passed since the last checkpoint;"
        " 0 = not by time",
    )
    checkpoint_updates: Count | None = Field(
        None, description="also save within an epoch, after every so many updates"
    )
    sync_batch_norm: bool = Field(
        False, description="batch norm over all processes' images (several GPUs only)"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto (the faster of fp32 and bf16, measured here) | fp32 | bf16 | fp16"
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto",
        description="how images and weights are laid out; auto: measured together with precision, else"
        " channels_last",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="train through torch.compile; auto: on a GPU measured together with precision, else false",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="torch's threads on a CPU; auto is measured together with precision"
    )
    device: str = Field("auto", description="auto | cpu | cuda (each process its own) | cuda:N")


class Selection(Section):
    """[selection]"""

    metric: str = Field(
        "macro_f1",
        description="chooses the best checkpoint: of [joint] if there is one, else of the only target;"
        ' or "age.macro_f1", "age.mae", ...',
    )
    first_epoch: Count | Annotated[float, Field(gt=0, lt=1)] = Field(
        1,
        description="an earlier epoch is never preferred to this or a later one (small, noisy validation sets);"
        " below 1: after this share of the epochs",
    )
    patience: Count | None = Field(None, description="early stopping: epochs without a better value")


class Report(Section):
    """[report]"""

    baselines: bool = Field(
        True, description="score the most frequent class and a balanced linear probe on the same split"
    )
    resamples: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1000, description="bootstrap samples behind the 95 % intervals; 0 = no intervals"
    )


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
    report: Report = Report()

    @model_validator(mode="before")
    @classmethod
    def _resolve_target_losses(cls, values: Any) -> Any:
        return resolve_target_losses(values)

    @model_validator(mode="after")
    def _names_exist(self) -> "Config":
        for name in self.joint.targets if self.joint else ():
            if name not in self.targets:
                raise ValueError(f"joint.targets: no target {name!r}; {nearest(name, self.targets)}")
            if not self.targets[name].class_like:
                raise ValueError(
                    f"joint.targets: {name!r} is of type {self.targets[name].type!r}; allowed: class, ordinal, or"
                    " a regression with edges"
                )
        if self.first_epoch > self.training.epochs:
            raise ValueError(
                f"selection.first_epoch: found {self.selection.first_epoch}, but training.epochs is"
                f" {self.training.epochs}"
            )
        if self.joint and len(set(self.joint.targets)) < len(self.joint.targets):
            raise ValueError("joint.targets: a target stands twice")
        if "loss" in self.model_fields_set and not any(
            fits(self.loss.model_dump(), target.type) for target in self.targets.values()
        ):
            types = ", ".join(sorted({target.type for target in self.targets.values()}))
            raise ValueError(
                f"loss.name: found {self.loss.name!r}, which is for none of the targets (their types: {types})"
            )
        if self.training.freeze_epochs > self.training.epochs:
            raise ValueError(
                f"training.freeze_epochs: found {self.training.freeze_epochs}, but training.epochs is"
                f" {self.training.epochs}"
            )
        for name, what in (("joint", "the joint class"), ("id", "the rows' ids")):
            if name in self.targets:
                raise ValueError(f"targets.{name}: this name is kept for {what}; choose another")
        return self

    @property
    def first_epoch(self) -> int:
        """The first epoch that may be chosen, from 1: as given, or the one after a share of all epochs."""
        given = self.selection.first_epoch
        return given if isinstance(given, int) else int(given * self.training.epochs) + 1

    def loss_of(self, name: str) -> Any:
        """The loss section that a target is trained with."""
        return self.targets[name].loss or self.loss

    def to_dict(self) -> dict[str, Any]:
        """Every key resolved, as plain values; [loss] is left out where no target takes its loss from there."""
        values = self.model_dump()
        if all(target.loss is not None for target in self.targets.values()):
            del values["loss"]
        return values

    def to_toml(self) -> str:
        """The file with every key resolved; keys without a value are left out."""
        return toml_text(self.to_dict())


def resolve_target_losses(values: Any) -> Any:
    """The tree of plain values with every target's loss in full: a loss without a name changes [loss] or, where [loss]
    is for another type of target, the default loss of its type. Wrong values stay for the validation to refuse."""
    if not isinstance(values, Mapping) or not isinstance(values.get("targets"), Mapping):
        return values
    shared = values.get("loss", {"name": "cross_entropy"})
    targets = {
        name: _with_resolved_loss(target, shared) if isinstance(target, Mapping) else target
        for name, target in values["targets"].items()
    }
    return {**values, "targets": targets}


def _with_resolved_loss(target: Mapping[str, Any], shared: Any) -> dict[str, Any]:
    resolved = dict(target)
    type = resolved.get("type", "class")
    if not (isinstance(type, str) and type in DEFAULT_LOSS and isinstance(shared, Mapping)):
        return resolved
    if type == "multilabel" and "columns" not in resolved:
        resolved.setdefault("separator", "|")

    # What the loss is, and what its keys change where it has no name.
    loss = resolved.get("loss")
    usable = fits(shared, type) or shared.get("name") not in _LOSS_NAMES  # a misspelt name is refused later
    base = shared if usable else {"name": DEFAULT_LOSS[type]}
    if isinstance(loss, Mapping) and "name" not in loss:
        resolved["loss"] = {**base, **loss}
    elif loss is None and not usable:
        resolved["loss"] = base
    return resolved


_LOSS_NAMES = [*(name for names in LOSSES_BY_TYPE.values() for name in names), "sum"]
