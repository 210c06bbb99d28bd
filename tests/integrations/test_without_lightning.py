"""The integrations where their package is not installed."""

import importlib
import sys

import pytest

from classwise.errors import ModelError


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks pytorch-lightning reads which command installs it."""
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "classwise.integrations.lightning", raising=False)
    with pytest.raises(ModelError, match=r'pytorch-lightning.*pip install "classwise\[lightning\]"'):
        importlib.import_module("classwise.integrations.lightning")
