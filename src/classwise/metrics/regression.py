"""Regression metrics, in the user's unit."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import Groups, Resampling, Weights, mean_intervals, sampling_units, within
from classwise.metrics.classification import Device
from classwise.metrics.intervals import EQUAL, MIN_MEAN_UNITS, Intervals, too_few, withheld_all
from classwise.metrics.rows import concat_rows, require_rows
from classwise.metrics.scores import SCORES, Array, as_floats, ratio


class RegressionMetric:
    """Sums of errors, and the spread of the true values, batch by batch; an update never waits for the device.

    Rows whose true value is NaN are unlabeled and not counted. Labeled rows whose prediction is not finite count in
    `invalid` and in no score. After an infinite true value, every result raises ValueError.

    `keep_rows`: store every row, for `intervals`.
    """

    def __init__(self, device: Device = "cpu", keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows
        # Rows, sum |e|, sum e^2, mean of the true values, sum of their squared deviations, invalid rows, infinite rows.
        self.sums = torch.zeros(7, dtype=torch.float64, device=device)
        self._rows: list[Tensor] = []

    def update(self, values_B: Tensor, targets_B: Tensor) -> None:
        """Count one batch: predicted values (B,) and true ones (B,), NaN where unknown.

        Raises ValueError for other shapes.
        """
        if values_B.ndim != 1 or values_B.shape != targets_B.shape:
            shapes = f"values {tuple(values_B.shape)}, targets {tuple(targets_B.shape)}"
            raise ValueError(f"found {shapes}; allowed: both (B,)")
        values_B = values_B.detach().double()
        targets_B = targets_B.double()

        # Rows that do not count have an error of 0, so that the sums need no other mask.
        is_finite_B = values_B.isfinite()
        counted_B = targets_B.isfinite() & is_finite_B
        error_B = torch.where(counted_B, values_B - targets_B, 0.0)
        self._add_true_values(torch.where(counted_B, targets_B, 0.0), counted_B)
        self.sums[1] += error_B.abs().sum()
        self.sums[2] += error_B.square().sum()
        self.sums[5] += (~targets_B.isnan() & ~is_finite_B).sum()
        self.sums[6] += targets_B.isinf().sum()
        if self.keep_rows:
            self._rows.append(torch.stack([values_B, targets_B], dim=1))

    def _add_true_values(self, true_B: Tensor, counted_B: Tensor) -> None:
        """Combine two means and spreads without a difference of large sums: Chan, Golub, LeVeque 1983, 'Algorithms for
        computing the sample variance', equations 2.1."""
        count = counted_B.sum()
        mean = true_B.sum() / count.clamp(min=1)
        spread = torch.where(counted_B, (true_B - mean).square(), 0.0).sum()
        total = (self.sums[0] + count).clamp(min=1)
        step = mean - self.sums[3]
        self.sums[4] += spread + step.square() * self.sums[0] * count / total
        self.sums[3] += step * count / total
        self.sums[0] += count

    def reset(self) -> None:
        """Start again from zero."""
        self.sums.zero_()
        self._rows.clear()

    @property
    def invalid(self) -> int:
        """The number of labeled rows without a finite prediction."""
        return int(self._sums_on_host()[5])

    def compute(self) -> dict[str, Any]:
        """The scores as in metrics.json: see `regression_scores`. Without any row every score is 0.

        Raises ValueError after an infinite true value.
        """
        count, absolute, square, mean, spread = self._sums_on_host()[:5]
        scores = regression_scores(np.array([count, absolute, square, 0.0, spread]), mean)
        return {"type": "regression", **as_floats(scores), "samples": int(count)}

    def intervals(self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000) -> Intervals:
        """The 95 % interval of every score that has one: see `mean_intervals`. `groups`: one for each row of the
        updates.

        Raises ValueError if the rows were not kept.
        """
        require_rows(self.keep_rows)
        mean = self._sums_on_host()[3]
        rows_N2 = concat_rows(self._rows, torch.float64, (2,))
        counted_N = np.isfinite(rows_N2).all(axis=1)
        units, unit_N = sampling_units(groups, counted_N)
        if reason := too_few(units, MIN_MEAN_UNITS, "rows" if unit_N is None else "groups"):
            return withheld_all(SCORES["regression"], reason)

        # 1 - r2 is the ratio of two means: of squared errors, and of squared deviations of the true values.
        value_N, true_N = rows_N2[counted_N].T
        square_N = (value_N - true_N) ** 2
        ones_N = np.ones_like(square_N)
        means = mean_intervals(
            {"mae": np.abs(value_N - true_N), "mse": square_N, "r2": square_N},
            {"mae": ones_N, "mse": ones_N, "r2": (true_N - mean) ** 2},
            units,
            unit_N,
            seed=seed,
            resamples=resamples,
        )
        scores = {name: within(interval, 0) for name, interval in means.items()}
        if "mse" in scores:
            scores["rmse"] = [end**0.5 for end in scores["mse"]]
        if "r2" in scores:
            scores["r2"] = [1 - end for end in reversed(scores["r2"])]
        withheld = {name: EQUAL for name in SCORES["regression"] if name not in scores}
        return Intervals({name: scores[name] for name in SCORES["regression"] if name in scores}, withheld)

    def resampling(self, groups: Groups | None = None) -> Resampling:
        """The scores of any weights of the counted rows, and the units that a bootstrap draws: for the differences of
        several models on the same rows. Arguments and errors as of `intervals`."""
        require_rows(self.keep_rows)
        mean = self._sums_on_host()[3]
        rows_N2 = concat_rows(self._rows, torch.float64, (2,))
        counted_N = np.isfinite(rows_N2).all(axis=1)

        # The row-wise terms of the sums that the scores are made from.
        value_N, true_N = rows_N2[counted_N].T
        error_N = value_N - true_N
        deviation_N = true_N - mean
        terms = (np.ones_like(error_N), np.abs(error_N), error_N**2, deviation_N, deviation_N**2)
        statistics_SN = np.stack(terms)

        def scorer(weights_NR: Weights) -> dict[str, Array]:
            return regression_scores(statistics_SN @ weights_NR, mean)

        units, unit_N = sampling_units(groups, counted_N)
        return scorer, units, unit_N

    def counted_rows(self) -> npt.NDArray[np.bool_]:
        """Which rows of the updates (N,) are in the scores. Raises ValueError if the rows were not kept."""
        require_rows(self.keep_rows)
        counted_N: npt.NDArray[np.bool_] = np.isfinite(concat_rows(self._rows, torch.float64, (2,))).all(
            axis=1
        )
        return counted_N

    def _sums_on_host(self) -> Array:
        sums: Array = self.sums.cpu().numpy()
        if sums[6]:
            raise ValueError(
                f"{int(sums[6])} rows have an infinite true value; allowed: numbers, NaN where unknown"
            )
        return sums


def regression_scores(sums: Array, mean: float) -> dict[str, Array]:
    """mae, mse, rmse, r2 (...) from sums (5, ...) over rows, in the unit of the true values (mse in its square).

    The sums: 1, |e|, e^2, d and d^2, with d the true value minus `mean`, any number near the mean of the true values.
    r2 = 1 - sum e^2 / (sum d^2 - (sum d)^2 / rows); where the true values do not vary, 1 without an error and else 0,
    as in scikit-learn.
    """
    count, absolute, square, deviation, squared_deviation = sums
    spread = squared_deviation - ratio(deviation**2, count)
    # The rounding error of subtracting equal numbers in float64 is not a spread.
    spread = np.where(spread > 1e-12 * squared_deviation + 1e-24 * count * mean**2, spread, 0.0)
    mse = ratio(square, count)
    r2 = np.where(spread > 0, 1 - ratio(square, spread), (square == 0) & (count > 0))
    return {"mae": ratio(absolute, count), "mse": mse, "rmse": np.sqrt(mse), "r2": r2.astype(np.float64)}
