"""The intervals of a multilabel target, whose rows have several labels each: a row is a group of cells."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from classwise.metrics.bootstrap import mean_intervals, percentile_interval, within
from classwise.metrics.intervals import (
    EQUAL,
    MIN_CLASS_UNITS,
    MIN_MEAN_UNITS,
    RANKED,
    Intervals,
    absent_reason,
    class_intervals,
    share_interval,
    too_few,
)
from classwise.metrics.posterior import Ints, design_effects, draw_labels
from classwise.metrics.scores import LOSS_LIMIT, SCORES, Array, precision_recall_f1, ratio

Bools = npt.NDArray[np.bool_]

AVERAGE_PRECISION = "none holds where labels are rare"


def label_intervals(
    logits_NL: Array,
    targets_NL: Array,
    labels: Sequence[str],
    units: int,
    unit_N: Ints | None,
    seed: int,
    draws: int,
    cuts_L: Array | float = 0.0,
) -> Intervals:
    """The intervals of all scores of logits and targets (1, 0, NaN where unknown) of the counted rows;
    labels are predicted from the logits `cuts_L` on.

    F1, precision and recall, by label and averaged, from the model of `draw_labels`; exact match as a share; sample F1
    and log loss as means.
    """
    noun = "rows" if unit_N is None else "groups"
    labeled_NL = ~np.isnan(targets_NL)
    true_NL = targets_NL == 1
    predicted_NL = (logits_NL >= cuts_L) & labeled_NL
    scores, withheld, classes = _count_intervals(
        labeled_NL, true_NL, predicted_NL, labels, unit_N, seed, draws
    )
    withheld["map"] = AVERAGE_PRECISION
    if (true_NL.any(axis=0) & (labeled_NL & ~true_NL).any(axis=0)).any():  # else there is no AUC
        withheld["roc_auc"] = RANKED
    scores["exact_match"] = share_interval((true_NL == predicted_NL).all(axis=1), unit_N, seed, draws)

    if reason := too_few(units, MIN_MEAN_UNITS, noun):
        withheld |= {"sample_f1": reason, "log_loss": reason}
    else:
        sign_NL = np.where(true_NL, -1.0, 1.0) * np.where(labeled_NL, logits_NL, 0.0)
        loss_NL = np.minimum(np.logaddexp(0, sign_NL), LOSS_LIMIT) * labeled_NL
        hits_N = (true_NL & predicted_NL).sum(axis=1)
        sums = {
            "sample_f1": ratio(2 * hits_N, true_NL.sum(axis=1) + predicted_NL.sum(axis=1)),
            "log_loss": loss_NL.sum(axis=1),
        }
        counts = {"sample_f1": np.ones(len(hits_N)), "log_loss": labeled_NL.sum(axis=1)}
        means = mean_intervals(sums, counts, units, unit_N, seed=seed, resamples=draws)
        limits = {"sample_f1": 1.0, "log_loss": LOSS_LIMIT}
        scores |= {name: within(interval, 0, limits[name]) for name, interval in means.items()}
        withheld |= {name: EQUAL for name in sums if name not in means}

    order = SCORES["multilabel"]
    return Intervals(
        {name: scores[name] for name in order if name in scores},
        {name: withheld[name] for name in order if name in withheld},
        classes,
    )


def _count_intervals(
    labeled_NL: Bools,
    true_NL: Bools,
    predicted_NL: Bools,
    labels: Sequence[str],
    unit_N: Ints | None,
    seed: int,
    draws: int,
) -> tuple[dict[str, list[float]], dict[str, str], list[Intervals]]:
    """The intervals of the scores that follow from hits, true and predicted cells: overall, withheld, by label."""
    # Every cell is a row of the class (label, true or not), and the cells of a row or group are one group.
    count = len(labels)
    row_C, label_C = np.nonzero(labeled_NL)
    true_C = true_NL[row_C, label_C]
    predicted_C = predicted_NL[row_C, label_C]
    class_C = true_C * count + label_C
    unit_C = row_C if unit_N is None else unit_N[row_C]
    effects = design_effects(class_C, true_C == predicted_C, unit_C, 2 * count)
    counts_2L2 = (
        np.bincount(2 * class_C + predicted_C, minlength=4 * count).reshape(2, count, 2).astype(np.float64)
    )

    share_effect_L = np.array([_share_effect(true_NL[:, k], labeled_NL[:, k], unit_N) for k in range(count)])
    whole = draw_labels(counts_2L2, effects.whole.reshape(2, count), share_effect_L, seed, draws)
    by_label = draw_labels(counts_2L2, effects.within.reshape(2, count), share_effect_L, seed, draws)

    hits_L = counts_2L2[1, :, 1]
    support_L = counts_2L2[1].sum(axis=1)
    predicted_L = counts_2L2[:, :, 1].sum(axis=0)
    values = (hits_L, support_L, predicted_L)
    names = ("precision", "recall", "f1")
    reason = absent_reason(labels, support_L, "row with")
    scores, withheld = {}, {}
    for i, name in enumerate(names):
        micro_R = precision_recall_f1(*(drawn.sum(axis=1) for drawn in whole))[i]
        micro = precision_recall_f1(*(value.sum() for value in values))[i]
        scores[f"micro_{name}"] = percentile_interval(micro_R, float(micro))
        if reason:
            withheld[f"macro_{name}"] = reason
        else:
            macro_R = precision_recall_f1(*whole)[i].mean(axis=1)
            scores[f"macro_{name}"] = percentile_interval(
                macro_R, float(precision_recall_f1(*values)[i].mean())
            )

    units_L = support_L
    if unit_N is not None:
        units_L = np.array([len(np.unique(unit_N[true_NL[:, k]])) for k in range(count)])
    noun = "rows" if unit_N is None else "groups"
    own = np.flatnonzero(units_L >= MIN_CLASS_UNITS)
    classes = class_intervals(
        precision_recall_f1(*(drawn[:, own] for drawn in by_label)),
        precision_recall_f1(*values),
        units_K=units_L,
        predicted_K=predicted_L,
        noun=noun,
    )
    return scores, withheld, classes


def _share_effect(true_N: Bools, labeled_N: Bools, unit_N: Ints | None) -> float:
    """The variance of the number of true cells over groups, divided by that over independent rows."""
    if unit_N is None or not true_N.any() or true_N[labeled_N].all():
        return 1.0
    share = true_N.sum() / labeled_N.sum()
    deviation_U = np.bincount(unit_N, true_N - share * labeled_N)
    return float((deviation_U**2).sum() / (labeled_N.sum() * share * (1 - share)))
