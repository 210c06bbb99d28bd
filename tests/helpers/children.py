"""Child processes of the tests: they find the package `tests` where this process does."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment for a child that imports from `tests`, with `changes`; one thread, as the tests."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | changes
