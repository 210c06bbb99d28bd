"""The scores of a trained model on the rows of a split, or of another labeled table."""

from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.contents import resampling_groups
from classwise.compose.row_weights import score_weights
from classwise.compose.splits import Split
from classwise.config.schema import Config
from classwise.console import Console
from classwise.metrics.text import absent_classes
from classwise.run.inputs import rows_to_score
from classwise.run.predictor import Predictor, unscored
from classwise.run.unseen import UnseenLabels, note_unseen

NO_SPLIT = pl.DataFrame(schema=dict.fromkeys(("id", "group", "split", "path", "content"), pl.String))
UNKNOWN_ROWS = (
    "the run has no split.csv, so that nobody can tell whether it was trained on some of these rows"
)


def split_scores(
    predictor: Predictor,
    split: Split,
    config: Config,
    console: Console,
    unseen: UnseenLabels | None = None,
) -> dict[str, Any]:
    """The metrics of one split's rows."""
    if not len(split.samples):
        return unscored(config)
    weights_N = score_weights(config, split.samples)
    outputs = predictor.outputs(split.samples, config, console=console)
    scores = predictor.score(
        outputs,
        split.labels,
        groups=resampling_groups(split.samples, predictor.targets),
        config=config,
        unseen=unseen,
        row_weights=weights_N,
    )
    return scores | predictor.inference


def table_scores(
    predictor: Predictor,
    config: Config,
    trained: pl.DataFrame | None,
    table: Path,
    images: str | Path | None,
    bad_images: str,
    console: Console,
) -> dict[str, Any]:
    """The metrics of a labeled table or folder, with `warnings` of what makes them mean less than it seems, and
    `skipped` where `bad_images` is `skip`. `trained`: split.csv of the model's run; None where it has none,
    as one from a hub. Raises DataError."""
    rows = rows_to_score(
        NO_SPLIT if trained is None else trained,
        config,
        predictor.targets,
        table=table,
        images=images,
        bad_images=bad_images,
        console=console,
    )
    metrics = split_scores(predictor, rows.split, config, console, rows.unseen)
    note_unseen(metrics, rows.unseen)
    warnings = [*([UNKNOWN_ROWS] if trained is None else []), *rows.warnings, *absent_classes(metrics)]
    for warning in warnings:
        console.line(f"warning: {warning}")
    if bad_images == "skip":
        metrics["skipped"] = [{"path": str(error.path), "reason": error.reason} for error in rows.bad]
    return metrics | {"warnings": warnings}
