"""classwise trains and runs image classifiers where every class counts.

    import classwise

    run = classwise.train("my_images")          # a folder with one sub-folder per class, a table, or a config
    run.metrics["value"], run.predict("folder of images")

The names below are imported when they are first used, because importing torch takes seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

from classwise.version import __version__

if TYPE_CHECKING:
    from classwise.config.load import load_config as load_config
    from classwise.config.load import make_config as make_config
    from classwise.config.schema import Config as Config
    from classwise.errors import ClasswiseError as ClasswiseError
    from classwise.integrations.hub import from_hub as from_hub
    from classwise.integrations.hub import push_to_hub as push_to_hub
    from classwise.integrations.sklearn import ClasswiseClassifier as ClasswiseClassifier
    from classwise.kfold.api import Folds as Folds
    from classwise.kfold.api import folds as folds
    from classwise.kfold.api import resume as resume
    from classwise.kfold.checked import check as check
    from classwise.kfold.loading import load as load
    from classwise.run.api import Run as Run
    from classwise.run.api import train as train
    from classwise.suggest.config import init as init

_MODULE_OF = {
    "ClasswiseClassifier": "integrations.sklearn",
    "ClasswiseError": "errors",
    "Config": "config.schema",
    "Folds": "kfold.api",
    "Run": "run.api",
    "check": "kfold.checked",
    "folds": "kfold.api",
    "from_hub": "integrations.hub",
    "init": "suggest.config",
    "load": "kfold.loading",
    "load_config": "config.load",
    "make_config": "config.load",
    "push_to_hub": "integrations.hub",
    "resume": "kfold.api",
    "train": "run.api",
}
__all__ = [
    "ClasswiseClassifier",
    "ClasswiseError",
    "Config",
    "Folds",
    "Run",
    "__version__",
    "check",
    "folds",
    "from_hub",
    "init",
    "load",
    "load_config",
    "make_config",
    "push_to_hub",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"classwise.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'classwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
