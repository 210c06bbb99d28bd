"""The names of the columns of predictions, which the data is checked against before anything heavy is imported."""

from collections.abc import Sequence

from classwise.metrics.confusion import MOST_WRITTEN_OUT

TOP = 5
"""The most probable labels that are written of a target with many classes."""


def probability_columns(name: str, labels: Sequence[str], type: str) -> list[str]:
    """The names of the columns of probabilities that `predictions_table` may write for a target."""
    in_full = [f"{name}_p_{label}" for label in labels]
    if type not in ("class", "ordinal") or len(labels) <= MOST_WRITTEN_OUT:
        return in_full
    ranks = range(1, TOP + 1)
    top = [column for rank in ranks for column in (f"{name}_top{rank}", f"{name}_top{rank}_p")]
    return [*in_full, f"{name}_p", f"{name}_true_p", *top]
