"""Several class targets read as one class: a number in mixed radix, the first target most significant.

With mask, gender and age of 3, 2 and 3 classes the joint class is mask * 6 + gender * 3 + age.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

Labels = TypeVar("Labels", npt.NDArray[Any], torch.Tensor)


def joint_number(labels: Sequence[Labels], sizes: Sequence[int]) -> Labels:
    """The joint class (N,) of the targets' classes (N,), all arrays or all tensors; int64.

    `sizes`: how many classes each target has. -1 where any of the parts is -1. Raises ValueError for a class
    outside its target; on an accelerator that is not looked at, since it would wait for the device.
    """
    _check_parts(labels, sizes)
    parts = [_int64(part) for part in labels]
    number = parts[0]
    unknown = number == -1
    for part, size in zip(parts[1:], sizes[1:], strict=True):
        number = number * size + part
        unknown = unknown | (part == -1)
    number[unknown] = -1
    return number


def split_joint(number: Labels, sizes: Sequence[int]) -> list[Labels]:
    """The targets' classes (N,) of joint classes (N,): the inverse of `joint_number`. -1 gives -1 in all parts."""
    _check_range(number, math.prod(sizes), "joint class")
    parts = []
    rest = _int64(number)
    unknown = rest == -1
    for size in reversed(sizes):
        part = rest % size
        rest = rest // size
        part[unknown] = -1
        parts.append(part)
    return parts[::-1]


def _int64(labels: Labels) -> Labels:
    """A copy in 64 bits: small integer types would overflow silently."""
    if isinstance(labels, torch.Tensor):
        return labels.to(torch.int64, copy=True)
    return labels.astype(np.int64)


def _check_parts(labels: Sequence[Labels], sizes: Sequence[int]) -> None:
    if not labels or len(labels) != len(sizes):
        raise ValueError(
            f"found {len(labels)} targets and {len(sizes)} sizes; allowed: one size for each target"
        )
    shapes = {tuple(part.shape) for part in labels}
    if len(shapes) > 1:
        raise ValueError(f"found targets of shapes {sorted(shapes)}; allowed: one shape for all")
    for position, (part, size) in enumerate(zip(labels, sizes, strict=True)):
        _check_range(part, size, f"target {position} of the joint class")


def _check_range(labels: Labels, size: int, what: str) -> None:
    if isinstance(labels, torch.Tensor) and labels.device.type != "cpu":
        return
    labels = _int64(labels)
    if bool(((labels < -1) | (labels >= size)).any()):
        raise ValueError(
            f"{what}: found {int(labels.min())} to {int(labels.max())}, allowed: -1 to {size - 1}"
        )
