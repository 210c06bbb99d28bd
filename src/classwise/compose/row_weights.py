"""data.weight: the weights of rows, from their column."""

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.compose.splits import Split
from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.table import has_decimal_comma, is_empty
from classwise.errors import ConfigError, DataError


def with_row_weights(config: Config, split: Split) -> Split:
    """The training rows with their weights, scaled to a mean of 1, if the config names a column of them. Raises
    ConfigError for a missing column, DataError for cells that are no finite number of 0 or more."""
    if config.data.weight is None:
        return split
    weights_N = _column(config.data.weight, split.samples)
    if not weights_N.sum() > 0:
        raise DataError(
            f"{split.samples.where}: column {config.data.weight!r} (data.weight): all training rows have a weight of 0"
        )
    return dataclasses.replace(split, weights=weights_N / weights_N.mean())


def score_weights(config: Config, samples: Samples) -> npt.NDArray[np.float64] | None:
    """The weights (N,) of rows that are scored, where report.row_weights asks for them. Errors as of
    `with_row_weights`."""
    column = config.data.weight
    return _column(column, samples) if config.report.row_weights and column is not None else None


def _column(column: str, samples: Samples) -> npt.NDArray[np.float64]:
    """The cells of a column as weights (N,)."""
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
    return np.asarray(weights_N, np.float64)
