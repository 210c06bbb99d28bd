"""The types of target as the page presents them."""

from dataclasses import dataclass

MOST_CLASSES = 40  # shown in full; of more, the weakest and the most confused


@dataclass(frozen=True)
class Kind:
    """A type of target: its heading, what one and several of its parts are called (empty where it has none), and the
    scores of its overview, as many as fit on a phone."""

    heading: str
    noun: str
    nouns: str
    main_scores: tuple[str, ...]


KINDS = {
    "class": Kind(
        "Classification",
        noun="class",
        nouns="classes",
        main_scores=("macro_f1", "balanced_accuracy", "accuracy"),
    ),
    "ordinal": Kind(
        "Ordinal classification",
        noun="level",
        nouns="levels",
        main_scores=("macro_f1", "mae_levels", "quadratic_kappa"),
    ),
    "multilabel": Kind(
        "Multilabel classification",
        noun="label",
        nouns="labels",
        main_scores=("macro_f1", "map", "exact_match"),
    ),
    "regression": Kind("Regression", noun="", nouns="", main_scores=("mae", "rmse", "r2")),
    "ranking": Kind("Ranking", noun="", nouns="", main_scores=("ndcg", "mrr", "map")),
}
