"""What the last model of folds trains, from the epochs that the folds took."""

from typing import Any

import pytest

from classwise.config.conflicts import check_conflicts
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.errors import ConfigError
from classwise.kfold.last import check_last, last_config
from classwise.kfold.plan import folds_config


def config(**changes: Any) -> Config:
    """The config of folds with a model on all rows."""
    tree = {
        "seed": 5,
        "data": {"source": "t.csv", "valid": 0.1},
        "targets": {"kind": {"column": "kind"}},
        "training": {"epochs": 20, "plan": "finetune"},
        "folds": {"count": 4, "last": True},
    }
    return folds_config(make_config(tree | changes))


@pytest.mark.parametrize(
    ("epochs", "expected"), [([10, 11, 12], 11), ([10, 11], 11), ([9, 10, 10], 10), ([1], 1)]
)
def test_epochs_are_the_rounded_mean_of_the_folds(epochs: list[int], expected: int) -> None:
    found = last_config(config(), epochs)
    assert found.training.epochs == expected
    assert found.data.valid == 0


def test_folds_that_kept_their_first_answers_have_a_first_answer() -> None:
    training = {"epochs": 20, "plan": "probe_then_finetune"}
    assert last_config(config(training=training), [0, 0, 1]).training.plan == "probe"
    assert last_config(config(training=training), [0, 3, 3]).training.plan == "probe_then_finetune"


def test_what_is_about_validation_rows_is_left_out() -> None:
    found = last_config(config(selection={"metric": "accuracy", "patience": 3}), [7])
    assert (found.selection.metric, found.selection.patience) == ("accuracy", None)
    assert check_conflicts(found) == []


def test_keys_about_later_epochs_fit_the_fewer_ones() -> None:
    """The config is read back from the run's own file."""
    training = {"epochs": 20, "plan": "finetune", "freeze_epochs": 8}
    schedule = {"name": "cosine", "restart_after": [9, 15]}
    found = make_config(last_config(config(training=training, schedule=schedule), [10, 11]).to_dict())
    assert (found.training.epochs, found.training.freeze_epochs) == (11, 8)
    assert found.schedule.restart_after == (9,)
    found = make_config(last_config(config(training=training, schedule=schedule), [5, 5]).to_dict())
    assert (found.training.epochs, found.training.freeze_epochs, found.schedule.restart_after) == (5, 5, None)


def test_class_weights_that_begin_later_are_waited_for() -> None:
    loss = {"name": "cross_entropy", "class_weights": "inverse", "weights_from_epoch": 15}
    found = last_config(config(loss=loss), [10])
    assert found.training.epochs == 15
    assert check_conflicts(found) == []


def test_the_seed_of_the_folds_draws_the_test_rows() -> None:
    found = last_config(config(folds={"count": 4, "last": True, "seed": 9}), [3])
    assert (found.seed, found.split_seed) == (5, 9)
    assert found.trains_last
    assert not config().trains_last


def test_a_schedule_that_looks_at_scores_is_refused_before_the_folds_are_trained() -> None:
    with pytest.raises(ConfigError, match=r"folds.last: found true, but schedule.name is 'plateau'"):
        check_last(config(schedule={"name": "plateau"}))
    check_last(config(schedule={"name": "plateau"}, folds={"count": 4}))
