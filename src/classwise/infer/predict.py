"""The inference process over any images: eval, no gradients, every row once and in order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.data.loader import Loader
from classwise.data.sampling import batches_of
from classwise.errors import Interrupted, NonFiniteError
from classwise.infer.engines import Engine
from classwise.metrics.joint import joint_number
from classwise.model.heads import Head
from classwise.training.loop import never

Truth = npt.NDArray[Any]


def unwatched(batches: Iterable[Batch], count: int) -> Iterable[Batch]:
    """Nobody watches the batches go by."""
    return batches


def predict_outputs(
    run: Engine,
    loader: Loader,
    should_stop: Callable[[], bool] = never,
    watch: Callable[[Iterable[Batch], int], Iterable[Batch]] = unwatched,
) -> dict[str, Tensor]:
    """Raw outputs (N, outputs), float32 on the host, by target for all of the loader's images, in their order;
    `watch` sees the batches go by, and knows how many there will be. Raises ImageError, NonFiniteError, and
    Interrupted if asked to stop."""
    parts: dict[str, list[Tensor]] = {}
    rows = np.arange(len(loader.dataset))
    cut, seen = batches_of(rows, loader.batch_size), 0
    for batch in watch(loader.batches(cut), len(cut)):
        for name, raw in run(batch.images).items():
            parts.setdefault(name, []).append(raw)
        assert (batch.rows == rows[seen : seen + len(batch)]).all(), "a row is missing or out of order"
        seen += len(batch)
        if should_stop():
            raise Interrupted(f"stopped after {seen} of {len(rows)} predictions")
    assert seen == len(rows), "a row is missing"
    joined = {name: torch.cat(found) for name, found in parts.items()}
    for name, found in joined.items():
        broken = int((~found.isfinite()).any(dim=1).sum())
        if broken:
            raise NonFiniteError(f"target {name!r}: {broken} of {len(found)} rows have no finite prediction")
    return joined


@dataclass(frozen=True)
class _Labels:
    """All that one target's columns are made of. `classes` (N,) are the predicted classes, None where the head
    is none that can be read as one; `labels` are those of the target, empty where it has none."""

    name: str
    decoded: Tensor
    classes: npt.NDArray[np.int64] | None
    labels: Sequence[str]
    separator: str
    truth: Truth | None

    @property
    def chosen_p(self) -> npt.NDArray[np.float64]:
        """The probability of the predicted class (N,)."""
        assert self.classes is not None
        p_NK = _probabilities(self.decoded)
        return p_NK[np.arange(len(p_NK)), self.classes]


def predictions_table(
    ids: Sequence[str],
    outputs: Mapping[str, Tensor],
    heads: Mapping[str, Head],
    labels: Mapping[str, Sequence[str]],
    joint: Sequence[str] = (),
    truth: Mapping[str, Truth] | None = None,
    separator: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """`id`, and the columns of every target, from its raw outputs (N, outputs) on the host:

        class, ordinal   NAME the label, NAME_true, and NAME_p_LABEL every class's probability
        multilabel       NAME the labels with a probability of 0.5 or more, joined by the target's separator (the
                         separator alone where there are none), NAME_true, and NAME_p_LABEL
        regression       NAME the value in the user's unit, NAME_true
        ranking          NAME the score, NAME_true the relevance

    With a joint class its number, `joint_true`, and `joint_p`: the product of the parts' probabilities of their
    chosen classes, which are predicted apart. It is left out where a part is a number cut at edges, since that has
    no probability.

    `truth` is as the loader has it (class numbers, -1 unknown; values or cells, NaN unknown; relevance and query);
    a target that is not in it has no column NAME_true, and an unknown truth is null. Several labels of which one
    is unknown are null as a whole: a set with a hole in it is not the set.
    """
    found = {}
    for name, raw in outputs.items():
        decoded = heads[name].decode(raw)
        classes = heads[name].predicted(decoded).numpy() if heads[name].classes else None
        given = np.asarray(truth[name]) if truth and name in truth else None
        found[name] = _Labels(
            name, decoded, classes, list(labels.get(name, ())), (separator or {}).get(name, "|"), given
        )
    columns: dict[str, Any] = {"id": list(ids)}
    for name, true_labels in found.items():
        columns |= _COLUMNS[heads[name].type](true_labels)
    if joint:
        columns |= _joint_columns([heads[name] for name in joint], [found[name] for name in joint])
    return pl.DataFrame(columns)


def _class_columns(a: _Labels) -> dict[str, Any]:
    assert a.classes is not None
    columns: dict[str, Any] = {a.name: _names(a.classes, a.labels)}
    if a.truth is not None:
        columns[f"{a.name}_true"] = _names(a.truth, a.labels)
    return columns | _p_columns(a, _probabilities(a.decoded))


def _multilabel_columns(a: _Labels) -> dict[str, Any]:
    columns: dict[str, Any] = {a.name: _joined(a.decoded.numpy() >= 0, a)}
    if a.truth is not None:
        true = zip(a.truth, _joined(a.truth == 1, a), strict=True)
        columns[f"{a.name}_true"] = _texts([None if np.isnan(row).any() else text for row, text in true])
    return columns | _p_columns(a, torch.sigmoid(a.decoded.double()).numpy())


def _regression_columns(a: _Labels) -> dict[str, Any]:
    columns: dict[str, Any] = {a.name: a.decoded.double().numpy()}
    if a.truth is not None:
        columns[f"{a.name}_true"] = pl.Series(a.truth.astype(np.float64)).fill_nan(None)
    return columns


def _ranking_columns(a: _Labels) -> dict[str, Any]:
    columns: dict[str, Any] = {a.name: a.decoded.numpy()}
    if a.truth is not None:
        columns[f"{a.name}_true"] = _numbers(a.truth[:, 0])
    return columns


_COLUMNS: dict[str, Callable[[_Labels], dict[str, Any]]] = {
    "class": _class_columns,
    "ordinal": _class_columns,
    "multilabel": _multilabel_columns,
    "regression": _regression_columns,
    "ranking": _ranking_columns,
}


def _joint_columns(heads: Sequence[Head], parts: Sequence[_Labels]) -> dict[str, Any]:
    sizes = [head.classes for head in heads]
    number_N = joint_number([part.classes for part in parts if part.classes is not None], sizes)
    columns: dict[str, Any] = {"joint": _numbers(number_N)}
    true = [_true_classes(head, part.truth) for head, part in zip(heads, parts, strict=True)]
    known = [classes for classes in true if classes is not None]
    if len(known) == len(parts):
        columns["joint_true"] = _numbers(joint_number(known, sizes))
    if all(head.type != "regression" for head in heads):
        columns["joint_p"] = np.prod([part.chosen_p for part in parts], axis=0).astype(np.float32)
    return columns


def _true_classes(head: Head, truth: Truth | None) -> npt.NDArray[np.int64] | None:
    """(N,), -1 unknown. A number is cut as the predicted one is."""
    if truth is None or head.type != "regression":
        return truth
    return head.predicted(torch.from_numpy(truth.astype(np.float64))).numpy()


def _probabilities(decoded_NK: Tensor) -> npt.NDArray[np.float64]:
    """Of logits or log-probabilities, (N, K)."""
    p_NK: npt.NDArray[np.float64] = torch.softmax(decoded_NK.double(), dim=1).numpy()
    return p_NK


def _p_columns(a: _Labels, p_NK: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {f"{a.name}_p_{label}": p_NK[:, k].astype(np.float32) for k, label in enumerate(a.labels)}


def _joined(chosen_NL: npt.NDArray[np.bool_], a: _Labels) -> list[str]:
    """The separator alone where nothing is chosen: an empty cell would read as unknown."""
    return [
        a.separator.join(label for label, is_in in zip(a.labels, row, strict=True) if is_in) or a.separator
        for row in chosen_NL
    ]


# The dtypes are given, since a column of nulls alone would have none.


def _names(classes_N: npt.NDArray[np.int64], labels: Sequence[str]) -> pl.Series:
    return _texts([labels[k] if k >= 0 else None for k in classes_N])


def _texts(values: Sequence[str | None]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def _numbers(numbers_N: npt.NDArray[np.int64]) -> pl.Series:
    """-1 is unknown."""
    return pl.Series([int(k) if k >= 0 else None for k in numbers_N], dtype=pl.Int64)
