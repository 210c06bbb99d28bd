"""The rows that a comparison is scored on have chosen nothing."""

from typing import Any

import pytest

from classwise.compare.scoring import Scoring, scoring_of
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.errors import ConfigError


def config_of(*overrides: tuple[str, str]) -> Config:
    values: dict[str, Any] = {"data": {"source": "t.csv"}, "targets": {"label": {"column": "label"}}}
    return make_config(values, overrides)


def scoring(*variants: Config) -> Scoring:
    return scoring_of({str(index): config for index, config in enumerate(variants)})


def test_test_rows_are_scored_where_there_are_some() -> None:
    """The configs stay as they are."""
    config = config_of(("data.test", "0.3"))
    found = scoring(config, config)
    assert (found.kind, found.split, found.redrawn) == ("test", "test", True)
    assert found.variants["0"] == config
    assert not scoring(config_of(("data.test", "other.csv"))).redrawn


def test_test_rows_are_for_all_variants_or_for_none() -> None:
    """Scores on other rows are not comparable."""
    with pytest.raises(ConfigError, match=r"data.test: set for variant 1, but not for 0"):
        scoring(config_of(), config_of(("data.test", "0.3")))


def test_at_a_fixed_epoch_the_validation_rows_are_scored() -> None:
    """Nothing is left to choose; a number and a fraction of the epochs are understood."""
    fixed = config_of(("training.epochs", "3"), ("selection.first_epoch", "3"))
    found = scoring(fixed, config_of(("training.epochs", "1")))
    assert (found.kind, found.split, found.redrawn) == ("fixed_epoch", "valid", True)
    assert found.variants["0"] == fixed
    assert (
        scoring(config_of(("training.epochs", "4"), ("selection.first_epoch", "0.75"))).kind == "fixed_epoch"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (("training.epochs", "3"), ("selection.first_epoch", "1")),
        (("training.epochs", "30"),),
        (("training.epochs", "3"), ("selection.first_epoch", "2")),
        (("training.epochs", "3"), ("selection.first_epoch", "3"), ("selection.patience", "1")),
        (("training.epochs", "3"), ("selection.first_epoch", "3"), ("schedule.name", "plateau")),
    ],
)
def test_where_any_variant_chooses_all_are_nested(overrides: tuple[tuple[str, str], ...]) -> None:
    """An epoch, an early stop and a lower learning rate are choices: the validation rows become the test."""
    found = scoring(config_of(("training.epochs", "1")), config_of(*overrides))
    assert (found.kind, found.split) == ("nested", "test")
    for config in found.variants.values():
        assert (config.data.test, config.data.valid) == (0.2, 0.2)


@pytest.mark.parametrize(("valid", "share"), [("0.25", 0.25), ("0.5", 0.25), ("0.8", 0.1)])
def test_a_nested_comparison_leaves_training_rows(valid: str, share: float) -> None:
    """The share that chooses is that of data.valid, but no more than half of what the test leaves."""
    found = scoring(config_of(("data.valid", valid))).variants["0"]
    assert found.data.test == float(valid)
    assert found.data.valid == pytest.approx(share)


def test_a_validation_table_becomes_the_test() -> None:
    """And a share of the training rows chooses; the scored rows are the same for all seeds."""
    found = scoring(config_of(("data.valid", "other.csv")))
    assert (found.variants["0"].data.test, found.variants["0"].data.valid) == ("other.csv", 0.2)
    assert not found.redrawn
    assert found.text.endswith(
        "taken from training: 20% of data.source, where each class therefore needs two rows or groups"
    )
    assert scoring(config_of()).text.endswith("taken from training")


@pytest.mark.parametrize("epochs", [(), (("training.epochs", "3"), ("selection.first_epoch", "3"))])
def test_the_labels_of_a_scored_table_give_no_class_shares(epochs: tuple[tuple[str, str], ...]) -> None:
    """Nested, they would be those of training instead; at a fixed epoch, those of the scored rows."""
    table = (("data.valid", "other.csv"), *epochs)
    with pytest.raises(
        ConfigError, match=r"^selection.prior: found 'as_validation' in variant 1, .* data.test$"
    ):
        scoring(config_of(*table), config_of(*table, ("selection.prior", "as_validation")))


def test_other_class_shares_can_be_compared() -> None:
    """A share of the source has its class shares, given ones need no labels, and a test is scored as `train` does."""
    prior = ("selection.prior", "as_validation")
    table = ("data.valid", "other.csv")
    assert scoring(config_of(prior)).kind == "nested"
    assert scoring(config_of(table, ("selection.prior", "balanced"))).kind == "nested"
    assert scoring(config_of(table, ("selection.prior", "{a = 1, b = 3}"))).kind == "nested"
    assert scoring(config_of(table, prior, ("data.test", "test.csv"))).kind == "test"
