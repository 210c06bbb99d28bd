"""The models of the folds, read back from their runs: each checked to be a run of these folds on this data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from classwise.compose.dataset import ReadData, prepare
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import CheckpointError
from classwise.infer.ensemble import decoded_outputs, mean_outputs
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.out_of_fold import OutOfFold, out_of_fold
from classwise.kfold.plan import FoldRun, fold_runs
from classwise.run.checkpoint import Checkpoint, read_checkpoint
from classwise.run.folder import RunFolder
from classwise.run.predictor import Predictor
from classwise.run.resume_checks import refuse_changed_data
from classwise.run.resume_config import fixed_toml
from classwise.run.unattended import is_done


def require_done(folder: FoldsFolder, config: Config) -> None:
    """Raise CheckpointError with the names of the folds that are not done."""
    runs = fold_runs(config)
    missing = [run.name for run in runs if not is_done(folder.path / run.name)]
    if missing:
        raise CheckpointError(
            f"{folder.path}: {len(runs) - len(missing)} of {len(runs)} folds are done, not {', '.join(missing)}; go on"
            f" with: classwise resume {folder.path}"
        )


def ensemble_of(folder: FoldsFolder, config: Config, tta: str = "none") -> Predictor:
    """The models of all folds as one, each with the test-time augmentation `tta`. Raises CheckpointError for a fold
    that is missing, damaged or foreign."""
    require_done(folder, config)
    members = [Predictor.of(read_member(folder, run)).with_tta(tta) for run in fold_runs(config)]
    return Predictor.mean_of(members, config.inference.ensemble)


def read_member(folder: FoldsFolder, run: FoldRun) -> Checkpoint:
    """The best checkpoint of a fold. Raises CheckpointError if it was trained for something else."""
    path = folder.path / run.name
    checkpoint = read_checkpoint(path / "checkpoints" / "best")
    if checkpoint.metadata.get("config") != fixed_toml(run.config):
        raise CheckpointError(
            f"{path} is not this fold of {folder.path}: it was trained with another config; bring its own run back, or"
            f" delete it and train it again: classwise resume {folder.path}"
        )
    return checkpoint


@dataclass(frozen=True)
class Gathered:
    """What the models of the folds say: of all rows out of their fold, and of the test rows (`test`), where there are
    any, together. `predictor` decodes both; `splits`: of the first fold."""

    rows: OutOfFold
    predictor: Predictor
    splits: DatasetSplits
    test: dict[str, Tensor] | None


def gather(
    folder: FoldsFolder,
    config: Config,
    read: ReadData,
    console: Console,
    should_stop: Callable[[], bool],
    recompute: bool = False,
    tta: str = "none",
) -> Gathered:
    """Read what every fold's model says of its rows; or compute it, where it is missing or is to be recomputed, and
    with test-time augmentation. One model is in memory at a time.

    Raises CheckpointError for a fold that is missing, damaged or foreign, Interrupted."""
    require_done(folder, config)
    runs = fold_runs(config)
    count = runs[-1].fold + 1
    outputs: list[list[dict[str, Tensor]]] = [[] for _ in range(count)]  # by fold, of each seed
    test: list[dict[str, Tensor]] = []
    splits: list[DatasetSplits] = []
    first: Predictor | None = None
    for run in runs:
        # The rows that this model was validated and tested on, as they were.
        files = folder.run(run.name)
        checkpoint = read_member(folder, run)
        data = prepare(run.config, console, sides=files.sides(), read=read)
        refuse_changed_data(files, data, checkpoint.metadata)
        predictor = Predictor.of(checkpoint).with_tta(tta)

        # Heads of different folds decode with numbers of their own rows, so outputs are decoded before they are joined.
        for name, split in data.by_name.items():
            if name == "train":
                continue
            raw = None if recompute or tta != "none" else _kept_outputs(files, name, split, predictor)
            if raw is None:
                raw = predictor.outputs(
                    split.samples, config, should_stop=should_stop, console=console, cached=split.cached
                )
            decoded = decoded_outputs(raw, predictor.heads)
            (outputs[run.fold] if name == "valid" else test).append(decoded)
        if run.repeat == 0:
            splits.append(data)
        first = first or predictor

    # Seeds of one fold are averaged on its own rows, all models on the test rows.
    assert first is not None
    heads, ensemble = first.heads, config.inference.ensemble
    return Gathered(
        rows=_out_of_fold(folder, read, splits, [mean_outputs(one, heads, ensemble) for one in outputs]),
        predictor=Predictor.mean_of([first], ensemble),
        splits=splits[0],
        test=mean_outputs(test, heads, ensemble) if test else None,
    )


def _kept_outputs(
    files: RunFolder, name: str, split: Split, predictor: Predictor
) -> dict[str, Tensor] | None:
    """The raw outputs that the run has kept of a split's rows, in the order of the targets; None if they do not fit."""
    kept = files.outputs(name) or {}
    shapes = {target: (len(split.samples), head.outputs) for target, head in predictor.heads.items()}
    if {target: tuple(values.shape) for target, values in kept.items()} != shapes:
        return None
    return {target: kept[target] for target in shapes}


def _out_of_fold(
    folder: FoldsFolder, read: ReadData, splits: Sequence[DatasetSplits], outputs: Sequence[dict[str, Tensor]]
) -> OutOfFold:
    try:
        return out_of_fold(read.samples.ids, [one.valid for one in splits], outputs)
    except ValueError as error:
        raise CheckpointError(f"{folder.path}: the folds do not have each row once: {error}") from None
