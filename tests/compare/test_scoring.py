"""The rows that a comparison is scored on have chosen nothing."""

from pathlib import Path
from typing import Any

import pytest

from classwise.compare.given_rows import GivenRows, given_rows
from classwise.compare.scoring import Scoring, scoring_of
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.errors import ConfigError, DataError


def config_of(*overrides: tuple[str, str]) -> Config:
    values: dict[str, Any] = {"data": {"source": "t.csv"}, "targets": {"label": {"column": "label"}}}
    return make_config(values, overrides)


def scoring(*variants: Config) -> Scoring:
    """Without a column that gives rows."""
    named = {str(index): config for index, config in enumerate(variants)}
    return scoring_of(named, dict.fromkeys(named, GivenRows()))


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


# Rows that the table gives.


def given_table(folder: Path, column: str, cells: str, labels: str, **data: str) -> Config:
    """A config whose table has a cell and a label (`-`: none) for each row."""
    rows = [
        f"{n}.png,{cell},{'' if label == '-' else label}"
        for n, (cell, label) in enumerate(zip(cells, labels, strict=True))
    ]
    (folder / "t.csv").write_text("\n".join([f"path,{column},label", *rows]))
    overrides = [(f"data.{key}", value) for key, value in data.items()]
    return config_of(("data.source", str(folder / "t.csv")), *overrides)


PARTS = "{t = 'train', v = 'valid', e = 'test'}"


def given_scoring(config: Config) -> Scoring:
    return scoring_of({"a": config}, {"a": given_rows(config)})


def test_the_test_rows_of_a_column_are_scored(tmp_path: Path) -> None:
    """Whether or not the column gives validation rows; nothing is redrawn, and the config stays as it is."""
    for cells in ("ttttvvee", "ttttttee"):
        config = given_table(tmp_path, "part", cells, "abababab", split="part", split_values=PARTS)
        found = given_scoring(config)
        assert (found.kind, found.split, found.redrawn) == ("test", "test", False)
        assert found.variants["a"] == config
        assert found.text == "the test rows of column 'part', which train nothing and choose nothing"


@pytest.mark.parametrize("labels", ["ababab", "abab--"])
@pytest.mark.parametrize("key", ["split", "fold"])
def test_the_validation_rows_of_a_column_become_the_test(tmp_path: Path, key: str, labels: str) -> None:
    """Test rows without labels cannot be scored, and stay out."""
    if key == "fold":
        config = given_table(tmp_path, "part", "112211", "ababab", fold="part", valid_fold="'2'")
        values = {"1": "train", "2": "test"}
    else:
        cells = "ttvvtt" if labels == "ababab" else "ttvvee"
        config = given_table(tmp_path, "part", cells, labels, split="part", split_values=PARTS)
        values = {"t": "train", "v": "test"} | ({"e": "skip"} if "e" in cells else {})
    found = given_scoring(config)
    data = found.variants["a"].data
    assert (found.kind, found.redrawn, data.test, data.valid) == ("nested", False, None, 0.2)
    assert (data.split, data.split_values, data.fold, data.valid_fold) == ("part", values, None, None)
    assert found.text.startswith(
        "the validation rows of column 'part'; each run chooses its epoch on other rows"
    )


def test_the_validation_rows_of_a_column_at_a_fixed_epoch(tmp_path: Path) -> None:
    """They are the same for all seeds."""
    config = given_table(tmp_path, "part", "ttvvtt", "ababab", split="part", split_values=PARTS)
    fixed = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 1})})
    found = given_scoring(fixed)
    assert (found.kind, found.split, found.redrawn) == ("fixed_epoch", "valid", False)
    assert found.text.startswith("the validation rows of column 'part', which choose nothing")


def test_the_labels_of_a_scored_column_give_no_class_shares(tmp_path: Path) -> None:
    """As those of a scored table."""
    config = given_table(tmp_path, "part", "ttvvtt", "ababab", split="part", split_values=PARTS)
    prior = config.model_copy(
        update={"selection": config.selection.model_copy(update={"prior": "as_validation"})}
    )
    with pytest.raises(
        ConfigError, match=r"scores the validation rows of column 'part', whose labels must not"
    ):
        given_scoring(prior)


def test_a_column_that_the_table_does_not_have(tmp_path: Path) -> None:
    """Refused before anything trains."""
    config = given_table(tmp_path, "part", "ttvvtt", "ababab", split="parts")
    with pytest.raises(DataError, match=r"no column 'parts' \(data.split\)"):
        given_rows(config)
