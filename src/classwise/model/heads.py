"""The meaning of a head's raw outputs: one kind of head for each type of target.

A head's `decode` turns raw outputs into what metrics and predictions are computed from:

    class        logits (B, K), minus tau * log prior with post-hoc adjustment
    ordinal      log-probabilities (B, K) of the levels, from the conditional tasks of CORN
    multilabel   logits (B, L), one per independent label
    regression   values (B,) in the user's unit, float64
    ranking      scores (B,)

Heads that can be read as one class (`classes` > 0) also have `predicted(decoded)`: class numbers (B,), -1 where the
decoded output is not finite. Heads are saved with every checkpoint, so that inference cannot differ from training.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Head(Protocol):
    """The interface that all kinds of heads share."""

    @property
    def type(self) -> str:
        """The target's type: class, ordinal, multilabel, regression, ranking."""

    @property
    def outputs(self) -> int:
        """The number of raw outputs per row."""

    @property
    def classes(self) -> int:
        """The number of classes that the target can be read as, 0 for none."""

    def decode(self, outputs: Tensor) -> Tensor:
        """From raw outputs (B, outputs) to what metrics take; see the module's docstring."""

    def predicted(self, decoded: Tensor) -> Tensor:
        """Class numbers (B,), int64, -1 where `decoded` is not finite. ValueError for a head without classes."""


@dataclass(frozen=True)
class ClassHead:
    """One of `classes` classes. `adjustment` (K numbers, or none) is added to the logits after training: with
    -tau * log prior it is the post-hoc logit adjustment of Menon et al. 2021, equation 9."""

    classes: int
    adjustment: tuple[float, ...] = ()
    type: str = "class"

    @property
    def outputs(self) -> int:
        return self.classes

    def decode(self, outputs: Tensor) -> Tensor:
        if not self.adjustment:
            return outputs
        return outputs + torch.tensor(self.adjustment, dtype=outputs.dtype, device=outputs.device)

    def predicted(self, decoded: Tensor) -> Tensor:
        """The class with the largest logit; -1 where the largest is not finite (NaN, or an infinity)."""
        largest_B, predicted_B = decoded.max(dim=1)
        return torch.where(largest_B.abs() < math.inf, predicted_B, -1)


@dataclass(frozen=True)
class OrdinalHead:
    """Ordered levels. The outputs are the logits of P(y > k | y > k - 1), k = 0 to K - 2 (CORN: Shi, Cao, Raschka
    2023, section 3.3); the products of the conditional probabilities are P(y > k)."""

    classes: int
    type: str = "ordinal"

    @property
    def outputs(self) -> int:
        return self.classes - 1

    def decode(self, outputs: Tensor) -> Tensor:
        above_BJ = F.logsigmoid(outputs).cumsum(dim=1)  # log P(y > k)
        stop_BJ = F.logsigmoid(-outputs)  # log P(y = k | y > k - 1)
        reached_BJ = torch.cat([torch.zeros_like(above_BJ[:, :1]), above_BJ[:, :-1]], dim=1)
        return torch.cat([reached_BJ + stop_BJ, above_BJ[:, -1:]], dim=1)

    def predicted(self, decoded: Tensor) -> Tensor:
        """The number of k with P(y > k) > 0.5 (section 3.4): the distribution's median, not its mode."""
        above_BJ = decoded.exp().flip(1).cumsum(dim=1).flip(1)[:, 1:]
        return torch.where(decoded.isnan().any(dim=1), -1, (above_BJ > 0.5).sum(dim=1))


@dataclass(frozen=True)
class MultilabelHead:
    """`labels` independent binary labels."""

    labels: int
    classes: int = 0
    type: str = "multilabel"

    @property
    def outputs(self) -> int:
        return self.labels

    def decode(self, outputs: Tensor) -> Tensor:
        return outputs

    def predicted(self, decoded: Tensor) -> Tensor:
        raise ValueError("several labels at once are not one class")


@dataclass(frozen=True)
class RegressionHead:
    """A number, which the model outputs standardized; `mean` and `std` are those of the training rows. With `edges` it
    can be read as a class: the number of edges that are <= the value."""

    mean: float
    std: float
    edges: tuple[float, ...] = ()
    type: str = "regression"

    @property
    def outputs(self) -> int:
        return 1

    @property
    def classes(self) -> int:
        return len(self.edges) + 1 if self.edges else 0

    def decode(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0].double() * self.std + self.mean

    def predicted(self, decoded: Tensor) -> Tensor:
        edges = torch.tensor(self.edges, dtype=torch.float64, device=decoded.device)
        class_B = torch.bucketize(decoded.double(), edges, right=True)
        return torch.where(decoded.isfinite(), class_B, -1)


@dataclass(frozen=True)
class RankingHead:
    """A score that orders the images of one query, the highest first."""

    classes: int = 0
    type: str = "ranking"

    @property
    def outputs(self) -> int:
        return 1

    def decode(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0]

    def predicted(self, decoded: Tensor) -> Tensor:
        raise ValueError("a ranking score is not a class")


def label_cuts(head: Head) -> tuple[float, ...]:
    """The decoded logits from which on a multilabel head predicts its labels: its own `label_cuts` where it has been
    given some (infer/decided.py); empty where all are 0, a probability of 0.5."""
    return tuple(getattr(head, "label_cuts", ()))


def chosen_labels(head: Head, decoded_BL: Tensor) -> Tensor:
    """Which labels (B, L) a multilabel head predicts, bool."""
    cuts_L = torch.tensor(label_cuts(head) or [0.0], dtype=torch.float64, device=decoded_BL.device)
    return decoded_BL.double() >= cuts_L


def probabilities(decoded: Tensor, type: str) -> Tensor:
    """Of decoded outputs of a head of this type: probabilities in float64; numbers and scores as they are."""
    if type == "multilabel":
        return decoded.double().sigmoid()
    return decoded.double().softmax(dim=1) if type in ("class", "ordinal") else decoded


_KINDS: dict[str, Any] = {
    "class": ClassHead,
    "ordinal": OrdinalHead,
    "multilabel": MultilabelHead,
    "regression": RegressionHead,
    "ranking": RankingHead,
}


def head_as_dict(head: Head) -> dict[str, Any]:
    """The head as plain values for JSON."""
    return asdict(head)  # type: ignore[call-overload,no-any-return]


def head_from_dict(values: Mapping[str, Any]) -> Head:
    """The inverse of `head_as_dict`."""
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    head: Head = _KINDS[str(values["type"])](**plain)
    return head
