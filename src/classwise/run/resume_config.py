"""The keys of a config that must not change while a run goes on.

Every checkpoint holds them. A resume would follow a config that was edited meanwhile in part only: the learning rate,
for one, comes from the checkpoint, the batch size from the file.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classwise.config.load import make_config
from classwise.config.own_parts import digests_in
from classwise.config.schema import Config
from classwise.config.toml import toml_text
from classwise.errors import CheckpointError, ConfigError
from classwise.run.checkpoint import Checkpoint, reading
from classwise.run.own_code import portable

# These may change: none of them changes what is learned.
FREE_KEYS = (
    "name",
    # Where the data is; its contents are compared.
    "data.source",
    "data.images",
    "data.follow_links",
    "data.valid",
    "data.test",
    # How images are read.
    "data.workers",
    "data.start_method",
    "data.worker_timeout",
    "data.cache",
    "data.cache_gigabytes",
    # When the run saves, and on what it computes.
    "training.checkpoint_minutes",
    "training.checkpoint_updates",
    "training.device",
    "training.threads",
    # What is reported.
    "report.baselines",
    "report.live",
    "report.resamples",
    "report.row_weights",
    "report.trackers",
)


def fixed_toml(config: Config) -> str:
    """The config without the keys that may change, as TOML; code of the run's own is named as in its directory."""
    tree = portable(config).to_dict()
    del tree["inference"]  # how a model is used is no part of what it has learned
    tree["training"]["plan"] = with_begun_plan(config).training.plan
    for table, name in _free_tables(tree):
        del table[name]
    return toml_text(tree)


EXTENSION_KEYS = ("training.epochs", "schedule.restart_after")
"""The keys that an extension changes (run/extension.py)."""


def refuse_changed_config(
    file: Path, config: Config, checkpoint: Checkpoint, extends: bool = False, hint: str = ""
) -> None:
    """Raise ConfigError with every fixed key that has changed since the run began; CheckpointError if the checkpoint
    does not hold its config. `file`: where `config` was read from. `extends`: the keys that an extension sets do not
    count. `hint`: what to do, for the end of the message."""
    original = _by_key(tomllib.loads(fixed_toml(original_config(config, checkpoint))))
    current = _by_key(tomllib.loads(fixed_toml(config)))
    changes = [
        f"{key} was {_shown(original, key)} and is {_shown(current, key)}"
        for key in (*original, *(current.keys() - original.keys()))
        if original.get(key) != current.get(key) and not (extends and key in EXTENSION_KEYS)
    ]
    changes += _changed_code(config, checkpoint)
    if changes:
        raise ConfigError(
            f"{file}: the run began with another config: {'; '.join(changes)}. Restore these keys, or start a new run"
            f"{hint}"
        )


def _changed_code(config: Config, checkpoint: Checkpoint) -> list[str]:
    """The run's own code that is no longer what it was, manifest and all."""
    with reading(checkpoint):
        before = dict(checkpoint.metadata.get("code", {}))
    return [
        f"the code of {key} had the digest {before.get(key, 'none')!s:.8} and has {digest:.8}"
        for key, digest in digests_in(config).items()
        if before.get(key) != digest
    ]


def with_begun_plan(config: Config) -> Config:
    """The config of a run that has begun. It holds no `auto`, unless it is older than plans are: then it fine-tunes."""
    if config.training.plan != "auto":
        return config
    training = config.training.model_copy(update={"plan": "finetune"})
    return config.model_copy(update={"training": training})


def original_config(config: Config, checkpoint: Checkpoint) -> Config:
    """The config that the run began with, with the free keys of `config`. Keys that a later version of classwise has
    added get their default, as they do in the run's file."""
    with reading(checkpoint):
        text = checkpoint.metadata.get("config")
        if text is None:
            raise CheckpointError(
                f"{checkpoint.folder}: made by an older version of classwise, which did not save the config; it can"
                " predict, but training cannot go on from it"
            )
        tree = tomllib.loads(text)
        tables = zip(_free_tables(tree), _free_tables(config.to_dict()), strict=True)
        for (table, name), (current, _) in tables:
            if current[name] is not None:
                table[name] = current[name]
    try:
        return make_config(tree)
    except ConfigError as error:
        raise CheckpointError(
            f"{checkpoint.folder}: its config is not supported by this version of classwise: {error}"
        ) from error


def _free_tables(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """For each free key the table that holds it, and its name in that table."""
    for key in FREE_KEYS:
        *sections, name = key.split(".")
        table = tree
        for section in sections:
            table = table[section]
        yield table, name


def _by_key(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their dotted keys."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        values |= _by_key(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return values


def _shown(values: dict[str, Any], key: str) -> str:
    return f"{values[key]!r:.100}" if key in values else "not given"
