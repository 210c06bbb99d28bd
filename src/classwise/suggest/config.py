"""`classwise init`: look at the images, and write a config that is ready to train."""

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from classwise.config.describe import commented_toml
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.config.targets import Target
from classwise.console import Console
from classwise.data.cells import known_cells
from classwise.data.image_paths import find_images
from classwise.data.images import needed_channels, read_image, sample_facts
from classwise.data.label_spelling import column_warnings
from classwise.data.pixel_format import ImageFacts, PixelFormat, proposed_range
from classwise.data.row_paths import RowPaths
from classwise.data.table import write_table
from classwise.errors import DataError, ImageError
from classwise.files import address_of, is_address, refuse_existing, write_text
from classwise.metrics.mean import MEAN, main_score
from classwise.suggest.backbone import FROM_SCRATCH, BackboneChoice, choose_backbone
from classwise.suggest.guess import Guess
from classwise.suggest.prior import choose_prior
from classwise.suggest.rehearsal import follow_links_if_needed, rehearse
from classwise.suggest.source import guess_source

_HEADER = """\
# Written by `classwise init`, and ready to train: classwise train {name}
# Paths are relative to this file. Every key is also an option: --training.epochs 5

"""
FINETUNING: dict[str, dict[str, Any]] = {
    "optimizer": {"lr": 1e-4, "backbone_lr_factor": 1.0, "layer_decay": 0.8, "frozen_below": 0.1},
    "training": {
        "plan": "auto",
        "epochs": 6,
        "minutes": 1.0,
        "batch_norm": "frozen",
        "ema": 0.99,
    },
}
"""How a pretrained backbone is fine-tuned once its heads are fitted: docs/decisions/0039-first-answer.md."""
SAMPLED_IMAGES = 40
"""About as many images are read to find the usual size."""


def init(
    source: str | Path,
    out: str | Path = ".",
    force: bool = False,
    hub: bool = True,
    scratch: bool = False,
    quiet: bool = False,
) -> Path:
    """Write `out`/classwise.toml, and samples.csv if the source is not a table; returns the config's path.

    `source`: a folder with one sub-folder per class, a table, or the face-mask competition's folder. `hub`: whether the
    Hugging Face hub may be asked for pretrained weights; with `scratch` none are used. Unless `quiet`, a few lines say
    what was recognized and chosen. Raises DataError for a source that is not recognized, OutputError for files that
    exist already, unless `force` is given.
    """
    console = Console(quiet)
    suggestion = look_at(Path(source), hub, scratch)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    written = write_suggestion(suggestion, out / "classwise.toml", out / "samples.csv", force)
    for line in [*written, *suggestion.summary]:
        console.paragraph(line)
    return out / "classwise.toml"


@dataclass(frozen=True)
class Suggestion:
    """The config for a source, with absolute paths; data.source is empty if its table has to be written.

    summary: lines on what was recognized and chosen.
    """

    config: Config
    guess: Guess
    summary: tuple[str, ...]


def look_at(source: Path, hub: bool, scratch: bool = False) -> Suggestion:
    """The config for a source; nothing is written. `hub`: whether the Hugging Face hub may be asked for weights;
    `scratch`: whether to do without pretrained ones.

    Raises DataError for a source that is not recognized, or if no image can be read.
    """
    guess = guess_source(source)
    guess.data["source"] = _absolute(guess.source) if guess.source else ""
    if guess.image_names is None:
        folders = [str(folder.resolve()) for folder in guess.folders]
        guess.data["images"] = folders[0] if len(folders) == 1 else folders
        follow_links_if_needed(guess)
    prior, reason = choose_prior(guess)
    guess.notes["selection.prior"] = f"class shares where the model will be used: {reason}" if reason else ""
    _guess_channels(guess)
    _guess_value_range(guess)
    height, width = _median_size(guess)
    backbone = FROM_SCRATCH if scratch else choose_backbone(height, width, hub)
    config = suggest(guess, _run_name(source), backbone=backbone, height=height, width=width, prior=prior)
    config = rehearse(config, guess)
    return Suggestion(config=config, guess=guess, summary=tuple(_summary(guess, config, backbone, reason)))


def write_suggestion(
    suggestion: Suggestion, config_path: Path, table_path: Path, force: bool = False
) -> list[str]:
    """Write the config, and the table if the source is none; returns lines on what was written. Raises OutputError for
    a file that exists already, unless `force` is given; then neither is written."""
    guess = suggestion.guess
    folder = config_path.parent
    config = suggestion.config
    data = config.data.model_copy(
        update={
            "source": _relative(guess.source or table_path, folder),
            **_relative_images(guess, folder),
            **{
                key: _relative(Path(value), folder)
                for key in ("valid", "test")
                if isinstance(value := getattr(config.data, key), str)
            },
        }
    )
    text = commented_toml(config.model_copy(update={"data": data}), guess.notes)

    # Refuse before anything is written.
    refuse_existing(config_path, force)
    lines = []
    if not guess.source:
        refuse_existing(table_path, force)
        write_table(guess.table, table_path)
        lines.append(f"{table_path}: {guess.table.height} rows")
    # A name may hold a line break, which would end the comment.
    name = "".join(c if c.isprintable() else "?" for c in config_path.name)
    write_text(config_path, _HEADER.format(name=shlex.quote(name)) + text)
    return lines


