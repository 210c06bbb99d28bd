"""timm: a clear message where it cannot be imported."""

import builtins
from typing import Any

import pytest

from classwise.errors import ModelError
from classwise.model.timm_module import import_timm


def test_torch_and_torchvision_that_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """`operator torchvision::nms does not exist` becomes a message with the pip command."""
    _fail_import_of(monkeypatch, "timm", RuntimeError("operator torchvision::nms does not exist"))
    with pytest.raises(ModelError, match=r"do not match.*pip install --force-reinstall torch torchvision"):
        import_timm()


def test_a_missing_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImportError becomes a ModelError; any other RuntimeError is passed on."""
    _fail_import_of(monkeypatch, "timm", ImportError("No module named 'timm'"))
    with pytest.raises(ModelError, match=r"timm cannot be imported: .*pip install timm torchvision"):
        import_timm()
    _fail_import_of(monkeypatch, "timm", RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        import_timm()


def _fail_import_of(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    before = builtins.__import__

    def failing(name: str, *rest: Any, **options: Any) -> Any:
        if name == package:
            raise error
        return before(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", failing)
