"""What a run prints: at its start, after each epoch, at its end."""

import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from classwise.compose.baselines import Baselines
from classwise.compose.splits import DatasetSplits
from classwise.console import Console
from classwise.metrics.formatting import display_width
from classwise.metrics.main_scores import MAIN_SCORES
from classwise.metrics.mean import main_score
from classwise.metrics.names import split_metric
from classwise.metrics.scores import AT_PRIOR
from classwise.metrics.selection_text import plan_text, selection_text
from classwise.metrics.text import absent_classes, headline_note, headline_text
from classwise.model.heads import Head
from classwise.own_parts.reference import short
from classwise.run.assembly import Parts
from classwise.run.folder import RunFolder
from classwise.training import loop
from classwise.training.probe import PENALTIES

LINE_WIDTH = 100  # columns of an epoch's line
SPEED_WIDTH = 32  # of these for `  lr 1.0e-03  123.4 s  12,345/s`, whatever an epoch takes

INEXACT = (
    "note: {model} has {layers}, which normalize{s} by the {images} images of a forward pass; the {total} of an update"
    " are not computed in one, so the gradient is not exactly that of one large batch. It is with training.batch_norm ="
    ' "frozen" (for pretrained weights) or a backbone without batch norm, such as small_cnn_gn{or_sync}'
)


def say_start(console: Console, folder: RunFolder, splits: DatasetSplits, parts: Parts) -> None:
    """Print the warnings of the data, and what is about to be trained on how many rows."""
    for warning in splits.warnings:
        console.line(f"warning: {warning}")
    if splits.cache is not None:
        console.line(str(splits.cache))

    train = splits.train.samples
    valid = splits.valid.samples
    grouped = ""
    if train.groups is not None and valid.groups is not None:
        grouped = f"\n{len(set(train.groups))} and {len(set(valid.groups))} groups, none of them in both"
    rows = f"{len(train)} training and {len(valid)} validation rows"
    if not len(valid):
        rows = f"{len(train)} training rows, which are all rows (data.valid = 0)"
    if splits.test is not None:
        test = splits.test.samples
        rows = f"{len(train)} training, {len(valid)} validation and {len(test)} test rows"
        if not len(valid):
            rows = f"{len(train)} training and {len(test)} test rows, none for validation (data.valid = 0)"
        if train.groups is not None and valid.groups is not None and test.groups is not None:
            counts = [len(set(groups)) for groups in (train.groups, valid.groups, test.groups)]
            grouped = f"\n{counts[0]}, {counts[1]} and {counts[2]} groups, none of them in two of these"
    settings = parts.settings
    since = ""
    if settings.first_epoch > 1:
        since = f", from epoch {settings.first_epoch} on (selection.first_epoch)"
    where = f"{settings.precision} on {settings.device}"
    if not settings.epochs:
        console.line(f"{folder.path}: {rows}{grouped}\nno epoch (training.plan), {where}")
        return
    marks = f"; * marks the best {settings.metric} so far{since}"
    if not len(valid):
        marks = ": no epoch can be selected, so the model of the last one is kept"
    console.line(
        f"{folder.path}: {rows}{grouped}\n{parts.data.updates_per_epoch} updates an epoch, {where}{marks}"
    )
    if legend := targets_legend(parts.heads):
        console.line(legend)
    say_batch_norm(console, parts)


def say_batch_norm(console: Console, parts: Parts) -> None:
    """Print which layers keep an update from being exact: batch norm, where the update takes several forward passes."""
    note = batch_norm_note(parts)
    if note:
        console.line(note)


