"""The config of the data: [data] and [data.augment]."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from classwise.config.base import Names, NotNegative, Positive, Probability, Section
from classwise.own_parts.reference import FORM, is_own


def _kind_of_augment(value: Any) -> str:
    return FORM if is_own(value) else "preset"


Preset = Annotated[
    Annotated[Literal["none", "light", "standard", "strong"], Tag("preset")] | Annotated[str, Tag(FORM)],
    Discriminator(_kind_of_augment),
]


class Augment(Section):
    """[data.augment]: a preset, and keys that override parts of it."""

    preset: Preset = Field(
        "light",
        description="none | light | standard | strong; the keys below override parts of it. Or a function of your own,"
        " FILE.py:NAME, which comes after them; they are then off unless given",
    )
    flip: Probability | None = Field(None, description="probability of a horizontal flip")
    flip_vertical: Probability | None = Field(
        None,
        description="probability of a flip top to bottom: for images without an up and down, such as tissue or aerial"
        " images (default: 0 in every preset)",
    )
    quarter_turns: Probability | None = Field(
        None,
        description="probability of a turn by 90, 180 or 270 degrees; 0.75 makes all four directions equally likely"
        " (default: 0 in every preset)",
    )
    crop: Annotated[float, Field(ge=0.01, le=1)] | None = Field(
        None, description="smallest fraction of the image's area that a random crop keeps; 1 = no crop"
    )
    ratio: Annotated[float, Field(ge=1, le=4)] | None = Field(
        None, description="largest factor by which a crop changes the aspect ratio; 1 = not at all"
    )
    rotate: Annotated[float, Field(ge=0, le=180)] | None = Field(
        None, description="largest rotation in either direction, in degrees"
    )
    translate: Annotated[float, Field(ge=0, le=0.5)] | None = Field(
        None, description="largest shift, as a fraction of height and width"
    )
    brightness: Probability | None = Field(
        None, description="0.2 multiplies pixel values by a random factor from 0.8 to 1.2"
    )
    contrast: Probability | None = Field(
        None, description="0.2 multiplies the difference from the image's mean gray by 0.8 to 1.2"
    )
    saturation: Probability | None = Field(
        None, description="0.2 multiplies the difference from the pixel's own gray by 0.8 to 1.2"
    )
    erase: Probability | None = Field(None, description="probability of erasing a random rectangle")


def _preset(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


SplitPart = Literal["train", "valid", "test", "skip"]


def _none_is_no_row(value: Any) -> Any:
    return 0.0 if value == "none" else value


class Data(Section):
    """[data]"""

    source: str = Field(
        description="a table (.csv .tsv .parquet), a folder with one sub-folder per class, or shards (.parquet with"
        " images, .tar, .zip; also a pattern or an address); relative to this file"
    )
    images: str | Annotated[Names, Field(min_length=1)] = Field(
        ".",
        description="folder, or list of folders, that the table's image paths are relative to; no path may leave it",
    )
    follow_links: bool = Field(
        False,
        description="whether images may be links that lead out of the folder, and class folders be links; only for data"
        " whose links you trust",
    )
    path: str = Field("path", description="column with the image paths")
    id: str | None = Field(None, description="column that identifies the rows (default: the path column)")
    group: str | None = Field(
        None,
        description="column of groups, such as persons; a group is never split between training and validation, nor are"
        " rows with the same image",
    )
    weight: str | None = Field(
        None,
        description="column with the weight of each training row in the loss: 0 or more, and 1 is average (default: all"
        " rows count the same)",
    )
    valid: Annotated[Annotated[float, Field(ge=0, lt=1)] | str, BeforeValidator(_none_is_no_row)] = Field(
        0.2,
        description="fraction of the rows to validate on, or a table of validation rows; 0 or none: train on all rows,"
        " and keep the model of the last epoch",
    )
    test: Annotated[float, Field(gt=0, lt=1)] | str | None = Field(
        None,
        description="fraction of the rows, or a table of rows, to test on: neither trained on nor selected by, and"
        " scored once at the end (default: none)",
    )
    split: str | None = Field(
        None,
        description="column that says of each row whether it is for training, validation or the test; rows that it does"
        " not give are drawn as valid and test say",
    )
    split_values: Annotated[dict[str, SplitPart], Field(min_length=1)] | None = Field(
        None,
        description='what the cells of `split` mean: { "0" = "train", "1" = "valid", "2" = "test", "x" = "skip" }'
        " (default: train, val, test and other words for them)",
    )
    fold: str | None = Field(
        None, description="column with the fold of each row; the rows of one fold are for validation"
    )
    valid_fold: str | None = Field(None, description="the fold to validate on (default: the first)")
    augment: Annotated[Augment, BeforeValidator(_preset)] = Field(
        Augment(),
        description="none | light | standard | strong | FILE.py:NAME, or a table [data.augment] that changes a preset",
    )
    sampling: Literal["shuffle", "balanced", "sqrt"] = Field(
        "shuffle",
        description="shuffle: every row once per epoch; balanced: every class equally often; sqrt: in between",
    )
    mixup: NotNegative = Field(
        0.0, description="alpha of mixup's Beta distribution (Zhang et al. 2018); 0 = off, 0.2 is common"
    )
    cutmix: NotNegative = Field(
        0.0, description="alpha of CutMix's Beta distribution (Yun et al. 2019); 0 = off, 1 is common"
    )
    mix_share: Probability = Field(
        1.0,
        description="fraction of the updates that are mixed; if mixup and cutmix are both on, half of them each",
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        "auto", description="processes that load images; 0 = load them in the training process"
    )
    start_method: Literal["auto", "fork", "spawn", "forkserver"] = Field(
        "auto",
        description="how the workers are started: fork | spawn | forkserver | auto (fork on Linux, else Python's"
        " default)",
    )
    worker_timeout: NotNegative = Field(
        120.0, description="seconds that a worker may take for one file before it is an error; 0 = no limit"
    )
    bad_images: Literal["error", "skip"] = Field(
        "error", description="rows with unreadable images: refuse to start (error), or leave them out (skip)"
    )
    check: Literal["exact", "all"] = Field(
        "exact",
        description="exact: images that are equal pixel for pixel are kept on one side of the split, and their"
        " contradictory labels are named | all: also what `classwise check` looks for, into check.html of the run",
    )
    unlabeled: Literal["error", "skip"] = Field(
        "error",
        description="rows without a label for any target: refuse to start (error), or leave them out (skip)",
    )
    unify_labels: bool = Field(
        False,
        description="whether labels that differ only in white space, case, Unicode form or the way a number is written"
        " are one class, under the most frequent spelling; false: they are classes of their own, with a warning",
    )
    cache: str = Field(
        "auto",
        description="where decoded images are cached, and measurements and baselines are remembered: auto (the user"
        " cache directory) | off | a folder",
    )
    cache_gigabytes: Positive = Field(
        10.0, description="maximum size of the image cache, for all data sets together"
    )
    value_range: Annotated[tuple[float, float], Field(strict=False)] | None = Field(
        None,
        description="samples of more than 8 bits that become black and white: [0, 4095] for 12 bits in files of 16"
        " (default: 0 to the highest of up to 16 bits, 0 to 1 of floats)",
    )
    max_pixels: Annotated[int, Field(ge=1, le=170_000_000)] = Field(
        100_000_000, description="images with more pixels than this are refused before they are decoded"
    )

    @property
    def has_valid(self) -> bool:
        """Whether there are validation rows."""
        return self.valid != 0

    @model_validator(mode="after")
    def _increasing_range(self) -> "Data":
        if (
            self.value_range is not None
            and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf
        ):
            raise ValueError(
                f"value_range: found {list(self.value_range)}; the first number, which becomes black, must be below the"
                " second, which becomes white"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> "Data":
        if self.fold is not None and self.split is not None:
            raise ValueError(
                f"fold: found {self.fold!r} beside data.split = {self.split!r}; allowed: one of them"
            )
        if self.fold is not None and isinstance(self.valid, str):
            raise ValueError(
                f"fold: found {self.fold!r}, but data.valid is a table with the validation rows; allowed: one of them"
            )
        for key, column in (("split_values", "split"), ("valid_fold", "fold")):
            if getattr(self, key) is not None and getattr(self, column) is None:
                raise ValueError(f"{key}: found without data.{column}, the column that it is about")
        parts = set((self.split_values or {"": "train"}).values())
        if "train" not in parts:
            raise ValueError(
                f'split_values: found {", ".join(sorted(parts))}; one of the values must mean "train"'
            )
        return self

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Data":
        if isinstance(self.valid, float) and isinstance(self.test, float) and self.valid + self.test >= 1:
            raise ValueError(
                f"test: found {self.test} beside data.valid = {self.valid}, which leaves no training rows; the two"
                " must add up to less than 1"
            )
        return self
