"""The config of decisions: [decision]."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from classwise.config.base import Positive, Section

Row = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(strict=False)]
CostMatrix = Annotated[tuple[Row, ...], Field(strict=False, min_length=2)]


class Decision(Section):
    """[decision]: how `classwise folds` gets from probabilities to answers. `classwise train` has no rows for it."""

    temperature: Literal["auto", "none"] | Positive = Field(
        "auto",
        description="auto (fitted and reported out of fold; the ensemble's probabilities stay as they are) | none |"
        " a number that the ensemble's logits are divided by",
    )
    offsets: Literal["auto", "none", "half_prior", "tuned"] = Field(
        "auto",
        description="what is added to log probabilities before the best label is taken, if it gains for certain out of"
        " fold: auto (half_prior or tuned) | none | half_prior (minus half the log class shares) | tuned",
    )
    abstain: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="mark predictions (NAME_abstain) whose label has a lower probability than this; 0 = none",
    )
    costs: dict[str, CostMatrix] | None = Field(
        None,
        description="cost of each prediction by target, such as { kind = [[0, 1], [5, 0]] }: a row for each true label,"
        " a column for each predicted one; the offsets then minimize the mean cost (default: no costs)",
    )

    @model_validator(mode="after")
    def _costs_have_an_effect(self) -> "Decision":
        for name, matrix in (self.costs or {}).items():
            if any(len(row) != len(matrix) for row in matrix):
                raise ValueError(
                    f"costs: found rows of {[len(row) for row in matrix]} numbers for {name!r}; allowed: a square,"
                    f" with {len(matrix)} numbers in each of its {len(matrix)} rows"
                )
            if any(matrix[k][k] >= cost for k in range(len(matrix)) for cost in _others(matrix[k], k)):
                raise ValueError(
                    f"costs: found a row for {name!r} in which the right label costs as much as a wrong one; allowed:"
                    " a lower cost on the diagonal, usually 0"
                )
        if self.costs and self.offsets in ("none", "half_prior"):
            raise ValueError(
                f"costs: found with offsets = {self.offsets!r}, which costs have no effect on; allowed: with auto or"
                " tuned"
            )
        return self


def _others(row: tuple[float, ...], k: int) -> list[float]:
    return [cost for j, cost in enumerate(row) if j != k]
