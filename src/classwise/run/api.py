"""The verbs of a run: train, resume, evaluate, predict, submit, export, report. The only file that knows all stages."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.autotune import resolve_auto
from classwise.compose.dataset import prepare
from classwise.compose.labels import labeled_rows
from classwise.compose.settings import device_of
from classwise.compose.splits import data_digest
from classwise.config.conflicts import check_conflicts
from classwise.config.load import absolute_paths, load_config, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.sources import Samples, image_names, refuse_escapes
from classwise.distributed import process_group
from classwise.errors import ConfigError, OutputError
from classwise.files import refuse_existing, write_bytes
from classwise.infer.engines import check_engine
from classwise.infer.export import metadata_of, onnx_bytes, require_packages
from classwise.infer.submission import fill, find_images, read_template, submission_bytes
from classwise.report.page import write_report
from classwise.run.assembly import assemble, new_model, restored_parts
from classwise.run.checkpoint import (
    fingerprint,
    newest_checkpoint,
    read_checkpoint,
    read_on_rank_zero,
    weights_digest,
)
from classwise.run.folder import RunFolder, locked_by_rank_zero, new_folder_on_rank_zero
from classwise.run.inputs import read_labelled, read_rows, warn_of_training_rows, with_groups
from classwise.run.messages import say_start
from classwise.run.predictor import Predictor, preserve_torch_state, set_threads
from classwise.run.resume_checks import has_ended, refuse_changed_data, warn_of_other_fingerprint
from classwise.run.resume_config import refuse_changed_config
from classwise.run.session import (
    run_checkpointer,
    run_to_the_end,
    score_baselines,
    stop_between_updates,
    write_beginning,
)
from classwise.signals import stop_flag


def train(
    config: Config | str | Path,
    run: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    quiet: bool = False,
) -> "Run":
    """Train as the config says and return the finished run.

    `run` is the folder to train into (default: runs/NAME, numbered if it exists). Raises ClasswiseError for
    whatever is wrong with config or data, before anything is written; Interrupted after a signal, with a
    checkpoint written.
    """
    with (
        process_group() as processes,
        stop_flag() as stop,
        preserve_torch_state(),
        contextlib.ExitStack() as stack,
    ):
        console = Console(quiet or not processes.is_main_process)
        given, conflicts = processes.on_all_ranks(lambda: _checked_config(config, overrides))
        splits = stack.enter_context(contextlib.closing(prepare(given, console, processes)))
        splits = dataclasses.replace(splits, warnings=(*splits.warnings, *conflicts))
        heads, model = processes.on_all_ranks(lambda: new_model(given, splits, processes))
        settled, device, measured = resolve_auto(given, splits, model, console, processes)
        set_threads(settled)
        folder = stack.enter_context(
            new_folder_on_rank_zero(settled, run, processes)
        )  # refused before the baselines
        baselines = processes.from_rank_zero(
            lambda: score_baselines(settled, splits, model, heads, device, console)
        )
        parts = processes.on_all_ranks(lambda: assemble(settled, splits, model, heads, device, processes))
        processes.require_same(weights_digest(parts.state.model), "the first weights")
        checkpointer = run_checkpointer(folder, settled, splits, parts, baselines, measured)
        processes.from_rank_zero(lambda: write_beginning(folder, settled, splits, console))
        say_start(console, folder, splits, parts)
        stop_between_updates(stop, processes)
        # A status before the first checkpoint: whoever finds a checkpoint finds a run.
        processes.from_rank_zero(lambda: checkpointer.after(parts.state))
        checkpointer.save(parts.state, best=False)
        run_to_the_end(folder, settled, splits, parts, checkpointer, console, stop)
    return Run(folder)


def resume(run: str | Path, quiet: bool = False, workers: int | None = None) -> "Run":
    """Go on from the last good checkpoint; a run that has ended is returned as it is.

    `workers` stands for data.workers of the run's config, this time: the numbers are the same for any.

    Raises CheckpointError if there is no usable checkpoint or the data is not what it was.
    """
    folder = RunFolder(Path(run))
    with (
        process_group() as processes,
        stop_flag() as stop,
        preserve_torch_state(),
        contextlib.ExitStack() as stack,
    ):
        console = Console(quiet or not processes.is_main_process)
        if has_ended(folder, processes, console):
            return Run(folder)
        stack.enter_context(locked_by_rank_zero(folder, processes))
        if has_ended(folder, processes, console):  # meanwhile, in another process
            return Run(folder)
        if processes.is_main_process:
            console.log_to(folder.log)
        given = [] if workers is None else [("data.workers", str(workers))]
        config = make_config(processes.from_rank_zero(lambda: load_config(folder.config, given).to_dict()))
        checkpoint = read_on_rank_zero(
            processes,
            lambda: newest_checkpoint(folder.checkpoints, lambda text: console.line(f"warning: {text}")),
        )
        processes.from_rank_zero(lambda: refuse_changed_config(folder.config, config, checkpoint))
        splits = stack.enter_context(contextlib.closing(prepare(config, console, processes)))
        processes.from_rank_zero(lambda: refuse_changed_data(folder, splits, checkpoint.metadata))
        processes.require_same(data_digest(splits), "the data")
        device = processes.on_all_ranks(lambda: device_of(config.training.device, processes))
        set_threads(config)
        parts = processes.on_all_ranks(lambda: restored_parts(config, splits, checkpoint, device, processes))
        warn_of_other_fingerprint(checkpoint, fingerprint(str(device), processes.world_size), console)
        if splits.cache is not None:
            console.line(str(splits.cache))
        console.line(f"resuming {folder.path} after epoch {checkpoint.epoch}, update {checkpoint.update}")
        checkpointer = run_checkpointer(folder, config, splits, parts)
        # A kill may have come between the saves of `best` and `last`: bring both to where the run is.
        p = parts.state.progress
        stop_between_updates(stop, processes)
        checkpointer.save(
            parts.state, best=p.epoch > 0 and p.update_in_epoch == 0 and p.best_epoch == p.epoch
        )
        run_to_the_end(folder, config, splits, parts, checkpointer, console, stop)
    return Run(folder)


@dataclass(frozen=True)
class Run:
    """A run directory that can be asked for results. Open one with `Run.open(path)`."""

    folder: RunFolder

    @staticmethod
    def open(path: str | Path) -> "Run":
        """Raises CheckpointError if `path` is no run's folder."""
        folder = RunFolder(Path(path))
        folder.status()
        return Run(folder)

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def status(self) -> dict[str, Any]:
        """status.json: state, reason, epoch, update, best, data, environment."""
        return self.folder.status()

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: of the best checkpoint on the validation rows."""
        return self.folder.metrics()

    @property
    def history(self) -> list[dict[str, Any]]:
        """history.jsonl: one dict an epoch."""
        return self.folder.history()

    def evaluate(
        self, table: str | Path | None = None, images: str | Path | None = None, quiet: bool = True
    ) -> dict[str, Any]:
        """Metrics as in metrics.json, on the validation rows or on another labelled table or class folder.

        `images`: the folder that the table's paths are relative to (default: that of the run's config).
        Raises DataError for a bad table or image, CheckpointError for a damaged checkpoint.
        """
        console, config, predictor = Console(quiet), load_config(self.folder.config), self._predictor()
        if table is None:
            splits = prepare(config, console, use_cache=False)  # one pass: nothing is gained
            refuse_changed_data(self.folder, splits, predictor.metadata)
            samples, labels = splits.valid.samples, splits.valid.labels
        else:
            samples, labels = labeled_rows(
                predictor.targets, with_groups(read_labelled(config, Path(table), images), config), config
            )
            for note in samples.notes:
                console.line(f"warning: {note}")
            warn_of_training_rows(self.folder, samples, console)
        return predictor.score(
            predictor.outputs(samples, config, console=console), labels, samples.groups, config
        )

    def predict(
        self,
        source: str | Path,
        images: str | Path | None = None,
        quiet: bool = True,
        engine: str = "torch",
    ) -> pl.DataFrame:
        """Predictions for a folder of images or a table, one row each, in order: see the contract.

        Where a table holds all of a target's answers, they stand beside the predictions. `engine`: `torch` computes as
        `evaluate` does; `compile` and `onnx` are compared with it on the first batch; `auto` takes the fastest.
        Raises ConfigError for another engine, ModelError where it cannot be had or its outputs differ.
        """
        check_engine(engine)
        console, config = Console(quiet), load_config(self.folder.config)
        samples = read_rows(config, Path(source), images)
        predictor = self._predictor()
        outputs = predictor.outputs(samples, config, engine=engine, console=console)
        return predictor.table(samples, outputs, predictor.known_truth(samples, console))

    def submit(
        self,
        template: str | Path,
        images: str | Path,
        out: str | Path,
        id: str | None = None,
        force: bool = False,
        quiet: bool = True,
        engine: str = "torch",
    ) -> Path:
        """Fill the template's answers for the images in `images` and write the checked file to `out`.

        `engine` as in `predict`. Raises OutputError if `out` exists or the template contradicts the answers; nothing is
        written then.
        """
        check_engine(engine)
        out = Path(out)
        refuse_existing(out, force)
        console, config = Console(quiet), load_config(self.folder.config)
        predictor = self._predictor()
        form = read_template(Path(template), list(predictor.heads), bool(predictor.joint), id)
        names = find_images(form, Path(images))
        refuse_escapes(names, Path(images), str(template), "--images")
        frame = pl.DataFrame({"id": form.ids, "path": names})
        samples = Samples(str(template), Path(images), tuple(form.ids), tuple(names), None, frame)
        outputs = predictor.outputs(samples, config, engine=engine, console=console)
        predictions = predictor.table(samples, outputs, {})
        possible = predictor.allowed_answers()
        write_bytes(out, submission_bytes(fill(form, predictions, possible), form, possible))
        others = len(set(image_names(Path(images))) - set(names))
        left = f"; {others} images in {images} are not in the template" if others else ""
        console.line(f"{len(names)} rows, checked against {template}{left}")
        return out

    def export(self, out: str | Path, force: bool = False) -> Path:
        """Write the best checkpoint's model to `out` as an ONNX file for any size of batch, with what preprocessing has
        to do, targets and labels in its metadata.

        Raises OutputError if `out` exists, ModelError if the model cannot be exported or a package is missing.
        """
        out = Path(out)
        if out.suffix.lower() != ".onnx":
            raise OutputError(f"--out {out}: found {out.suffix or 'no'} suffix, allowed: .onnx")
        refuse_existing(out, force)
        require_packages("classwise export", "onnx", "onnxscript")
        predictor = self._predictor()
        write_bytes(out, onnx_bytes(predictor.model, metadata_of(predictor.model, predictor.metadata)))
        return out

    def report(self) -> Path:
        """Write report.html again from what the run directory holds; returns its path."""
        return write_report(self.path)

    def _predictor(self) -> "Predictor":
        return Predictor.of(read_checkpoint(self.folder.checkpoints / "best"))


def _checked_config(
    config: Config | str | Path, overrides: Sequence[tuple[str, str]]
) -> tuple[Config, list[str]]:
    """The config with absolute paths, and what to warn of."""
    if not isinstance(config, Config):
        config = load_config(Path(config), overrides)
    elif overrides:
        raise ConfigError("overrides go with a config file; change a Config with classwise.make_config")
    else:
        config = absolute_paths(config, Path.cwd())
    return config, list(check_conflicts(config))
