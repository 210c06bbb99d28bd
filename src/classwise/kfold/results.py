"""What a folds directory holds once all folds are done: oof.parquet, oof.csv, metrics.json and
decision.json."""

from collections.abc import Callable, Mapping
from typing import Any

from classwise.compose.contents import resampling_groups
from classwise.compose.dataset import ReadData
from classwise.compose.row_weights import score_weights
from classwise.config.schema import Config
from classwise.console import Console
from classwise.infer.decided import with_abstentions
from classwise.kfold.decisions import (
    applied_lines,
    decide,
    decided,
    decision_lines,
    marking_heads,
    other_inference_line,
    with_decision,
)
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.members import Gathered
from classwise.kfold.out_of_fold import scores_of, spread_of, table_of
from classwise.kfold.plan import fold_runs
from classwise.kfold.tta import gather_as_asked
from classwise.metrics.text import headline_note, headline_text
from classwise.run.predictor import Predictor, unscored


def write_results(
    folder: FoldsFolder, config: Config, read: ReadData, console: Console, should_stop: Callable[[], bool]
) -> Gathered:
    """Write the files of all folds together, and return what they are made of. Raises CheckpointError for a fold that
    is damaged or foreign."""
    gathered, inference = gather_as_asked(folder, config, read, console, should_stop)
    decisions = decide(config, gathered, inference)
    rows, predictor = gathered.rows, gathered.predictor
    marks = marking_heads(predictor, decisions.json)
    table = with_abstentions(table_of(rows, predictor), rows.outputs, marks, predictor.joint)
    folder.write_out_of_fold(table)
    metrics = metrics_of(folder, config, gathered, inference, decisions.json, decisions.nested)
    folder.files.write_metrics(metrics)
    folder.write_decision(decisions.json)
    console.line(headline_text(metrics))
    console.line_once(headline_note(metrics))
    for line in decision_lines(decisions.json):
        console.line(line)
    return gathered


def metrics_of(
    folder: FoldsFolder,
    config: Config,
    gathered: Gathered,
    inference: dict[str, Any],
    decision: Mapping[str, Any],
    nested: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """metrics.json: the scores of all rows out of fold, pooled; `per_fold` and `spread`, those of the single folds as
    their runs have them, without test-time augmentation; `inference`, how the predictions were made; `nested`, the
    scores of the decisions that are adopted; and those of all models together on the `test` rows, where there are
    any, as they answer by the `decision` (decision.json)."""
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
    if nested:
        head["nested"] = dict(nested)
    if gathered.test is not None:
        metrics["test"] = _test_scores(config, gathered, decision)
    return head | metrics


def metrics_again(
    folder: FoldsFolder, config: Config, read: ReadData, console: Console, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """As metrics.json, with all rows predicted again, and as they are answered by decision.json. `nested` is estimated
    anew, of the rules that decision.json has, and left out where they were fitted to other views or means of the
    models."""
    gathered, inference = gather_as_asked(folder, config, read, console, should_stop, recompute=True)
    decided(folder, gathered.predictor)  # refuses a damaged file
    decision = folder.decision() or {"targets": {}}
    other = other_inference_line(decision, str(inference["tta"]), str(inference["ensemble"]))
    if other:
        console.line(f"{other}; `nested` is left out")
        return metrics_of(folder, config, gathered, inference, decision, None)
    nested = decide(config, gathered, inference).nested or {"targets": {}}
    kept = {
        name: entry
        for name, entry in nested["targets"].items()
        if entry["rule"] == decision["targets"].get(name, {}).get("rule", {}).get("name")
    }
    # The joint class is scored with the rules of all of its targets, or not at all.
    again = nested if kept == nested["targets"] else {"targets": kept}
    return metrics_of(folder, config, gathered, inference, decision, again if kept else None)


def _test_scores(config: Config, gathered: Gathered, decision: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of the ensemble on the test rows, as it answers; and where a decision changes that, the selection
    metric without it."""
    test = gathered.splits.test
    assert test is not None
    assert gathered.test is not None
    if not len(test.samples):
        return unscored(config)

    def scored(predictor: Predictor) -> dict[str, Any]:
        assert gathered.test is not None
        return predictor.score(
            gathered.test,
            test.labels,
            groups=resampling_groups(test.samples, predictor.targets),
            config=config,
            row_weights=score_weights(config, test.samples),
        )

    if not applied_lines(decision):
        return scored(gathered.predictor)
    decided = scored(with_decision(gathered.predictor, decision, "decision.json"))
    return decided | {"without_decision": scored(gathered.predictor)["value"]}
