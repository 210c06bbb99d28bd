"""What the labels and the outputs of a row say, for each type of target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classwise.data.targets import MultilabelTarget, RankingTarget, Target
from classwise.model.heads import Head

MOST_COLUMNS = 12
"""Labels up to which every one has a column; of more the most probable ones are shown."""
TOP = 5
LEAST_SHARE = 0.005


def signed(value: float) -> str:
    """Three decimals, always with a sign, and a minus sign as in print."""
    return f"{value:+.3f}".replace("-", "−")


@dataclass(frozen=True)
class Cell:
    """`text`, or a probability as a `bar`; `note`: the raw output behind it. `is_true`: that of the true label."""

    text: str = ""
    bar: float | None = None
    note: str = ""
    is_true: bool = False


@dataclass(frozen=True)
class OutputTable:
    """The outputs of one head, a row of cells for each image."""

    name: str
    type: str
    reading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


READINGS = {
    "class": "The head gives one logit for each class; the softmax makes probabilities of them that add up to 1.",
    "ordinal": "The head gives one logit for each step between two levels: is it higher than this level, if it is at"
    " least this level? Their products are the probabilities of the levels.",
    "multilabel": "The head gives one logit for each label; the sigmoid makes of each a probability of its own.",
    "regression": "The head gives the number in standard deviations from the mean of the training rows.",
    "ranking": "The head gives a score; only its order within the images of a query counts.",
}


def truth_text(target: Target, labels: Tensor) -> str:
    """The label of one row as the loss gets it, also mixed or weighted."""
    if isinstance(target, RankingTarget):
        relevance, query = (int(number) for number in labels)
        return f"relevance {'unknown' if relevance < 0 else relevance}, query {query}"
    if isinstance(target, MultilabelTarget):
        return _label_set(labels, target.labels)
    if not target.labels or target.type == "regression":
        value, weight = (labels[0], float(labels[1])) if labels.ndim else (labels, 1.0)
        text = "unlabeled" if bool(value.isnan()) else f"{float(value):.6g}"
        return text if weight == 1 else f"{text}, weight {weight:.3g}"
    if labels.ndim:
        shares = [(float(share), name) for share, name in zip(labels, target.labels, strict=True)]
        return (
            " + ".join(f"{share:.2f} {name}" for share, name in shares if share > LEAST_SHARE) or "unlabeled"
        )
    return target.labels[int(labels)] if int(labels) >= 0 else "unlabeled"


def _label_set(labels: Tensor, names: Sequence[str]) -> str:
    values = labels[:, 0] if labels.ndim == 2 else labels
    parts = [
        name if value == 1 else f"{float(value):.2f} {name}"
        for value, name in zip(values, names, strict=True)
        if not value.isnan() and value > LEAST_SHARE
    ]
    unknown = int(values.isnan().sum())
    if unknown == len(names):
        return "unlabeled"
    return " + ".join(parts) + (f" ({unknown} unknown)" if unknown else "") or "none"


@torch.no_grad()
def output_table(target: Target, head: Head, outputs_BO: Tensor, labels: Tensor, rows: int) -> OutputTable:
    """The raw outputs of the first `rows` images, and what they mean."""
    outputs_BO = outputs_BO[:rows].float().cpu()
    labels = labels[:rows].cpu()
    columns: tuple[str, ...]
    cells: list[tuple[Cell, ...]]
    if head.type == "regression":
        columns = ("raw output", "in the table’s unit")
        values = zip(outputs_BO[:, 0].tolist(), head.decode(outputs_BO).tolist(), strict=True)
        cells = [(Cell(f"{raw:.4f}"), Cell(f"{value:.6g}")) for raw, value in values]
    elif head.type == "ranking":
        columns = ("score",)
        cells = [(Cell(f"{score:.4f}"),) for score in outputs_BO[:, 0].tolist()]
    else:
        probabilities_BK = _probabilities(head, outputs_BO)
        is_true_BK = _is_true(labels, probabilities_BK.shape)
        many = probabilities_BK.shape[1] > MOST_COLUMNS
        columns = tuple(f"{place}." for place in range(1, TOP + 1)) if many else target.labels
        make = _top_cells if many else _label_cells
        cells = [
            make(p_K.tolist(), raw_O.tolist(), true_K.tolist(), target.labels)
            for p_K, raw_O, true_K in zip(probabilities_BK, outputs_BO, is_true_BK, strict=True)
        ]
    return OutputTable(target.name, head.type, READINGS[head.type], columns, tuple(cells))


def _probabilities(head: Head, outputs_BO: Tensor) -> Tensor:
    """As the loss reads the outputs: what is added to logits after training is left out."""
    if head.type == "multilabel":
        return outputs_BO.sigmoid()
    return head.decode(outputs_BO).exp() if head.type == "ordinal" else outputs_BO.softmax(dim=1)


def _is_true(labels: Tensor, shape: torch.Size) -> Tensor:
    """(B, K): the true labels, of mixed ones all that take part."""
    if labels.ndim == 1:
        return torch.arange(shape[1]) == labels.long().unsqueeze(1)
    return (labels if labels.ndim == 2 else labels[..., 0]).nan_to_num() > LEAST_SHARE


def _label_cells(
    probabilities: Sequence[float], raw: Sequence[float], is_true: Sequence[bool], names: Sequence[str]
) -> tuple[Cell, ...]:
    return tuple(
        Cell(bar=p, note=signed(raw[k]) if k < len(raw) else "", is_true=is_true[k])
        for k, p in enumerate(probabilities)
    )


def _top_cells(
    probabilities: Sequence[float], raw: Sequence[float], is_true: Sequence[bool], names: Sequence[str]
) -> tuple[Cell, ...]:
    best = sorted(range(len(probabilities)), key=lambda k: -probabilities[k])[:TOP]
    return tuple(
        Cell(names[k], probabilities[k], signed(raw[k]) if k < len(raw) else "", is_true[k]) for k in best
    )


def truths(targets: Mapping[str, Target], labels: Mapping[str, Tensor], row: int) -> list[tuple[str, str]]:
    """(target, label) of one row of a batch's labels."""
    return [(name, truth_text(target, labels[name][row].cpu())) for name, target in targets.items()]
