"""Reading the config: from TOML to one frozen tree, or to a message that names every wrong key."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from classwise.config.model import WEIGHT_SUFFIXES
from classwise.config.own_parts import with_references
from classwise.config.problems import SECTIONS_BY_NAME, dotted_key, problems
from classwise.config.schema import Config
from classwise.errors import ConfigError
from classwise.files import is_address
from classwise.own_parts.reference import is_own, split_reference, with_file

RENAMED = {"data.unanswered": "data.unlabeled"}
"""Keys of earlier versions, which are still read: from files, run directories and the command line."""


def load_config(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Read a TOML file, apply `overrides` ((dotted key, text) pairs) to it, and make its paths absolute.

    Raises ConfigError for a file that is missing or is not TOML, and for keys and values that are not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder; name its config file, such as {path / 'classwise.toml'}"
        ) from None
    except FileNotFoundError:
        if path.suffix != ".toml":
            raise ConfigError(f"there is no file or folder {path}") from None
        raise ConfigError(f"there is no config file {path}; `classwise init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a text file: {error}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return absolute_paths(make_config(values, overrides, where=str(path)), path.resolve().parent)


def make_config(
    values: Mapping[str, Any], overrides: Sequence[tuple[str, str]] = (), where: str = "config"
) -> Config:
    """Validate a tree of plain values with `overrides` applied to it.

    Raises ConfigError that lists every mistake, one a line, each beginning with `where` or, if an override has made
    it, with that as an option.
    """
    tree = _copy(values)
    _rename_keys(tree, where)
    overrides = [(RENAMED.get(key, key), text) for key, text in overrides]

    # Whole tables before their keys, and names before the rest: the order on the command line does not matter.
    overrides = sorted(overrides, key=lambda pair: (pair[0].count("."), not pair[0].endswith(".name")))
    for key, text in overrides:
        _override(tree, key, _toml_value(text))
        _rename_keys(tree, where)  # a whole table on the command line may have an old key, too

    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # `--name 2024` means the text, though TOML reads a number: where only text is allowed, try the text itself.
        for key, text in overrides:
            if _must_be_text(error, key, tree):
                _override(tree, key, text)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = problems(error, tree, [key for key, _ in overrides])
        raise ConfigError(
            "\n".join(line if line.startswith("--") else f"{where}: {line}" for line in lines)
        ) from None


def absolute_paths(config: Config, folder: Path) -> Config:
    """The config with its relative paths resolved against `folder`, so that it can be written to any other place.

    Raises ConfigError for a path that no file can have.
    """
    data: dict[str, Any] = {"source": _absolute("data.source", config.data.source, folder)}
    images = config.data.images
    data["images"] = (
        _absolute("data.images", images, folder)
        if isinstance(images, str)
        else tuple(_absolute("data.images", one, folder) for one in images)
    )
    for key in ("valid", "test"):
        if isinstance(getattr(config.data, key), str):
            data[key] = _absolute(f"data.{key}", getattr(config.data, key), folder)
    if config.data.cache not in ("auto", "off"):
        data["cache"] = _absolute("data.cache", config.data.cache, folder)
    weights = config.model.weights
    is_path = os.sep in weights or "/" in weights or weights.lower().endswith(WEIGHT_SUFFIXES)
    is_path = is_path or (config.model.starts_from_run and (folder / weights).is_dir())
    if is_path and not weights.startswith("package:"):
        weights = _absolute("model.weights", weights, folder)
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update={"weights": weights}),
        }
    )
    return with_references(
        config,
        lambda key, reference: with_file(reference, _absolute(key, split_reference(reference)[0], folder)),
    )


def _absolute(key: str, text: str, folder: Path) -> str:
    if "\0" in text:
        raise ConfigError(f"{key}: found {text!r}; a path cannot contain the NUL character")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ConfigError(f"{key}: found {text!r}, which is not a valid file name") from None
    if is_address(text):
        return text
    # os.path leaves `~old` alone where there is no such user; Path raises.
    return str((folder / os.path.expanduser(text)).resolve())  # noqa: PTH111


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _rename_keys(tree: dict[str, Any], where: str) -> None:
    """Give keys of earlier versions their present names. Raises ConfigError where both are given."""
    for old, new in RENAMED.items():
        section, _, old_name = old.partition(".")
        new_name = new.partition(".")[2]
        table = tree.get(section)
        if not isinstance(table, dict) or old_name not in table:
            continue
        if new_name in table:
            raise ConfigError(f"{where}: {old}: found beside {new}, its new name; allowed: {new} alone")
        table[new_name] = table.pop(old_name)


def _toml_value(text: str) -> Any:
    """`3`, `1e-3`, `true`, `[64, 48]` and `"x"` as TOML reads them; anything else as the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set one key of the tree, and make the tables on the way to it."""
    *tables, name = key.split(".")
    table = tree
    for part in tables:
        inner = table.get(part)
        if not isinstance(inner, dict):
            # `--data.augment.flip 0` over `augment = "light"` changes one key of that preset.
            table[part] = {"preset": inner} if part == "augment" and isinstance(inner, str) else {}
        table = table[part]
    is_other = table.get(name) != value
    table[name] = value

    # Another loss or schedule: the keys that it does not have belonged to the one before.
    if tables and (tables[-1], name) == ("loss", "name") and is_own(value) and is_other:
        table.clear()
        table[name] = value
    sections = SECTIONS_BY_NAME.get(tables[-1], {}) if tables and name == "name" else {}
    if isinstance(value, str) and value in sections:
        for stale in table.keys() - sections[value].model_fields.keys():
            del table[stale]


def _must_be_text(error: ValidationError, key: str, tree: Mapping[str, Any]) -> bool:
    """Whether a key was refused because only text is allowed; `data.valid = 1.5` is a share that is out of range."""
    kinds = {detail["type"] for detail in error.errors() if dotted_key(detail["loc"], tree) == key}
    return kinds == {"string_type"}
