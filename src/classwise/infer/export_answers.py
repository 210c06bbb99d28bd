"""From a network's outputs to final answers, as `predictions_table` and `with_abstentions` give them, inside a file.

The outputs of the file, for every target by its name, and for `joint` where the run has a joint class:

    answers.NAME        class, ordinal: the number of the label, int64 (N,); multilabel: which labels, bool (N, L);
                        regression: the value in the user's unit, float64 (N,); ranking: the score, float32 (N,)
    probabilities.NAME  class, ordinal, multilabel: of each label, float32 (N, K); joint: of the answer, float32 (N,),
                        unless a number cut at edges is part of it, which has none
    abstains.NAME       whether the answer is less probable than decision.abstain of folds, bool (N,)
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classwise.decision.rules import EXPECTED_COST, NONE
from classwise.infer.decided import DecidedHead
from classwise.model.heads import Head, chosen_labels, probabilities

ANSWERS, PROBABILITIES, ABSTAINS, JOINT = "answers", "probabilities", "abstains", "joint"
MEANING = {
    "class": "the number of the label, from 0",
    "ordinal": "the number of the level, from 0",
    "multilabel": "true for each label that is predicted",
    "regression": "the value in the unit of the table",
    "ranking": "the score, by which the images of a query are ordered, the highest first",
}


class Answers(nn.Module):
    """Raw outputs of the heads, in their order, to what the module's docstring lists, in the order of
    `output_names`."""

    def __init__(self, heads: Mapping[str, Head], joint: Sequence[str]) -> None:
        super().__init__()
        self.own_heads = dict(heads)
        self.joint = tuple(joint)

    def forward(self, *outputs: Tensor) -> tuple[Tensor, ...]:
        found: dict[str, Tensor] = {}
        shares: dict[str, Tensor] = {}
        for raw, (name, head) in zip(outputs, self.own_heads.items(), strict=True):
            decoded = head.decode(raw)
            answer = _answer(head, decoded)
            found[f"{ANSWERS}.{name}"] = answer
            if has_probabilities(head):
                found[f"{PROBABILITIES}.{name}"] = probabilities(decoded, head.type).float()
                shares[name] = _confidence(head, decoded, answer)
            if abstains(head):
                assert isinstance(head, DecidedHead)
                found[f"{ABSTAINS}.{name}"] = shares[name] < head.abstain
        return tuple(found.values()) + tuple(self._joint(found, shares))

    def _joint(self, found: Mapping[str, Tensor], shares: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """The joint class, its probability and whether it abstains, as far as there is each."""
        if not self.joint:
            return
        number = torch.zeros_like(found[f"{ANSWERS}.{self.joint[0]}"], dtype=torch.int64)
        is_unknown = torch.zeros_like(number, dtype=torch.bool)
        for name in self.joint:
            class_B = _class(self.own_heads[name], found[f"{ANSWERS}.{name}"])
            number = number * self.own_heads[name].classes + class_B
            is_unknown = is_unknown | (class_B < 0)
        yield torch.where(is_unknown, -1, number)
        if all(name in shares for name in self.joint):
            yield torch.stack([shares[name] for name in self.joint]).prod(dim=0).float()
        if marks := [found[key] for name in self.joint if (key := f"{ABSTAINS}.{name}") in found]:
            yield torch.stack(marks).any(dim=0)


def output_names(heads: Mapping[str, Head], joint: Sequence[str]) -> list[str]:
    """The names of the outputs of `Answers`, in their order."""
    names = []
    for name, head in heads.items():
        names += [f"{ANSWERS}.{name}"]
        names += [f"{PROBABILITIES}.{name}"] * has_probabilities(head)
        names += [f"{ABSTAINS}.{name}"] * abstains(head)
    if joint:
        names += [f"{ANSWERS}.{JOINT}"]
        names += [f"{PROBABILITIES}.{JOINT}"] * all(has_probabilities(heads[name]) for name in joint)
        names += [f"{ABSTAINS}.{JOINT}"] * any(abstains(heads[name]) for name in joint)
    return names


def has_probabilities(head: Head) -> bool:
    """Whether the head's answers come with the probabilities of labels."""
    return head.type in ("class", "ordinal", "multilabel")


def abstains(head: Head) -> bool:
    """Whether improbable answers of the head are marked."""
    return isinstance(head, DecidedHead) and head.abstain > 0


def described(targets: Sequence[Mapping[str, Any]], heads: Mapping[str, Head]) -> list[dict[str, Any]]:
    """The targets as labels.json has them: name, type, labels, separator of label sets, edges, and what the outputs
    mean. `targets`: those of the checkpoint."""
    found = []
    for target in targets:
        head = heads[target["name"]]
        entry = {"name": target["name"], "type": head.type, "answer": MEANING[head.type]}
        entry |= {key: target[key] for key in ("labels", "separator") if target.get(key)}
        if head.type == "multilabel":
            entry["separator"] = target.get("separator") or "|"
        edges = getattr(getattr(head, "head", head), "edges", ())
        entry |= {"edges": list(edges)} if edges else {}
        if isinstance(head, DecidedHead):
            entry["decision"] = {
                "rule": head.rule.name,
                "temperature": head.temperature,
                "abstain": head.abstain,
            }
        found.append(entry)
    return found


def _answer(head: Head, decoded: Tensor) -> Tensor:
    """What is predicted; of DecidedHead in torch what its rule does in NumPy."""
    if head.type in ("regression", "ranking"):
        return decoded
    if head.type == "multilabel":
        return chosen_labels(head, decoded)
    if not isinstance(head, DecidedHead) or head.rule.name == NONE:
        plain = decoded * head.temperature if isinstance(head, DecidedHead) else decoded
        inner = head.head if isinstance(head, DecidedHead) else head
        return inner.predicted(plain)
    log_p_BK = (decoded.double() * head.temperature).log_softmax(dim=1)
    return torch.where(decoded.isfinite().any(dim=1), _by_rule(head, log_p_BK), -1)


def _by_rule(head: DecidedHead, log_p_BK: Tensor) -> Tensor:
    rule = head.rule
    if rule.name == EXPECTED_COST:
        return (log_p_BK.exp() @ torch.tensor(rule.costs, dtype=torch.float64)).argmin(dim=1)
    offsets = torch.tensor(rule.offsets, dtype=torch.float64)
    if head.type == "class":
        return (log_p_BK + offsets).argmax(dim=1)
    # P(y > k) against P(y <= k), of every level but the last, as logarithms of sums.
    levels = range(1, head.classes)
    above = torch.stack([log_p_BK[:, k:].logsumexp(dim=1) for k in levels], dim=1)
    below = torch.stack([log_p_BK[:, :k].logsumexp(dim=1) for k in levels], dim=1)
    return (above - below + offsets > 0).sum(dim=1)


def _confidence(head: Head, decoded: Tensor, answer: Tensor) -> Tensor:
    """The probability (B,) of the answer; of labels, of what is said of the least certain one."""
    if head.type == "multilabel":
        said = torch.where(answer, decoded.double(), -decoded.double())
        return said.min(dim=1).values.sigmoid()
    return probabilities(decoded, head.type).gather(1, answer.clamp(min=0)[:, None])[:, 0]


def _class(head: Head, answer: Tensor) -> Tensor:
    """The class (B,) of an answer that is one, or of a number at the edges of its target."""
    if head.type != "regression":
        return answer
    edges = torch.tensor(getattr(getattr(head, "head", head), "edges", ()), dtype=torch.float64)
    reached = (answer.double()[:, None] >= edges).sum(dim=1)
    return torch.where(answer.isfinite(), reached, -1)
