"""Which trackers there are, and whether what they need is installed."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from classwise.errors import ConfigError

PACKAGES = {
    "tensorboard": ("tensorboard", "resvg_py"),
    "mlflow": ("mlflow", "resvg_py"),
    "wandb": ("wandb", "resvg_py"),
    "csv": (),
}
"""The packages of each tracker; resvg_py draws the confusion matrix."""

DATABASES = ("sqlite:", "mysql", "postgresql", "mssql")


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError where the package of a tracker is not installed. Nothing is imported: that takes seconds."""
    for name in names:
        for package in PACKAGES[name]:
            if not _is_installed(package):
                raise ConfigError(
                    f"report.trackers: found {name!r}, which needs the package {package}; pip install"
                    ' "classwise[trackers]"'
                )
    if "mlflow" in names and _mlflow_needs_database() and not _is_installed("sqlalchemy"):
        raise ConfigError(
            "report.trackers: found 'mlflow' without the address of a server. Set MLFLOW_TRACKING_URI to it, or pip"
            " install mlflow, which can write into a database of its own; mlflow-skinny, which is installed, cannot"
        )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _mlflow_needs_database() -> bool:
    """Whether MLflow's runs go into a database; it is its default where there is no folder mlruns of an older one."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address:
        return not Path("mlruns").is_dir()
    return address.startswith(DATABASES)
