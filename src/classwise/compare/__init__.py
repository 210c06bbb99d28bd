"""Comparisons of variants of one config: `compare`, and `grid` for all combinations of some keys' values."""

from classwise.compare.plan import Variant, grid
from classwise.compare.result import Comparison, Result
from classwise.compare.run_all import compare, print_table

__all__ = ["Comparison", "Result", "Variant", "compare", "grid", "print_table"]
