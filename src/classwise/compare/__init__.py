"""Comparisons of variants of one config: `compare`, and `grid` for all combinations of some keys' values."""

from classwise.compare.result import Comparison, Result
from classwise.compare.run_all import compare, print_table
from classwise.compare.variants import Variant, grid

__all__ = ["Comparison", "Result", "Variant", "compare", "grid", "print_table"]
