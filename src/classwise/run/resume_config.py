"""What of a config stays as it was while a run goes on.

Every checkpoint holds these keys. A config that was edited between a stop and a resume would be obeyed in part: the
optimizer's numbers, for one, come from the checkpoint, the batch size from the file.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.config.toml import toml_text
from classwise.errors import CheckpointError, ConfigError
from classwise.run.checkpoint import Checkpoint, reading

# Where things lie (the data itself is compared), how images are read, on what and when it saves, what is reported.
FREE_KEYS = (
    *("name", "data.source", "data.images", "data.valid"),
    *("data.workers", "data.start_method", "data.worker_timeout", "data.cache", "data.cache_gigabytes"),
    *("training.checkpoint_minutes", "training.checkpoint_updates", "training.device", "training.threads"),
    *("report.baselines", "report.resamples"),
)


def kept_toml(config: Config) -> str:
    """The config without the keys that a run may be given anew."""
    tree = config.to_dict()
    for table, name in _free_places(tree):
        del table[name]
    return toml_text(tree)


def refuse_changed_config(file: Path, config: Config, checkpoint: Checkpoint) -> None:
    """Raises ConfigError, with every key that has changed since the run began; CheckpointError where the checkpoint
    does not say."""
    then = _by_key(tomllib.loads(kept_toml(_config_then(config, checkpoint))))
    now = _by_key(tomllib.loads(kept_toml(config)))
    changed = [
        f"{key} was {_shown(then, key)} and is {_shown(now, key)}"
        for key in (*then, *(now.keys() - then.keys()))
        if then.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"{file}: the run began with another config: {'; '.join(changed)}. Bring it back to what it was, or"
            " start a new run"
        )


def _config_then(config: Config, checkpoint: Checkpoint) -> Config:
    """What the run began with, and the free keys of `config`. A key that has come with a later version of classwise
    has its default, as in the run's file."""
    with reading(checkpoint):
        text = checkpoint.metadata.get("config")
        if text is None:
            raise CheckpointError(
                f"{checkpoint.folder}: an older classwise has made this, and it does not say with which config; it"
                " can predict, but not be trained on"
            )
        tree = tomllib.loads(text)
        places = zip(_free_places(tree), _free_places(config.to_dict()), strict=True)
        for (table, name), (given, _) in places:
            if given[name] is not None:
                table[name] = given[name]
    try:
        return make_config(tree)
    except ConfigError as error:
        raise CheckpointError(
            f"{checkpoint.folder}: its config is none that this classwise knows: {error}"
        ) from error


def _free_places(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """For each free key the table that it belongs into, and its name there."""
    for key in FREE_KEYS:
        *sections, name = key.split(".")
        table = tree
        for section in sections:
            table = table[section]
        yield table, name


def _by_key(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Values by their dotted keys."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{before}{name}"
        found |= _by_key(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return found


def _shown(values: dict[str, Any], key: str) -> str:
    return f"{values[key]!r:.100}" if key in values else "not given"
