"""Names of classes in a file beside the images: classes.txt, label_map.json, data.yaml, names.csv. They are only told:
labels stay as the data have them, since submissions are written in them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from classwise.data.listing import is_image_name
from classwise.data.table import SUFFIXES, read_table
from classwise.errors import DataError
from classwise.suggest.guess import Guess
from classwise.suggest.names import words

MOST_BYTES = 2_000_000
MOST_YAML_BYTES = 200_000  # read at about 100 KB a second
MOST_NAMES = 1000
NAMING = (
    "class", "classes", "label", "labels", "name", "names", "map", "mapping", "synset", "synsets", "words", "category",
    "categories", "species", "ids", "id2label",
)  # fmt: skip
"""Words in the names of lists that name classes."""


def add_label_names(guess: Guess, folder: Path) -> str:
    """Tell what the labels of the first class target are called, if a file in the folder says so for all of them: its
    name, or nothing."""
    found = [
        (name, keys)
        for name, keys in guess.targets.items()
        if keys.get("type", "class") in ("class", "ordinal")
    ]
    if not found or "column" not in found[0][1]:
        return ""
    name, keys = found[0]
    missing = keys.get("missing", [])
    labels = {cell.strip() for cell in guess.table[keys["column"]].drop_nulls().to_list()} - {"", *missing}
    if len(labels) > MOST_NAMES:
        return ""
    for path, names in _maps_in(folder, sorted(labels)):
        if path != guess.source and _names_them(names, labels):
            ordered = sorted(labels, key=lambda label: (len(label), label))
            text = ", ".join(f"{label} = {names[label]}" for label in ordered[:12])
            more = f" and {len(ordered) - 12} more" if len(ordered) > 12 else ""
            line = f"{path.name} names the labels of {name}: {text}{more}"
            guess.said.append(f"{line}; they stay as they are in the data")
            guess.note(f"targets.{name}.labels", line)
            return path.name
    return ""


def _names_them(names: Mapping[str, str], labels: set[str]) -> bool:
    """Whether these are names of all the labels: other words than the labels, and no paths of images."""
    if not labels <= names.keys() or len(names) > 3 * len(labels) + 10:
        return False
    words = [names[label] for label in labels]
    are_words = all(any(c.isalpha() for c in word) and not is_image_name(word) for word in words)
    return are_words and len(set(words)) > 1 and all(names[label] != label for label in labels)


def _maps_in(folder: Path, labels: Sequence[str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """(path, names by label) of the small files that may name labels."""
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.stat().st_size > MOST_BYTES or path.name.startswith("."):
            continue
        try:
            if path.suffix.lower() == ".json":
                value = json.loads(path.read_text(encoding="utf-8-sig"))
                yield from ((path, names) for names in _of_tree(value))
            elif path.suffix.lower() in (".yaml", ".yml") and path.stat().st_size <= MOST_YAML_BYTES:
                yield from ((path, names) for names in _of_tree(_yaml_tree(path)))
            elif path.suffix.lower() == ".txt" and set(words(path.stem)) & set(NAMING):
                yield from (
                    (path, names) for names in _of_lines(path.read_text(encoding="utf-8-sig"), labels)
                )
            elif path.suffix.lower() in SUFFIXES:
                yield from ((path, names) for names in _of_table(path))
        except (OSError, ValueError, DataError, RecursionError):
            continue  # not a file of names


def _yaml_tree(path: Path) -> object:
    """What a YAML file holds, with all scalars as text: YAML takes the names `no` and `on` for false and true. Raises
    ValueError, also for what is no YAML; OSError."""
    import yaml  # few folders have such a file

    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no YAML") from error


def _of_tree(value: object) -> Iterator[dict[str, str]]:
    """Names in what a JSON or YAML file holds: at its top, or below a key such as `names` of a detection set's
    data.yaml or `id2label` of a model's config.json."""
    yield from _of_value(value)
    if isinstance(value, dict):
        for key, item in value.items():
            if {key, *words(str(key))} & set(NAMING):
                yield from _of_value(item)


def _of_value(value: object) -> Iterator[dict[str, str]]:
    """{"0": "cat"}, {"cat": 0}, ["cat", "dog"] or [{"id": 0, "name": "cat"}, ...]."""
    if isinstance(value, dict):
        pairs = {str(key): str(item) for key, item in value.items() if isinstance(item, str | int)}
        if len(pairs) == len(value):
            yield pairs
            yield {item: key for key, item in pairs.items()}
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield {str(number): item for number, item in enumerate(value)}
    elif isinstance(value, list) and all(
        isinstance(item, dict) and {"id", "name"} <= item.keys() for item in value
    ):
        yield {str(item["id"]): str(item["name"]) for item in value}


def _of_lines(text: str, labels: Sequence[str]) -> Iterator[dict[str, str]]:
    """`0 cat`, `n01440764 tench`, or a name a line, counted from 0 or 1."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for separator in (None, ",", ":", "\t"):
        pairs = [line.split(separator, 1) for line in lines]
        if all(len(pair) == 2 for pair in pairs):
            yield {left.strip(): right.strip() for left, right in pairs}
            yield {right.strip(): left.strip() for left, right in pairs}
    are_numbers = all(label.isdecimal() for label in labels)
    if are_numbers and len(labels) <= len(lines) and not any(map(is_image_name, lines)):
        first = 0 if "0" in labels else 1
        yield {str(number): line for number, line in enumerate(lines, start=first)}


def _of_table(path: Path) -> Iterator[dict[str, str]]:
    """A table with a column of labels and one of names."""
    table = read_table(path)
    if table.height > MOST_NAMES:
        return
    for key in table.columns:
        for value in table.columns:
            if key != value and table[key].n_unique() == table.height and not table[value].null_count():
                yield {
                    str(k): str(v) for k, v in zip(table[key].to_list(), table[value].to_list(), strict=True)
                }
