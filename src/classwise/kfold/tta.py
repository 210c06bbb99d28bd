"""Test-time augmentation of folds, and its choice by the rows out of fold."""

import dataclasses
from collections.abc import Callable
from typing import Any

from classwise.compose.dataset import ReadData
from classwise.compose.paired_choice import PairedDifference, paired_difference
from classwise.compose.splits import Split
from classwise.compose.tta import CANDIDATES, check_tta, refusal_of
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import CheckpointError, ConfigError
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.members import Gathered, gather


def gather_as_asked(
    folder: FoldsFolder,
    config: Config,
    read: ReadData,
    console: Console,
    should_stop: Callable[[], bool],
    recompute: bool = False,
) -> tuple[Gathered, dict[str, Any]]:
    """What the models say with the augmentation of inference.tta, and the entry `inference` of metrics.json. Raises as
    `gather`, ConfigError for an augmentation that contradicts the training."""
    check_tta(config)
    asked = config.inference.tta

    def gathered_with(tta: str) -> Gathered:
        return gather(folder, config, read, console, should_stop, recompute, tta)

    entry: dict[str, Any] = {"tta": asked, "ensemble": config.inference.ensemble}
    if asked != "auto":
        return gathered_with(asked), entry

    # One step after the other, each on the same rows and against what was kept so far: the lower end of an interval is
    # below 0 in 39 of 40 cases without a gain, so that nothing is taken for nothing in about 1 of 20.
    kept = gathered_with("none")
    entry |= {"tta": "none", "asked": "auto", "steps": []}
    for name in CANDIDATES:
        if refusal_of(config, name):
            entry["steps"].append({"tta": name, "against": None, "adopted": False})
            console.line(f"inference.tta = auto: {name} is left out, as training does not augment so")
            continue
        other = gathered_with(name)
        difference = _difference(config, kept, other)
        adopted = difference.interval[0] > 0
        console.line(_step_text(name, str(entry["tta"]), difference, adopted))
        entry["steps"].append(
            {
                "tta": name,
                "against": entry["tta"],
                "difference": difference.difference,
                "interval": difference.interval,
                "share": difference.share,
                "adopted": adopted,
            }
        )
        if adopted:
            kept, entry["tta"] = other, name
    return kept, entry


def tta_of_folds(folder: FoldsFolder, config: Config) -> str:
    """The augmentation that the ensemble predicts with; of `auto`, what was chosen when the folds were done. Raises
    ConfigError where it contradicts the training, or nothing was chosen."""
    check_tta(config)
    if config.inference.tta != "auto":
        return config.inference.tta
    try:
        entry = folder.files.metrics().get("inference", {})
    except CheckpointError:
        entry = {}
    if entry.get("asked") != "auto":
        raise ConfigError(
            f"inference.tta: found 'auto', but {folder.path} was made with another value, and nothing was chosen;"
            " allowed: none, flip, flip+scale. `classwise"
            f" evaluate {folder.path} --tta auto` shows what out-of-fold rows say"
        )
    return str(entry["tta"])


def _difference(config: Config, before: Gathered, after: Gathered) -> PairedDifference:
    """Of the selection metric on the rows out of fold, over resamples of their groups. The epochs were chosen on the
    same rows without augmentation, which favors `before`, so there is no optimism to take off."""
    rows = before.rows
    splits = dataclasses.replace(before.splits, valid=Split(rows.samples, rows.labels))
    return paired_difference(
        config, splits, after.predictor.heads, rows.outputs, after.rows.outputs, optimism=0.0
    )


def _step_text(name: str, kept: str, difference: PairedDifference, adopted: bool) -> str:
    gain, (low, high) = difference.difference, difference.interval
    verdict = "taken" if adopted else "left out, as its interval is not above 0"
    return (
        f"inference.tta = auto: {name} against {kept} {gain:+.4f} [{low:+.4f}, {high:+.4f}] out of fold:"
        f" {verdict}"
    )
