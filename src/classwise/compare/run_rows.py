"""The rows on which finished runs can be compared: those that each of them predicts and none was trained on.

Rows are paired by their id, and by nothing else: the n-th row of one run is not the n-th of another.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.contents import dependent_rows
from classwise.data.table import plain, read_table
from classwise.errors import CheckpointError, DataError
from classwise.run.folder import RunFolder
from classwise.run.liveness import ending_note, true_status

FILES = {"valid": "predictions.csv", "test": "predictions-test.csv"}
FOLDS_FILE = "oof.csv"


@dataclass(frozen=True)
class FinishedRun:
    """A run, or folds, with its predictions of rows that it was not trained on, by split (folds: those out of fold, as
    `valid`). `split`: its split.csv; of folds that of the first one, in which all rows have their group and image."""

    path: Path
    name: str
    is_folds: bool
    status: dict[str, Any]
    metrics: dict[str, Any]
    config: dict[str, Any]
    predictions: dict[str, pl.DataFrame]
    split: pl.DataFrame

    def train_ids(self) -> set[str]:
        """The ids of the rows that it was trained on; of folds none, since each is predicted out of fold."""
        if self.is_folds:
            return set()
        return set(self.split.filter(pl.col("split") == "train")["id"].to_list())


@dataclass(frozen=True)
class CommonRows:
    """The rows that are compared, in the order of the first run: their `ids`, each run's `tables` of predictions, the
    `groups` of rows that vary together (None: each row is its own), what they are, and what to know of them."""

    ids: list[str]
    tables: list[pl.DataFrame]
    groups: list[str] | None
    what: str
    warnings: list[str]


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """The runs in these directories. Raises CheckpointError for one that has no predictions yet."""
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def common_rows(runs: Sequence[FinishedRun]) -> CommonRows:
    """The rows that all runs predict: their test rows, where all have some in common; else all rows that each of them
    keeps from training. Raises DataError where nothing is common, and says why."""
    chosen = "test" if all("test" in run.predictions for run in runs) else "any"
    ids = _shared_ids(runs, chosen)
    if not ids and chosen == "test":
        chosen = "any"
        ids = _shared_ids(runs, chosen)
    if not ids:
        raise DataError(_nothing_common(runs))

    # The same id may stand for another image, when the data was changed between two runs.
    contents = [_by_id(run.split, "content") for run in runs]
    other_image = {id for id in ids if len({content.get(id) for content in contents if content.get(id)}) > 1}
    ids = [id for id in ids if id not in other_image]
    if not ids:
        raise DataError(
            "the runs have the same ids, but other images under them: there is nothing to compare"
        )

    order = pl.DataFrame({"id": ids}, schema={"id": pl.String})
    tables = [
        order.join(_predictions(run, chosen), on="id", how="left", maintain_order="left") for run in runs
    ]
    groups = _by_id(runs[0].split, "group")
    known_contents = [contents[0].get(id) for id in ids]
    return CommonRows(
        ids=ids,
        tables=tables,
        groups=_units([groups.get(id) for id in ids], known_contents),
        what="test rows, which chose nothing" if chosen == "test" else _kinds_text(runs),
        warnings=_warnings(runs, chosen, ids, other_image),
    )


def _read(path: Path, name: str) -> FinishedRun:
    folder = RunFolder(path)
    status = true_status(path, folder.status())
    is_folds = status.get("kind") == "folds"
    found = {}
    for split, file in ({"valid": FOLDS_FILE} if is_folds else FILES).items():
        if (path / file).exists():
            found[split] = plain(read_table(path / file))
    if not found:
        raise CheckpointError(
            f"{path}: found no predictions ({FOLDS_FILE if is_folds else ', '.join(FILES.values())}); they are"
            f" there once the run is done, and it is {status.get('state')}"
        )
    return FinishedRun(
        path=path,
        name=name,
        is_folds=is_folds,
        status=status,
        metrics=folder.metrics(),
        config=_config(folder.config),
        predictions=found,
        split=read_table(path / "fold-0" / "split.csv") if is_folds else folder.split(),
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the folders, or as much of their paths as tells them apart."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"compare: found {paths[0]} twice; allowed: runs that are different")


def _predictions(run: FinishedRun, chosen: str) -> pl.DataFrame:
    """The predictions of the test rows, or of all."""
    if chosen == "test":
        return run.predictions["test"]
    return pl.concat(list(run.predictions.values()), how="diagonal")


def _shared_ids(runs: Sequence[FinishedRun], chosen: str) -> list[str]:
    first, *others = ([*_predictions(run, chosen)["id"].to_list()] for run in runs)
    everywhere = set(first).intersection(*others)
    return [id for id in first if id in everywhere]


def _by_id(split: pl.DataFrame, column: str) -> dict[str, str]:
    if column not in split.columns:
        return {}
    pairs = zip(split["id"].to_list(), split[column].to_list(), strict=True)
    return {id: value for id, value in pairs if value is not None}


def _units(groups: Sequence[str | None], contents: Sequence[str | None]) -> list[str] | None:
    """The group of each row for a bootstrap, as RunFolder.groups has it."""
    known_groups = [group for group in groups if group is not None]
    known_contents = [content for content in contents if content is not None]
    found = dependent_rows(
        known_groups if len(known_groups) == len(groups) else None,
        known_contents if len(known_contents) == len(contents) else None,
    )
    return None if found is None else list(found)


def _kinds_text(runs: Sequence[FinishedRun]) -> str:
    kinds = dict.fromkeys("out-of-fold rows" if run.is_folds else "validation rows" for run in runs)
    kinds |= dict.fromkeys("test rows" for run in runs if "test" in run.predictions and not run.is_folds)
    return f"{' and '.join(kinds)}, which no run was trained on"


def _nothing_common(runs: Sequence[FinishedRun]) -> str:
    """Why there is nothing to compare."""
    first = runs[0]
    ids = set(_predictions(first, "any")["id"].to_list())
    for other in runs[1:]:
        theirs = set(_predictions(other, "any")["id"].to_list())
        if ids & theirs:
            continue
        text = (
            f"nothing to compare: of the {len(ids)} rows that {first.name} keeps from training, and the"
            f" {len(theirs)} of {other.name}, none are the same"
        )
        if trained := len(ids & other.train_ids()):
            return (
                f"{text}; {trained} of the first are training rows of {other.name} (its split.csv), which would"
                " flatter it. Train both on the same split (seed, data.split, data.valid as a table)"
            )
        return f"{text}; rows are paired by id, and their ids differ"
    return f"nothing to compare: no row is kept from training by all {len(runs)} runs"


def _warnings(
    runs: Sequence[FinishedRun], chosen: str, ids: Sequence[str], other_image: set[str]
) -> list[str]:
    """What the numbers depend on beside the models."""
    warnings = []
    for run in runs:
        if note := ending_note(run.status):
            how = note.removeprefix("note: the run ").partition(";")[0]
            warnings.append(
                f"{run.name}: {how}; its predictions are compared, which may be of an earlier model"
            )
    compared = set(ids)
    for run in runs:
        own = set(_predictions(run, chosen)["id"].to_list())
        if left := own - compared - other_image:
            text = f"{run.name}: {len(left)} of its {len(own)} rows are left out, which not all runs predict"
            for other in runs:
                if other is not run and (trained := len(left & other.train_ids())):
                    text += f"; {trained} of them are training rows of {other.name}"
            warnings.append(text)
    if other_image:
        which = "1 row has" if len(other_image) == 1 else f"{len(other_image)} rows have"
        warnings.append(f"{which} the same id but another image, such as {min(other_image)}: left out")
    if chosen != "test" and any(_has_chosen(run) for run in runs):
        warnings.append(
            "the validation rows have chosen the epoch of each run, so all scores are somewhat too high; that hardly"
            " favors either, unless one could choose from many more epochs"
        )
    return warnings


def _has_chosen(run: FinishedRun) -> bool:
    """Whether its validation rows have chosen its model. Rows out of fold have not, nor those of a linear probe."""
    return not run.is_folds and run.config.get("training", {}).get("plan") != "probe"
