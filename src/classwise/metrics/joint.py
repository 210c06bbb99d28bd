"""Several class targets read as one joint class: a number in mixed radix, the first target most significant.

With mask, gender and age of 3, 2 and 3 classes the joint class is mask * 6 + gender * 3 + age.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Labels = TypeVar("Labels", npt.NDArray[Any], "torch.Tensor")

MAX_JOINT_CLASSES = 5000
"""Its metrics have a confusion matrix, which has 200 MB at this size, and a list with a name for each class."""


def joint_number(labels: Sequence[Labels], sizes: Sequence[int]) -> Labels:
    """The joint class (N,) of the targets' classes (N,), all arrays or all tensors; int64.

    `sizes`: the number of classes of each target. -1 where the class of any target is -1. Raises ValueError for more
    joint classes than 64 bits can number, and for a class outside its target; on an accelerator the latter is not
    checked, since it would wait for the device.
    """
    _check_targets(labels, sizes)
    targets = [_int64(target) for target in labels]
    number = targets[0]
    is_unknown = number == -1
    for target, size in zip(targets[1:], sizes[1:], strict=True):
        number = number * size + target
        is_unknown = is_unknown | (target == -1)
    number[is_unknown] = -1
    return number


def split_joint(number: Labels, sizes: Sequence[int]) -> list[Labels]:
    """The targets' classes (N,) of joint classes (N,), the inverse of `joint_number`; -1 gives -1 for every target.

    Raises ValueError for a number that is not a joint class.
    """
    _check_range(number, math.prod(sizes), "joint class")
    targets = []
    rest = _int64(number)
    is_unknown = rest == -1
    for size in reversed(sizes):
        target = rest % size
        rest = rest // size
        target[is_unknown] = -1
        targets.append(target)
    return targets[::-1]


def joint_labels(labels: Mapping[str, Sequence[str]], joint: Sequence[str]) -> list[str]:
    """Readable names of the joint classes in the order of their numbers: `wear / male / <30`."""
    names = [""]
    for target in joint:
        names = [f"{name} / {label}" if name else label for name in names for label in labels[target]]
    return names


def _int64(labels: Labels) -> Labels:
    """A copy in 64 bits: small integer types would overflow silently."""
    return labels.astype(np.int64) if isinstance(labels, np.ndarray) else labels.long().clone()


def _check_targets(labels: Sequence[Labels], sizes: Sequence[int]) -> None:
    """ValueError unless there is one size per target, one shape for all, and every class is within its target."""
    if not labels or len(labels) != len(sizes):
        raise ValueError(
            f"found {len(labels)} targets and {len(sizes)} sizes; allowed: one size for each target"
        )
    if math.prod(sizes) > 2**63:
        raise ValueError(
            f"found {len(sizes)} targets with {math.prod(sizes):.3g} joint classes; allowed: 2 ** 63"
        )
    shapes = {tuple(target.shape) for target in labels}
    if len(shapes) > 1:
        raise ValueError(f"found targets of shapes {sorted(shapes)}; allowed: one shape for all")
    for position, (target, size) in enumerate(zip(labels, sizes, strict=True)):
        _check_range(target, size, f"target {position} of the joint class")


def _check_range(labels: Labels, size: int, what: str) -> None:
    if not isinstance(labels, np.ndarray) and labels.device.type != "cpu":
        return
    labels = _int64(labels)
    if bool(((labels < -1) | (labels >= size)).any()):
        raise ValueError(
            f"{what}: found {int(labels.min())} to {int(labels.max())}, allowed: -1 to {size - 1}"
        )
