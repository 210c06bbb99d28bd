"""The faults that planted_faults.py plants, one module for each part of the package."""

from planted import learning, results, runs
from planted.fault import Fault

FAULTS: tuple[Fault, ...] = (*runs.FAULTS, *learning.FAULTS, *results.FAULTS)