def suggest(
    guess: Guess, name: str, backbone: BackboneChoice, height: int, width: int, prior: str | None
) -> Config:
    """The config for a source with images of about this size: a pretrained backbone, or a small network that is trained
    from scratch. `prior`: selection.prior."""
    values: dict[str, Any] = {
        "name": name,
        "data": {"augment": "light", **guess.data},
        "targets": guess.targets,
        "loss": {"name": "balanced_softmax"},
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": 30, "batch_size": 32, "clip_norm": 1.0},
        # The luckiest epoch is not the best one: docs/results/honesty.md.
        # Balanced softmax learns no class shares; those of `prior` are added to what it has learned.
        "selection": {"metric": _metric(guess), "prior": prior, "first_epoch": 0.8},
    }
    if guess.joint:
        values["joint"] = {"targets": guess.joint}
    if not any(target.get("type", "class") == "class" for target in guess.targets.values()):
        del values["loss"]  # each of the other types has its own default

    values["model"] = {"backbone": backbone.backbone, "weights": backbone.weights}
    if guess.channels != 3:
        values["model"]["channels"] = guess.channels
    if backbone.is_pretrained:
        # What is fitted first is cross-validated too, so that fewer rows have to be set aside.
        if values["data"].setdefault("valid", 0.1) == 0.1:
            guess.notes.setdefault(
                "data.valid",
                "fraction of the rows to validate on, or a table of validation rows; 0.1 leaves more to train on, over"
                " which the first answer is cross-validated",
            )
        values["model"] |= {"image_size": _pretrained_size(height, width), "pooling": "layers"}
        values["optimizer"] |= FINETUNING["optimizer"]
        values["training"] |= FINETUNING["training"]
        # Class shares of the rows cost rare classes more than they gain: docs/decisions/0039-first-answer.md.
        if prior == "as_validation":
            values["selection"]["prior"] = None
            guess.notes["selection.prior"] = (
                "not given: predictions count every class equally, as the loss has learned;"
                ' "as_validation" predicts with the class shares of the rows, for accuracy'
            )
        guess.notes["model.weights"] = (
            f'pretrained on ImageNet ({backbone.reason}); "none" trains from scratch'
        )
    else:
        values["model"]["image_size"] = _scaled(height, width, 112)
        guess.notes["model.backbone"] = (
            'built in, trained from scratch; for photographs try "resnet18" with weights = "pretrained" (from the hub)'
        )
    return make_config(values, where="init")


def _metric(guess: Guess) -> str:
    """The metric that selects the best checkpoint: of the joint class or the only target, or the mean of several, with
    a comment on it."""
    name, target = next(iter(guess.targets.items()))
    if len(guess.targets) > 1 and not guess.joint:
        one = main_score(name, target.get("type", "class"))
        guess.notes["selection.metric"] = (
            "the mean of each target's main score (macro F1, R2 of numbers), so that all of them choose the best"
            f' checkpoint; or the score of one of them, such as "{one}"'
        )
        return MEAN
    return "mae" if target.get("type") == "regression" and not guess.joint else "macro_f1"


def _summary(guess: Guess, config: Config, backbone: BackboneChoice, prior: str) -> list[str]:
    """What was recognized and chosen: targets, group and model; `prior` says for which class shares, and why."""
    targets = []
    for name, target in config.targets.items():
        if target.type == "class":
            count = len(target.edges) + 1 if target.edges else _class_count(guess, target)
            targets.append(f"{name} ({count} classes)")
        elif target.type == "ordinal":
            targets.append(f"{name} (ordinal: {' < '.join(target.labels or ())})")
        else:
            targets.append(f"{name} ({target.type})")
    spelling = [
        f"warning: {text}"
        for name, target in config.targets.items()
        if target.column and not target.edges and target.type in ("class", "ordinal", "multilabel")
        for text in column_warnings(
            name, known_cells(guess.table[target.column].to_list(), target.missing or ()), target.separator
        )
    ]
    joint = ", joined into one class" if config.joint else ""
    group = f"; split by {config.data.group}" if config.data.group else ""
    height, width = config.model.image_size
    return [
        f"target{'s' if len(targets) > 1 else ''}: {', '.join(targets)}{joint}{group}",
        *(f"- {line}" for line in guess.said),
        *([f"- data.group: {guess.notes['data.group']}"] if "data.group" in guess.notes else []),
        *([f"- data.value_range: {guess.notes['data.value_range']}"] if config.data.value_range else []),
        *([f"class shares: {prior} (selection.prior)"] if config.selection.prior else []),
        f"{'warning: ' if backbone.is_warning else ''}model: {config.model.backbone} at {height} x {width}, weights"
        f" {config.model.weights}: {backbone.reason}",
        *spelling,
    ]


