"""Every labeled row as a model predicts it that has not seen it: the table, and what is computed from it.

Pure functions of the table: whatever is fitted to predictions (a temperature, offsets) can be fitted to these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from classwise.compose.contents import resampling_groups
from classwise.compose.labels import Labels
from classwise.compose.row_weights import score_weights
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.targets import Target
from classwise.run.predictor import Predictor

Numbers = npt.NDArray[np.int64]
LISTED_LABELS = 8
"""Named in a warning; more are only counted."""


@dataclass(frozen=True)
class OutOfFold:
    """The rows in the order of the table, their labels and their `folds` (N,), and by target what the models of their
    folds say of them (N, outputs), as infer/ensemble.py decodes it."""

    samples: Samples
    labels: Labels
    folds: Numbers
    outputs: dict[str, Tensor]


def out_of_fold(
    ids: Sequence[str], folds: Sequence[Split], outputs: Sequence[Mapping[str, Tensor]]
) -> OutOfFold:
    """The table out of the validation rows of each fold and the decoded `outputs` for them. `ids`: of all rows, in the
    table's order. Raises ValueError unless every row is in exactly one fold."""
    found = [id for split in folds for id in split.samples.ids]
    if len(found) != len(set(found)) or not set(found) <= set(ids):
        raise ValueError(
            f"{len(found)} rows out of fold, {len(set(found) & set(ids))} of them in the table once"
        )
    order = _order(ids, found)
    fold_N = np.repeat(np.arange(len(folds)), [len(split.samples) for split in folds])
    return OutOfFold(
        samples=_joined(folds, order),
        labels=_joined_labels(folds, order),
        folds=fold_N[order],
        outputs={
            name: torch.cat([one[name] for one in outputs])[torch.from_numpy(order)] for name in outputs[0]
        },
    )


def all_rows(ids: Sequence[str], splits: DatasetSplits) -> DatasetSplits:
    """The data of all folds: their rows in the table's order as training rows, and the test rows. `splits`: of any
    fold."""
    parts = (splits.train, splits.valid)
    order = _order(ids, [id for split in parts for id in split.samples.ids])
    train = Split(_joined(parts, order), _joined_labels(parts, order))
    none = Split(train.samples.take([]), {name: values[:0] for name, values in train.labels.items()})
    return DatasetSplits(
        targets=splits.targets,
        joint=splits.joint,
        train=train,
        valid=none,
        bad=splits.bad,
        warnings=(),
        test=splits.test,
    )


def table_of(rows: OutOfFold, predictor: Predictor) -> pl.DataFrame:
    """oof.csv: id, fold, then as predictions.csv."""
    table = predictor.table(rows.samples, rows.outputs, rows.labels)
    fold = pl.Series("fold", rows.folds, dtype=pl.Int64)
    return table.insert_column(1, fold)


def scores_of(rows: OutOfFold, predictor: Predictor, config: Config) -> dict[str, Any]:
    """The metrics over all rows together, with intervals by the groups of the rows."""
    return predictor.score(
        rows.outputs,
        rows.labels,
        groups=resampling_groups(rows.samples, predictor.targets),
        config=config,
        row_weights=score_weights(config, rows.samples),
    )


def spread_of(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, standard deviation (with n - 1), lowest and highest of the folds' values; None for fewer than two."""
    if len(values) < 2:
        return None
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)),
        "lowest": float(min(values)),
        "highest": float(max(values)),
    }


def fold_warnings(
    targets: Sequence[Target], labels: Labels, fold_N: Numbers, group_N: Sequence[str]
) -> list[str]:
    """What the folds lack: labels of which a fold has no rows, and targets without a label in one; and labels whose
    model has never seen them, since all their rows are in one fold. `group_N`: the group of each row."""
    count = int(fold_N.max()) + 1
    groups = np.asarray(group_N)
    lacking: dict[tuple[int, ...], list[str]] = {}
    unseen: dict[int, list[str]] = {}
    warnings = []
    for target in targets:
        is_labeled_N = target.is_labeled(labels[target.name])
        without = sorted(set(range(count)) - set(fold_N[is_labeled_N].tolist()))
        if without:
            warnings.append(f"{_folds_text(without)} no label of {target.name!r}, so it is not scored there")
        for stratum in target.strata(labels[target.name]) if target.labels else ():
            for number, label in enumerate(stratum.labels):
                has_N = stratum.numbers == number
                where = set(fold_N[has_N].tolist())
                name = f"{stratum.name}={label} ({_counted(len(set(groups[has_N].tolist())), 'group')})"
                if len(where) == 1:
                    unseen.setdefault(where.pop(), []).append(name)
                elif where and len(where) < count:
                    missing = tuple(sorted(set(range(count)) - where))
                    lacking.setdefault(missing, []).append(name)
    for missing, names in sorted(lacking.items()):
        warnings.append(f"{_folds_text(missing)} no rows of {_listed(names)}")
    for fold, names in sorted(unseen.items()):
        warnings.append(
            f"all rows of {_listed(names)} are in fold {fold}, so the model that predicts them has never seen one"
        )
    return warnings


def _folds_text(folds: Sequence[int]) -> str:
    if len(folds) == 1:
        return f"fold {folds[0]} has"
    return f"folds {', '.join(map(str, folds[:-1]))} and {folds[-1]} have"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED_LABELS} more" if len(names) > LISTED_LABELS else ""
    return ", ".join(names[:LISTED_LABELS]) + more


def _order(ids: Sequence[str], found: Sequence[str]) -> Numbers:
    """Where the rows of the table stand among those that were `found`; rows that were not are left out."""
    at = {id: row for row, id in enumerate(found)}
    return np.array([at[id] for id in ids if id in at], dtype=np.int64)


def _joined(splits: Sequence[Split], order: Numbers) -> Samples:
    """The rows of several splits of one source, in the given order."""
    first, *others = (split.samples for split in splits)
    for more in others:
        first = first.with_rows(more)
    return first.take(order.tolist())


def _joined_labels(splits: Sequence[Split], order: Numbers) -> Labels:
    names = splits[0].labels
    return {name: np.concatenate([split.labels[name] for split in splits])[order] for name in names}
