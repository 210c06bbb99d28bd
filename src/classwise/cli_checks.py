"""What commands refuse before they import torch, which takes seconds: wrong keys, files that are missing, files that
are in the way. Whatever is not found here is found later, by the command itself; several processes, which have to
refuse together, check nothing here."""

import os
from collections.abc import Sequence
from pathlib import Path

from classwise.data.source_names import SHARD_SUFFIXES, TABLE_SUFFIXES, is_pattern
from classwise.errors import ConfigError, DataError
from classwise.files import is_address


def check_config(config: Path, overrides: Sequence[tuple[str, str]]) -> None:
    """Read the config file, or the one in the folder of images, with the options in place; of another source of images,
    only that it is there and that the options are keys. Raises ConfigError."""
    if _is_one_of_several():
        return
    if (config / "classwise.toml").is_file() and not (config / "status.json").is_file():
        config = config / "classwise.toml"
    if config.suffix.lower() == ".toml" and not config.is_dir():
        _check_file(config, overrides)
    elif _is_source(config):
        _check_options(overrides)
    elif not config.exists():
        raise ConfigError(f"there is no file or folder {config}")


def _check_file(path: Path, overrides: Sequence[tuple[str, str]]) -> None:
    from classwise.config.conflicts import check_conflicts
    from classwise.config.load import load_config
    from classwise.tracking.packages import check_trackers

    config = load_config(path, overrides)
    check_trackers(config.report.trackers)
    # Raises for keys that cannot go together; its warnings are said by the command itself.
    list(check_conflicts(config))


def _check_options(overrides: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError for an option that is no key of a table; those of targets depend on the data."""
    from classwise.config.keys import dotted_keys, keys_elsewhere
    from classwise.config.load import RENAMED

    for key, _ in overrides:
        if key.startswith("targets.") or key in RENAMED or _is_key(key, dotted_keys()):
            continue
        meant = " or ".join(f"--{name}" for name in keys_elsewhere(key, within=True))
        hint = f"did you mean {meant}?" if meant else "`classwise keys` lists all"
        raise ConfigError(f"--{key}: no such key; {hint}")


def _is_key(key: str, keys: Sequence[str]) -> bool:
    """Whether this is a key, or within one whose value is a table or a list."""
    tables = {other.rpartition(".")[0] for other in keys}
    return key in keys or any(key.startswith(f"{other}.") for other in keys if other not in tables)


def check_new_run(run: Path | None) -> None:
    """Raise OutputError where the folder of a new run has something in it."""
    if run is not None and run.exists() and not _is_one_of_several():
        from classwise.run.folder import require_unused

        require_unused(run)


def check_run(run: Path) -> None:
    """Raise CheckpointError where the folder is no run and no folds."""
    if not _is_one_of_several():
        from classwise.run.folder import RunFolder

        RunFolder(run).status()


def check_images(sources: Sequence[str]) -> None:
    """Raise DataError where the only source of `predict` and `explain` is missing; a list is read as a whole."""
    source = sources[0]
    if (
        len(sources) > 1
        or source == "-"
        or os.path.lexists(source)
        or is_address(source)
        or is_pattern(source)
    ):
        return
    is_table = Path(source).suffix.lower() in TABLE_SUFFIXES
    raise DataError(
        f"there is no table {source}" if is_table else f"{source}: there is no such table, folder or image"
    )


def _is_source(path: Path) -> bool:
    if path.is_dir() or is_address(path) or is_pattern(str(path)):
        return True
    return path.suffix.lower() in TABLE_SUFFIXES + SHARD_SUFFIXES and path.is_file()


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"
