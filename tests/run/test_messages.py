"""What a run says of batch norm: where its updates are not exactly those of one large batch, and only there."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from classwise.model.classifier import Classifier
from classwise.run.messages import batch_norm_note
from tests.helpers.tiny_runs import SETTINGS, convolutional, dense, frozen, state_of, training


def note(
    model: Classifier, batch_size: int = 8, micro_batches: int = 1, chunk_size: int = 0, **changes: Any
) -> str:
    """The line for a run of two epochs with such updates; `changes` are those of its data."""
    data = dataclasses.replace(training(40, batch_size, micro_batches), **changes)
    state = state_of(model, data)
    state.progress.chunk_size = chunk_size
    parts: Any = SimpleNamespace(state=state, data=data, settings=SETTINGS)
    return batch_norm_note(parts)


@pytest.mark.parametrize(
    ("update", "numbers"),
    [
        ({"micro_batches": 4}, "the 8 images of a forward pass; the 32 of an update"),
        ({"chunk_size": 3}, "the 3 images of a forward pass; the 8 of an update"),
        ({"chunk_size": 4, "micro_batches": 2}, "the 4 images of a forward pass; the 16 of an update"),
        ({"micro_batches": 2, "world_size": 2}, "the 8 images of a forward pass; the 16 of an update"),
        ({"micro_batches": 4, "frozen_epochs": 1}, "the 8 images of a forward pass; the 32 of an update"),
    ],
    ids=["accumulate", "micro_batch", "both", "processes", "a frozen epoch"],
)
def test_an_update_of_several_passes(update: dict[str, int], numbers: str) -> None:
    """How many layers, by how many images they normalize, and which keys make it exact, in one line."""
    found = note(convolutional(), **update)
    assert found.startswith("note: none has 1 batch norm layer, which normalizes by ")
    assert numbers in found
    assert 'training.batch_norm = "frozen"' in found
    assert "small_cnn_gn" in found
    assert ("training.sync_batch_norm" in found) == ("world_size" in update)
    assert "\n" not in found


def test_where_updates_are_exact_nothing_is_said() -> None:
    """One pass per update, a chunk size that is never reached, no batch norm, frozen batch norm, a linear probe."""
    assert note(convolutional()) == ""
    assert note(convolutional(), chunk_size=8) == ""
    assert note(convolutional(), chunk_size=99) == ""
    assert note(dense(), micro_batches=4) == ""
    assert note(frozen(), micro_batches=4, chunk_size=2) == ""
    assert note(convolutional(), micro_batches=4, frozen_epochs=SETTINGS.epochs) == ""
