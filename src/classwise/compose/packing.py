"""`pack`: the rows of a config, a table or a folder as shards."""

from dataclasses import dataclass
from pathlib import Path

from classwise.compose.dataset import read_sources
from classwise.config.load import load_config
from classwise.console import Console
from classwise.data.images import MAX_PIXELS
from classwise.data.pack_shards import pack
from classwise.data.sources import Samples, read_source
from classwise.errors import ConfigError, OutputError

MEGABYTE = 1_000_000
LARGEST_SHARD = 2_000
"""Megabytes of a shard, which is put together in memory."""


@dataclass(frozen=True)
class Packed:
    """The shards that were made, of how many images; `text` says so."""

    shards: tuple[Path, ...]
    images: int
    text: str


def pack_source(
    source: Path,
    out: Path,
    kind: str = "parquet",
    megabytes: int = 256,
    path: str | None = None,
    images: Path | None = None,
    quiet: bool = False,
) -> Packed:
    """Write the rows of a config's data.source, of a table, a folder or other shards as shards of a `kind`
    (parquet, tar, zip) with about that many `megabytes` of images each into a new folder. `path`, `images`: of a
    table, its column of paths and the folder that they are relative to. Raises ConfigError, DataError,
    OutputError."""
    if not 1 <= megabytes <= LARGEST_SHARD:
        raise OutputError(f"--shard-mb: found {megabytes}; allowed: 1 to {LARGEST_SHARD:,}")
    samples, column, max_pixels = _rows(source, path, images)
    console = Console(quiet=quiet)
    for note in samples.notes:
        console.line(f"warning: {note}")
    shards = pack(
        samples,
        path_column=column,
        out=out,
        kind=kind,
        shard_bytes=megabytes * MEGABYTE,
        max_pixels=max_pixels,
        progress=lambda rows: console.bar(rows, "packing images"),
    )
    size = sum(shard.stat().st_size for shard in shards)
    files = f"{len(shards)} shard{'' if len(shards) == 1 else 's'}"
    return Packed(
        tuple(shards), len(samples), f"{len(samples)} images in {files}, {size / 1e6:,.1f} MB: {out}"
    )


def _rows(source: Path, path: str | None, images: Path | None) -> tuple[Samples, str, int]:
    """The rows of a source, the column with their paths, and how many pixels an image may have."""
    if source.suffix.lower() == ".toml":
        for option, given in {"--path": path, "--images": images}.items():
            if given is not None:
                raise ConfigError(
                    f"{option}: found with a config, which says it (data{option.replace('--', '.')})"
                )
        config = load_config(source)
        samples, _ = read_sources(config)
        return samples, config.data.path, config.data.max_pixels
    column = path or "path"
    folder = images or source.parent
    return read_source(source, folder, path=column, id=None, group=None), column, MAX_PIXELS
