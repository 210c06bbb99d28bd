"""The simulations of `benchmarks/honesty.py`: one module for each kind of number that classwise reports."""
