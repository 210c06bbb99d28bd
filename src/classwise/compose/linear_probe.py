"""A linear model that weights the classes equally, on features of a frozen backbone or on small images.

It gives raw outputs by target, as a model would, so the same heads decode them and the same metrics score them.
Its cost is bounded, and nothing here draws random numbers.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it
from torch import Tensor

from classwise.compose.raw_outputs import LOG_FLOOR, raw_class, raw_ordinal
from classwise.errors import NonFiniteError
from classwise.model.heads import Head, RegressionHead

Features = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

PIXELS = 1024  # numbers per image at most
WORK = 2.5e10  # multiplications that the probe may take per target: some 5 s on one core
MAX_STEPS = 500  # of logistic regression; the bundled images need 220
_EXPECTED_STEPS = 100  # the budget of rows assumes that a fit takes so many
_MIN_STEPS = 20
_MOST_RANKED = 5_000  # rows of a ranking: a loss over pairs holds a matrix of all of them
_MIN_ROWS = 20  # of each class, even if the budget allows fewer


@dataclass(frozen=True)
class Probe:
    """Raw outputs (M, outputs), float64, by target, and notes on the fits for the console."""

    outputs: dict[str, Tensor]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Fit:
    """One target's problem: features (N, D) and labels of the rows to fit, features (M, D) of the rows to predict."""

    head: Head
    train: Features
    labels: npt.NDArray[Any]
    valid: Features

    @property
    def max_steps(self) -> int:
        """Steps of logistic regression that the budget allows."""
        by_budget = WORK / (2 * max(1, self.train.size) * max(2, self.head.outputs))
        return int(np.clip(by_budget, _MIN_STEPS, MAX_STEPS))


def linear_probe(
    heads: Mapping[str, Head],
    train_features_ND: Features,
    train_targets: Mapping[str, Tensor],
    valid_features_MD: Features,
    standardize: bool,
    rows: Numbers | None = None,
) -> Probe:
    """Fit a linear model per target on the training rows (scikit-learn's, with its default regularization).

    class, ordinal: multinomial logistic regression, C = 1, classes weighted by 1 / count; a class without a
    training row is never predicted. multilabel: the same, each label against the rest. regression, and ranking
    (on the relevance): ridge regression, alpha = 1. Rows without a label are left out.

    `standardize`: scale every feature to mean 0 and standard deviation 1 over the training rows. Features of a
    backbone need it; pixels are on one scale already. WORK bounds the cost: of more rows than it allows, some are
    fitted (see `probe_rows`), and the notes say so. `rows`: the training rows that `train_features_ND` holds, as
    `probe_rows` chose them (default: all); `train_targets` always holds all. Raises NonFiniteError.
    """
    train = train_features_ND
    valid = valid_features_MD
    _refuse_non_finite(train, "training")
    _refuse_non_finite(valid, "validation")
    if standardize:
        train, valid = _standardized(train, valid)

    outputs: dict[str, Tensor] = {}
    notes: list[str] = []
    for name, head in heads.items():
        labels_N = train_targets[name].cpu().numpy()
        fitted_rows = _fitted_rows(head, labels_N, train.shape[1], WORK)
        # If the features are of some rows only, a row's number is not its position.
        positions = fitted_rows if rows is None else np.searchsorted(rows, fitted_rows)
        fit = _Fit(head=head, train=train[positions], labels=labels_N[fitted_rows], valid=valid)

        # The products are small: on a busy machine, threads that wait for each other make it 40 times slower.
        with threadpool_limits(1):
            raw_outputs, unconverged = _PROBES[head.type](fit)
        outputs[name] = torch.from_numpy(raw_outputs)
        labeled = int(_is_labeled(head, labels_N).sum())
        notes += _notes(name, fit, labeled=labeled, unconverged=unconverged)
    return Probe(outputs, tuple(notes))


def probe_rows(
    heads: Mapping[str, Head],
    train_targets: Mapping[str, Tensor],
    features: int,
    work: float | None = None,
    iterates: bool = False,
) -> Numbers:
    """The training rows, in ascending order, that `linear_probe` will fit on `features` numbers per row: ask before
    features are computed. All labeled rows or, if the budget (`work`, default WORK) is short, all
    rows of rare classes and an even selection of the others. `iterates`: numbers and rankings are fitted in steps like
    classes, not at once."""
    work = WORK if work is None else work
    rows = [
        _fitted_rows(head, train_targets[name].cpu().numpy(), features, work, iterates)
        for name, head in heads.items()
    ]
    return np.unique(np.concatenate(rows))


