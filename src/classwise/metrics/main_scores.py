"""The main score of each type of target. This module imports nothing: `classwise watch` is there at once."""

MAIN_SCORES = {
    "class": "macro_f1",
    "ordinal": "macro_f1",
    "multilabel": "macro_f1",
    "regression": "r2",
    "ranking": "ndcg",
}
"""What a target of each type enters the mean of all targets with."""
