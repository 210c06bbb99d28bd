"""The config of folds: [folds]."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from classwise.config.base import Count, Section


class Folds(Section):
    """[folds]: for `classwise folds`, which trains a model for each; `classwise train` trains the one of `fold`."""

    count: Annotated[int, Field(ge=2, le=1000)] = Field(
        5,
        description="folds that the rows are shared out to; each is predicted by a model of the others. With data.fold:"
        " as many as the column has",
    )
    repeats: Count = Field(
        1,
        description="models for each fold, with the seeds seed, seed + 1, ...; their predictions are averaged",
    )
    jobs: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] = Field(
        "auto",
        description="folds that are trained at the same time, each in a process with its share of the cores and about"
        " the memory of one run; auto: one for each GPU, and one on a CPU",
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="train a single fold: this one validates, from 0, and the others are trained on (default: none)",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        None, description="seed of the draw of the folds (default: seed), so that seed can change without it"
    )
    last: bool = Field(
        False,
        description="also train a model on all rows, for the mean number of epochs that the folds' models took: the run"
        " `last`",
    )
    soup: bool = Field(
        False,
        description="also average the weights of all folds' models, which start from the same pretrained ones, into one"
        " model: the run `soup`",
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> "Folds":
        if self.fold is not None and self.fold >= self.count:
            raise ValueError(f"fold: found {self.fold}, allowed: 0 to {self.count - 1} (folds.count)")
        return self
