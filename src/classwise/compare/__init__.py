"""Comparisons: `compare` trains variants of one config, with `grid` for all combinations of some keys' values;
`compare_runs` puts finished runs side by side, paired by row."""

from classwise.compare.result import Comparison, Result
from classwise.compare.run_all import compare, print_table
from classwise.compare.runs import RunComparison, compare_runs
from classwise.compare.variants import Variant, grid

__all__ = [
    "Comparison",
    "Result",
    "RunComparison",
    "Variant",
    "compare",
    "compare_runs",
    "grid",
    "print_table",
]
