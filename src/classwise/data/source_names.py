"""What the name alone says of a source of images, without polars and numpy: the suffixes of tables and shards, and
whether it is a pattern."""

from pathlib import Path

from classwise.files import is_address

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
SHARD_SUFFIXES = (".parquet", ".tar", ".zip")
PATTERN_SIGNS = "*?["
"""Those of the shell; shards may have braces as well."""


def is_pattern(text: str) -> bool:
    """Whether a path stands for several; a file of this very name is itself, and a server that is asked by HTTP
    lists no files."""
    signs = "{" if text.startswith("http") and is_address(text) else PATTERN_SIGNS + "{"
    return any(sign in text for sign in signs) and not Path(text).exists()
