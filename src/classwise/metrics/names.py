"""Names of scores: `macro_f1`, `age.macro_f1` of a target, `age.f1[old]` of one of its classes, `age.worst_f1` of its
worst class, and shares of several, as in `0.7*macro_f1 + 0.3*f1[old]`.
"""

import re
from collections.abc import Mapping, Sequence

from classwise.config.duplicates import find_duplicate
from classwise.errors import ConfigError, nearest
from classwise.metrics.mean import MEAN, is_mean
from classwise.metrics.scores import AT_PRIOR, HIGHER_IS_BETTER, LABEL_SCORES, SCORES, TOP, is_own_metric

ALIASES = {
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "pr_auc": "average_precision",
    "ap": "average_precision",
}
"""Other names of scores that selection.metric may use."""

RANKED_SCORES = ("roc_auc", "average_precision")
"""Scores of class targets that depend on the order of all rows."""
RANKED_OF_CLASS = ("ap", "roc_auc")
"""Those of a single class."""

CLASS_SCORES = {
    "class": ("f1", "precision", "recall", "ap", "roc_auc"),
    "ordinal": ("f1", "precision", "recall", "ap", "roc_auc"),
    "multilabel": ("f1", "precision", "recall", "ap", "roc_auc"),
    "joint": ("f1", "precision", "recall"),
}
"""Scores of a single class, by the type of its target: `f1[LABEL]`."""

WORST = {"worst_f1": "f1", "worst_recall": "recall", "worst_precision": "precision"}
"""The lowest score of any class that has rows, and which score of the classes it is."""

_OF_CLASS = re.compile(r"(?P<score>\w+)\[(?P<label>.*)\]", re.DOTALL)
_TERM = re.compile(r"(?P<share>\d*\.?\d+)\s*\*\s*(?P<metric>\S.*)", re.DOTALL)
_BETWEEN_TERMS = re.compile(r"\s*\+\s*(?=\d*\.?\d+\s*\*)")
LISTED = 11  # scores in a message
LESSER = ("weighted_", "micro_", "macro_p", "macro_r", "top", "calibration", "worst_p", "worst_r")
TOLERANCE = 1e-6  # by which shares may miss a sum of 1


def split_metric(metric: str) -> tuple[str, str]:
    """The target, empty where none is named, and its score: `age.f1[3.5]` is of `age`, `f1[3.5]`. A mean and a sum of
    shares are of no single target."""
    if is_sum(metric):
        return "", metric
    name, bracket, label = metric.partition("[")
    target, _, score = name.rpartition(".")
    return target, score + bracket + label


def is_sum(metric: str) -> bool:
    """Whether a metric is made of shares: `0.7*macro_f1 + 0.3*worst_f1`."""
    return _TERM.fullmatch(metric.strip()) is not None


def is_combined(metric: str) -> bool:
    """Whether a metric is made of several scores: the mean of all targets, or shares."""
    return is_mean(metric) or is_sum(metric)


def terms_of(metric: str) -> list[tuple[float, str]]:
    """The shares and scores of a sum; any other metric is its only term."""
    if not is_sum(metric):
        return [(1.0, metric)]
    terms = []
    for text in _BETWEEN_TERMS.split(metric.strip()):
        match = _TERM.fullmatch(text)
        assert match is not None
        terms.append((float(match["share"]), match["metric"].strip()))
    return terms


def class_score(score: str) -> tuple[str, str] | None:
    """`f1[old]` as (`f1`, `old`); None for the score of a whole target."""
    match = _OF_CLASS.fullmatch(score)
    return None if match is None else (match["score"], match["label"])


def ranked_targets(metric: str) -> set[str]:
    """The targets of those terms of a metric that depend on the order of all rows; empty text for the only target."""
    targets = set()
    for _, term in terms_of(metric):
        target, score = split_metric(term)
        of_class = class_score(score)
        if score in RANKED_SCORES or (of_class is not None and of_class[0] in RANKED_OF_CLASS):
            targets.add(target)
    return targets


def higher_is_better(metric: str) -> bool:
    """Whether higher is better for a metric, with or without the name of a target, as in `age.mae`. Of one of the
    user's own it is (own.py).

    Raises ValueError for text that no metric is named by.
    """
    if is_sum(metric):
        return True  # anything else is refused as a term
    score = split_metric(metric)[1].removesuffix(AT_PRIOR)
    if class_score(score) is not None or score in WORST:
        return True
    score = ALIASES.get(score, score)
    if is_own_metric(score):
        return True
    if score not in HIGHER_IS_BETTER:
        raise ValueError(f"found the metric {metric!r}; {nearest(score, HIGHER_IS_BETTER)}")
    return HIGHER_IS_BETTER[score]


