"""The faults that planted_faults.py plants, one module for each part of the package."""

from planted import leaks, learning, results, runs
from planted.fault import Fault

FAULTS: tuple[Fault, ...] = (*runs.FAULTS, *leaks.FAULTS, *learning.FAULTS, *results.FAULTS)
