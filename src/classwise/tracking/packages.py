"""Which trackers there are, and whether what they need is installed."""

import importlib.util
from collections.abc import Sequence

from classwise.errors import ConfigError

PACKAGES = {
    "tensorboard": ("tensorboard", "resvg_py"),
    "mlflow": ("mlflow", "resvg_py"),
    "wandb": ("wandb", "resvg_py"),
    "csv": (),
}
"""The packages of each tracker; resvg_py draws the confusion matrix."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError where the package of a tracker is not installed. Nothing is imported: that takes seconds."""
    for name in names:
        for package in PACKAGES[name]:
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"report.trackers: found {name!r}, which needs the package {package}; pip install"
                    ' "classwise[trackers]"'
                )