def resolve_metric(
    metric: str,
    types: Mapping[str, str],
    joint: bool,
    classes: Mapping[str, int] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    own: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The full name of what `selection.metric` refers to, as `score_of` (collection.py) takes it.

    `types`: the type of every target. `classes`: the numbers of classes of those that have classes, so that a top-k
    accuracy of k classes or fewer is refused. `labels`: their label lists, and that of `joint`, so that an unknown
    label is refused. `own`: the names of the user's own metrics of each target. Raises ConfigError for a metric that
    no target has, an unknown target, and a metric without a target's name if there are several targets and no joint
    class; for `mean`, which is of several targets, if there is only one; and for shares that do not add up to 1.
    """
    if not is_sum(metric):
        return _resolve_single(metric, types, joint, classes, labels, own or {})
    terms = [
        (share, _resolve_single(term, types, joint, classes, labels, own or {}))
        for share, term in terms_of(metric)
    ]
    total = sum(share for share, _ in terms)
    if abs(total - 1) > TOLERANCE or any(share <= 0 for share, _ in terms):
        raise ConfigError(
            f"selection.metric: found {metric!r}, whose shares add up to {total:g}; allowed: positive shares that add"
            " up to 1, such as 0.7*macro_f1 + 0.3*worst_f1"
        )
    if (duplicate := find_duplicate(term for _, term in terms)) is not None:
        raise ConfigError(
            f"selection.metric: found {duplicate!r} in two terms of {metric!r}; allowed: one share of each score"
        )
    for _, term in terms:
        if is_mean(term) or not higher_is_better(term):
            raise ConfigError(
                f"selection.metric: found {metric!r}, but of {term!r} "
                + ("no share is taken" if is_mean(term) else "lower is better")
                + "; allowed in shares: scores of one target, of which higher is better"
            )
    return " + ".join(f"{share:g}*{term}" for share, term in terms)


def _resolve_single(
    metric: str,
    types: Mapping[str, str],
    joint: bool,
    classes: Mapping[str, int] | None,
    labels: Mapping[str, Sequence[str]] | None,
    own: Mapping[str, Sequence[str]],
) -> str:
    """`resolve_metric` for a metric that is no sum."""
    if metric == MEAN and len(types) > 1:
        return MEAN
    target, found = split_metric(metric)
    of_class = class_score(found)
    name = of_class[0] if of_class else ALIASES.get(found, found)
    scores = {
        key: _scores_of(type, (classes or {}).get(key), of_class is not None) for key, type in types.items()
    }
    if not of_class:
        scores = {key: (*own.get(key, ()), *names) for key, names in scores.items()}
    if joint:
        scores["joint"] = CLASS_SCORES["joint"] if of_class else (*LABEL_SCORES, *WORST)

    # A name that nothing has, and a target that does not exist.
    suffix = f"[{of_class[1]}]" if of_class else ""
    allowed = [f"{key}.{name}{suffix}" for key, names in scores.items() if name in names]
    if not allowed:
        raise ConfigError(_no_such_score(metric, name, types, scores))
    if target and target not in scores:
        raise ConfigError(f"selection.metric: no target {target!r}; {nearest(metric, allowed)}")

    # Without a target's name, the joint class or the only target is meant; of the user's own metrics, which the joint
    # class has none of, the only target that has it.
    if not target and len(with_it := [key for key, names in own.items() if name in names]) == 1:
        target = with_it[0]
    if not target:
        target = "joint" if joint else next(iter(types)) if len(types) == 1 else ""
    if not target:
        raise ConfigError(
            f"selection.metric: {metric!r} of which target? There are several and no [joint]; allowed:"
            f" {', '.join(allowed)}, {MEAN} (of all targets' main scores, the default)"
        )
    if name not in scores[target]:
        what = "[joint]" if target == "joint" else f"the {types[target]} target {target!r}"
        raise ConfigError(
            f"selection.metric: {name!r} is not a score of {what}; allowed: {', '.join(allowed)},"
            f" or of {what}: {_listed(scores[target])}"
        )
    if of_class and labels is not None and of_class[1] not in labels[target]:
        raise ConfigError(
            f"selection.metric: {target} has no label {of_class[1]!r}; {nearest(of_class[1], labels[target])}"
        )
    # Average precision over labels has been called `map` from the start.
    name = "map" if name == "average_precision" and types.get(target) == "multilabel" else name
    name += suffix
    return name if len(types) == 1 and target != "joint" else f"{target}.{name}"


def _no_such_score(
    metric: str, name: str, types: Mapping[str, str], scores: Mapping[str, Sequence[str]]
) -> str:
    """The message for a score that nothing has."""
    all_scores = list(dict.fromkeys(score for names in scores.values() for score in names))
    if metric == MEAN:
        return (
            f"selection.metric: found {MEAN!r}, which is of several targets, and there is only one; allowed:"
            f" {_listed(all_scores)}"
        )
    all_scores += [MEAN] if len(types) > 1 else []
    hint = nearest(name, all_scores)
    return f"selection.metric: found {metric!r}; " + (
        hint if hint.startswith("did") else f"allowed: {_listed(all_scores)}"
    )


def _listed(names: Sequence[str]) -> str:
    """The names, or the main ones of many."""
    if len(names) <= LISTED:
        return ", ".join(names)
    main = [name for name in names if not name.startswith(LESSER)]
    return f"{', '.join(main)}, ... ({len(names)} in all: docs/guide/metrics.md)"


def _scores_of(type: str, classes: int | None, of_class: bool) -> tuple[str, ...]:
    """The scores of a target of this type, without the top-k accuracies that would always be 1; or those `of_class`, of
    one of its classes."""
    if of_class:
        return CLASS_SCORES.get(type, ())
    names = SCORES[type] + (tuple(WORST) if type in CLASS_SCORES else ())
    if type == "multilabel":
        names = (*names, "average_precision")
    return tuple(name for name in names if classes is None or TOP.get(name, 0) < classes)
