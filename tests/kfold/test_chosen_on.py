"""Which rows have chosen a model, and when a decision fixes the epoch."""

from pathlib import Path
from typing import Any

import pytest

from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import ConfigError
from classwise.kfold.chosen_on import (
    ROWS_TO_FINETUNE,
    reason_against_tuning,
    reason_own_rows_choose,
    with_fixed_epoch,
    with_plan,
)
from classwise.kfold.decisions import refuse_nothing_to_decide

CLASS = {"kind": {"column": "kind"}}
AGE = {"age": {"column": "age", "type": "regression"}}
RANK = {"match": {"column": "rel", "type": "ranking", "query": "q"}}


def config_of(targets: dict[str, Any] = CLASS, **sections: Any) -> Config:
    """Six epochs, of which the default takes the better of the last two."""
    return make_config(
        {"data": {"source": "t.csv"}, "targets": targets, "training": {"epochs": 6}} | sections
    )


def is_fixed(config: Config) -> bool:
    return with_fixed_epoch(config, Console(quiet=True)).first_epoch == 6


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ({"offsets": "none", "temperature": "none", "abstain": 0.5}, False),
        ({"offsets": "none", "temperature": 2.0}, False),
        ({"offsets": "none"}, True),
        ({"temperature": "none"}, True),
        ({"temperature": "none", "costs": {"kind": [[0, 1], [5, 0]]}}, True),
    ],
)
def test_the_epoch_is_fixed_only_where_something_is_fitted(decision: dict[str, Any], expected: bool) -> None:
    assert is_fixed(config_of(decision=decision)) == expected


@pytest.mark.parametrize("targets", [AGE, RANK])
def test_targets_that_nothing_is_decided_for_keep_their_best_epoch(targets: dict[str, Any]) -> None:
    assert not is_fixed(config_of(targets, decision={}))


@pytest.mark.parametrize("targets", [AGE, RANK])
@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("offsets", "tuned", "'tuned'"),
        ("offsets", "half_prior", "'half_prior'"),
        ("temperature", 2.0, "2.0"),
        ("temperature", 1.0, "1.0"),
        ("abstain", 0.5, "0.5"),
    ],
)
def test_a_key_that_no_target_can_follow_is_refused_by_name(
    targets: dict[str, Any], key: str, value: object, found: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"decision\.{key}: found {found}, but no target has probabilities"
    ):
        refuse_nothing_to_decide(config_of(targets, decision={key: value}))


def test_beside_a_target_with_classes_every_key_has_a_meaning() -> None:
    refuse_nothing_to_decide(config_of(CLASS | AGE, decision={"offsets": "tuned", "abstain": 0.5}))


def test_weights_of_a_run_are_no_choice_of_the_folds_own_rows(tmp_path: Path) -> None:
    """Nothing is tuned on them, and yet no fold has selected its model."""
    weights = {"backbone": "small_cnn", "weights": str(tmp_path)}
    config = config_of(model=weights, selection={"first_epoch": 6})
    assert "model.weights: found" in reason_against_tuning(config)
    assert reason_own_rows_choose(config) == ""


def test_the_best_of_the_last_epochs_is_one() -> None:
    assert "selection.first_epoch" in reason_own_rows_choose(config_of())


AUTO = {
    "model": {"backbone": "resnet18", "weights": "w.safetensors"},
    "training": {"epochs": 6, "plan": "auto"},
}


@pytest.mark.parametrize(
    ("rows", "decision", "expected"),
    [
        (ROWS_TO_FINETUNE - 1, None, "probe"),
        (ROWS_TO_FINETUNE, None, "auto"),
        (ROWS_TO_FINETUNE, {"offsets": "tuned"}, "probe"),
        (ROWS_TO_FINETUNE, {"costs": {"kind": [[0, 1], [5, 0]]}}, "probe"),
        (20, {"offsets": "none", "temperature": "none"}, "auto"),
    ],
)
def test_auto_leaves_fine_tuning_out_where_it_would_cost_the_decisions(
    rows: int, decision: dict[str, Any] | None, expected: str
) -> None:
    sections = AUTO if decision is None else AUTO | {"decision": decision}
    found = with_plan(config_of(**sections), rows, Console(quiet=True))
    assert found.training.plan == expected


def test_a_plan_that_is_given_stays() -> None:
    sections = AUTO | {"training": {"epochs": 6, "plan": "probe_then_finetune"}}
    assert with_plan(config_of(**sections), 20, Console(quiet=True)).training.plan == "probe_then_finetune"


def test_rules_asked_for_by_name_are_not_refused_for_what_auto_would_do() -> None:
    fixed = with_fixed_epoch(config_of(**AUTO, decision={"offsets": "tuned"}), Console(quiet=True))
    assert fixed.training.plan == "probe"
    assert reason_against_tuning(fixed) == ""
