"""The verbs that make a run, train and resume, each from start to end; `Run` (run/trained.py) is what they return."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from classwise.allocator import return_free_memory
from classwise.compose.autotune import resolve_auto
from classwise.compose.baselines import probes_features
from classwise.compose.dataset import ReadData, prepare
from classwise.compose.prior import absent_at_prior
from classwise.compose.settings import device_of
from classwise.compose.splits import data_digest
from classwise.compose.tta import check_tta, tta_of_run
from classwise.config.conflicts import check_conflicts
from classwise.config.load import absolute_paths, load_config, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.memory import memory_of
from classwise.distributed import process_group
from classwise.errors import ConfigError
from classwise.run.assembly import assemble, new_model, restored_parts
from classwise.run.beginning import (
    run_checkpointer,
    score_baselines,
    stop_between_updates,
    write_beginning,
)
from classwise.run.checkpoint import (
    fingerprint,
    newest_checkpoint,
    read_on_rank_zero,
    weights_digest,
)
from classwise.run.extension import (
    check_extension,
    config_before,
    extend,
    extended_config,
    extension_hint,
    update_checkpoints,
)
from classwise.run.folder import RunFolder, locked_by_rank_zero, new_folder_on_rank_zero
from classwise.run.messages import say_batch_norm, say_start
from classwise.run.own_code import (
    Trust,
    admit_config,
    admit_run_on_all_ranks,
    agree_on_code,
    with_copies,
)
from classwise.run.predictor import preserve_torch_state, set_threads
from classwise.run.quick_start import config_to_train
from classwise.run.resume_checks import has_ended, refuse_changed_data, warn_of_other_machine
from classwise.run.resume_config import refuse_changed_config, with_begun_plan
from classwise.run.session import run_to_the_end
from classwise.run.trained import Run as Run
from classwise.signals import stop_flag
from classwise.tracking.packages import check_trackers


def train(
    config: Config | str | Path,
    run: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    quiet: bool = False,
    trust: Trust = (),
    read: ReadData | None = None,
) -> "Run":
    """Train as the config says and return the finished run.

    `config` may also be a folder of images or a table: the config that `init` would write is then written beside the
    run. `run` is the folder to train into (default: runs/NAME, numbered if it exists). `trust`: as of `Run.open`, for
    the config of another run with code of its own. `read`: the data, where it is read already. Raises ClasswiseError
    for whatever is wrong with config or data, and leaves nothing behind then; Interrupted after a signal, with a
    checkpoint written.
    """
    with (
        process_group() as processes,
        stop_flag() as stop,
        preserve_torch_state(),
        contextlib.ExitStack() as stack,
    ):
        console = Console(quiet or not processes.is_main_process)
        config, run = stack.enter_context(config_to_train(config, run, overrides, processes, console))

        # What is wrong with config or data comes out here, before anything is measured.
        checked, conflicts = processes.on_all_ranks(lambda: _config_of_run(config, overrides, trust))
        agree_on_code(checked, processes)
        if checked.decision is not None:
            console.line(
                "note: [decision] has no effect on a single run, whose validation rows have chosen its model;"
                " `classwise folds` fits it out of fold"
            )
        splits = stack.enter_context(contextlib.closing(prepare(checked, console, processes, read=read)))
        splits = dataclasses.replace(splits, warnings=(*splits.warnings, *conflicts))
        made = processes.on_all_ranks(lambda: new_model(checked, splits, processes))
        heads, model = made.heads, made.model
        for note in made.notes:
            console.line(note)
        splits = dataclasses.replace(splits, warnings=(*splits.warnings, *absent_at_prior(checked, splits)))

        # From here on the config holds no `auto`: the run's own config.toml repeats this run.
        memory = memory_of(checked.data.cache)
        resolved, device, measured = resolve_auto(checked, splits, model, console, processes, memory)
        set_threads(resolved)

        # The folder comes before the baselines: if it cannot be used, nobody should wait for them first. Only those on
        # features need the weights as they are now: all others wait for the first answer or epoch (session.py).
        folder = stack.enter_context(new_folder_on_rank_zero(resolved.name, run, processes))
        resolved = with_copies(resolved, folder.path, processes)
        baselines = None
        if probes_features(resolved):
            baselines = processes.from_rank_zero(
                lambda: score_baselines(
                    folder, resolved, splits, model, heads=heads, device=device, console=console
                )
            )
        parts = processes.on_all_ranks(
            lambda: assemble(resolved, splits, model, heads=heads, device=device, processes=processes)
        )
        processes.require_same(weights_digest(parts.state.model), "the first weights")

        # A status before the first checkpoint: whoever finds a checkpoint finds a run.
        checkpointer = run_checkpointer(
            folder,
            resolved,
            splits,
            parts=parts,
            baselines=baselines,
            measured=measured,
            kept_heads=made.kept,
        )
        processes.from_rank_zero(lambda: write_beginning(folder, resolved, splits, console))
        if resolved.data.check == "all":
            from classwise.datacheck.api import check_splits  # imports that most runs can do without

            processes.from_rank_zero(lambda: check_splits(folder.path, resolved, splits, console))
        say_start(console, folder, splits, parts)
        stop_between_updates(stop, processes)
        processes.from_rank_zero(lambda: checkpointer.after(parts.state))
        checkpointer.save(parts.state, best=False)
        return_free_memory()  # of reading the rows

        run_to_the_end(
            folder, resolved, splits, parts=parts, checkpointer=checkpointer, console=console, stop=stop
        )
    return Run(folder)


def resume(
    run: str | Path,
    quiet: bool = False,
    workers: int | None = None,
    epochs: int | None = None,
    schedule: str = "planned",
    trust: Trust = (),
    read: ReadData | None = None,
) -> "Run":
    """Go on from the last good checkpoint; a run that has ended is returned as it is.

    `workers` replaces data.workers of the run's config this time: it does not change any number. `epochs` replaces
    training.epochs for good, also of a run that has ended: it goes on as if `planned` with so many, or with
    `schedule="restart"` its schedule begins again over the new ones (see run/extension.py). `trust`: as of `Run.open`.
    `read`: the data, where it is read already.

    Raises TrustError for code of its own that is not trusted, CheckpointError if there is no usable checkpoint or the
    data is not what it was, ConfigError if the run's config was edited or the run cannot have so many epochs,
    OutputError if another process trains the run.
    """
    check_extension(epochs, schedule)
    folder = RunFolder(Path(run))
    with (
        process_group() as processes,
        stop_flag() as stop,
        preserve_torch_state(),
        contextlib.ExitStack() as stack,
    ):
        # Asked again once the folder is locked: another process may have trained it to its end meanwhile.
        console = Console(quiet or not processes.is_main_process)
        admit_run_on_all_ranks(folder.path, trust, processes)
        if has_ended(folder, processes, console, epochs):
            return Run(folder)
        stack.enter_context(locked_by_rank_zero(folder, processes))
        if has_ended(folder, processes, console, epochs):
            return Run(folder)
        if processes.is_main_process:
            console.log_to(folder.log)

        # Only rank 0 needs to see the folder; the other processes may run on other machines.
        overrides = [] if workers is None else [("data.workers", str(workers))]
        config = make_config(
            processes.from_rank_zero(lambda: load_config(folder.config, overrides).to_dict())
        )
        processes.from_rank_zero(lambda: check_trackers(config.report.trackers))
        checkpoint = read_on_rank_zero(
            processes,
            lambda: newest_checkpoint(folder.checkpoints, lambda text: console.line(f"warning: {text}")),
        )

        # A changed config or changed data would give a run that is neither the old one nor a new one.
        extends = epochs is not None
        hint = extension_hint(folder, checkpoint, config)
        processes.from_rank_zero(
            lambda: refuse_changed_config(folder.config, config, checkpoint, extends, hint)
        )
        before = config = with_begun_plan(config)
        if epochs is not None:
            before = config_before(config, checkpoint)
            config = extended_config(config, checkpoint, epochs, schedule)
        sides = processes.from_rank_zero(folder.sides)
        split_data = prepare(config, console, processes, sides=sides, read=read)
        splits = stack.enter_context(contextlib.closing(split_data))
        processes.from_rank_zero(lambda: refuse_changed_data(folder, splits, checkpoint.metadata))
        processes.require_same(data_digest(splits), "the data")

        device = processes.on_all_ranks(lambda: device_of(config.training.device, processes))
        set_threads(config)
        parts = processes.on_all_ranks(
            lambda: restored_parts(config, splits, checkpoint, device=device, processes=processes)
        )
        warn_of_other_machine(checkpoint, fingerprint(str(device), processes.world_size), console)
        if splits.cache is not None:
            console.line(str(splits.cache))
        console.line(f"resuming {folder.path} after epoch {checkpoint.epoch}, update {checkpoint.update}")
        if extends:
            extend(folder, config, before, checkpoint, parts, console)
        say_batch_norm(console, parts)

        # A kill may have come between the saves of `best` and `last`: both are brought to where the run is.
        checkpointer = run_checkpointer(folder, config, splits, parts)
        progress = parts.state.progress
        is_between_epochs = progress.epoch > 0 and progress.update_in_epoch == 0
        stop_between_updates(stop, processes)
        if extends:
            processes.from_rank_zero(lambda: update_checkpoints(folder, checkpointer.metadata))
        checkpointer.save(parts.state, best=is_between_epochs and progress.best_epoch == progress.epoch)

        run_to_the_end(
            folder, config, splits, parts=parts, checkpointer=checkpointer, console=console, stop=stop
        )
    return Run(folder)


def checked_config(
    config: Config | str | Path, overrides: Sequence[tuple[str, str]], trust: Trust = ()
) -> tuple[Config, list[str]]:
    """The config with absolute paths, and warnings of settings that work against each other; its own code may run.
    Raises ConfigError, TrustError."""
    if not isinstance(config, Config):
        config = load_config(Path(config), overrides)
    elif overrides:
        raise ConfigError("overrides go with a config file; change a Config with classwise.make_config")
    else:
        config = absolute_paths(config, Path.cwd())
    admit_config(config, trust)
    check_tta(config)
    check_trackers(config.report.trackers)
    return config, list(check_conflicts(config))


def _config_of_run(
    config: Config | str | Path, overrides: Sequence[tuple[str, str]], trust: Trust
) -> tuple[Config, list[str]]:
    """`checked_config`, and that [inference] has a meaning for a single run."""
    checked, warnings = checked_config(config, overrides, trust)
    tta_of_run(checked)
    ensemble = checked.inference.ensemble
    if ensemble != "probabilities" and checked.folds is None:
        warnings.append(f"inference.ensemble = {ensemble!r}: has no effect on a single run, only on folds")
    return checked, warnings
