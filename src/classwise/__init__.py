"""classwise trains and runs image classifiers where every class counts."""

__version__ = "0.1.0"
