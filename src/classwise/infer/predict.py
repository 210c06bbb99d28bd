"""Predictions for any images, every row once and in order, and their table."""

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
from classwise.infer.columns import TOP
from classwise.infer.engines import Engine
from classwise.metrics.confusion import MOST_WRITTEN_OUT
from classwise.metrics.joint import joint_number
from classwise.model.heads import Head, label_cuts
from classwise.training.loop import never

Truth = npt.NDArray[Any]

CELLS_AT_ONCE = 2_000_000
"""Rows times classes whose probabilities are computed together."""


def unwatched(batches: Iterable[Batch], count: int) -> Iterable[Batch]:
    """The batches as they are: the default of `watch`, without a progress bar."""
    return batches


def predict_outputs(
    run: Engine,
    loader: Loader,
    should_stop: Callable[[], bool] = never,
    watch: Callable[[Iterable[Batch], int], Iterable[Batch]] = unwatched,
) -> dict[str, Tensor]:
    """Raw outputs (N, outputs) by target, float32 on the host, for all images of the loader in their order.

    `watch` is given the batches and their number, for a progress bar. Raises ImageError, NonFiniteError, and
    Interrupted where `should_stop` says so."""
    rows = np.arange(len(loader.dataset))
    row_batches = batches_of(rows, loader.batch_size)
    outputs: dict[str, Tensor] = {}
    done = 0
    for batch in watch(loader.batches(row_batches), len(row_batches)):
        for name, raw in run(batch.images).items():
            # Filled as it comes: parts that are joined at the end would take the memory twice.
            if name not in outputs:
                outputs[name] = raw.new_empty((len(rows), *raw.shape[1:]))
            outputs[name][done : done + len(batch)] = raw
        assert (batch.rows == rows[done : done + len(batch)]).all(), "a row is missing or out of order"
        done += len(batch)
        if should_stop():
            raise Interrupted(f"stopped after {done} of {len(rows)} predictions")
    assert done == len(rows), "a row is missing"

    for name, raw in outputs.items():
        broken = sum(int((~part.isfinite()).any(dim=1).sum()) for part in raw.split(_rows_at_once(raw)))
        if broken:
            raise NonFiniteError(f"target {name!r}: {broken} of {len(raw)} rows have no finite prediction")
    return outputs


@dataclass(frozen=True)
class _TargetPredictions:
    """What one target's columns are made of. `classes` (N,): the predicted classes, None where the head predicts no
    classes; `cuts`: the logits from which on labels are predicted, empty for 0; `labels`: the target's label list,
    empty where it has none; `truth`: as the loader has it; `in_full`: whether the probability of every class is
    written."""

    name: str
    decoded: Tensor
    classes: npt.NDArray[np.int64] | None
    labels: Sequence[str]
    separator: str
    truth: Truth | None
    in_full: bool
    cuts: tuple[float, ...]

    @property
    def class_probability(self) -> npt.NDArray[np.float64]:
        """The probability of the predicted class (N,)."""
        assert self.classes is not None
        return _probabilities_of(self.decoded, self.classes)


