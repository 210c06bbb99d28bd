"""What a run has to beat: two honest baselines on its own split, cheap and computed once.

`most_frequent` knows the training rows' targets only; `linear_probe` is a linear model that weights the classes
equally, on features of a frozen backbone or on small images. Both give raw outputs by target, as a model would,
so that the same heads decode them and the same scores count them. Nothing here draws at random.
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
PIXELS = 1024  # at most so many numbers an image
WORK = 2.5e10  # multiplications that the probe may take for a target: some 5 s of one core
MAX_STEPS = 500  # of logistic regression; the bundled images need 220
_USUAL_STEPS = 100  # what the number of rows is reckoned with
_MIN_STEPS = 20
_MIN_ROWS = 20  # of each class, even where the budget would not allow them


@dataclass(frozen=True)
class Probe:
    """Raw outputs (M, outputs), float64, by target, and what the reader should know about the fit."""

    outputs: dict[str, Tensor]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Fit:
    """One target: features (N, D) and targets of the rows to learn from, features (M, D) of those to answer."""

    head: Head
    train: Features
    targets: npt.NDArray[Any]
    valid: Features

    @property
    def steps(self) -> int:
        """Of logistic regression, as many as the budget gives."""
        by_budget = WORK / (2 * max(1, self.train.size) * max(2, self.head.outputs))
        return int(np.clip(by_budget, _MIN_STEPS, MAX_STEPS))


def linear_probe(
    heads: Mapping[str, Head],
    train_features_ND: Features,
    train_targets: Mapping[str, Tensor],
    valid_features_MD: Features,
    standardise: bool,
    rows: Numbers | None = None,
) -> Probe:
    """A linear model for each target, fitted on the training rows (scikit-learn, its own regularisation).

    class, ordinal: multinomial logistic regression, C = 1, the classes weighted by 1 / count; a class without a
    training row is never the answer. multilabel: the same, each label against the rest. regression, and ranking
    (on the relevance): ridge regression, alpha = 1. Rows without a known target are left out.

    `standardise`: subtract the mean of every feature and divide by its deviation, over the training rows: for
    features of a backbone; pixels are of one scale as they are. The cost is bounded by WORK: of more rows than it
    allows, some are taken (see `probe_rows`), and the notes say so. With `rows`, the features are those of these
    training rows only, which `probe_rows` gave; the targets are always those of all. Raises NonFiniteError.
    """
    train, valid = train_features_ND, valid_features_MD
    _refuse_non_finite(train, "training")
    _refuse_non_finite(valid, "validation")
    if standardise:
        train, valid = _standardised(train, valid)
    outputs: dict[str, Tensor] = {}
    notes: list[str] = []
    for name, head in heads.items():
        targets_N = train_targets[name].cpu().numpy()
        chosen = _target_rows(head, targets_N, train.shape[1])
        places = chosen if rows is None else np.searchsorted(rows, chosen)
        fit = _Fit(head, train[places], targets_N[chosen], valid)
        # The products are small: on a busy machine, threads that wait for each other make it 40 times slower.
        with threadpool_limits(1):
            found, unfinished = _PROBES[head.type](fit)
        outputs[name] = torch.from_numpy(found)
        notes += _notes(name, fit, int(_known(head, targets_N).sum()), unfinished)
    return Probe(outputs, tuple(notes))


def probe_rows(heads: Mapping[str, Head], train_targets: Mapping[str, Tensor], features: int) -> Numbers:
    """The training rows, in order, whose features (so many numbers each) `linear_probe` will look at: ask before
    features are computed. All known rows, or where the budget is short, rare classes whole and frequent ones
    evenly thinned."""
    found = [_target_rows(head, train_targets[name].cpu().numpy(), features) for name, head in heads.items()]
    return np.unique(np.concatenate(found))


def _notes(name: str, fit: _Fit, known: int, unfinished: int) -> list[str]:
    rows, found = len(fit.targets), []
    if rows < known:
        found.append(f"linear probe: {name!r} is learnt from {rows:,} of {known:,} rows, for speed")
    if unfinished:
        found.append(
            f"linear probe: {name!r}: stopped after {fit.steps} steps, {unfinished} of its fits unsettled"
        )
    return found


Answer = tuple[Floats, int]
"""Raw outputs (M, outputs), and how many fits ran out of steps."""


def _probe_class(fit: _Fit) -> Answer:
    log_p_MK, unfinished = _logistic(fit, fit.train, fit.targets, fit.head.classes)
    return raw_class(fit.head, log_p_MK), unfinished


def _probe_ordinal(fit: _Fit) -> Answer:
    log_p_MK, unfinished = _logistic(fit, fit.train, fit.targets, fit.head.classes)
    return raw_ordinal(log_p_MK), unfinished


def _probe_multilabel(fit: _Fit) -> Answer:
    logits_ML, unfinished = np.zeros((len(fit.valid), fit.head.outputs)), 0
    for label, cells_N in enumerate(fit.targets.T):
        known_N = ~np.isnan(cells_N)
        log_p_MK, stopped = _logistic(fit, fit.train[known_N], cells_N[known_N].astype(np.int64), 2)
        logits_ML[:, label] = log_p_MK[:, 1] - log_p_MK[:, 0]
        unfinished += stopped
    return logits_ML, unfinished


def _probe_regression(fit: _Fit) -> Answer:
    head = fit.head
    assert isinstance(head, RegressionHead)
    return _ridge(fit, (fit.targets - head.mean) / head.std), 0


def _probe_ranking(fit: _Fit) -> Answer:
    return _ridge(fit, fit.targets[:, 0].astype(np.float64)), 0


_PROBES: dict[str, Callable[[_Fit], Answer]] = {
    "class": _probe_class,
    "ordinal": _probe_ordinal,
    "multilabel": _probe_multilabel,
    "regression": _probe_regression,
    "ranking": _probe_ranking,
}


def _logistic(fit: _Fit, train_ND: Features, labels_N: Numbers, classes: int) -> Answer:
    """Log-probabilities (M, classes); classes without a row get LOG_FLOOR, which never is the largest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    log_p_MK = np.full((len(fit.valid), classes), LOG_FLOOR)
    present = np.unique(labels_N)
    if len(present) < 2:
        log_p_MK[:, present] = 0.0
        return log_p_MK, 0
    model = LogisticRegression(class_weight="balanced", max_iter=fit.steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead, for the notes
        model.fit(train_ND, labels_N)
    scores = model.decision_function(fit.valid).astype(np.float64)
    # Of two classes scikit-learn gives the log-odds of the second alone.
    scores_MK = np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores
    log_p_MK[:, present] = torch.log_softmax(torch.from_numpy(scores_MK), dim=1).numpy()
    return log_p_MK, int(model.n_iter_.max() >= fit.steps)


def _ridge(fit: _Fit, values_N: Floats) -> Floats:
    """The predicted values (M, 1)."""
    from sklearn.linear_model import Ridge

    found_M = np.zeros(len(fit.valid))
    if len(values_N):
        model = Ridge(alpha=1.0).fit(fit.train.astype(np.float64), values_N)
        found_M += model.predict(fit.valid.astype(np.float64))
    return found_M[:, None]


def _standardised(train_ND: Features, valid_MD: Features) -> tuple[Features, Features]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train_ND)
    return scaler.transform(train_ND), scaler.transform(valid_MD)


