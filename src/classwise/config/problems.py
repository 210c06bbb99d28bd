"""From pydantic's errors to our messages: the key as the file has it, what was found, what is allowed."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from classwise.config.base import Section, section_name, sections_by_name, sections_in
from classwise.config.keys import keys_elsewhere
from classwise.config.losses import Loss, Term
from classwise.config.schedules import Schedule
from classwise.config.schema import Config, resolve_target_losses
from classwise.errors import nearest
from classwise.own_parts.reference import FORM, hint

SECTIONS_BY_NAME: dict[str, dict[str, type[Section]]] = {
    "loss": sections_by_name(Loss),
    "schedule": sections_by_name(Schedule),
}
"""The tables that are one of several sections: by the table, then by the section's name."""
_TERMS = sections_by_name(Term)


def problems(error: ValidationError, tree: Mapping[str, Any], options: Collection[str] = ()) -> list[str]:
    """One line for each wrong key of `tree`, the plain values that were validated. `options`: the keys that the command
    line has given, whose lines begin with `--`."""
    lines: dict[str, list[str]] = {}
    for detail in error.errors():
        # A list whose items are wrong is also reported as too short, by its number of valid items.
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue
        key = dotted_key(detail["loc"], tree)
        wrong = f"{key}.name" if detail["type"] == "union_tag_invalid" else key
        option = _option_of(wrong, options, is_unknown=detail["type"] == "extra_forbidden")
        lines.setdefault(key, []).append(
            f"--{_explain(detail, tree, option)}" if option else _explain(detail, tree)
        )

    # Each member of a union complains: `must be an integer` and `must be a list` of one key become one line.
    merged: list[str] = []
    for of_key in lines.values():
        limits = [line.split(", must be ", 1)[1] for line in of_key if ", must be " in line]
        if len(limits) == len(of_key) > 1:
            start = of_key[0].split(", must be ", 1)[0]
            merged.append(f"{start}, must be {' or '.join(limits)}")
        else:
            merged += of_key
    return list(dict.fromkeys(merged))


def _option_of(key: str, options: Collection[str], is_unknown: bool) -> str:
    """The option that has set this key, a table around it or, where the table itself `is_unknown`, a key in it; empty
    if none has."""
    for option in options:
        if key and (f"{key}.".startswith(f"{option}.") or (is_unknown and option.startswith(f"{key}."))):
            return option
    return ""


def dotted_key(location: Sequence[int | str], tree: Any) -> str:
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


def _explain(detail: Any, tree: Mapping[str, Any], option: str = "") -> str:
    """One of pydantic's errors as a line of ours. `option`: the key that the command line has given, if it has."""
    kind, value = detail["type"], detail["input"]
    key = dotted_key(detail["loc"], tree)
    if kind == "extra_forbidden":
        return _unknown_key(key, tree, option)
    if kind == "missing":
        # A number at the end is a position in a list of fixed length, and all of those are pairs.
        is_pair = isinstance(detail["loc"][-1], int)
        return f"{key}: found {value!r}, must have 2 items" if is_pair else f"{key}: missing"
    if kind == "union_tag_not_found" and isinstance(value, Mapping):
        table = key.rpartition(".")[2]
        names = [*SECTIONS_BY_NAME.get(table, _TERMS), *([] if table == "schedule" else [FORM])]
        return f"{key}.name: missing; allowed: {', '.join(names)}"
    if kind == "union_tag_invalid":
        name = detail["ctx"]["tag"]
        return f"{key}.name: found {name!r}; {hint(name) or nearest(name, _expected_names(detail))}"
    if kind == "literal_error":
        forgotten = hint(value) if isinstance(value, str) and "augment" in key else ""
        return f"{key}: found {value!r}" + (
            f"; {forgotten}" if forgotten else f", allowed: {detail['ctx']['expected']}"
        )
    if kind == "value_error":
        inner = str(detail["ctx"]["error"])
        return f"{key}.{inner}" if key else inner
    if kind == "string_pattern_mismatch":
        return f"{key}: found {value!r}, which contains a character that is not allowed in a name"
    if kind in ("model_type", "dict_type", "model_attributes_type", "union_tag_not_found"):
        return f"{key}: found {value!r}, must be a table [{key}]"
    return f"{key}: found {value!r}, {_limit(detail['msg'])}"


def _unknown_key(key: str, tree: Mapping[str, Any], option: str) -> str:
    """That there is no such key, and which one is meant: a similar one of its table, else one of another table with
    this name. A key that the command line has given is shown as it is written there."""
    parent, _, last = key.rpartition(".")
    allowed = _allowed_keys(parent, tree)
    hint = nearest(last, allowed)
    is_similar = hint.startswith("did you mean")
    if not option:
        elsewhere = [] if is_similar or key.startswith("targets.") else keys_elsewhere(key)
        return f"{key}: no such key; " + (f"did you mean {_either(elsewhere)}?" if elsewhere else hint)
    below = option.removeprefix(key) if option.startswith(key) else ""
    if is_similar:
        similar = difflib.get_close_matches(last, allowed, n=3, cutoff=0.6)
        meant = [f"{parent}.{name}{below}".removeprefix(".") for name in similar]
    else:
        meant = keys_elsewhere(option if below else key)
    named = option if below else key
    return f"{named}: no such key; " + (
        f"did you mean {_either([f'--{name}' for name in meant])}?" if meant else hint
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) if not name.startswith("--") else name for name in names)


def _limit(message: str) -> str:
    """`Input should be a valid integer` as `must be an integer`."""
    message = re.sub(r"^(Input|Tuple|Dictionary) should (?=be |have )", "must ", message)
    message = re.sub(r" after validation, not \d+", "", message)
    return message.replace("a valid ", "a ").replace("a int", "an int").replace("a tuple", "a list")


def _expected_names(detail: Any) -> list[str]:
    expected = detail.get("ctx", {}).get("expected_tags", "")
    return [name.strip(" '") for name in expected.split(",") if name.strip()]


def _allowed_keys(parent: str, tree: Mapping[str, Any]) -> list[str]:
    """The keys of the table `parent`, `name` first. Nothing where it cannot be found by its text."""
    annotation: Any = Config
    values: Any = resolve_target_losses(tree)
    for part in re.findall(r"[^.\[\]]+", parent):
        # What the models say of the next value: an item of a list or of [targets], or a field of a section.
        if get_origin(annotation) in (dict, tuple):
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
        else:
            section = _section_of(annotation, values)
            if section is None or part not in section.model_fields:
                return []
            annotation = section.model_fields[part].annotation
        try:
            values = values[int(part)] if isinstance(values, list) else values[part]
        except (LookupError, ValueError, TypeError):
            return []  # a key with a dot or a bracket in it

    section = _section_of(annotation, values)
    return sorted(section.model_fields, key=lambda name: name != "name") if section else []


def _section_of(annotation: Any, values: Any) -> type[Section] | None:
    """The section that a table is validated by: of several, the one with its name."""
    sections = list(sections_in(annotation))
    if len(sections) == 1:
        return sections[0]
    name = values.get("name") if isinstance(values, Mapping) else None
    return next((section for section in sections if section_name(section) == name), None)
