"""What a run says: the line of each epoch, and where its updates are not exactly those of one large batch."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from classwise.model.classifier import Classifier
from classwise.model.heads import ClassHead, Head, OrdinalHead, RegressionHead
from classwise.run.messages import LINE_WIDTH, batch_norm_note, epoch_line, targets_legend
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


ROW = {"epoch": 3, "train_loss": 1.23456, "lr": 0.001, "seconds": 12.34, "images_per_second": 345.0}
TWO: dict[str, Head] = {"mask": ClassHead(3), "age": RegressionHead(0.0, 1.0)}
SCORES = {"mask.macro_f1": 0.5, "mask.macro_f1_at_prior": 0.25, "age.r2": 0.75, "age.mae": 3.0}


def line(
    scores: dict[str, float], heads: dict[str, Head], metric: str, best: bool = True, epochs: int = 30
) -> str:
    """The line of the third epoch."""
    settings = dataclasses.replace(SETTINGS, epochs=epochs, metric=metric)
    return epoch_line({**ROW, "valid": scores}, settings, best, heads)


def test_the_line_of_an_epoch_with_one_target() -> None:
    """Loss, the score that selects with its star, and the speed; no name of a target."""
    one: dict[str, Head] = {"mask": ClassHead(3)}
    expected = "epoch  3/30  loss 1.2346  macro_f1 0.5000 *  lr 1.0e-03  12.3 s  345/s"
    assert line({"macro_f1": 0.5}, one, "macro_f1") == expected
    assert line({"macro_f1": 0.5}, one, "macro_f1", best=False) == expected.replace("*", " ")
    assert targets_legend(one) == ""


def test_the_line_of_an_epoch_has_every_target() -> None:
    """The selecting score first, with the star; then each target by its name, at the class shares that are selected
    by; a target that is there already is not repeated. The legend says which score it is."""
    scores = SCORES | {"mean": 0.625, "mean_at_prior": 0.5}
    assert "loss 1.2346  mean 0.6250 *  mask 0.5000  age 0.7500  lr" in line(scores, TWO, "mean")
    at_prior = line(scores, TWO, "mean_at_prior")
    assert "mean_at_prior 0.5000 *" in at_prior
    assert "mask 0.2500  age 0.7500" in at_prior
    assert "mask.macro_f1 0.5000 *  age 0.7500  lr" in line(scores, TWO, "mask.macro_f1")
    assert "age.mae 3.0000 *  mask 0.5000  age 0.7500  lr" in line(scores, TWO, "age.mae")
    assert targets_legend(TWO) == "each epoch also shows, by target: macro_f1 of mask; r2 of age"


@pytest.mark.parametrize("count", [3, 8, 20])
def test_many_targets_go_below_the_line(count: int) -> None:
    """No line is wider than 100 columns, also with wide characters; every target is there, below the loss."""
    heads: dict[str, Head] = {f"대상 {k}": OrdinalHead(3) for k in range(count)}
    scores = {f"{name}.macro_f1": 0.1234 for name in heads} | {"mean": 0.1234}
    lines = line(scores, heads, "mean").split("\n")
    assert len(lines) == 1 + -(-count // 5)
    assert lines[0].endswith("mean 0.1234 *  lr 1.0e-03  12.3 s  345/s")
    assert all(len(text) + text.count("대") * 2 <= LINE_WIDTH for text in lines)
    assert all(text.startswith(" " * lines[0].index("loss") + "대상") for text in lines[1:])
    assert all(f"{name} 0.1234" in "\n".join(lines) for name in heads)
