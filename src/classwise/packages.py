"""Packages that not every user needs, by the extras of pyproject.toml."""

import importlib

from classwise.errors import ModelError, first_line


def require_packages(what: str, extra: str, *packages: str) -> None:
    """Raises ModelError where one of the `packages` that `what` needs cannot be imported; `extra` brings them."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ModelError(
                f"{what}: the package {package} cannot be imported ({first_line(error)});"
                f' pip install "classwise[{extra}]"'
            ) from None