def _class_count(guess: Guess, target: Target) -> int:
    """How many classes a target has in the table."""
    if target.columns is not None:
        return len(target.columns)
    labels = guess.table[str(target.column)].str.strip_chars().replace("", None).drop_nulls()
    return labels.filter(~labels.is_in(list(target.missing or ()))).n_unique()


def _guess_channels(guess: Guess) -> None:
    """Choose model.channels where the images have channels that are no gray and no colours, all of them as many."""
    needed = set()
    for path in _sampled(_image_paths(guess)):
        with contextlib.suppress(ImageError):
            needed.add(needed_channels(path))
    if len(needed) == 1 and needed != {3}:
        (guess.channels,) = needed
        guess.decide(
            "model.channels",
            f"images of {guess.channels} channels",
            "they are neither gray nor red, green and blue",
            "images converted to these",
        )


def _sampled(paths: Sequence[Path]) -> Sequence[Path]:
    return paths[:: max(1, len(paths) // SAMPLED_IMAGES)]


def _guess_value_range(guess: Guess) -> None:
    """Choose data.value_range where images have more than 8 bits and do not use the range of their type. All of them
    are read then: the brightest decides."""
    paths = _image_paths(guess)
    sampled = _facts_of(_sampled(paths), guess.channels)
    if proposed_range(sampled) is None:
        return
    facts = _facts_of(paths, guess.channels)
    proposal = proposed_range(facts)
    if proposal is None:
        return
    guess.data["value_range"] = list(proposal)
    deep = [found for found in facts if found.bits > 8]
    guess.notes["data.value_range"] = (
        f"samples that become black and white: {len(deep)} images have more than 8 bits, and samples from"
        f" {min(found.lowest for found in deep):g} to {max(found.highest for found in deep):g}"
    )


def _image_paths(guess: Guess) -> RowPaths:
    """The images of all rows."""
    if guess.image_names is not None:
        return RowPaths(guess.root, guess.image_names)
    cells = [str(cell) for cell in guess.table[guess.data["path"]].drop_nulls().to_list()]
    found = find_images(cells, guess.folders, str(guess.root), follow_links=True)
    root = found.root.absolute()  # so that a cell that is an address stays the name of a file
    return RowPaths(root, found.names)


def _facts_of(paths: Sequence[Path], channels: int) -> list[ImageFacts]:
    """Of the images that can be read; `train` lists the others."""
    found = []
    for path in paths:
        with contextlib.suppress(ImageError):
            found.append(sample_facts(path, channels))
    return found


def _median_size(guess: Guess) -> tuple[int, int]:
    """The median height and width of some of the images. Raises DataError if none of them can be read."""
    paths = _image_paths(guess)
    heights, widths = [], []
    value_range = guess.data.get("value_range")
    pixels = PixelFormat(guess.channels, value_range=None if value_range is None else tuple(value_range))
    why = ""
    for path in _sampled(paths):
        try:
            height, width = read_image(path, pixels=pixels).shape[:2]
        except ImageError as error:
            why = why or f"{path.name}: {error.reason}"
            continue  # `train` lists all unreadable images; the others are enough here
        heights.append(height)
        widths.append(width)
    if not heights:
        raise DataError(f"{guess.root}: none of the images that were tried can be read, such as {why}")
    return int(median(heights)), int(median(widths))


def _scaled(height: int, width: int, side: int) -> list[int]:
    """The size scaled down to at most about side * side pixels, with the same aspect ratio, in multiples of 4."""
    scale = min(1.0, (side * side / (height * width)) ** 0.5)
    return [max(8, round(height * scale / 4) * 4), max(8, round(width * scale / 4) * 4)]


def _pretrained_size(height: int, width: int) -> list[int]:
    """The size for a backbone that has learned from photographs of 224 px: as many pixels, as far as the images have
    them. Images of less than 96 px a side are enlarged, since what the backbone knows does not show in smaller ones."""
    scale = max(1.0, 96 / min(height, width))
    return _scaled(round(height * scale), round(width * scale), 224)


def _relative_images(guess: Guess, folder: Path) -> dict[str, Any]:
    """data.images relative to the config's folder; nothing where the images are in shards."""
    if guess.image_names is not None:
        return {}
    images = tuple(_relative(images, folder) for images in guess.folders)
    return {"images": images[0] if len(images) == 1 else images}


def _run_name(source: Path) -> str:
    """The source's name as a name for the run."""
    path = source.resolve()
    stem = path.stem if source.is_file() or is_address(source) else path.name
    return "".join(c if c.isalnum() or c in "_- " else "_" for c in stem) or "run"


def _absolute(path: Path) -> str:
    return address_of(path) if is_address(path) else str(path.resolve())


def _relative(path: Path, folder: Path) -> str:
    if is_address(path):
        return address_of(path)
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