def _refuse_non_finite(features: Features, what: str) -> None:
    broken = int((~np.isfinite(features)).any(axis=1).sum())
    if broken:
        raise NonFiniteError(f"linear probe: {broken} of {len(features)} {what} rows have no finite features")


def _known(head: Head, targets_N: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Rows (N,) that the target is known of; of several labels, one at least."""
    if head.type == "multilabel":
        return np.asarray((~np.isnan(targets_N)).any(axis=1))
    if head.type == "regression":
        return np.asarray(~np.isnan(targets_N))
    return np.asarray((targets_N[:, 0] if head.type == "ranking" else targets_N) >= 0)


def _target_rows(head: Head, targets_N: npt.NDArray[Any], features: int) -> Numbers:
    """The known rows; where they are more than the budget allows, rare strata whole and the others thinned."""
    rows = np.flatnonzero(_known(head, targets_N))
    strata_N = _strata(head, targets_N[rows])
    if head.type in ("regression", "ranking"):
        allowed = max(int(WORK / features**2), 100)
    else:
        outputs = max(2, head.outputs)
        allowed = max(int(WORK / (2 * features * outputs * _USUAL_STEPS)), _MIN_ROWS * outputs)
    if len(rows) <= allowed:
        return rows
    return rows[_thinned(strata_N, allowed)]


def _strata(head: Head, targets_N: npt.NDArray[Any]) -> Numbers:
    """A number (N,) for each row: the class; a tenth of the values; the rarest label that it has."""
    if head.type == "ranking":
        return np.asarray(targets_N[:, 0], np.int64)
    if head.type == "regression":
        rank_N = np.argsort(np.argsort(targets_N, kind="stable"))
        return np.asarray(rank_N * 10 // max(1, len(targets_N)), np.int64)
    if head.type != "multilabel":
        return np.asarray(targets_N, np.int64)
    counts_L = np.nansum(targets_N, axis=0)
    rarity_NL = np.where(targets_N == 1, counts_L, np.inf)
    none = np.isinf(rarity_NL).all(axis=1)
    return np.asarray(np.where(none, targets_N.shape[1], rarity_NL.argmin(axis=1)), np.int64)


def _thinned(strata_N: Numbers, allowed: int) -> Numbers:
    """`allowed` positions at most, in order: the same cap for every stratum, as high as it can be; a stratum with
    more rows gives every n-th."""
    _, counts = np.unique(strata_N, return_counts=True)
    cap, left = 0, allowed
    for rank, count in enumerate(sorted(counts)):
        cap = left // (len(counts) - rank)
        if count > cap:
            break
        left -= count
    kept = [
        where[np.linspace(0, len(where) - 1, min(cap, len(where))).astype(np.int64)]
        for where in (np.flatnonzero(strata_N == stratum) for stratum in np.unique(strata_N))
    ]
    return np.sort(np.concatenate(kept))


def pixel_features(
    train: Iterable[npt.NDArray[np.uint8]], valid: Iterable[npt.NDArray[np.uint8]]
) -> tuple[Features, Features]:
    """Small images as numbers from 0 to 1: train_ND and valid_MD from batches of images_BHWC, uint8, all of one
    size. Grey where all channels are equal in all images; averaged over areas down to PIXELS numbers or fewer,
    so grey images of 28 x 28 stay as they are."""
    # Whether all images are grey is known at the end: till then both kinds are kept.
    pair = [[_small(images_BHWC) for images_BHWC in batches] for batches in (train, valid)]
    kind = 0 if all(grey is not None for split in pair for grey, _ in split) else 1
    found = [np.concatenate([f for f in (s[kind] for s in split) if f is not None]) for split in pair]
    return found[0], found[1]


def _small(images_BHWC: npt.NDArray[np.uint8]) -> tuple[Features | None, Features]:
    """As grey images, None where they are not, and as coloured ones."""
    grey_BHW1 = images_BHWC[..., :1]
    is_grey = bool((images_BHWC == grey_BHW1).all())
    return _shrunk(grey_BHW1) if is_grey else None, _shrunk(images_BHWC)


def _shrunk(images_BHWC: npt.NDArray[np.uint8]) -> Features:
    """(B, D) with D <= PIXELS, about of the images' own proportions."""
    _, height, width, channels = images_BHWC.shape
    most = PIXELS // channels
    scale = min(1.0, math.sqrt(most / (height * width)))
    new_height = min(most, max(1, int(height * scale)))
    new_width = min(most // new_height, max(1, int(width * scale)))
    # In float32, since whole numbers would be rounded; INTER_AREA is the mean over the area.
    size = (new_width, new_height)
    small = [
        cv2.resize(image_HWC.astype(np.float32), size, interpolation=cv2.INTER_AREA).ravel()
        for image_HWC in images_BHWC
    ]
    return np.stack(small).astype(np.float32) / np.float32(255)
