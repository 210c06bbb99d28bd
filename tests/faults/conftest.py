"""Figures and their quick tests start from the same drawn data, states and commands as the other tests."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "end_to_end"), str(TESTS / "training")]