def _notes(name: str, fit: _Fit, labeled: int, unconverged: int) -> list[str]:
    """What the reader of a score should know about its fit."""
    notes = []
    rows = len(fit.labels)
    if rows < labeled:
        notes.append(f"linear probe: {name!r} is fitted on {rows:,} of {labeled:,} rows, to save time")
    if unconverged:
        notes.append(
            f"linear probe: {name!r}: stopped after {fit.max_steps} steps, {unconverged} of its fits not converged"
        )
    return notes


Outcome = tuple[Floats, int]
"""Raw outputs (M, outputs), and how many fits did not converge."""


def _probe_class(fit: _Fit) -> Outcome:
    log_p_MK, unconverged = _logistic(fit, fit.train, fit.labels, fit.head.classes)
    return raw_class(fit.head, log_p_MK), unconverged


def _probe_ordinal(fit: _Fit) -> Outcome:
    log_p_MK, unconverged = _logistic(fit, fit.train, fit.labels, fit.head.classes)
    return raw_ordinal(log_p_MK), unconverged


def _probe_multilabel(fit: _Fit) -> Outcome:
    logits_ML = np.zeros((len(fit.valid), fit.head.outputs))
    unconverged = 0
    for label, cells_N in enumerate(fit.labels.T):
        labeled_N = ~np.isnan(cells_N)
        is_positive_N = cells_N[labeled_N].astype(np.int64)
        log_p_M2, failed = _logistic(fit, fit.train[labeled_N], is_positive_N, classes=2)
        logits_ML[:, label] = log_p_M2[:, 1] - log_p_M2[:, 0]
        unconverged += failed
    return logits_ML, unconverged


def _probe_regression(fit: _Fit) -> Outcome:
    head = fit.head
    assert isinstance(head, RegressionHead)
    return _ridge(fit, (fit.labels - head.mean) / head.std), 0


def _probe_ranking(fit: _Fit) -> Outcome:
    relevance_N = fit.labels[:, 0].astype(np.float64)
    return _ridge(fit, relevance_N), 0


_PROBES: dict[str, Callable[[_Fit], Outcome]] = {
    "class": _probe_class,
    "ordinal": _probe_ordinal,
    "multilabel": _probe_multilabel,
    "regression": _probe_regression,
    "ranking": _probe_ranking,
}


def _logistic(fit: _Fit, train_ND: Features, labels_N: Numbers, classes: int) -> Outcome:
    """Log-probabilities (M, classes). Classes without a row get LOG_FLOOR, which is never the largest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # scikit-learn refuses to fit fewer than two classes.
    log_p_MK = np.full((len(fit.valid), classes), LOG_FLOOR)
    present = np.unique(labels_N)
    if len(present) < 2:
        log_p_MK[:, present] = 0.0
        return log_p_MK, 0

    # Fits that do not converge are counted for the notes, rather than warned of one by one.
    model = LogisticRegression(class_weight="balanced", max_iter=fit.max_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_ND, labels_N)

    # Of two classes scikit-learn gives the log-odds of the second alone.
    scores = model.decision_function(fit.valid).astype(np.float64)
    scores_MK = np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores
    log_p_MK[:, present] = torch.log_softmax(torch.from_numpy(scores_MK), dim=1).numpy()
    return log_p_MK, int(model.n_iter_.max() >= fit.max_steps)


def _ridge(fit: _Fit, values_N: Floats) -> Floats:
    """The predicted values (M, 1); zeros if there is nothing to fit."""
    from sklearn.linear_model import Ridge

    predicted_M = np.zeros(len(fit.valid))
    if len(values_N):
        model = Ridge(alpha=1.0).fit(fit.train.astype(np.float64), values_N)
        predicted_M += model.predict(fit.valid.astype(np.float64))
    return predicted_M[:, None]


def _standardized(train_ND: Features, valid_MD: Features) -> tuple[Features, Features]:
    """Both, scaled by the means and the deviations of the training rows."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train_ND)
    return scaler.transform(train_ND), scaler.transform(valid_MD)


def _refuse_non_finite(features: Features, what: str) -> None:
    broken = int((~np.isfinite(features)).any(axis=1).sum())
    if broken:
        raise NonFiniteError(
            f"linear probe: the features of {broken} of {len(features)} {what} rows are not finite"
        )


# Which rows the probe is fitted on.


