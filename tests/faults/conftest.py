"""Figures and their quick tests start from the same drawn data and commands as the end-to-end tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "end_to_end"))