def predictions_table(
    ids: Sequence[str],
    outputs: Mapping[str, Tensor],
    heads: Mapping[str, Head],
    labels: Mapping[str, Sequence[str]],
    joint: Sequence[str] = (),
    truth: Mapping[str, Truth] | None = None,
    separator: Mapping[str, str] | None = None,
    in_full: bool | None = None,
) -> pl.DataFrame:
    """A table with the columns `id` and, for every target, from its raw outputs (N, outputs) on the host:

        class, ordinal   NAME the label, NAME_true, and NAME_p_LABEL every class's probability
        multilabel       NAME the labels with a probability of 0.5 or more (or that of their head's cut), joined by the
                         target's separator (the separator alone where there are none), NAME_true, and NAME_p_LABEL
        regression       NAME the value in the user's unit, NAME_true
        ranking          NAME the score, NAME_true the relevance

    Of more than MOST_WRITTEN_OUT classes a class or ordinal target has instead NAME_p, the probability of the predicted
    label; NAME_true_p, that of the true one where it is known; and the TOP most probable labels, NAME_top1 to
    NAME_top5, with NAME_top1_p and so on. `in_full`: whether all probabilities are written, whatever their number.

    With a joint class also its number, `joint_true`, and `joint_p`, the product of its targets' probabilities, since
    they are predicted independently. `joint_p` is left out where a target is a number cut at edges, which has no
    probability.

    `truth` is as the loader has it (class numbers, -1 unknown; values or cells, NaN unknown; relevance and query). A
    target without an entry has no column NAME_true; an unknown truth is null. A label set with an unknown label is
    null as a whole.
    """
    predictions = {}
    for name, raw in outputs.items():
        head = heads[name]
        decoded = head.decode(raw)
        predictions[name] = _TargetPredictions(
            name=name,
            decoded=decoded,
            classes=head.predicted(decoded).numpy() if head.classes else None,
            labels=list(labels.get(name, ())),
            separator=(separator or {}).get(name, "|"),
            truth=np.asarray(truth[name]) if truth and name in truth else None,
            in_full=len(labels.get(name, ())) <= MOST_WRITTEN_OUT if in_full is None else in_full,
            cuts=label_cuts(head),
        )
    columns: dict[str, Any] = {"id": list(ids)}
    for name, target in predictions.items():
        columns |= _COLUMNS[heads[name].type](target)
    if joint:
        columns |= _joint_columns([heads[name] for name in joint], [predictions[name] for name in joint])
    return pl.DataFrame(columns)


def _class_columns(target: _TargetPredictions) -> dict[str, Any]:
    assert target.classes is not None
    columns: dict[str, Any] = {target.name: _names(target.classes, target.labels)}
    if target.truth is not None:
        columns[f"{target.name}_true"] = _names(target.truth, target.labels)
    if target.in_full:
        return columns | _p_columns(target, _probabilities(target.decoded))
    return columns | _top_columns(target)


def _top_columns(target: _TargetPredictions) -> dict[str, Any]:
    """The probabilities of the predicted and of the true class, and the most probable classes with theirs."""
    columns: dict[str, Any] = {f"{target.name}_p": target.class_probability.astype(np.float32)}
    if target.truth is not None:
        known = pl.Series(_probabilities_of(target.decoded, target.truth.clip(min=0)).astype(np.float32))
        columns[f"{target.name}_true_p"] = known.set(pl.Series(target.truth < 0), None)
    # Of equally probable classes the first ranks higher, as for the prediction.
    for rank, class_N in enumerate(_most_probable(target.decoded, min(TOP, len(target.labels))), start=1):
        columns[f"{target.name}_top{rank}"] = _names(class_N, target.labels)
        p_N = _probabilities_of(target.decoded, class_N)
        columns[f"{target.name}_top{rank}_p"] = p_N.astype(np.float32)
    return columns


def _most_probable(decoded_NK: Tensor, count: int) -> list[npt.NDArray[np.int64]]:
    """The classes (N,) with the largest, second largest, ... decoded output."""
    top_NT = torch.empty((len(decoded_NK), count), dtype=torch.int64)
    step = _rows_at_once(decoded_NK)
    for start in range(0, len(decoded_NK), step):
        part = decoded_NK[start : start + step]
        top_NT[start : start + step] = part.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return list(top_NT.numpy().T)


def _multilabel_columns(target: _TargetPredictions) -> dict[str, Any]:
    columns: dict[str, Any] = {
        target.name: _joined(target.decoded.numpy() >= np.array(target.cuts or [0.0]), target)
    }
    if target.truth is not None:
        true = zip(target.truth, _joined(target.truth == 1, target), strict=True)
        columns[f"{target.name}_true"] = _texts([None if np.isnan(row).any() else text for row, text in true])
    return columns | _p_columns(target, torch.sigmoid(target.decoded.double()).numpy())


