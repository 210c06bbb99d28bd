"""Progress: what is counted, when a value is the best, and what an interrupted epoch remembers."""

import json

import pytest
import torch

from classwise.training.state import Progress
from tests.helpers.tiny_runs import dense, state_of, training


def test_updates_add_up_to_an_epoch() -> None:
    """Losses are weighted by their samples; the end of the epoch clears what belongs to it and no more."""
    progress = Progress()
    for loss, samples in ((2.0, 6), (1.0, 6), (4.0, 2)):
        progress.end_update(loss, samples)
    assert (progress.update, progress.update_in_epoch, progress.samples) == (3, 3, 14)
    assert progress.loss_sum / progress.samples == (2 * 6 + 1 * 6 + 4 * 2) / 14
    progress.epoch_seconds, progress.skipped_updates = 3.0, 1
    progress.end_epoch(0.5, {"epoch": 1})
    assert (progress.epoch, progress.update, progress.update_in_epoch, progress.samples) == (1, 3, 0, 0)
    assert (progress.loss_sum, progress.epoch_seconds, progress.skipped_updates) == (0.0, 0.0, 0)
    assert progress.history == [{"epoch": 1}]


def test_any_first_value_is_the_best() -> None:
    """The best starts as None: 0 beats it, and so would a negative value."""
    for value in (0.0, -1.0, 1.0):
        assert Progress().end_epoch(value, {})


def test_only_a_better_value_is_the_best() -> None:
    """An equal value is not better; waiting is counted from the best epoch."""
    progress = Progress()
    found = [progress.end_epoch(value, {}) for value in (0.2, 0.2, 0.1, 0.3, 0.3)]
    assert found == [True, False, False, True, False]
    assert (progress.best, progress.best_epoch, progress.epochs_without_improvement) == (0.3, 4, 1)


def test_it_survives_json() -> None:
    """As a dict, through JSON and back, in the middle of an epoch, digit for digit."""
    progress = Progress()
    progress.end_update(1 / 3, 7)
    progress.end_epoch(0.1 + 0.2, {"epoch": 1, "valid": {"loss": 2 / 3}})
    progress.end_update(1 / 7, 3)
    assert Progress(**json.loads(json.dumps(progress.as_dict()))) == progress


@pytest.mark.parametrize("count", [-1, 2**63, 1.0, True, "1", None])
def test_counts_that_no_run_can_have_are_refused(count: object) -> None:
    """A checkpoint may hold anything that JSON can: a whole number from 0 is meant."""
    values = Progress().as_dict()
    assert Progress.from_dict(values) == Progress()
    for name in (
        "epoch",
        "update",
        "update_in_epoch",
        "samples",
        "skipped_updates",
        "best_epoch",
        "chunk_size",
    ):
        with pytest.raises(ValueError, match=f"{name} is .*, not a valid count"):
            Progress.from_dict(values | {name: count})


def test_two_runs_share_no_history() -> None:
    """A list in the class would append one run's epochs to the other's."""
    first = Progress()
    first.end_epoch(0.5, {"epoch": 1})
    assert Progress().history == []


def test_from_first_epoch_on_everything_earlier_is_passed_over() -> None:
    """A lucky early value is replaced by that of `first_epoch`, even a lower one; from then on the best counts."""
    progress = Progress()
    better = [progress.end_epoch(value, {}, first_epoch=3) for value in (0.5, 0.9, 0.6, 0.55, 0.7)]
    assert better == [True, True, True, False, True]
    assert (progress.best, progress.best_epoch, progress.epochs_without_improvement) == (0.7, 5, 0)


def test_lower_values_may_be_the_better_ones() -> None:
    """Of an error the lowest is the best, an equal one is no better, and `first_epoch` still passes over what was
    before it; 0 and None are no special cases."""
    progress = Progress()
    found = [progress.end_epoch(value, {}, higher_is_better=False) for value in (0.4, 0.4, 0.5, 0.0, 0.3)]
    assert found == [True, False, False, True, False]
    assert (progress.best, progress.best_epoch, progress.epochs_without_improvement) == (0.0, 4, 1)
    late = Progress()
    for value in (0.1, 0.5, 0.6, 0.2):
        late.end_epoch(value, {}, first_epoch=2, higher_is_better=False)
    assert (late.best, late.best_epoch) == (0.2, 4)


class _WithoutLength(torch.nn.Module):
    """As torch.compile makes one: `len()` of it, and so its truth, is an error."""

    def __len__(self) -> int:
        raise TypeError("does not support len()")

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mask": images}


def test_what_a_compiler_made_is_what_computes() -> None:
    """Any callable, a module without a length too."""
    state = state_of(dense(), training(4, 2))
    state.compute = _WithoutLength()
    images = torch.ones(1)
    assert state.forward(images)["mask"] is images
