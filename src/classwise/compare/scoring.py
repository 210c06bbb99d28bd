"""Which rows a comparison is scored on: rows that have chosen nothing.

A run reports the best of its epochs on the validation rows, so its score there is too high, and the more so the more
epochs it may choose from. A comparison of such scores takes many epochs for a merit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from classwise.compare.given_rows import GivenRows, as_test_rows
from classwise.config.schema import Config
from classwise.errors import ConfigError

Kind = Literal["test", "fixed_epoch", "nested"]
VALID_SHARE = 0.2  # of a nested comparison whose validation rows are given

REASONS: dict[Kind, str] = {
    "test": "data.test, whose rows train nothing and choose nothing",
    "fixed_epoch": "data.valid, whose rows choose nothing: every variant ends with a fixed epoch",
    "nested": "the rows that data.valid describes; each run chooses its epoch on other rows, taken from training",
}


@dataclass(frozen=True)
class Scoring:
    """kind: test, the config has test rows; fixed_epoch, no run chooses an epoch, so the validation rows are scored;
    nested, test rows are made of what data.valid describes. `variants`: the configs to train, by name. `given`: those
    whose scored rows the table gives, and by which column."""

    kind: Kind
    variants: Mapping[str, Config]
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split of split.csv that is scored: test or valid."""
        return "valid" if self.kind == "fixed_epoch" else "test"

    @property
    def text(self) -> str:
        """What is scored, and why these rows."""
        text = REASONS[self.kind]
        if self.given:
            column = next(iter(self.given.values()))
            described = {
                "test": "data.test",
                "fixed_epoch": "data.valid",
                "nested": "the rows that data.valid describes",
            }
            rows = f"the {'test' if self.kind == 'test' else 'validation'} rows of column {column!r}"
            text = text.replace(described[self.kind], rows).replace("whose rows", "which")
        if self.kind == "nested" and any(
            isinstance(config.data.test, str) for config in self.variants.values()
        ):
            # `train` takes the table, and a class with one row in the source is no error there.
            text += f": {VALID_SHARE:.0%} of data.source, where each class therefore needs two rows or groups"
        return text

    @property
    def redrawn(self) -> bool:
        """Whether every seed draws its scored rows, in at least one variant."""
        return any(
            isinstance(getattr(config.data, self.split), float)
            for name, config in self.variants.items()
            if name not in self.given
        )


def scoring_of(variants: Mapping[str, Config], given: Mapping[str, GivenRows]) -> Scoring:
    """How the variants are scored. `given`: what the table of each gives, from `given_rows`. Raises ConfigError where
    some have test rows and others have none, and for a selection.prior that would mean something else than when the
    variant is trained alone."""
    tested = [
        name
        for name, config in variants.items()
        if config.data.test is not None or "test" in given[name].parts
    ]
    if tested and len(tested) < len(variants):
        without = next(name for name in variants if name not in tested)
        raise ConfigError(
            f"data.test: set for variant {tested[0]}, but not for {without}; variants are compared on the same rows, so"
            " set it for all or for none"
        )
    if tested:
        return Scoring("test", dict(variants), _columns(variants, given, "test"))
    for name, config in variants.items():
        if not config.data.has_valid:
            raise ConfigError(
                f"data.valid: found 0 in variant {name}, which leaves no rows to compare on; allowed: a share or a"
                " table, or data.test beside it"
            )
    columns = _columns(variants, given, "valid")
    _refuse_shares_of_scored_rows(variants, columns)
    if all(_has_fixed_epoch(config) for config in variants.values()):
        return Scoring("fixed_epoch", dict(variants), columns)
    nested = {
        name: as_test_rows(config, given[name], VALID_SHARE) if name in columns else _nested(config)
        for name, config in variants.items()
    }
    return Scoring("nested", nested, columns)


def _columns(variants: Mapping[str, Config], given: Mapping[str, GivenRows], part: str) -> dict[str, str]:
    """The column that gives these rows, by variant; only of variants that have one."""
    return {
        name: str(config.data.split or config.data.fold)
        for name, config in variants.items()
        if part in given[name].parts
    }


def _refuse_shares_of_scored_rows(variants: Mapping[str, Config], columns: Mapping[str, str]) -> None:
    """Raise ConfigError where selection.prior = "as_validation" has validation rows of its own that are to be scored:
    those of a table or of a column.

    If an epoch is chosen, other rows take their place, with the shares of training: the predictions would not be
    made for the scored rows. If none is, they would be made for these with the help of their own labels.
    """
    for name, config in variants.items():
        if config.selection.prior != "as_validation":
            continue
        if isinstance(config.data.valid, str) or name in columns:
            rows = (
                f"the validation rows of column {columns[name]!r}"
                if name in columns
                else "the table data.valid"
            )
            raise ConfigError(
                f"selection.prior: found 'as_validation' in variant {name}, but a comparison without data.test scores"
                f" {rows}, whose labels must not decide for which class shares the predictions are made;"
                " allowed: a table of shares ({ label = share, ... }), 'balanced', or other rows to score in data.test"
            )


def _has_fixed_epoch(config: Config) -> bool:
    """Whether the validation rows have no say: the last epoch is taken, none ends a run or lowers its rate, and they do
    not choose between the first answer and the fine-tuned model."""
    if config.plan != "finetune":
        return config.plan == "probe"
    return (
        config.first_epoch == config.training.epochs
        and config.selection.patience is None
        and config.schedule.name != "plateau"
    )


def _nested(config: Config) -> Config:
    """The config with what data.valid describes as its test, and another validation share."""
    valid = config.data.valid
    share = min(valid, (1 - valid) / 2) if isinstance(valid, float) else VALID_SHARE
    return config.model_copy(update={"data": config.data.model_copy(update={"test": valid, "valid": share})})
