"""Scores as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from classwise.metrics.formatting import NO_INTERVAL, cut, display_width, score_text, short_interval
from classwise.metrics.names import class_score, is_combined, split_metric
from classwise.metrics.scores import AT_PRIOR
from classwise.metrics.selection_text import inference_text, selection_text

WIDTH = 80

SHOWN: dict[str, dict[str, str]] = {
    "class": {
        "macro_f1": "macro F1",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "mcc": "MCC",
        "kappa": "kappa",
        "top3_accuracy": "top-3 accuracy",
        "top5_accuracy": "top-5 accuracy",
        "roc_auc": "ROC AUC",
        "average_precision": "macro AP",
        "log_loss": "log loss",
        "calibration_error": "calibration error",
    },
    "ordinal": {
        "macro_f1": "macro F1",
        "accuracy": "accuracy",
        "mae_levels": "MAE in levels",
        "quadratic_kappa": "quadratic kappa",
        "roc_auc": "ROC AUC",
        "log_loss": "log loss",
        "calibration_error": "calibration error",
    },
    "multilabel": {
        "macro_f1": "macro F1",
        "micro_f1": "micro F1",
        "sample_f1": "sample F1",
        "map": "mAP",
        "roc_auc": "ROC AUC",
        "exact_match": "exact match",
        "log_loss": "log loss",
    },
    "regression": {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "r2": "R2"},
    "ranking": {
        "mrr": "MRR",
        "ndcg": "NDCG",
        "ndcg_at_5": "NDCG@5",
        "ndcg_at_10": "NDCG@10",
        "map": "MAP",
    },
}
"""The scores that the terminal shows for each type of target, and their names there; metrics.json has all of them."""

# The two baselines, by the type of the target of the selection metric; `mean`: of all targets.
SIMPLEST = {
    "class": "most frequent class",
    "ordinal": "median level",
    "multilabel": "most frequent labels",
    "regression": "training mean",
    "ranking": "same score for all rows",
    "mean": "constant predictions",
}
PROBES = dict.fromkeys(("class", "ordinal", "multilabel"), "balanced linear probe")
PROBES["mean"] = "linear probe of each target"

NAMED = 5  # classes in a line
COLUMNS = {"precision": "precision", "recall": "recall", "f1": "f1", "ap": "AP"}


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """A headline, then the scores of each target, class by class where it has classes. With test rows these come first,
    the validation rows second.

    `metrics` is as in metrics.json; intervals, if any, follow the scores: `macro F1 0.7512 [0.710, 0.793]`. Where there
    is none, a dash stands in its place, and the reason below.
    """
    if "test" not in metrics:
        lines = [*_headline_lines(metrics), *_inference_lines(metrics), *_selection_lines(metrics)]
        return "\n".join([*lines, *_target_lines(metrics)])
    test = metrics["test"]
    lines = [*_headline_lines(test, "test: "), *_inference_lines(test), *_target_lines(test)]
    if metrics["value"] is None:  # no validation rows
        return "\n".join(lines)
    lines += [
        "",
        *_headline_lines(metrics, "validation: "),
        *_inference_lines(metrics),
        *_selection_lines(metrics),
        *_target_lines(metrics),
    ]
    return "\n".join(lines)


def _headline_lines(metrics: Mapping[str, Any], title: str = "") -> list[str]:
    """The headline, and why it has no interval where no line below says so: those of a target do for its own scores."""
    note = headline_note(metrics)
    is_said_below = not is_combined(metrics["metric"]) and not class_score(split_metric(metrics["metric"])[1])
    return [f"{title}{headline_text(metrics)}", *([] if is_said_below or not note else _wrapped(note))]


def _selection_lines(metrics: Mapping[str, Any]) -> list[str]:
    text = selection_text(split_metric(metrics["metric"])[1], metrics.get("selection") or {})
    return [text] if text else []


def _inference_lines(metrics: Mapping[str, Any]) -> list[str]:
    text = inference_text(metrics.get("inference") or {})
    return [text] if text else []


def headline_text(metrics: Mapping[str, Any]) -> str:
    """`macro_f1 0.7512 [0.710, 0.793] on 250 rows`: the metric that selects, its interval if any, and its rows; for the
    mean of several targets, also what each of them enters it with."""
    if is_combined(metrics["metric"]):
        value = score_text(metrics["metric"], metrics["value"], withheld="no_interval" in metrics)
        parts = ", ".join(f"{part} {score:.4f}" for part, score in metrics["parts"].items())
        return f"{metrics['metric']} {value} on {metrics['samples']} rows: {parts}"
    name, scores = _headline_scores(metrics)
    interval = scores.get("intervals", {}).get(name)
    value = score_text(name, metrics["value"], interval, withheld=name in scores.get("no_interval", {}))
    return f"{metrics['metric']} {value} on {metrics['samples']} rows"


def headline_note(metrics: Mapping[str, Any]) -> str:
    """What the dash in `headline_text` means, and why it is there; empty where there is none."""
    if is_combined(metrics["metric"]):
        reason = metrics.get("no_interval", {}).get(metrics["metric"])
    else:
        name, scores = _headline_scores(metrics)
        has_interval = name in scores.get("intervals", {})
        reason = None if has_interval else scores.get("no_interval", {}).get(name)
    return f"[{NO_INTERVAL}]: no 95% interval: {reason}" if reason else ""


def _headline_scores(metrics: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The name of the metric that selects, and the scores that have it with its interval."""
    target, name = split_metric(metrics["metric"])
    by_target = _by_target(metrics)
    scores = by_target[target] if target else next(iter(by_target.values()))
    if name.endswith(AT_PRIOR):
        name = name.removesuffix(AT_PRIOR)
        scores = scores["at_prior"]
    if of_class := class_score(name):
        name, label = of_class
        scores = next(row for row in scores["per_class"] if row["label"] == label)
    return name, scores


