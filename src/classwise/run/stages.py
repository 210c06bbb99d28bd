"""The two stages of the plan `probe_then_finetune`: the first answer, and the choice between it and the fine-tuned
model.

Checkpoints beside `best` and `last`: `first` is the first answer, `finetuned` the best epoch of the fine-tuning. `best`
is the first answer until the run ends, and then the one that was kept; so at any time it is what one would use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from classwise.compose.contents import resampling_groups
from classwise.compose.first_answer import FirstAnswer, fit_first_answer, set_heads
from classwise.compose.paired_choice import CONFIDENCE, PairedDifference, paired_difference
from classwise.compose.row_weights import score_weights
from classwise.compose.selection import selection_summary, single_summary
from classwise.compose.splits import DatasetSplits, Split
from classwise.compose.tta import tta_of_run
from classwise.config.schema import Config
from classwise.console import Console
from classwise.metrics.text import headline_note
from classwise.run.assembly import Parts
from classwise.run.checkpoint import RunCheckpointer, copy_checkpoint, read_checkpoint
from classwise.run.folder import RunFolder
from classwise.run.messages import first_answer_line
from classwise.run.predictor import Predictor, unscored
from classwise.training.loop import never
from classwise.training.probe import LinearHead
from classwise.training.state import TrainState

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Answer:
    """A model, its outputs for the validation rows by target as its heads take them, and what metrics.json says."""

    predictor: Predictor
    outputs: Outputs
    metrics: dict[str, Any]


def make_first_answer(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    parts: Parts,
    checkpointer: RunCheckpointer,
    console: Console,
    should_stop: Callable[[], bool],
) -> None:
    """Fit the heads, put them into the state, save the checkpoints `first`, `best` and `last`, and write metrics.json
    and predictions.csv. Rank 0 does the work, and sends the heads to the others. Raises Interrupted."""
    state, processes = parts.state, parts.settings.processes
    model = state.model
    predictor = _predictor(splits, parts, config)
    fitted: list[tuple[FirstAnswer, dict[str, Any]]] = []  # with its metrics; rank 0 alone has them

    def fit() -> dict[str, Any]:
        answer = fit_first_answer(
            config,
            splits,
            model,
            heads=parts.heads,
            device=parts.settings.device,
            console=console,
            should_stop=should_stop,
            kept=folder.status().get("kept_heads", []),
        )
        metrics = scored(predictor, answer.outputs, splits.valid, splits, config)
        fitted.append((answer, metrics))
        return answer.as_dict() | {"metric": metrics["metric"], "value": metrics["value"]}

    # The state is changed only once everything is known, so that a stop in between leaves it as it was.
    summary = processes.from_rank_zero(fit)
    heads = _sent_heads(fitted[0][0].heads if fitted else None, processes)
    set_heads(model, heads)
    set_heads(state.average.model, heads)  # without averaging it is the model itself
    state.progress.first_answer = summary
    checkpointer.save_first(state)
    for answer, metrics in fitted:
        metrics |= {"epoch": 0, "selection": single_summary(config, metrics)}
        console.line(first_answer_line(metrics, answer.as_dict(), console))
        console.line_once("" if metrics["value"] is None else headline_note(metrics))
        _write(folder, predictor, answer.outputs, splits, metrics)


def complete_first_answer(
    folder: RunFolder, config: Config, splits: DatasetSplits, state: TrainState
) -> None:
    """Write metrics.json and predictions.csv of the first answer, if a kill came between its checkpoint and these."""
    if (folder.path / "metrics.json").exists():
        return
    answer = _single(folder, config, splits, state, never, "first")
    _write(folder, answer.predictor, answer.outputs, splits, answer.metrics)


def _write(
    folder: RunFolder, predictor: Predictor, outputs: Outputs, splits: DatasetSplits, metrics: dict[str, Any]
) -> None:
    """metrics.json, and predictions.csv where there are validation rows."""
    valid = splits.valid
    if len(valid.samples):
        folder.write_predictions(predictor.table(valid.samples, outputs, valid.labels))
    folder.write_metrics(headline(metrics) | metrics)


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """What most readers look for, which comes first in metrics.json."""
    return {key: metrics[key] for key in ("metric", "value", "epoch", "samples", "selection")}


def chosen_answer(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    state: TrainState,
    should_stop: Callable[[], bool],
) -> Answer:
    """What the run ends with, which is then its checkpoint `best`. Its metrics have `epoch`, `selection` and, where
    there were two to choose from, `plan`. Raises Interrupted."""
    first = state.progress.first_answer
    if first is None:
        return _single(folder, config, splits, state, should_stop, "best")
    if config.plan == "probe":
        return _single(folder, config, splits, state, should_stop, "first")

    # Without validation rows nothing can be compared: the run was asked to fine-tune, and ends with that.
    if not len(splits.valid.samples):
        copy_checkpoint(folder.checkpoints, "finetuned", "best")
        return _single(folder, config, splits, state, should_stop, "finetuned")

    # Both on the same rows, computed in the same way.
    before = _single(folder, config, splits, state, should_stop, "first")
    after = _single(folder, config, splits, state, should_stop, "finetuned")
    optimism = float(after.metrics["selection"].get("optimism") or 0.0)
    difference = paired_difference(
        config, splits, after.predictor.heads, before.outputs, after.outputs, optimism
    )
    kept = after if difference.is_better else before
    copy_checkpoint(folder.checkpoints, "finetuned" if difference.is_better else "first", "best")
    kept.metrics["plan"] = _plan_entry(difference, before.metrics, after.metrics, first)
    return kept


def _plan_entry(
    difference: PairedDifference, before: dict[str, Any], after: dict[str, Any], first: dict[str, Any]
) -> dict[str, Any]:
    """The entry `plan` of metrics.json."""
    return {
        "kept": "finetuned" if difference.is_better else "first_answer",
        "difference": difference.difference,
        "optimism": after["selection"].get(
            "optimism"
        ),  # None where it is not estimated: nothing is taken off
        "interval": difference.interval,
        "share": difference.share,
        "needed": CONFIDENCE,
        "first_answer": {"value": before["value"], "cross_validated": first.get("cross_validated")},
        "finetuned": {"value": after["value"], "epoch": after["epoch"]},
    }


def _single(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    state: TrainState,
    should_stop: Callable[[], bool],
    name: str,
) -> Answer:
    """One checkpoint, its outputs for the validation rows, and its metrics."""
    checkpoint = read_checkpoint(folder.checkpoints / name)
    predictor = Predictor.of(checkpoint).with_tta(tta_of_run(config))
    outputs: Outputs = {}
    if len(splits.valid.samples):
        outputs = predictor.outputs(
            splits.valid.samples, config, should_stop=should_stop, cached=splits.valid.cached
        )
    metrics = scored(predictor, outputs, splits.valid, splits, config)
    metrics["epoch"] = checkpoint.epoch
    metrics["selection"] = (
        single_summary(config, metrics)
        if name == "first"
        else selection_summary(config, splits, state, metrics)
    )
    return Answer(predictor, outputs, metrics)


def scored(
    predictor: Predictor, outputs: Outputs, split: Split, splits: DatasetSplits, config: Config
) -> dict[str, Any]:
    """The metrics of raw outputs for a split's rows, with intervals; of no rows only that there are none."""
    if not len(split.samples):
        return unscored(config)
    groups = resampling_groups(split.samples, splits.targets)
    weights_N = score_weights(config, split.samples)
    scores = predictor.score(outputs, split.labels, groups=groups, config=config, row_weights=weights_N)
    return scores | predictor.inference


def _predictor(splits: DatasetSplits, parts: Parts, config: Config) -> Predictor:
    """The state's model, to score and to tabulate outputs."""
    return Predictor(
        model=parts.state.model,
        targets=splits.targets,
        heads=parts.heads,
        joint=splits.joint,
        precision=config.training.precision,
        metadata={},
    )


def _sent_heads(heads: dict[str, LinearHead] | None, processes: Any) -> dict[str, LinearHead]:
    """The heads of rank 0, in all processes."""
    if processes.world_size == 1:
        assert heads is not None
        return heads
    names = processes.from_rank_zero(lambda: list(heads or ()))
    data = None
    if heads is not None:
        tensors = {}
        for number, name in enumerate(names):
            tensors[f"{number}.weight"] = heads[name].weight.contiguous()
            tensors[f"{number}.bias"] = heads[name].bias.contiguous()
        data = save(tensors)
    tensors = load(processes.broadcast(data))
    return {
        name: LinearHead(tensors[f"{number}.weight"], tensors[f"{number}.bias"])
        for number, name in enumerate(names)
    }
