"""Tables that `train` does not read as they are: without a header, with spaces between the cells, as JSON. `init`
writes them as samples.csv."""

import ast
import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.data.listing import is_image_name
from classwise.data.table import SUFFIXES, read_table
from classwise.errors import DataError
from classwise.suggest.names import ID_NAMES, LABEL_NAMES, PATH_NAMES, columns_named

OTHER_SUFFIXES = (".txt", ".jsonl", ".json", ".lst", ".list")
MOST_BYTES = 200_000_000


@dataclass(frozen=True)
class AnyTable:
    """The cells as text. lists: columns that held lists, now with bars between their items. changed: how it differs
    from a table that `train` reads, for the user; or empty."""

    table: pl.DataFrame
    changed: str = ""
    lists: frozenset[str] = frozenset()


def read_any_table(path: Path) -> AnyTable:
    """A table of any kind that is understood. Raises DataError for all others."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return _without_brackets(_read_usual_table(path))
    if suffix not in OTHER_SUFFIXES:
        raise DataError(
            f"{path}: found {path.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}, or a list of paths and"
            f" labels {', '.join(OTHER_SUFFIXES)}"
        )
    if path.stat().st_size > MOST_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes are too many for a list; write it as .parquet"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if suffix in (".jsonl", ".json"):
        table, lists = _table_of_json(text, path)
        return AnyTable(table, "it is JSON", lists)
    return _table_of_list(text, path)


def _read_usual_table(path: Path) -> AnyTable:
    """A table whose first row may be no header: it names an image, as the rows below do."""
    try:
        table = read_table(path)
    except DataError as error:
        if "twice" not in str(error):
            raise
        table = _with_header(path, error)
        return AnyTable(table, "it has no header")
    if path.suffix.lower() != ".parquet" and (any(map(_is_path, table.columns)) or _is_row(table)):
        return AnyTable(_with_header(path, None), "it has no header")
    return AnyTable(table)


def _is_row(table: pl.DataFrame) -> bool:
    """Whether the header looks like the rows: one of its words recurs in the column below it, as a label does."""
    return table.height > 2 and any(
        re.search(r"[^\W\d_]", name) and int((table[name].str.strip_chars() == name.strip()).sum()) > 1
        for name in table.columns
    )


def _without_brackets(read: AnyTable) -> AnyTable:
    """The table with bars between the labels of cells that hold lists as Python or JSON print them."""
    table = read.table
    changed = []
    for name in table.columns:
        lists = [_list_of(cell) for cell in table[name].head(50).to_list() if cell]
        if not lists or any(items is None for items in lists):
            continue
        cells = [None if cell is None else _list_of(cell) for cell in table[name].to_list()]
        if any(items is None and cell for items, cell in zip(cells, table[name].to_list(), strict=True)):
            continue
        texts = [None if items is None else "|".join(items) or "|" for items in cells]
        table = table.with_columns(pl.Series(name, texts, dtype=pl.String))
        changed.append(name)
    if not changed:
        return read
    why = read.changed or f"column {changed[0]!r} holds lists in brackets"
    return AnyTable(table, why, frozenset(name for name in changed if _has_bars(table[name].to_list())))


def _has_bars(cells: Iterable[str | None]) -> bool:
    """Whether one of the lists has several items, with bars between them."""
    return any(cell and "|" in cell.strip("|") for cell in cells)


def _list_of(cell: str) -> list[str] | None:
    """The items of `['a', 'b']`, ('a', 'b') or {'a', 'b'}, or of [a, b] and [0 3] without quotes; None for any other
    text."""
    text = cell.strip()
    if text[:1] + text[-1:] not in ("[]", "()", "{}"):
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        items = None
    if isinstance(items, list | tuple | set):
        return [str(item) for item in (sorted(items, key=str) if isinstance(items, set) else items)]
    inner = text[1:-1].strip()
    if text[0] != "[" or re.search(r"[\[\](){}'\"]", inner):
        return None
    words = [part.strip() for part in inner.split("," if "," in inner else None)]
    return words if all(words) else None


def _is_path(cell: str) -> bool:
    return is_image_name(cell.strip().replace("\\", "/"))


def _with_header(path: Path, error: DataError | None) -> pl.DataFrame:
    """The same file with a header of made-up names. Raises `error` if its first row names no image."""
    text = path.read_bytes().decode("utf-8-sig")
    first = text.splitlines()[0]
    separator = next((sep for sep in (",", ";", "\t", "|") if sep in first), ",")
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    if error is not None and not any(map(_is_path, rows[0])):
        raise error
    return _named(rows, path)


def _named(rows: list[list[str]], path: Path) -> pl.DataFrame:
    """Rows with the columns path, label or label_1, label_2, ...: the path is the first column with names of images."""
    width = len(rows[0])
    ragged = next((number for number, row in enumerate(rows, start=1) if len(row) != width), None)
    if ragged is not None:
        raise DataError(f"{path}, line {ragged}: {len(rows[ragged - 1])} cells, but the first has {width}")
    columns = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
    at = next((k for k, column in enumerate(columns) if _is_path(column[0])), None)
    if at is None:  # ids without a suffix differ in all rows
        at = next((k for k, column in enumerate(columns) if len(set(column)) == len(column)), 0)
    others = [k for k in range(width) if k != at]
    names = {at: "path"} | {
        k: "label" if len(others) == 1 else f"label_{n}" for n, k in enumerate(others, start=1)
    }
    return pl.DataFrame(
        {names[k]: [cell or None for cell in columns[k]] for k in range(width)},
        schema={names[k]: pl.String for k in range(width)},
    )


def _table_of_list(text: str, path: Path) -> AnyTable:
    """A list with one image a line: path and labels with white space or commas between them; comments begin with #. A
    first line with a number counts the rows, and one with a name less than the rows have cells is their header."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} is empty")
    separator = next((sep for sep in ("\t", ",", ";") if sep in lines[-1]), None)
    rows = [[cell.strip() for cell in line.split(separator)] for line in lines]
    if len(rows) > 2 and re.fullmatch(r"\d+", lines[0]) and len(rows[2]) > 1:
        rows = rows[1:]
    if _has_header(rows):
        body = rows[1:]
        if len(set(rows[0])) == len(rows[0]) and all(len(row) == len(rows[0]) for row in body):
            return AnyTable(
                pl.DataFrame(body, schema=dict.fromkeys(rows[0], pl.String), orient="row"),
                f"it is a {path.suffix} file",
            )
    if len(rows) > 1 and len(rows[0]) == len(rows[1]) - 1 and not _is_path(rows[0][0]):
        names = ["path", *rows[0]]
        if len(set(names)) == len(names) and all(len(row) == len(names) for row in rows[1:]):
            table = pl.DataFrame(rows[1:], schema=dict.fromkeys(names, pl.String), orient="row")
            return AnyTable(table, "it is a list with spaces between the cells")
    return AnyTable(_named(rows, path), "it is a list without a header")


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: it has a usual name of one, and names no image where the next row does."""
    if len(rows) < 2 or len(rows[0]) != len(rows[1]) or any(map(_is_path, rows[0])):
        return False
    known = columns_named(rows[0], (*PATH_NAMES, *ID_NAMES, *LABEL_NAMES))
    return bool(known) and (any(map(_is_path, rows[1])) or len(known) > 1)


def _table_of_json(text: str, path: Path) -> tuple[pl.DataFrame, frozenset[str]]:
    """Records (a list, or one a line) with text, numbers or lists of text; or labels by image. And the columns in which
    some lists have several items."""
    try:
        if path.suffix.lower() == ".jsonl":
            value: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if isinstance(value, dict) and "images" in value and "annotations" in value:
        return _table_of_coco(value, path), frozenset()
    if (
        isinstance(value, dict)
        and value
        and all(not isinstance(item, dict | list) for item in value.values())
    ):
        value = [{"path": name, "label": label} for name, label in value.items()]
    value = _by_name(_only_records(value))
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise DataError(
            f"{path}: found JSON that is no list of records; a table of images has one record for each image"
        )
    names = list(
        dict.fromkeys(name for row in value for name, cell in row.items() if not isinstance(cell, dict))
    )
    columns = {name: [_cell(row.get(name)) for row in value] for name in names}
    lists = {name for name in names if any(isinstance(row.get(name), list) for row in value)}
    several = frozenset(name for name in lists if _has_bars(columns[name]))
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String)), several


def _by_name(value: Any) -> Any:
    """Records of {"1.png": ["a", "b"]}, {"1.png": {"label": "a"}} or {"a": ["1.png", "2.png"]}; else the value
    itself."""
    if not isinstance(value, dict) or not value:
        return value
    items = list(value.items())
    if all(isinstance(item, dict) for _, item in items):
        return [{"path": name, **item} for name, item in items]
    if not all(isinstance(item, list) for _, item in items):
        return value
    if all(_is_path(str(entry)) for _, item in items for entry in item):
        labels: dict[str, list[str]] = {}
        for label, item in items:
            for name in item:
                labels.setdefault(str(name), []).append(label)
        is_one = all(len(found) == 1 for found in labels.values())
        return [{"path": name, "label": found[0] if is_one else found} for name, found in labels.items()]
    return [{"path": name, "label": item} for name, item in items]


def _only_records(value: Any) -> Any:
    """The records of {"annotations": [...], "version": 1}, if there is one list of them; else the value itself."""
    if not isinstance(value, dict):
        return value
    lists = [
        item
        for item in value.values()
        if isinstance(item, list) and item and all(isinstance(row, dict) for row in item)
    ]
    return lists[0] if len(lists) == 1 else value


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return "|".join(map(str, value)) if value else "|"
    return str(value)


def _table_of_coco(value: dict[str, Any], path: Path) -> pl.DataFrame:
    """COCO's annotations, where each image has one category: camera traps and herbaria come so. Raises DataError for
    boxes, of which an image has several."""
    files = {image.get("id"): str(image.get("file_name", "")) for image in value["images"]}
    names = {
        category.get("id"): str(category.get("name", category.get("id")))
        for category in value.get("categories", [])
    }
    found: dict[Any, set[Any]] = {}
    has_boxes = False
    for annotation in value["annotations"]:
        has_boxes = has_boxes or bool(annotation.get("bbox")) or bool(annotation.get("segmentation"))
        found.setdefault(annotation.get("image_id"), set()).add(annotation.get("category_id"))
    several = sum(len(categories) > 1 for categories in found.values())
    if several or has_boxes:
        raise DataError(
            f"{path}: found COCO annotations of {'boxes or outlines' if has_boxes else 'several categories an image'}:"
            " a detection data set, which has no label for a whole image. Write a table with one row an image and the"
            ' labels that it should have, for example type = "multilabel" with the categories in it'
        )
    rows = [
        (files[image], names.get(next(iter(categories)), ""))
        for image, categories in found.items()
        if image in files
    ]
    return pl.DataFrame(rows, schema={"path": pl.String, "label": pl.String}, orient="row")