def _by_target(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of each target, and of the joint class if there is one."""
    return dict(metrics["targets"]) | ({"joint": metrics["joint"]} if "joint" in metrics else {})


def _target_lines(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, scores in _by_target(metrics).items():
        lines += [
            "",
            *_score_lines(name, scores),
            *_absent_lines(scores),
            *_reason_lines(scores),
            *_class_lines(scores.get("per_class", []), has_ap=scores["type"] == "multilabel"),
        ]
    return lines


def _score_lines(name: str, scores: Mapping[str, Any]) -> list[str]:
    """`name: macro F1 0.7512, accuracy ..`, broken between scores into lines of at most WIDTH columns."""
    if not scores["samples"]:
        return [f"{name}: no row with a known value"]

    # A ranking also has the number of its queries.
    intervals = scores.get("intervals", {})
    withheld = scores.get("no_interval", {})
    items = [
        f"{shown} {score_text(key, scores[key], intervals.get(key), withheld=key in withheld)}"
        for key, shown in SHOWN[scores["type"]].items()
        if key in scores
    ]
    items += [
        f"{key} {score_text(key, value)}" for key, value in scores.get("own", {}).items() if value is not None
    ]
    if "queries" in scores:
        items.append(f"{scores['queries']} queries")
        if left_out := scores["queries_without_relevant"]:
            items.append(f"{left_out} more without a relevant row")

    # The same scores at other class shares, and with weights of the rows.
    for part, suffix in (("at_prior", "at prior"), ("row_weighted", "with row weights")):
        others = scores.get(part, {})
        intervals = others.get("intervals", {})
        withheld = others.get("no_interval", {})
        items += [
            f"{shown} {suffix} {score_text(key, others[key], intervals.get(key), withheld=key in withheld)}"
            for key, shown in SHOWN[scores["type"]].items()
            if key in others
        ]

    # A line has room for an item, and for a comma at its own end or before it.
    lines = [f"{name}: {items[0]}"]
    for item in items[1:]:
        if display_width(lines[-1]) + 3 + len(item) > WIDTH:
            lines[-1] += ","
            lines.append(f"  {item}")
        else:
            lines[-1] += f", {item}"
    return lines


def absent_classes(metrics: Mapping[str, Any]) -> list[str]:
    """For each target with classes that have no row, which these are, and the macro F1 of the others."""
    return [
        f"{name}: no rows of {len(scores['absent'])} of {len(scores['per_class'])} classes"
        f" ({_named(scores['absent'])}), which count as F1 0 in the macro F1 of {scores['macro_f1']:.4f}; over the"
        f" classes with rows it is {scores['macro_f1_present']:.4f} (macro_f1_present)"
        for name, scores in _by_target(metrics).items()
        if scores.get("absent")
    ]


def _absent_lines(scores: Mapping[str, Any]) -> list[str]:
    absent = scores.get("absent")
    if not absent:
        return []
    present = len(scores["per_class"]) - len(absent)
    return _wrapped(
        f"no row of {_named(absent)}, counted as F1 0; macro F1 of the {present} other"
        f" {'classes' if present > 1 else 'class'} {scores['macro_f1_present']:.4f}"
    )


def _named(labels: Sequence[str]) -> str:
    """The labels, or the first NAMED of them and the number of the others."""
    more = len(labels) - NAMED
    return ", ".join(labels[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _reason_lines(scores: Mapping[str, Any]) -> list[str]:
    """`no interval for macro F1: ...`, for the scores that are shown, at the class shares of the rows or others."""
    shown = SHOWN[scores["type"]]
    names: dict[str, list[str]] = {}
    for suffix, part in (("", scores), (" at prior", scores.get("at_prior", {}))):
        for key, reason in part.get("no_interval", {}).items():
            if key in shown:
                names.setdefault(reason, []).append(f"{shown[key]}{suffix}")
    return [
        line
        for reason, scores_of in names.items()
        for line in _wrapped(f"no interval for {', '.join(scores_of)}: {reason}")
    ]


def _wrapped(text: str) -> list[str]:
    """Lines of at most WIDTH columns, indented."""
    lines = [" "]
    for word in text.split(" "):
        if len(lines[-1]) > 1 and display_width(f"{lines[-1]} {word}") > WIDTH:
            lines.append("   ")
        lines[-1] += f" {cut(word, WIDTH - 4)}"
    return lines


def _class_lines(rows: list[dict[str, Any]], has_ap: bool) -> list[str]:
    """A table with a row per class: its label, cut to fit WIDTH, its scores, with intervals if any, and its number of
    rows. `has_ap`: with average precision, which is what labels are often judged by."""
    if not rows:
        return []

    # Labels get what the columns of scores and the number of rows leave. Average precision has no interval.
    has_intervals = "intervals" in rows[0]
    widths = {
        column: (16 if column != "ap" else 5) if has_intervals else 9
        for column in COLUMNS
        if column in rows[0] and (has_ap or column != "ap")
    }
    support_width = max(5, *(len(str(row["support"])) for row in rows))
    label_room = WIDTH - 2 - sum(2 + width for width in widths.values()) - 2 - support_width
    labels = [cut(row["label"], label_room) for row in rows]
    label_width = max(display_width(label) for label in labels)

    # With intervals the names stand above the scores, which begin each column.
    side = "<" if has_intervals else ">"
    head = "".join(f"  {COLUMNS[column]:{side}{width}}" for column, width in widths.items())
    lines = [f"  {'':<{label_width}}{head}  {'rows':>{support_width}}"]
    for row, label in zip(rows, labels, strict=True):
        values = "".join(f"  {_class_cell(row, column):>{width}}" for column, width in widths.items())
        padded_label = label + " " * (label_width - display_width(label))
        lines.append(f"  {padded_label}{values}  {row['support']:>{support_width}}")
    return lines + _class_reasons(rows)


def _class_cell(row: Mapping[str, Any], column: str) -> str:
    """`0.7512` without intervals, else `0.751 [.51, .93]`."""
    if "intervals" not in row:
        return f"{row[column]:.4f}"
    if column == "ap":
        return f"{row[column]:.3f}"
    interval = row["intervals"].get(column)
    return f"{row[column]:.3f} {short_interval(interval) if interval else NO_INTERVAL:<10}"


def _class_reasons(rows: list[dict[str, Any]]) -> list[str]:
    """What the dashes in the table mean."""
    reasons = dict.fromkeys(reason for row in rows for reason in row.get("no_interval", {}).values())
    return _wrapped(f"{NO_INTERVAL} no interval: {' / '.join(reasons)}") if reasons else []
