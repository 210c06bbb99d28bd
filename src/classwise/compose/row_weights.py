"""data.weight: the weights of the training rows, from their column to the labels that the loss sees."""

import dataclasses

import numpy as np
import polars as pl
import torch

from classwise.compose.splits import DatasetSplits, Split
from classwise.config.schema import Config
from classwise.data.table import has_decimal_comma, is_empty
from classwise.data.weighting import RowWeighting
from classwise.errors import ConfigError, DataError


def with_row_weights(config: Config, split: Split) -> Split:
    """The training rows with their weights, scaled to a mean of 1, if the config names a column of them. Raises
    ConfigError for a missing column, DataError for cells that are no finite number of 0 or more."""
    column, samples = config.data.weight, split.samples
    if column is None:
        return split
    if column not in samples.frame.columns:
        raise ConfigError(
            f"data.weight: {samples.where} has no column {column!r}; it has {', '.join(samples.frame.columns)}"
        )
    cells = samples.frame[column].to_list()
    if has_decimal_comma(cells):
        cells = [None if cell is None else cell.replace(",", ".") for cell in cells]
    numbers = pl.Series(cells, dtype=pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    weights_N = numbers.fill_null(float("nan")).to_numpy()
    wrong = np.flatnonzero(~(np.isfinite(weights_N) & (weights_N >= 0)))
    if len(wrong):
        cell = samples.frame[column][int(wrong[0])]
        found = "an empty cell" if is_empty(cell) else repr(cell)
        raise DataError(
            f"{samples.where}: column {column!r} (data.weight): found {found} for {samples.ids[wrong[0]]}"
            f"{f' and others, {len(wrong)} in all' if len(wrong) > 1 else ''}; allowed: numbers of 0 or more"
        )
    if not weights_N.sum() > 0:
        raise DataError(
            f"{samples.where}: column {column!r} (data.weight): all training rows have a weight of 0"
        )
    return dataclasses.replace(split, weights=np.asarray(weights_N / weights_N.mean(), np.float64))


def row_weighting(splits: DatasetSplits) -> RowWeighting | None:
    """What puts the weights into the labels of the training rows; None where all rows count the same."""
    if splits.train.weights is None:
        return None
    classes = {
        target.name: len(target.labels) for target in splits.targets if target.type in ("class", "ordinal")
    }
    return RowWeighting(splits.train.weights, classes)


def weighted_targets(splits: DatasetSplits, fitted: Split, name: str) -> torch.Tensor:
    """The labels of a target of all rows of a split, weighted where there are weights."""
    labels = torch.from_numpy(fitted.labels[name])
    weighting = row_weighting(splits)
    if weighting is None or fitted.weights is None:
        return labels
    return weighting.labels({name: labels}, torch.from_numpy(fitted.weights))[name]
