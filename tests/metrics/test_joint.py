"""The joint class against the competition's formula, and back again."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from classwise.metrics.joint import joint_number, split_joint

kinds = pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["arrays", "tensors"])


@kinds
def test_the_competitions_formula(make: Callable[[Any], Any]) -> None:
    """Class = mask * 6 + gender * 3 + age, for all 18 combinations in order."""
    combinations = list(itertools.product(range(3), range(2), range(3)))
    mask, gender, age = (make(column) for column in zip(*combinations, strict=True))
    joint = joint_number([mask, gender, age], [3, 2, 3])
    assert joint.tolist() == [m * 6 + g * 3 + a for m, g, a in combinations] == list(range(18))


@kinds
def test_split_is_the_inverse(make: Callable[[Any], Any]) -> None:
    """Splitting the number gives the parts, and -1 in all of them where any was unknown."""
    parts = [make([1, 0, -1, 2]), make([4, -1, 0, 3]), make([0, 1, 1, 0])]
    joint = joint_number(parts, [3, 5, 2])
    assert joint.tolist() == [18, -1, -1, 26]
    assert [part.tolist() for part in split_joint(joint, [3, 5, 2])] == [
        [1, -1, -1, 2],
        [4, -1, -1, 3],
        [0, -1, -1, 0],
    ]


@kinds
def test_more_classes_than_64_bits_can_number_are_refused(make: Callable[[Any], Any]) -> None:
    """21 targets of ten classes would overflow, into negative class numbers."""
    parts = [make([9, 0])] * 21
    with pytest.raises(ValueError, match=r"found 21 targets with 1e\+21 joint classes"):
        joint_number(parts, [10] * 21)
    assert joint_number(parts[:18], [10] * 18).tolist() == [10**18 - 1, 0]


@kinds
def test_the_arguments_are_not_changed(make: Callable[[Any], Any]) -> None:
    """Nothing is written into the arguments, also where there is only one part."""
    first, second = make([0, 1]), make([-1, 1])
    joint_number([first, second], [2, 2])
    single = joint_number([first], [2])
    single[0] = 7
    split_joint(first, [2])
    assert first.tolist() == [0, 1]
    assert second.tolist() == [-1, 1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
def test_small_integers_do_not_overflow(dtype: str) -> None:
    """The number is computed in 64 bits, whatever the parts are stored in; 255 is not -1."""
    for parts in (
        [np.array([99, 0], dtype=dtype)] * 3,
        [torch.tensor([99, 0], dtype=getattr(torch, dtype))] * 3,
    ):
        assert joint_number(parts, [100, 100, 100]).tolist() == [999_999, 0]
    highest = [np.array([255], dtype=np.uint8), torch.tensor([255], dtype=torch.uint8)]
    assert [joint_number([part], [256]).tolist() for part in highest] == [[255], [255]]


@kinds
@pytest.mark.parametrize("value", [3, -2])
def test_classes_outside_their_target_are_refused(make: Callable[[Any], Any], value: int) -> None:
    """Class 3 of 3 would silently be another target's class."""
    with pytest.raises(ValueError, match=r"target 1 of the joint class: found .*allowed: -1 to 2"):
        joint_number([make([0]), make([value])], [2, 3])
    with pytest.raises(ValueError, match=r"joint class: found .*allowed: -1 to 5"):
        split_joint(make([value + 3 if value > 0 else value]), [2, 3])


def test_targets_that_do_not_fit_are_refused() -> None:
    """One size a target, and as many rows in each: nothing broadcasts."""
    with pytest.raises(ValueError, match="found 1 targets and 2 sizes"):
        joint_number([np.array([0])], [2, 3])
    with pytest.raises(ValueError, match="one shape for all"):
        joint_number([np.array([0, 1]), np.array([0])], [2, 3])
    with pytest.raises(ValueError, match="found 0 targets"):
        joint_number([], [])
