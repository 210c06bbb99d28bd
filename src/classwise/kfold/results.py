"""What a folds directory holds once all folds are done: oof.parquet, oof.csv, metrics.json and report.html."""

from collections.abc import Callable
from typing import Any

from classwise.compose.contents import resampling_groups
from classwise.compose.dataset import ReadData
from classwise.compose.row_weights import score_weights
from classwise.config.schema import Config
from classwise.console import Console
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.members import Gathered
from classwise.kfold.out_of_fold import scores_of, spread_of, table_of
from classwise.kfold.plan import fold_runs
from classwise.kfold.tta import gather_as_asked
from classwise.metrics.text import headline_note, headline_text
from classwise.run.predictor import unscored


def write_results(
    folder: FoldsFolder, config: Config, read: ReadData, console: Console, should_stop: Callable[[], bool]
) -> None:
    """Write the files of all folds together. Raises CheckpointError for a fold that is damaged or foreign."""
    gathered, inference = gather_as_asked(folder, config, read, console, should_stop)
    folder.write_out_of_fold(table_of(gathered.rows, gathered.predictor))
    metrics = metrics_of(folder, config, gathered, inference)
    folder.files.write_metrics(metrics)
    console.line(headline_text(metrics))
    console.line_once(headline_note(metrics))


def metrics_of(
    folder: FoldsFolder, config: Config, gathered: Gathered, inference: dict[str, Any]
) -> dict[str, Any]:
    """metrics.json: the scores of all rows out of fold, pooled; `per_fold` and `spread`, those of the single folds as
    their runs have them, without test-time augmentation; those of all models together on the `test` rows, where there
    are any; and `inference`, how the predictions were made."""
    metrics = scores_of(gathered.rows, gathered.predictor, config)
    per_fold: list[dict[str, Any]] = []
    for run in fold_runs(config):
        found = folder.run(run.name).metrics()
        kept = {key: found.get(key) for key in ("metric", "value", "epoch", "samples")}
        per_fold.append({"folder": run.name, "fold": run.fold, "seed": run.config.seed, **kept})
    values = [float(entry["value"]) for entry in per_fold if entry["value"] is not None]
    head = {key: metrics[key] for key in ("metric", "value", "samples")}
    head |= {"pooled_over": "folds", "spread": spread_of(values), "per_fold": per_fold}
    head["inference"] = inference
    if gathered.test is not None:
        metrics["test"] = _test_scores(config, gathered)
    return head | metrics


def _test_scores(config: Config, gathered: Gathered) -> dict[str, Any]:
    """The scores of the ensemble on the test rows."""
    test = gathered.splits.test
    assert test is not None
    assert gathered.test is not None
    if not len(test.samples):
        return unscored(config)
    return gathered.predictor.score(
        gathered.test,
        test.labels,
        groups=resampling_groups(test.samples, gathered.predictor.targets),
        config=config,
        row_weights=score_weights(config, test.samples),
    )
