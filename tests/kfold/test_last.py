"""What the last model of folds trains, from the epochs that the folds took."""

from typing import Any

import pytest

from classwise.config.conflicts import check_conflicts
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.errors import ConfigError
from classwise.kfold.last import check_last, last_config
from classwise.kfold.plan import folds_config
from classwise.optim.schedules import build_schedule


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
    assert (found.training.epochs, found.training.freeze_epochs, found.schedule.restart_after) == (9, 8, None)


def test_class_weights_that_begin_later_are_waited_for() -> None:
    loss = {"name": "cross_entropy", "class_weights": "inverse", "weights_from_epoch": 15}
    found = last_config(config(loss=loss), [10])
    assert found.training.epochs == 15
    assert check_conflicts(found) == []


def test_a_restart_has_epochs_after_its_warm_up() -> None:
    schedule = {"name": "cosine", "restart_after": [4, 9], "warmup_epochs": 2.5}
    assert last_config(config(schedule=schedule), [11]).schedule.restart_after == (4,)
    assert last_config(config(schedule=schedule), [12]).schedule.restart_after == (4, 9)


FREEZING = {"epochs": 20, "plan": "finetune", "freeze_epochs": 3}
NEED_MORE: dict[str, dict[str, Any]] = {
    "warm-up": {"schedule": {"name": "cosine", "warmup_epochs": 3}},
    "frozen, then a warm-up": {
        "training": FREEZING,
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
    },
    "frozen, then steps": {"training": FREEZING, "schedule": {"name": "step"}},
    "frozen, then layer decay": {"training": FREEZING, "optimizer": {"layer_decay": 0.7}},
    "frozen, then mixup": {"training": FREEZING, "data": {"source": "t.csv", "valid": 0.1, "mixup": 0.2}},
}


@pytest.mark.parametrize("case", NEED_MORE)
def test_keys_that_need_more_epochs_get_them(case: str) -> None:
    """The mean of 2 or 3 is too few, which must not come out once all folds are trained."""
    for mean in (2, 3):
        found = make_config(last_config(config(**NEED_MORE[case]), [mean]).to_dict())
        check_conflicts(found)
        assert found.training.epochs == 4
        build_schedule(
            updates_per_epoch=7,
            epochs=found.training.epochs,
            bases=[0.1],
            frozen_updates=7 * found.training.freeze_epochs,
            **found.schedule.model_dump(exclude_none=True),
        )


def test_never_more_epochs_than_the_folds_had() -> None:
    """A backbone that the folds kept frozen stays frozen; a first epoch to select is left out."""
    training = {"epochs": 4, "plan": "finetune", "freeze_epochs": 4}
    found = last_config(config(training=training, selection={"first_epoch": 4}), [2])
    assert (found.training.epochs, found.training.freeze_epochs) == (2, 2)
    training = {"epochs": 4, "plan": "finetune", "freeze_epochs": 3}
    assert last_config(config(training=training), [1]).training.epochs == 4


def test_the_decision_of_the_folds_is_left_out() -> None:
    """Nothing is fitted without out-of-fold rows, and no note says so."""
    assert last_config(config(decision={}), [3]).decision is None


def test_the_seed_of_the_folds_draws_the_test_rows() -> None:
    found = last_config(config(folds={"count": 4, "last": True, "seed": 9}), [3])
    assert (found.seed, found.split_seed) == (5, 9)
    assert found.is_on_all_folds
    assert not config().is_on_all_folds


def test_a_schedule_that_looks_at_scores_is_refused_before_the_folds_are_trained() -> None:
    with pytest.raises(ConfigError, match=r"folds.last: found true, but schedule.name is 'plateau'"):
        check_last(config(schedule={"name": "plateau"}))
    check_last(config(schedule={"name": "plateau"}, folds={"count": 4}))
