"""The normalizer: what the summed loss of an update is divided by.

The mean of a batch is a sum over its rows divided by a normalizer: the number of labeled rows, or the sum of their
class weights. The sums and the normalizers of several micro-batches can be added; their means cannot. So the training
loop adds up the normalizers of all micro-batches of an update first and hands the total to each of them. The gradients
then add up to that of one big batch, whatever the sizes, class weights and masked labels.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Normalizer:
    """What the sums of an update are divided by: one number for each term of a loss.

    Where the host knows the numbers they are plain floats, and dividing by them costs no operation on the device;
    otherwise they are a float64 tensor (terms,) on the device, which the host never waits for. Normalizers of several
    micro-batches can be added, also by `sum`.

    `is_row_count`: every number is the row count of one batch in which every label is known, so that the sum over its
    rows divided by it is the plain mean, and a loss may take torch's own. A sum of normalizers never says so.
    """

    __slots__ = ("is_row_count", "values")

    values: list[float] | Tensor
    is_row_count: bool

    def __init__(self, values: list[float] | Tensor, is_row_count: bool = False) -> None:
        if isinstance(values, Tensor) and is_on_host(values):
            values = values.tolist()  # waits for nothing
        self.values = values
        self.is_row_count = is_row_count

    @staticmethod
    def joined(parts: Sequence["Normalizer"]) -> "Normalizer":
        """The numbers of several losses one after the other."""
        if len(parts) == 1:
            return parts[0]
        is_row_count = all(part.is_row_count for part in parts)
        on_host = [part.values for part in parts if isinstance(part.values, list)]
        if len(on_host) == len(parts):
            return Normalizer([value for values in on_host for value in values], is_row_count)
        return Normalizer(torch.cat(_on_device([part.values for part in parts])), is_row_count)

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, other: "Normalizer") -> "Normalizer":
        if isinstance(self.values, list) and isinstance(other.values, list):
            return Normalizer([a + b for a, b in zip(self.values, other.values, strict=True)])
        first, second = _on_device([self.values, other.values])
        return Normalizer(first + second)

    def __radd__(self, zero: int) -> "Normalizer":
        """0 + self, which `sum` starts with: a sum, even of this one alone."""
        return Normalizer(self.values)

    def tolist(self) -> list[float]:
        """The numbers on the host; where they lie on another device, this waits for them."""
        return list(self.values) if isinstance(self.values, list) else self.values.tolist()

    def split(self, terms: Sequence[int]) -> list["Normalizer"]:
        """The stretch that belongs to each loss, in order, by its number of `terms`."""
        self.require_terms(sum(terms))
        if len(terms) == 1:
            return [self]
        ends = list(itertools.accumulate(terms, initial=0))
        stretches = [self.values[start:end] for start, end in itertools.pairwise(ends)]
        return [Normalizer(stretch, self.is_row_count) for stretch in stretches]

    def divide(self, total: Tensor) -> Tensor:
        """`total` (scalar) divided by the only number; 0 with a zero gradient where that is 0."""
        self.require_terms(1)
        if isinstance(self.values, list):
            return total if self.values[0] == 1 else total * inverse_or_zero(self.values[0])
        # 1 / 0 becomes 0 on the device: value and gradient are 0, and the host never asks what the number was.
        inverse = self.values.reciprocal().nan_to_num(nan=math.nan, posinf=0.0)
        return total * inverse.to(total.dtype).reshape(())

    def require_terms(self, terms: int) -> None:
        """ValueError unless there is one number for each term."""
        if len(self.values) != terms:
            raise ValueError(
                f"found a normalizer of {len(self.values)} numbers; allowed: {terms}, one a term"
            )


def is_on_host(tensor: Tensor) -> bool:
    """Whether its numbers can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def _on_device(parts: Sequence[list[float] | Tensor]) -> list[Tensor]:
    """All of them as tensors where the first tensor lies."""
    device = next(values.device for values in parts if isinstance(values, Tensor))
    return [torch.as_tensor(values, dtype=torch.float64, device=device) for values in parts]


def inverse_or_zero(value: float) -> float:
    """1 / value, and 0 where no label is known."""
    return 1 / value if value else 0.0
