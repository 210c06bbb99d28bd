"""Out-of-fold probabilities for the rows that are checked, from oof.parquet of `classwise folds`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.targets import Target
from classwise.datacheck.rows import Rows
from classwise.errors import DataError

TYPES = ("class", "ordinal", "multilabel")
"""Targets whose labels have a probability."""


def target_probabilities(
    frame: pl.DataFrame, rows: Rows, where: Path
) -> tuple[dict[str, npt.NDArray[np.float64]], list[str]]:
    """Of each target the probability (N, K) of each label for each row, NaN for rows without one; and why targets are
    left out. `frame`: oof.parquet of the folds in `where`.

    Raises DataError for folds of other data: of no row of this one, or with rows that it does not have.
    """
    # The folds are of the rows of data.source.
    own = {id: row for row, id in enumerate(rows.own_ids) if rows.is_source[row]}
    ids = frame["id"].to_list()
    unknown = [id for id in ids if id not in own]
    if unknown or not ids:
        raise DataError(
            f"{where}: these folds are of other data: {len(unknown)} of their {len(ids)} rows are not in this one, such"
            f" as {unknown[0]!r}; allowed: folds of the same table"
            if unknown
            else f"{where}: found no rows out of fold"
        )
    numbers = np.array([own[id] for id in ids], dtype=np.int64)
    found: dict[str, npt.NDArray[np.float64]] = {}
    left_out: list[str] = []
    for target in rows.targets:
        if target.type not in TYPES:
            continue
        columns = [f"{target.name}_p_{label}" for label in target.labels]
        reason = _reason(frame, target, columns, where)
        if reason:
            left_out.append(reason)
            continue
        values_NK = np.full((len(rows), len(columns)), np.nan)
        values_NK[numbers] = frame.select(columns).cast(pl.Float64).to_numpy()
        found[target.name] = values_NK
    return found, left_out


def _reason(frame: pl.DataFrame, target: Target, columns: list[str], where: Path) -> str:
    """Why a target has no probabilities for all of its labels; empty if it has. Raises DataError for labels that the
    folds have otherwise."""
    if target.name not in frame.columns:
        return f"likely label errors of {target.name}: the folds have no such target"
    missing = [column for column in columns if column not in frame.columns]
    if not missing:
        return ""
    if f"{target.name}_p" in frame.columns:
        return f"likely label errors of {target.name}: of so many classes the folds keep only the most probable ones"
    raise DataError(
        f"{where}: these folds are of other labels of {target.name!r}:"
        f" there is no column {missing[0]!r}; allowed: folds"
        " of the same table"
    )
