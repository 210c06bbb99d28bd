"""Reading the config: TOML in, one frozen tree out, or a message that names each key that is wrong."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from classwise.config.base import Section, sections_by_name
from classwise.config.losses import Loss, Term
from classwise.config.schema import (
    Augment,
    Config,
    Data,
    Joint,
    Model,
    Optimizer,
    Report,
    Schedule,
    Selection,
    Target,
    Training,
)
from classwise.errors import ConfigError, nearest


def load_config(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Read a TOML file, lay `overrides` ((dotted key, text) pairs) over it, and make its paths absolute.

    Raises ConfigError where the file is missing, is not TOML, or says something that is not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder; name its config file, such as {path / 'classwise.toml'}"
        ) from None
    except FileNotFoundError:
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
    """Check a tree of plain values. Raises ConfigError that lists every mistake, one a line."""
    tree = _copy(values)
    # Whole tables before their keys, and names before the rest: the order on the command line says nothing.
    overrides = sorted(overrides, key=lambda pair: (pair[0].count("."), not pair[0].endswith(".name")))
    for key, text in overrides:
        _lay_over(tree, key, _toml_value(text))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # `--name 2024` means the text: TOML reads a number there, so give the text a second chance.
        as_text = [key for key, _ in overrides if _wanted_text(error, key, tree)]
        if as_text:
            for key, text in overrides:
                if key in as_text:
                    _lay_over(tree, key, text)
            return make_config(tree, where=where)
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in _problems(error, tree))) from None


def _problems(error: ValidationError, tree: Mapping[str, Any]) -> list[str]:
    """One line a key: the members of a union each complain, and a table complains of what is inside it."""
    details = [
        detail
        for detail in error.errors()
        if detail["type"] != "too_short" or len(detail["input"]) < detail["ctx"]["min_length"]
    ]
    lines: dict[str, list[str]] = {}
    for detail in details:
        lines.setdefault(_dotted(detail["loc"], tree), []).append(_explain(detail, tree))
    merged = []
    for found in lines.values():
        tails = [line.split(", must be ", 1)[1] for line in found if ", must be " in line]
        several = len(tails) == len(found) > 1
        merged += (
            [found[0].split(", must be ", 1)[0] + ", must be " + " or ".join(tails)] if several else found
        )
    return list(dict.fromkeys(merged))


def absolute_paths(config: Config, folder: Path) -> Config:
    """Paths count from the file's folder; the resolved config can then stand anywhere."""

    def absolute(key: str, text: str) -> str:
        if "\0" in text:
            raise ConfigError(f"{key}: found {text!r}; a path cannot hold the character 0")
        try:
            os.fsencode(text)
        except UnicodeEncodeError:  # half of a surrogate pair
            raise ConfigError(f"{key}: found {text!r}, which no file can be called") from None
        # os.path leaves a folder such as `~old` alone where there is no such user; Path raises.
        return str((folder / os.path.expanduser(text)).resolve())  # noqa: PTH111

    data = {key: absolute(f"data.{key}", getattr(config.data, key)) for key in ("source", "images")}
    if isinstance(config.data.valid, str):
        data["valid"] = absolute("data.valid", config.data.valid)
    if config.data.cache not in ("auto", "off"):
        data["cache"] = absolute("data.cache", config.data.cache)
    weights = config.model.weights
    if weights.endswith(".safetensors"):
        weights = absolute("model.weights", weights)
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update={"weights": weights}),
        }
    )


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _toml_value(text: str) -> Any:
    """`3`, `1e-3`, `true`, `[64, 48]` and `"x"` as TOML reads them; anything else is text as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _lay_over(tree: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    here = tree
    for part in parts[:-1]:
        if not isinstance(here.get(part), dict):
            # `--data.augment.flip 0` over `augment = "light"` changes a part of that preset.
            here[part] = (
                {"preset": here[part]} if part == "augment" and isinstance(here.get(part), str) else {}
            )
        here = here[part]
    here[parts[-1]] = value
    if (
        parts[-1] == "name"
        and len(parts) > 1
        and isinstance(value, str)
        and value in _BY_NAME.get(parts[-2], ())
    ):
        # Another loss or schedule: what it has no key for belonged to the one before.
        fields = _BY_NAME[parts[-2]][value].model_fields
        for stale in [name for name in here if name not in fields]:
            del here[stale]


def _wanted_text(error: ValidationError, key: str, tree: Mapping[str, Any]) -> bool:
    """Whether text is all that the key may be; `data.valid = 1.5` is a share out of range, no table's name."""
    kinds = {detail["type"] for detail in error.errors() if _dotted(detail["loc"], tree) == key}
    return kinds == {"string_type"}


