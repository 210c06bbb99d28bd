"""What `train` would refuse is found by `init` already, as far as no image has to be read for it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.compose.dataset import prepare_labels
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.conflicts import check_conflicts
from classwise.config.schema import Config
from classwise.data.image_paths import find_images
from classwise.data.sources import refuse_escapes
from classwise.data.targets import Target
from classwise.errors import DataError
from classwise.suggest.guess import Guess

EMPTY = "leaves one side of the split empty"
"""In the message of a split that cannot be drawn."""
LARGER_SHARES = (0.2, 0.3, 0.5)
"""Fractions to validate on that are tried for small tables."""
LEAST_ROWS, LEAST_OF_CLASS = 30, 2
"""`init` warns of fewer validation rows, in all and of one class."""
LISTED_CLASSES = 5
"""Classes with few validation rows that are named."""
MOST_CLASSES = 12
"""Classes whose rows are listed; of more, the rarest of them and the most frequent one."""


def rehearse(config: Config, guess: Guess) -> Config:
    """The config, once its rows, labels and split are known to be ones that `train` takes. A larger fraction validates
    where a smaller one is no row, and groups that cannot be split are given up, which is said. Raises DataError or
    ConfigError with what `train` would say."""
    table = None if guess.source else guess.table
    check_conflicts(config)
    try:
        splits = prepare_labels(config, table)
    except DataError as error:
        if EMPTY not in str(error) or not isinstance(config.data.valid, float):
            raise
        config = _with_other_split(config, guess, table, error)
        splits = prepare_labels(config, table)
    _say_rows_of_classes(guess, splits)
    _warn_of_few(guess, config, splits)
    return config


def _say_rows_of_classes(guess: Guess, splits: DatasetSplits) -> None:
    """How many rows each class has, the rarest first: what a user most needs to know of a target."""
    for target in splits.targets:
        if not target.labels:
            continue  # numbers, or grades of relevance
        rows = np.sum([_rows_of_classes(target, split) for split in splits.by_name.values()], axis=0)
        order = np.argsort(rows, kind="stable")
        texts = [f"{target.labels[k]} {rows[k]}" for k in order]
        if len(texts) > MOST_CLASSES:
            left = len(texts) - MOST_CLASSES
            texts = [*texts[: MOST_CLASSES - 1], f"... ({left} classes more)", texts[-1]]
        guess.said.append(f"{target.name}, rows of each class: {', '.join(texts)}")


def _rows_of_classes(target: Target, split: Split) -> npt.NDArray[np.int64]:
    """(K,): the rows of each class or label of a target that has some."""
    if target.type == "multilabel":
        return np.asarray((split.labels[target.name] == 1).sum(axis=0), dtype=np.int64)
    numbers = target.class_numbers(split.labels[target.name])
    return np.bincount(numbers[numbers >= 0], minlength=len(target.labels))


def _warn_of_few(guess: Guess, config: Config, splits: DatasetSplits) -> None:
    """Say where so few rows would validate that one more mistake changes a score by a lot, and what helps."""
    valid = splits.valid
    if not len(valid.samples):
        return
    thin: list[str] = []
    for target in splits.targets:
        if target.type in ("class", "ordinal"):
            rows = _rows_of_classes(target, valid)
            is_in_table = rows + _rows_of_classes(target, splits.train) > 0
            thin += [
                f"{rows[k]} of {target.labels[k]}"
                for k in np.flatnonzero((rows < LEAST_OF_CLASS) & is_in_table)
            ]
    is_few = len(valid.samples) < LEAST_ROWS
    if not is_few and not thin:
        return
    found = ", ".join([f"only {len(valid.samples)} rows" if is_few else "few rows", *thin[:LISTED_CLASSES]])
    if len(thin) > LISTED_CLASSES:
        found += f" and fewer than {LEAST_OF_CLASS} of {len(thin) - LISTED_CLASSES} classes more"
    guess.said.append(
        f"warning: validation has {found}, so one image more or less changes the scores by a lot;"
        f" {_larger_share_text(config)}`classwise folds` in place of `classwise train` scores every row once"
    )


def _larger_share_text(config: Config) -> str:
    """What a larger share to validate on costs; empty where the rows are given, or half of them validate."""
    share = None if config.data.split or config.data.fold else config.data.valid
    larger = [other for other in LARGER_SHARES if isinstance(share, float) and other > share]
    if not larger:
        return ""
    return f"data.valid = {larger[0]} in place of {share} sets more aside, and leaves less to train on; "


def _with_other_split(config: Config, guess: Guess, table: pl.DataFrame | None, error: DataError) -> Config:
    """The config with another fraction or without groups. Raises `error` if neither helps."""
    shares = [share for share in LARGER_SHARES if share > float(config.data.valid)]
    for share in shares:
        changed = _with_data(config, valid=share)
        if _can_be_split(changed, table):
            reason = f"{config.data.valid} of {guess.table.height} rows would be none"
            guess.said.append(f"validation: a fraction of {share}, since {reason}")
            guess.note("data.valid", f"fraction of the rows to validate on: {share}, since {reason}")
            return changed
    for share in (float(config.data.valid), *shares) if config.data.group is not None else ():
        changed = _with_data(config, valid=share, group=None)
        if _can_be_split(changed, table):
            group = guess.data.pop("group", None)
            guess.notes.pop("data.group", None)
            guess.said.append(
                f"warning: column {group!r} looks like groups, but such groups cannot be split ({error}); rows are"
                f" split one by one, and scores are too good if rows of one {group} are alike"
            )
            return changed
    raise error


def _with_data(config: Config, **changes: Any) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def _can_be_split(config: Config, table: pl.DataFrame | None) -> bool:
    try:
        prepare_labels(config, table)
    except DataError:
        return False
    return True


def follow_links_if_needed(guess: Guess) -> None:
    """Set data.follow_links where images are reached through links that lead out of their folder, and say so."""
    cells = [cell for cell in guess.table[guess.data["path"]].to_list() if cell]
    found = find_images(cells, guess.folders, str(guess.root), follow_links=True)
    try:
        refuse_escapes(found.names, found.root, str(guess.root), folders=guess.folders)
        return
    except DataError:
        # By its text a path must stay inside in any case.
        refuse_escapes(found.names, found.root, str(guess.root), folders=guess.folders, follow_links=True)
    inside = tuple(os.path.realpath(folder) + os.sep for folder in guess.folders)
    out = [name for name in found.names if not os.path.realpath(found.root / name).startswith(inside)]
    target = Path(os.path.realpath(found.root / out[0])).parent
    guess.data["follow_links"] = True
    guess.decide(
        "data.follow_links",
        f"links: {len(out)} of {len(found.names)} images are reached through links, such as {out[0]!r} to {target}",
        "they lead out of the folder, and you have named it",
        "false refuses them; for data whose links you do not trust",
    )