def batch_norm_note(parts: Parts) -> str:
    """The line about batch norm; empty where every update is one forward pass, or no layer depends on the batch."""
    state, data = parts.state, parts.data
    norms = state.model.batch_dependent_norms
    if not norms or data.frozen_epochs >= parts.settings.epochs:
        return ""

    # The images of a forward pass, and of an update: all processes' micro-batches, each perhaps in chunks. Synchronized
    # norms see one such pass of all processes.
    batch_size = data.loader.batch_size
    chunks = -(-batch_size // (state.progress.chunk_size or batch_size))
    images = -(-batch_size // chunks)
    total = batch_size * data.micro_batches_per_update
    world_size = data.world_size
    is_synchronized = all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    if is_synchronized:
        images *= world_size
    if images >= total:
        return ""
    can_synchronize = world_size > 1 and not is_synchronized
    count = len(norms)
    return INEXACT.format(
        model=short(state.model.metadata.backbone),
        layers=f"{count} batch norm layer{'s' if count > 1 else ''}",
        s="" if count > 1 else "s",
        images=images,
        total=total,
        or_sync="; training.sync_batch_norm normalizes over all processes" if can_synchronize else "",
    )


def targets_legend(heads: Mapping[str, Head]) -> str:
    """What the number behind each target's name in an epoch's line is; empty for a single target, whose name is not
    in it."""
    if len(heads) < 2:
        return ""
    names: dict[str, list[str]] = {}
    for name, head in heads.items():
        names.setdefault(MAIN_SCORES[head.type], []).append(name)
    scores = "; ".join(f"{score} of {', '.join(targets)}" for score, targets in names.items())
    return f"each epoch also shows, by target: {scores}"


def first_answer_line(metrics: Mapping[str, Any], answer: Mapping[str, Any], console: Console) -> str:
    """What the heads on the frozen backbone come to; `answer` as in FirstAnswer.as_dict."""
    seconds = time.monotonic() - console.started
    text = f"first answer after {seconds:.1f} s"
    text += ":" if metrics["value"] is None else f": {headline_text(metrics)};"
    if answer["cross_validated"] is not None:
        text += (
            f" {answer['cross_validated']:.4f} cross-validated on {answer['rows']} training rows, with the best of"
            f" {len(PENALTIES)} penalties"
        )
    return text.rstrip(";:")


def epoch_line(
    row: dict[str, Any], settings: loop.Settings, best: bool, heads: Mapping[str, Head] | None = None
) -> str:
    """A line for an epoch from its row of history.jsonl; an asterisk marks the best so far.

    `heads`: of several targets each one's main score follows, by the target's name, but for the selecting one, which
    is there already: on lines of their own where they would not fit.
    """
    width = len(str(settings.epochs))
    epoch = f"epoch {row['epoch']:>{width}}/{settings.epochs}  "
    star = "*" if best and row["epoch"] >= settings.first_epoch else " "
    selected = f"{epoch}loss {row['train_loss']:.4f}"
    if row["valid"]:
        selected += f"  {settings.metric} {row['valid'][settings.metric]:.4f} {star}"
    speed = f"  lr {row['lr']:.1e}  {row['seconds']:.1f} s  {row['images_per_second']:,.0f}/s"
    others = _target_scores(row["valid"], settings.metric, heads or {})
    joined = "".join(f"  {item}" for item in others)
    if display_width(selected + joined) + SPEED_WIDTH <= LINE_WIDTH:
        return selected + joined + speed

    # Below each other in every epoch, so the lines begin where the loss does.
    lines = [selected + speed, ""]
    indent = " " * (len(epoch) - 2)
    for item in others:
        if lines[-1] and display_width(f"{lines[-1]}  {item}") > LINE_WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1] or indent}  {item}"
    return "\n".join(lines)


def _target_scores(scores: Mapping[str, float], metric: str, heads: Mapping[str, Head]) -> list[str]:
    """`colour 0.6123` for each of several targets, at other class shares where the metric is; without the metric's
    own."""
    if len(heads) < 2:
        return []
    found = []
    for name, head in heads.items():
        score = main_score(name, head.type, at_prior=metric.endswith(AT_PRIOR))
        score = score if score in scores else main_score(name, head.type)
        if score != metric and score in scores:
            found.append(f"{name} {scores[score]:.4f}")
    return found


