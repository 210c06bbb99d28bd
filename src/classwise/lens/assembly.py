"""The parts of the run that a config makes, as `train` has them before its first update; nothing is written."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from classwise.compose.autotune import resolve_auto
from classwise.compose.dataset import prepare
from classwise.compose.first_answer import fit_first_answer, set_heads, wants_first_answer
from classwise.compose.splits import DatasetSplits
from classwise.config.conflicts import check_conflicts
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.memory import memory_of
from classwise.distributed import SINGLE_PROCESS
from classwise.errors import ConfigError
from classwise.run.assembly import NewModel, Parts, assemble, new_model
from classwise.run.own_code import admit_config
from classwise.run.predictor import preserve_torch_state, set_threads
from classwise.training.loop import never

FIRST_ANSWER = (
    "This run trains in two stages (training.plan = probe_then_finetune). The first fits the heads to features of the"
    " frozen backbone until they no longer change, without updates like this one. Shown is an update of the second"
    " stage, fine-tuning, which starts from those heads."
)


@dataclass(frozen=True)
class NewRun:
    """A run before its first update: its config without any `auto`, its data, its objects, and what a reader should
    know of it."""

    config: Config
    splits: DatasetSplits
    parts: Parts
    notes: tuple[str, ...]


@contextlib.contextmanager
def new_run(path: Path, overrides: Sequence[tuple[str, str]], console: Console) -> Iterator[NewRun]:
    """The run of a config at update 0. At the end of the block its readers are closed, and torch's random state and
    threads are what they were. Raises what `train` raises for a bad config or bad data, and ConfigError for a plan
    without updates."""
    given = load_config(path, overrides)
    if given.plan == "probe":
        raise ConfigError(
            'training.plan: found "probe", which fits the heads to features and makes no updates by the loop; allowed:'
            " the others, for example with --training.plan finetune"
        )
    admit_config(given)
    for warning in check_conflicts(given):
        console.line(f"warning: {warning}")
    with preserve_torch_state(), contextlib.closing(prepare(given, console)) as splits:
        for warning in splits.warnings:
            console.line(f"warning: {warning}")
        made = new_model(given, splits, SINGLE_PROCESS)
        memory = memory_of(given.data.cache)
        config, device, _ = resolve_auto(given, splits, made.model, console, memory=memory)
        set_threads(config)
        parts = assemble(config, splits, made.model, made.heads, device)
        with contextlib.closing(parts.data.loader), contextlib.closing(parts.valid.loader):
            notes = list(made.notes)
            if wants_first_answer(config):
                _begin_with_first_answer(config, splits, parts, made, console)
                notes.append(FIRST_ANSWER)
            yield NewRun(config, splits, parts, tuple(notes))


def _begin_with_first_answer(
    config: Config, splits: DatasetSplits, parts: Parts, made: NewModel, console: Console
) -> None:
    """Fit the heads and put them into the state, as a run of two stages does."""
    answer = fit_first_answer(
        config,
        splits,
        parts.state.model,
        heads=parts.heads,
        device=parts.settings.device,
        console=console,
        should_stop=never,
        kept=made.kept,
    )
    set_heads(parts.state.model, answer.heads)
    set_heads(parts.state.average.model, answer.heads)  # without averaging it is the model itself