def _dotted(location: Sequence[int | str], tree: Any) -> str:
    """The key as the file has it: pydantic's location without the names of union members."""
    key, here = "", tree
    for i, part in enumerate(location):
        if isinstance(here, Mapping) and part in here:
            key, here = f"{key}.{part}", here[part]
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            key, here = f"{key}[{part}]", here[part]
        elif isinstance(here, Mapping) and i == len(location) - 1 and part not in (here.get("name"), "[key]"):
            key = f"{key}.{part}"
    return key.removeprefix(".")


def _explain(detail: Any, tree: Mapping[str, Any]) -> str:
    kind, found = detail["type"], detail["input"]
    key = _dotted(detail["loc"], tree)
    if kind == "extra_forbidden":
        parent, _, last = key.rpartition(".")
        return f"{key}: no such key; {nearest(last, _allowed_keys(parent, tree))}"
    if kind == "missing":
        # A number at the end is a place in a list of fixed length, and all of those are pairs.
        pair = isinstance(detail["loc"][-1], int)
        return f"{key}: found {found!r}, must have 2 items" if pair else f"{key}: missing"
    if kind == "union_tag_not_found":
        return f"{key}.name: missing; allowed: {', '.join(_BY_NAME.get(key.rpartition('.')[2], _TERMS))}"
    if kind == "union_tag_invalid":
        return (
            f"{key}.name: found {detail['ctx']['tag']!r}; {nearest(detail['ctx']['tag'], _tag_list(detail))}"
        )
    if kind == "literal_error":
        return f"{key}: found {found!r}, allowed: {detail['ctx']['expected']}"
    if kind == "value_error":
        inner = str(detail["ctx"]["error"])
        return f"{key}.{inner}" if key else inner
    if kind == "string_pattern_mismatch":
        return f"{key}: found {found!r}, which holds a character that is not allowed in a name"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{key}: found {found!r}, must be a table [{key}]"
    message = re.sub(r"^(Input|Tuple|Dictionary) should (?=be |have )", "must ", detail["msg"])
    message = (
        re.sub(r" after validation, not \d+", "", message)
        .replace("a valid ", "a ")
        .replace("a int", "an int")
        .replace("a tuple", "a list")
    )
    return f"{key}: found {found!r}, {message}"


def _tag_list(detail: Any) -> list[str]:
    expected = detail.get("ctx", {}).get("expected_tags", "")
    return [tag.strip(" '") for tag in expected.split(",") if tag.strip()]


def _allowed_keys(parent: str, tree: Mapping[str, Any]) -> list[str]:
    """The keys that may stand in the table `parent`, found by walking the models."""
    model: Any = Config
    here: Any = tree
    shared = tree.get("loss", {})
    # What a target's loss without a name changes.
    name = shared.get("name", "cross_entropy") if isinstance(shared, Mapping) else "cross_entropy"
    for part in re.findall(r"[^.\[\]]+", parent):
        try:
            here = here[int(part)] if isinstance(here, list) else here[part]
        except (LookupError, ValueError, TypeError):
            return []  # a key with a dot or a bracket in its name: where it stands cannot be told from its text
        if model is dict:
            model = Target
        elif isinstance(here, Mapping | list) and model is not None:
            model = _model_of(model, part, here, name)
    if model in (None, dict):
        return []
    return sorted(
        model.model_fields, key=lambda name: name != "name"
    )  # which kind of table it is comes first


_BY_NAME: dict[str, dict[str, type[Section]]] = {
    "loss": sections_by_name(Loss),
    "schedule": sections_by_name(Schedule),
}
_TERMS = sections_by_name(Term)
_SECTIONS: dict[str, Any] = {
    "data": Data,
    "augment": Augment,
    "targets": dict,
    "joint": Joint,
    "model": Model,
    "optimizer": Optimizer,
    "training": Training,
    "selection": Selection,
    "report": Report,
}


def _model_of(model: Any, part: str, here: Any, loss: str) -> Any:
    if isinstance(here, list):  # the terms of a sum
        return model
    if part.isdigit():
        return _TERMS.get(str(here.get("name")))
    if part in _BY_NAME:
        return _BY_NAME[part].get(str(here.get("name", loss)))
    return _SECTIONS.get(part)