def say_end(console: Console, folder: RunFolder, outcome: str, parts: Parts) -> None:
    """Print the best epoch, where the report is, which baselines the run does not beat, and the score on the test."""
    settings = parts.settings
    progress = parts.state.progress
    if progress.first_answer is not None:
        _say_end_of_plan(console, folder, outcome, parts)
        return
    since = f" (of those from epoch {settings.first_epoch} on)" if settings.first_epoch > 1 else ""
    metrics = folder.metrics()
    if metrics["value"] is None:
        _say_end_without_validation(console, folder, outcome, metrics)
        return
    chosen = selection_text(split_metric(settings.metric)[1], metrics.get("selection") or {})
    console.line(
        f"{outcome.replace('_', ' ')}: best {settings.metric} {progress.best:.4f}"
        f" in epoch {progress.best_epoch}{since}\n"
        + (f"{chosen}\n" if chosen else "")
        + f"report: {folder.report}"
    )

    _say_last_lines(console, folder, metrics, progress.best or 0.0, settings.higher_is_better)


def _say_end_of_plan(console: Console, folder: RunFolder, outcome: str, parts: Parts) -> None:
    """`say_end` for a run that began with a linear probe: also what was kept."""
    metrics = folder.metrics()
    value = metrics["value"]
    if value is None:
        _say_end_without_validation(console, folder, outcome, metrics)
        return
    console.line(
        f"{outcome.replace('_', ' ')}: {metrics['metric']} {value:.4f}, scored on {scored_on(metrics)}"
    )
    if plan := metrics.get("plan"):
        console.line(plan_text(split_metric(parts.settings.metric)[1], plan))
    chosen = selection_text(split_metric(parts.settings.metric)[1], metrics["selection"])
    console.line((f"{chosen}\n" if chosen else "") + f"report: {folder.report}")
    _say_last_lines(console, folder, metrics, value, parts.settings.higher_is_better)


def _say_end_without_validation(
    console: Console, folder: RunFolder, outcome: str, metrics: Mapping[str, Any]
) -> None:
    """The end of a run on all rows: what is kept, and the score on the test if there is one."""
    epoch = metrics["epoch"]
    kept = f"the model of the last epoch, {epoch}, is kept" if epoch else "the fitted heads are kept"
    console.line(
        f"{outcome.replace('_', ' ')}: {kept}; there were no validation rows to choose or to score by"
    )
    console.line(f"report: {folder.report}")
    if test := metrics.get("test"):
        console.line_once(headline_note(test))
        console.line(test_line(test))  # last: the score to quote


def scored_on(metrics: Mapping[str, Any]) -> str:
    """On which rows the headline score was computed, and what they chose."""
    if (metrics.get("plan") or {}).get("kept") == "finetuned":
        return (
            f"the {metrics['samples']} validation rows, which also chose the epoch and the fine-tuned model"
        )
    if metrics.get("plan"):
        return f"the {metrics['samples']} validation rows, which also chose between this and the fine-tuned model"
    return f"{metrics['samples']} validation rows, which chose nothing"


def _say_last_lines(
    console: Console, folder: RunFolder, metrics: Mapping[str, Any], value: float, higher_is_better: bool
) -> None:
    """Print which classes had no rows, which baselines the run does not beat, and the score on the test."""
    for text in absent_classes(metrics):
        console.line(text)

    # The last lines, since a run that a simple baseline matches is rarely worth keeping.
    if scores := folder.status().get("baselines"):
        unbeaten = Baselines(**scores).not_beaten_by(value, higher_is_better)
        for name, score in unbeaten.items():
            console.line(f"this run does not beat {name} on the same split: {value:.4f} against {score:.4f}")

    # The score on rows that chose nothing is the one to quote.
    if test := metrics.get("test"):
        console.line_once(headline_note(test))
        console.line(test_line(test))  # last: the score to quote


def test_line(test: Mapping[str, Any]) -> str:
    """The headline of a run with test rows; `test` as in metrics.json."""
    return f"{headline_text(test)}: the test, which selected nothing"
