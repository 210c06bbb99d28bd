"""The programs in benchmarks/ run at tiny sizes, and what they compare computes the same. No time is looked at."""

import pytest
import torch

import confusion
import epoch
import growth
import memory
import overhead
import predicting
import processes
import reading


def test_counting_is_exact_for_all() -> None:
    """`measure` itself compares all of them with scikit-learn."""
    found = confusion.measure(5, 1)
    assert set(found) == {*confusion.WAYS, "ratio"}


def test_the_loop_ends_where_the_one_by_hand_ends() -> None:
    """The same weights after an epoch: what is compared is the same work."""
    data = overhead.Data(12)
    epochs = overhead.bare(data), overhead.classwise(data)
    for one in epochs:
        assert one() > 0
    (by_hand, ours) = (torch.cat([p.detach().flatten() for p in one.model.parameters()]) for one in epochs)
    torch.testing.assert_close(ours, by_hand, rtol=0, atol=1e-6)
    assert (ours - torch.cat([p.detach().flatten() for p in overhead.new_model().parameters()])).norm() > 0.01


def test_an_epoch_of_a_real_model() -> None:
    found = epoch.measure("small_cnn", 16, 32, 1)
    assert set(found["ratios"]) == {"classwise", "by hand (again)"}


def test_reading_gives_every_image_once() -> None:
    """`measure` counts the images of every way."""
    found = reading.measure(20, 1)
    assert len(found["speed"]) == 6
    assert min(found["speed"].values()) > 0


def test_classes_and_rows() -> None:
    found_whole = growth.whole_by_classes([2], 1, updates=1, model="resnet10t")
    assert found_whole[2] > 0
    assert set(growth.by_classes([2, 5], 1)) == {2, 5}
    found = growth.by_rows([60], 1)
    assert found["us_a_row"][60] > 0


def test_predictions_agree_with_timms() -> None:
    """`measure` checks that every file has its row; the same weights and the same part of each image give nearly the
    same probabilities."""
    found = predicting.measure(12, 1, ["timm", "timm-kept", "default"], "fp32", small=True)
    assert found["agreement"]["default and timm"]["largest"] < 0.01
    assert found["agreement"]["timm-kept and timm"]["largest"] == 0
    assert found["ratios"].keys() == {"timm / default", "timm-kept / default"}


@pytest.mark.full
def test_two_processes_make_the_same_updates() -> None:
    """The losses of one process with two micro-batches and of two with one each are equal but for rounding."""
    found = processes.measure("small_cnn", 16, 48, batch=8, epochs=2, blocks=1, with_limit=False)
    assert found["losses"]["one"] == pytest.approx(found["losses"]["two"], rel=1e-4)
    assert found["ratios"].keys() == {"two"}


def test_memory_is_that_of_a_whole_process() -> None:
    """Its largest size is more than what its imports take, and less than that of it and its children together."""
    found = memory.measure(20, 1, 0, ways=["same network"], size=32, weights="none")["runs"]["same network"][
        0
    ]
    assert 0 < found["imported"] < found["main"]
    assert found["beyond"] == found["main"] - found["imported"]
