"""What all sections of the config share: the base class, the types of values, and how to find a section."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from classwise.own_parts.reference import FORM

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
# TOML has lists and no tuples; everything else stays strict, so that "30" is not taken for 30.
Pair = Annotated[tuple[Count, Count], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
TargetType = Literal["class", "ordinal", "multilabel", "regression", "ranking"]


class Section(BaseModel):
    """One table of the file: immutable, without unknown keys, and without conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def section_name(section: type[Section]) -> str:
    """`focal` for the section whose `name` can only be that; FILE.py:NAME for a part of the user's own."""
    options = get_args(section.model_fields["name"].annotation)
    return str(options[0]) if options else FORM


def sections_by_name(union: Any) -> dict[str, type[Section]]:
    """The sections of a discriminated union, such as `Loss` and `Schedule`, by their names; without that of the user's
    own parts, which has no single name."""
    sections = {section_name(section): section for section in sections_in(union)}
    return {name: section for name, section in sections.items() if name != FORM}


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)
