"""The version, apart from the package's public names so that every layer may say it."""

__version__ = "0.2.0.dev0"
