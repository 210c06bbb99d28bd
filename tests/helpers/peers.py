"""Tests that need another framework: skipped, with the reason, where it is not installed."""

import importlib.util
import os

import pytest


def needs(*packages: str, extra: str) -> pytest.MarkDecorator:
    """A mark for tests of an extra. In CI, which installs all extras that `test` names, they fail instead of being
    skipped: .ci/run sets the variable."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    skipped = bool(missing) and not os.environ.get("CI")
    return pytest.mark.skipif(skipped, reason=f"needs {', '.join(missing)}: pip install '.[{extra}]'")