def _regression_columns(target: _TargetPredictions) -> dict[str, Any]:
    columns: dict[str, Any] = {target.name: target.decoded.double().numpy()}
    if target.truth is not None:
        columns[f"{target.name}_true"] = pl.Series(target.truth.astype(np.float64)).fill_nan(None)
    return columns


def _ranking_columns(target: _TargetPredictions) -> dict[str, Any]:
    columns: dict[str, Any] = {target.name: target.decoded.numpy()}
    if target.truth is not None:
        columns[f"{target.name}_true"] = _numbers(target.truth[:, 0])
    return columns


_COLUMNS: dict[str, Callable[[_TargetPredictions], dict[str, Any]]] = {
    "class": _class_columns,
    "ordinal": _class_columns,
    "multilabel": _multilabel_columns,
    "regression": _regression_columns,
    "ranking": _ranking_columns,
}


def _joint_columns(heads: Sequence[Head], parts: Sequence[_TargetPredictions]) -> dict[str, Any]:
    """`parts`: the targets that the joint class is made of, in order."""
    sizes = [head.classes for head in heads]
    number_N = joint_number([part.classes for part in parts if part.classes is not None], sizes)
    columns: dict[str, Any] = {"joint": _numbers(number_N)}
    # The true joint class is known only where all its targets have a truth.
    truths = [_true_classes(head, part.truth) for head, part in zip(heads, parts, strict=True)]
    recorded = [classes for classes in truths if classes is not None]
    if len(recorded) == len(parts):
        columns["joint_true"] = _numbers(joint_number(recorded, sizes))
    if all(head.type != "regression" for head in heads):
        columns["joint_p"] = np.prod([part.class_probability for part in parts], axis=0).astype(np.float32)
    return columns


def _true_classes(head: Head, truth: Truth | None) -> npt.NDArray[np.int64] | None:
    """Class numbers (N,), -1 unknown. A number is cut at the same edges as the predicted one."""
    if truth is None or head.type != "regression":
        return truth
    return head.predicted(torch.from_numpy(truth.astype(np.float64))).numpy()


def _probabilities(decoded_NK: Tensor) -> npt.NDArray[np.float64]:
    """(N, K), from logits or log-probabilities."""
    p_NK: npt.NDArray[np.float64] = torch.softmax(decoded_NK.double(), dim=1).numpy()
    return p_NK


def _probabilities_of(decoded_NK: Tensor, class_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The probability (N,) of one class of each row, without those of all classes at once."""
    p_N = np.empty(len(decoded_NK))
    step = _rows_at_once(decoded_NK)
    for start in range(0, len(decoded_NK), step):
        p_PK = _probabilities(decoded_NK[start : start + step])
        p_N[start : start + step] = p_PK[np.arange(len(p_PK)), class_N[start : start + step]]
    return p_N


def _rows_at_once(decoded_NK: Tensor) -> int:
    return max(1, CELLS_AT_ONCE // max(1, decoded_NK.shape[1]))


def _p_columns(target: _TargetPredictions, p_NK: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {
        f"{target.name}_p_{label}": p_NK[:, k].astype(np.float32) for k, label in enumerate(target.labels)
    }


def _joined(chosen_NL: npt.NDArray[np.bool_], target: _TargetPredictions) -> list[str]:
    """The label sets as text; the separator alone for an empty set, since an empty cell means unknown."""
    return [
        target.separator.join(label for label, chosen in zip(target.labels, row, strict=True) if chosen)
        or target.separator
        for row in chosen_NL
    ]


# Columns with explicit dtypes, since one with only nulls would have none.


def _names(classes_N: npt.NDArray[np.int64], labels: Sequence[str]) -> pl.Series:
    return _texts([labels[k] if k >= 0 else None for k in classes_N])


def _texts(values: Sequence[str | None]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def _numbers(numbers_N: npt.NDArray[np.int64]) -> pl.Series:
    """-1 is unknown."""
    return pl.Series([int(k) if k >= 0 else None for k in numbers_N], dtype=pl.Int64)
