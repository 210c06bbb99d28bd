"""Several models as one: the mean of their probabilities or logits, and of numbers and scores the mean itself.

The models' raw outputs cannot be averaged: heads decode them with numbers of their own (the mean and the standard
deviation of their training rows, the class shares that they adjust for). So each model's outputs are decoded by its own
head, and what is averaged are probabilities:

    class, ordinal   log of the mean probability (B, K)
    multilabel       logit of the mean probability (B, L)
    regression       mean value (B, 1), in the user's unit
    ranking          mean score (B, 1)

These are what `DecodedHead` takes as its outputs. Logarithms are averaged by log-sum-exp, so that no probability is
rounded to 0. The mean of the logits is, of classes and levels, the normalized geometric mean of the probabilities; of
several labels, the mean of each logit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.infer.engines import Engine
from classwise.model.classifier import joined_name
from classwise.model.heads import Head

COLUMN = ("regression", "ranking")
"""Types whose decoded outputs are one number a row."""


@dataclass(frozen=True)
class DecodedHead:
    """A head whose outputs are decoded already, as `decoded_outputs` and `mean_outputs` have them."""

    head: Head

    @property
    def type(self) -> str:
        return self.head.type

    @property
    def outputs(self) -> int:
        return self.head.classes if self.head.type == "ordinal" else self.head.outputs

    @property
    def classes(self) -> int:
        return self.head.classes

    def decode(self, outputs: Tensor) -> Tensor:
        """One number a row has no second axis."""
        return outputs[:, 0] if self.type in COLUMN else outputs

    def predicted(self, decoded: Tensor) -> Tensor:
        return self.head.predicted(decoded)


def decoded_outputs(outputs: Mapping[str, Tensor], heads: Mapping[str, Head]) -> dict[str, Tensor]:
    """The raw outputs of one model for B rows as a `DecodedHead` takes them, float64."""
    found = {}
    for name, raw in outputs.items():
        decoded = heads[name].decode(raw).double()
        found[name] = decoded[:, None] if heads[name].type in COLUMN else decoded
    return found


def as_decoded(heads: Mapping[str, Head]) -> dict[str, Head]:
    """The heads as they take decoded outputs; those that do already, as they are."""
    return {
        name: head if isinstance(head, DecodedHead) else DecodedHead(head) for name, head in heads.items()
    }


def undecoded(heads: Mapping[str, Head]) -> dict[str, Head]:
    """The inverse of `as_decoded`: the heads as they take raw outputs."""
    return {name: head.head if isinstance(head, DecodedHead) else head for name, head in heads.items()}


def mean_outputs(
    outputs: Sequence[Mapping[str, Tensor]], heads: Mapping[str, Head], of: str = "probabilities"
) -> dict[str, Tensor]:
    """The mean of what several models say of the same rows, each as from `decoded_outputs`; of a single model, what it
    says itself. `heads`: of one of them, for the types. `of`: `probabilities` or `logits`."""
    if len(outputs) == 1:
        return dict(outputs[0])
    return {name: _mean([one[name] for one in outputs], heads[name].type, of) for name in outputs[0]}


def _mean(decoded: Sequence[Tensor], type: str, of: str) -> Tensor:
    stacked = torch.stack(list(decoded))
    if type in COLUMN or (type == "multilabel" and of == "logits"):
        return stacked.mean(dim=0)
    if of == "logits":
        return stacked.log_softmax(dim=2).mean(dim=0).log_softmax(dim=1)
    if type == "multilabel":
        # The number of models cancels out.
        return F.logsigmoid(stacked).logsumexp(dim=0) - F.logsigmoid(-stacked).logsumexp(dim=0)
    return stacked.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(decoded))


def joined_mean_engine(
    engine: Engine, heads: Sequence[Mapping[str, Head]], of: str = "probabilities"
) -> Engine:
    """The engine of `mean_engine` for models that share their backbone: `engine` gives the outputs of all at once, as
    `joined_heads` has them. `heads`: of each model, as they take its outputs."""

    def run(images_BCHW: Tensor) -> dict[str, Tensor]:
        outputs = engine(images_BCHW)
        decoded = [
            decoded_outputs({name: outputs[joined_name(number, name)] for name in own}, own)
            for number, own in enumerate(heads)
        ]
        return mean_outputs(decoded, heads[0], of)

    return run


def mean_engine(
    engines: Sequence[Engine], heads: Sequence[Mapping[str, Head]], of: str = "probabilities"
) -> Engine:
    """One engine out of those of several models with their `heads`: each batch of images is read once. `of`: as in
    `mean_outputs`."""

    def run(images_BCHW: Tensor) -> dict[str, Tensor]:
        decoded = [
            decoded_outputs(engine(images_BCHW), own) for engine, own in zip(engines, heads, strict=True)
        ]
        return mean_outputs(decoded, heads[0], of)

    return run
