"""classwise trains and runs image classifiers where every class counts.

    import classwise

    run = classwise.train("classwise.toml")
    run.metrics["value"], run.predict("folder of pictures")

The names below are imported when they are first used, since torch takes seconds.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from classwise.version import __version__

if TYPE_CHECKING:
    from classwise.config import Config as Config
    from classwise.config_file import load_config as load_config
    from classwise.config_file import make_config as make_config
    from classwise.errors import ClasswiseError as ClasswiseError
    from classwise.run import Run as Run
    from classwise.run import resume as resume
    from classwise.run import train as train

_WHERE = {
    "ClasswiseError": "errors",
    "Config": "config",
    "Run": "run",
    "load_config": "config_file",
    "make_config": "config_file",
    "resume": "run",
}
__all__ = ["ClasswiseError", "Config", "Run", "__version__", "load_config", "make_config", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"classwise.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'classwise' has no attribute {name!r}")


class _Verb(ModuleType):
    """`classwise.train` is the sub-package with the loop, and to a caller the verb: both names are contracts."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `classwise.run.train`."""
        return importlib.import_module("classwise.run").train(*arguments, **options)


if not TYPE_CHECKING:
    importlib.import_module("classwise.train").__class__ = _Verb


def __dir__() -> list[str]:
    return sorted(__all__)