def _is_labeled(head: Head, labels_N: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows (N,) have a label; of a multilabel target, at least one."""
    if head.type == "multilabel":
        return np.asarray((~np.isnan(labels_N)).any(axis=1))
    if head.type == "regression":
        return np.asarray(~np.isnan(labels_N))
    return np.asarray((labels_N[:, 0] if head.type == "ranking" else labels_N) >= 0)


def _fitted_rows(
    head: Head, labels_N: npt.NDArray[Any], features: int, work: float, iterates: bool = False
) -> Numbers:
    """The labeled rows; if they are more than the budget allows, rare strata whole and the others thinned."""
    rows = np.flatnonzero(_is_labeled(head, labels_N))
    strata_N = _strata(head, labels_N[rows])

    # Ridge regression goes over the rows once, for the products of all features; logistic regression in every step.
    if head.type in ("regression", "ranking") and not iterates:
        allowed = max(int(work / features**2), 100)
    else:
        outputs = max(2, head.outputs)
        allowed = max(int(work / (2 * features * outputs * _EXPECTED_STEPS)), _MIN_ROWS * outputs)
    if head.type == "ranking":
        allowed = min(allowed, _MOST_RANKED)

    if len(rows) <= allowed:
        return rows
    return rows[_thinned(strata_N, allowed)]


def _strata(head: Head, labels_N: npt.NDArray[Any]) -> Numbers:
    """The stratum (N,) of each row: its class, its relevance, its tenth of the values, or its rarest label."""
    if head.type == "ranking":
        return np.asarray(labels_N[:, 0], np.int64)
    if head.type == "regression":
        rank_N = np.argsort(np.argsort(labels_N, kind="stable"))
        return np.asarray(rank_N * 10 // max(1, len(labels_N)), np.int64)
    if head.type != "multilabel":
        return np.asarray(labels_N, np.int64)

    # Rows with none of the labels make a stratum of their own, numbered after the last label.
    counts_L = np.nansum(labels_N, axis=0)
    rarity_NL = np.where(labels_N == 1, counts_L, np.inf)
    has_none_N = np.isinf(rarity_NL).all(axis=1)
    return np.asarray(np.where(has_none_N, labels_N.shape[1], rarity_NL.argmin(axis=1)), np.int64)


def _thinned(strata_N: Numbers, allowed: int) -> Numbers:
    """At most `allowed` positions, ascending. Every stratum has the same cap, as high as it can be; one with more rows
    gives every n-th."""
    # From the rarest up: what a stratum leaves unused raises the cap of those that follow.
    strata, counts = np.unique(strata_N, return_counts=True)
    cap = 0
    unused = allowed
    for rank, count in enumerate(sorted(counts)):
        cap = unused // (len(counts) - rank)
        if count > cap:
            break
        unused -= count

    positions = []
    for stratum in strata:
        members = np.flatnonzero(strata_N == stratum)
        spaced = np.linspace(0, len(members) - 1, min(cap, len(members))).astype(np.int64)
        positions.append(members[spaced])
    return np.sort(np.concatenate(positions))


# Images as features.


def pixel_features(
    train: Iterable[npt.NDArray[np.uint8]], valid: Iterable[npt.NDArray[np.uint8]]
) -> tuple[Features, Features]:
    """train_ND and valid_MD: small images as numbers from 0 to 1, from batches of images_BHWC, uint8, all of one
    size. Gray if the channels of every image are equal; averaged over areas down to at most PIXELS numbers, so gray
    images of 28 x 28 keep their size."""
    # Whether all images are gray is known at the end, so until then both variants are held.
    small_train = [_small(images_BHWC) for images_BHWC in train]
    small_valid = [_small(images_BHWC) for images_BHWC in valid]
    gray_train = [gray for gray, _ in small_train if gray is not None]
    gray_valid = [gray for gray, _ in small_valid if gray is not None]
    if len(gray_train) == len(small_train) and len(gray_valid) == len(small_valid):
        return np.concatenate(gray_train), np.concatenate(gray_valid)

    coloured_train = [coloured for _, coloured in small_train]
    coloured_valid = [coloured for _, coloured in small_valid]
    return np.concatenate(coloured_train), np.concatenate(coloured_valid)


def _small(images_BHWC: npt.NDArray[np.uint8]) -> tuple[Features | None, Features]:
    """As gray images, None if they are not gray, and as coloured ones."""
    gray_BHW1 = images_BHWC[..., :1]
    is_gray = bool((images_BHWC == gray_BHW1).all())
    return _shrunk(gray_BHW1) if is_gray else None, _shrunk(images_BHWC)


def _shrunk(images_BHWC: npt.NDArray[np.uint8]) -> Features:
    """(B, D) with D <= PIXELS, at about the images' aspect ratio."""
    _, height, width, channels = images_BHWC.shape
    max_area = PIXELS // channels
    scale = min(1.0, math.sqrt(max_area / (height * width)))
    new_height = min(max_area, max(1, int(height * scale)))
    new_width = min(max_area // new_height, max(1, int(width * scale)))
    size = (new_width, new_height)
    # In float32, since integers would be rounded; INTER_AREA is the mean over the area.
    small = [
        cv2.resize(image_HWC.astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel()
        for image_HWC in images_BHWC
    ]
    return np.stack(small).astype(np.float32) / np.float32(255)
