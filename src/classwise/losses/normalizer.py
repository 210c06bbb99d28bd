"""The normalizer: what the summed loss of an update is divided by.

The mean loss of a batch is a sum over its rows divided by a normalizer: the number of labeled rows, or the sum of their
class weights. The sums and the normalizers of several micro-batches can be added; their means cannot. So the training
loop first adds up the normalizers of all micro-batches of an update, and passes the total to each of them. The
gradients then add up to that of one big batch, whatever the batch sizes, class weights and masked labels. That is the
loss's part; the model's is that the outputs of a row do not depend on the other rows (see model/batch_norm.py).
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Normalizer:
    """What the sums of an update are divided by: one number for each term of a loss.

    Numbers that the host has are plain floats, and dividing by them costs no operation on the device. Others are a
    float64 tensor (terms,) on the device, which the host never waits for. Normalizers of several micro-batches can be
    added, also by `sum`.

    `is_row_count`: every number is the row count of one batch in which every row is labeled. The sum over its rows
    divided by it is then the plain mean, and a loss may use torch's own. It is never set on a sum of normalizers.
    """

    __slots__ = ("_split", "is_row_count", "values")

    values: list[float] | Tensor
    is_row_count: bool

    def __init__(self, values: list[float] | Tensor, is_row_count: bool = False) -> None:
        if isinstance(values, Tensor) and is_on_host(values):
            values = values.tolist()  # waits for nothing
        self.values = values
        self.is_row_count = is_row_count
        self._split: tuple[Sequence[int], list[Normalizer]] | None = (
            None  # the last one, for the chunks of an update
        )

    @staticmethod
    def concat(normalizers: Sequence["Normalizer"]) -> "Normalizer":
        """The numbers of several losses, one loss after the other."""
        if len(normalizers) == 1:
            return normalizers[0]
        is_row_count = all(normalizer.is_row_count for normalizer in normalizers)
        on_host = [normalizer.values for normalizer in normalizers if isinstance(normalizer.values, list)]
        if len(on_host) == len(normalizers):
            return Normalizer([value for values in on_host for value in values], is_row_count)
        tensors = _on_device([normalizer.values for normalizer in normalizers])
        return Normalizer(torch.cat(tensors), is_row_count)

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, other: "Normalizer") -> "Normalizer":
        if isinstance(self.values, list) and isinstance(other.values, list):
            return Normalizer([a + b for a, b in zip(self.values, other.values, strict=True)])
        a, b = _on_device([self.values, other.values])
        return Normalizer(a + b)

    def __radd__(self, zero: int) -> "Normalizer":
        """0 + self, which `sum` starts with: the result counts as a sum even of this one alone."""
        return Normalizer(self.values)

    def tolist(self) -> list[float]:
        """The numbers on the host; waits for them if they are on another device."""
        return list(self.values) if isinstance(self.values, list) else self.values.tolist()

    def split(self, terms: Sequence[int]) -> list["Normalizer"]:
        """The inverse of `concat`: one normalizer per loss, in order, given the number of `terms` of each."""
        if self._split is not None and self._split[0] == terms:
            return self._split[1]
        self.require_terms(sum(terms))
        ends = list(itertools.accumulate(terms, initial=0))
        stretches = [self.values[start:end] for start, end in itertools.pairwise(ends)]
        parts = [Normalizer(stretch, self.is_row_count) for stretch in stretches]
        self._split = terms, parts
        return parts

    def divide(self, total: Tensor) -> Tensor:
        """`total` (scalar) divided by the only number; 0 with a zero gradient where that number is 0.

        Raises ValueError if there are several numbers.
        """
        self.require_terms(1)
        if isinstance(self.values, list):
            return total if self.values[0] == 1 else total * inverse_or_zero(self.values[0])
        # 1 / 0 becomes 0 on the device: value and gradient are 0, and the host need not read the number.
        inverse = self.values.reciprocal().nan_to_num(nan=math.nan, posinf=0.0)
        return total * inverse.to(total.dtype).reshape(())

    def require_terms(self, terms: int) -> None:
        """ValueError unless there is one number for each term."""
        if len(self.values) != terms:
            raise ValueError(
                f"found a normalizer of {len(self.values)} numbers; allowed: {terms}, one per term"
            )


def is_on_host(tensor: Tensor) -> bool:
    """Whether the numbers of `tensor` can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def _on_device(values: Sequence[list[float] | Tensor]) -> list[Tensor]:
    """All `values` as float64 tensors on the device of the first tensor among them."""
    device = next(value.device for value in values if isinstance(value, Tensor))
    return [value if isinstance(value, Tensor) else _filled(value, device) for value in values]


def _filled(numbers: list[float], device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on the device: filled in there, because a copy would have to wait."""
    return torch.cat([torch.full((1,), number, dtype=torch.float64, device=device) for number in numbers])


def inverse_or_zero(value: float) -> float:
    """1 / value, and 0 for 0: where no row is labeled."""
    return 1 / value if value else 0.0
