"""How scores, other numbers and labels are written on the page, and which way a score is better."""

import math
from collections.abc import Sequence

from classwise.metrics.names import class_score, split_metric
from classwise.metrics.scores import AT_PRIOR, HIGHER_IS_BETTER, ROW_WEIGHTED

# In the order of display.
NUMBER_NAMES = {
    "macro_f1": "macro F1",
    "macro_f1_present": "macro F1, classes with rows",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "sample_f1": "sample F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "micro_precision": "micro precision",
    "micro_recall": "micro recall",
    "weighted_precision": "weighted precision",
    "weighted_recall": "weighted recall",
    "exact_match": "exact match",
    "mcc": "MCC",
    "kappa": "Cohen’s kappa",
    "quadratic_kappa": "quadratic kappa",
    "mae_levels": "MAE in levels",
    "top3_accuracy": "top-3 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "mae": "MAE",
    "rmse": "RMSE",
    "mse": "MSE",
    "r2": "R²",
    "ndcg": "NDCG",
    "ndcg_at_5": "NDCG@5",
    "ndcg_at_10": "NDCG@10",
    "mrr": "MRR",
    "map": "MAP",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "roc_auc": "ROC AUC",
    "average_precision": "macro AP",
    "worst_f1": "F1 of the worst class",
    "worst_recall": "recall of the worst class",
    "worst_precision": "precision of the worst class",
    "mean": "mean of all targets",
    "loss": "loss",
}

SUFFIXES = {AT_PRIOR: "at prior", ROW_WEIGHTED: "with row weights"}
"""What the ends of names say, of the same score at other class shares or with weighted rows."""

CLASS_NAMES = {"f1": "F1", "precision": "precision", "recall": "recall", "ap": "AP", "roc_auc": "ROC AUC"}

IN_UNITS = ("mae", "rmse", "mse")  # in the target's own unit, of any size; the others are near 1
DIGITS = 4
LONGEST = 7  # decimals; smaller numbers would show zeros only, so they are written as 1.2e−05


def metric_name(key: str, kind: str = "class") -> str:
    """`macro_f1` as `macro F1`; an unknown name stays as it is. `map` is MAP over queries but mAP over labels."""
    for suffix, words in SUFFIXES.items():
        if key.endswith(suffix):
            return f"{metric_name(key.removesuffix(suffix), kind)} {words}"
    target, score = split_metric(key)
    if target:
        return f"{metric_name(score, kind)} of {target}"
    if of_class := class_score(key):
        return f"{CLASS_NAMES.get(of_class[0], of_class[0])} of {of_class[1]}"
    return "mAP" if key == "map" and kind == "multilabel" else NUMBER_NAMES.get(key, key)


def higher_is_better(key: str) -> bool:
    """The direction of `macro_f1` or `age.mae`. Of a loss lower is better, of an unknown metric higher."""
    name = split_metric(key)[1].removesuffix(AT_PRIOR).removesuffix(ROW_WEIGHTED)
    return HIGHER_IS_BETTER.get(name, name != "loss")


def number_text(key: str, value: float) -> str:
    """Three decimals; an error in the target's unit has four significant digits, however large or small it is."""
    return _fixed(value, _decimals(key, value))


def interval_text(key: str, value: float, ends: Sequence[float]) -> str:
    """`[0.71, 0.79]`: one digit less than the value, unless the two ends would then look nearly equal."""
    decimals = _decimals(key, value)
    coarse = max(decimals - 1, 0)
    if decimals <= LONGEST and ends[1] - ends[0] >= 2 * 10.0**-coarse:
        decimals = coarse
    return f"[{_fixed(ends[0], decimals)}, {_fixed(ends[1], decimals)}]"


def short_number(value: float) -> str:
    """Four significant digits; thousands with a comma."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def shorten(text: str, longest: int) -> str:
    """`text` cut to `longest` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _decimals(key: str, value: float) -> int:
    if split_metric(key)[1] not in IN_UNITS:
        return 3 if abs(value) < 1000 else 1
    size = math.floor(math.log10(abs(value))) if value else 0
    return max(0, DIGITS - 1 - size)


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}" if decimals <= LONGEST else f"{value:.{DIGITS - 1}g}"
    return text.replace("-", "−")
