"""The config of targets: what the model predicts, from which columns, and which targets form the joint class."""

from typing import Annotated

from pydantic import Field, model_validator

from classwise.config.base import Floats, Names, NotNegative, Positive, Section, TargetType
from classwise.config.duplicates import find_duplicate
from classwise.config.losses import LOSSES_BY_TYPE, Loss, fits
from classwise.own_parts.reference import FORM, hint, is_own, split_reference


class Target(Section):
    """[targets.NAME]"""

    column: str | None = Field(None, description="column with the labels")
    columns: Annotated[Names, Field(min_length=2)] | None = Field(
        None,
        description="class, multilabel: one column of 0 and 1 per label, instead of `column`; for a class exactly one"
        " of them is 1",
    )
    type: TargetType = Field("class", description="class | ordinal | multilabel | regression | ranking")
    labels: Annotated[Names, Field(min_length=2)] | None = Field(
        None, description="the labels and their order (default: those in the table, sorted)"
    )
    edges: Annotated[Floats, Field(min_length=1)] | None = Field(
        None, description="cuts a numeric column into classes: [30, 60] gives <30, 30 to <60, >=60"
    )
    separator: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="multilabel: separator between the labels of a cell (default: |)"
    )
    missing: Annotated[Names, Field(min_length=1)] | None = Field(
        None, description='cells that mean an unknown label, as an empty one does, such as ["-1", "nan"]'
    )
    none: Annotated[Names, Field(min_length=1)] | None = Field(
        None,
        description='multilabel: cells that mean none of the labels, such as ["", "none"] (default: the separator'
        " alone)",
    )
    flags: Annotated[tuple[str, str], Field(strict=False)] | None = Field(
        None,
        description='cells of `columns` for no and for yes, such as ["-1", "1"], or ["", "x"] where a blank one'
        " means no (default: 0 and 1, false and true)",
    )
    query: str | None = Field(
        None, description="ranking: column with the query; rows with the same query are ranked together"
    )
    weight: Positive = Field(1.0, description="weight of this target's loss in the total loss")
    adjust: NotNegative | None = Field(
        None,
        description="class: post-hoc logit adjustment, this times the log prior is subtracted (Menon et al. 2021)",
    )
    loss: Loss | None = Field(
        None, description="replaces [loss] for this target; without a name, it changes keys of [loss]"
    )
    metrics: Annotated[Names, Field(min_length=1)] | None = Field(
        None,
        description='metrics of your own, FILE.py:NAME, such as ["my_metrics.py:cost"], which are scored in addition;'
        " selection.metric may name one (cost)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Target":
        # Which keys belong to the type.
        if self.column is None and self.columns is None:
            raise ValueError("column: missing")
        if self.column is not None and self.columns is not None:
            raise ValueError("columns: found beside column; allowed: one of them")
        for key, types in _TYPES_WITH_KEY.items():
            if getattr(self, key) is not None and self.type not in types:
                raise ValueError(f"{key}: found with type {self.type!r}, allowed for {', '.join(types)}")
        if self.type == "ranking" and self.query is None:
            raise ValueError("query: missing; a ranking target needs the column with the query of each row")
        if self.separator is not None and self.columns is not None:
            raise ValueError("separator: found beside columns; allowed: with a single column")
        if self.none is not None and self.columns is not None:
            raise ValueError("none: found beside columns; allowed: with a single column")
        if self.flags is not None and self.columns is None:
            raise ValueError("flags: found without columns, whose cells they are about")
        if self.flags is not None and self.flags[0] == self.flags[1]:
            raise ValueError(f"flags: found {self.flags[0]!r} for no and for yes; they must differ")
        if shared := set(self.missing or ()) & {*(self.none or ()), *(self.flags or ())}:
            raise ValueError(
                f"missing: found {min(shared)!r}, which another key gives a meaning; allowed: one of them"
            )
        if self.edges is not None and self.columns is not None:
            raise ValueError("edges: found beside columns; allowed: with a single column of numbers")

        # Labels and edges.
        if self.labels and self.columns:
            raise ValueError("labels: found beside columns, whose names are the labels; allowed: one of them")
        for key, names in (("columns", self.columns), ("labels", self.labels)):
            duplicate = find_duplicate(names or ())
            if duplicate is not None:
                raise ValueError(f"{key}: found {duplicate!r} twice; duplicates are not allowed")
        if self.edges and any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges: found {list(self.edges)}, must be in increasing order")
        if self.edges and self.labels and len(self.labels) != len(self.edges) + 1:
            raise ValueError(
                f"labels: found {len(self.labels)} labels, must be {len(self.edges) + 1}, one more than edges"
            )

        # The user's own metrics, which are told apart by the names in their files.
        for reference in self.metrics or ():
            if not is_own(reference):
                raise ValueError(f"metrics: found {reference!r}; {hint(reference) or f'allowed: {FORM}'}")
        duplicate = find_duplicate(self.metric_names)
        if duplicate is not None:
            raise ValueError(f"metrics: found two named {duplicate!r}; names must differ")

        # The loss.
        if self.loss is not None and not fits(self.loss.model_dump(), self.type):
            raise ValueError(
                f"loss.name: found {self.loss.name!r}, which is not for targets of type {self.type!r};"
                f" allowed: {', '.join(LOSSES_BY_TYPE[self.type])}"
            )
        return self

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the user's own metrics."""
        return tuple(split_reference(reference)[1] for reference in self.metrics or ())

    def applies(self, key: str) -> bool:
        """Whether a key has a meaning for this type of target."""
        return self.type in _TYPES_WITH_KEY.get(key, (self.type,))

    @property
    def class_like(self) -> bool:
        """Whether each row has one of K classes, so that the target can be a part of the joint class."""
        return self.type in ("class", "ordinal") or (self.type == "regression" and self.edges is not None)


_TYPES_WITH_KEY: dict[str, tuple[TargetType, ...]] = {
    "columns": ("class", "multilabel"),
    "none": ("multilabel",),
    "flags": ("class", "multilabel"),
    "labels": ("class", "ordinal", "multilabel", "regression"),
    "edges": ("class", "ordinal", "regression"),
    "separator": ("multilabel",),
    "query": ("ranking",),
    "adjust": ("class",),
}
"""Keys that only some types of target have; all others are for every type."""


class Joint(Section):
    """[joint]"""

    targets: Annotated[Names, Field(min_length=2)] = Field(
        description="targets that form one joint class (class, ordinal, or regression with edges), the most"
        " significant first: mask * 6 + gender * 3 + age"
    )
