"""Tests that need another framework: skipped, with the reason, where it is not installed."""

import importlib.util

import pytest


def needs(*packages: str, extra: str) -> pytest.MarkDecorator:
    """A mark for tests of an extra. .ci/run installs all that `.[test]` names, so there nothing is skipped."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: pip install '.[{extra}]'")
