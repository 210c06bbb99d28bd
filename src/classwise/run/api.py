"""The verbs of a run: train, resume, evaluate, predict, submit, export, report. The only file that knows all stages."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from classwise.compose.autotune import resolve_auto
from classwise.compose.checks import check_recipe
from classwise.compose.dataset import prepare
from classwise.compose.labels import labeled_rows
from classwise.compose.losses import build_heads
from classwise.compose.settings import device_of
from classwise.compose.splits import DatasetSplits, data_digest
from classwise.compose.state import build_model
from classwise.config.conflicts import check_conflicts
from classwise.config.load import absolute_paths, load_config, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.sources import Samples, image_names, read_source, refuse_escapes, samples_of
from classwise.distributed import Processes, process_group
from classwise.errors import CheckpointError, ConfigError, DataError, OutputError
from classwise.files import refuse_existing, write_bytes, write_text
from classwise.infer.engines import check_engine
from classwise.infer.export import metadata_of, onnx_bytes, require_packages
from classwise.infer.submission import fill, find_images, read_template, submission_bytes
from classwise.model.classifier import Classifier
from classwise.model.heads import Head
from classwise.report.page import write_report
from classwise.run.checkpoint import (
    Checkpoint,
    fingerprint,
    newest_checkpoint,
    read_checkpoint,
    read_on_rank_zero,
    reading,
    restore,
    restored_model,
    weights_digest,
)
from classwise.run.folder import RunFolder, new_folder
from classwise.run.lock import locked, refuse_held
from classwise.run.predictor import Predictor, preserve_torch_state, set_threads
from classwise.run.resume_config import refuse_changed_config
from classwise.run.session import (
    Parts,
    assemble,
    run_checkpointer,
    run_to_the_end,
    say_start,
    score_baselines,
)
from classwise.signals import StopFlag, defer_signals, stop_flag


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
        heads, model = processes.on_all_ranks(lambda: _new_model(given, splits, processes))
        settled, device, measured = resolve_auto(given, splits, model, console, processes)
        set_threads(settled)
        folder = stack.enter_context(_new_folder(settled, run, processes))  # refused before the baselines
        baselines = processes.from_rank_zero(
            lambda: score_baselines(settled, splits, model, heads, device, console)
        )
        parts = processes.on_all_ranks(lambda: assemble(settled, splits, model, heads, device, processes))
        processes.require_same(weights_digest(parts.state.model), "the first weights")
        checkpointer = run_checkpointer(folder, settled, splits, parts, baselines, measured)
        processes.from_rank_zero(lambda: _begin(folder, settled, splits, console))
        say_start(console, folder, splits, parts)
        _be_patient(stop, processes)
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
        if _has_ended(folder, processes, console):
            return Run(folder)
        stack.enter_context(_held(folder, processes))
        if _has_ended(folder, processes, console):  # meanwhile, in another process
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
        processes.from_rank_zero(lambda: _refuse_changed_data(folder, splits, checkpoint.metadata))
        processes.require_same(data_digest(splits), "the data")
        device = processes.on_all_ranks(lambda: device_of(config.training.device, processes))
        set_threads(config)
        parts = processes.on_all_ranks(lambda: _restored_parts(config, splits, checkpoint, device, processes))
        _compare_fingerprints(checkpoint, fingerprint(str(device), processes.world_size), console)
        if splits.cache is not None:
            console.line(str(splits.cache))
        console.line(f"resuming {folder.path} after epoch {checkpoint.epoch}, update {checkpoint.update}")
        checkpointer = run_checkpointer(folder, config, splits, parts)
        # A kill may have come between the saves of `best` and `last`: bring both to where the run is.
        p = parts.state.progress
        _be_patient(stop, processes)
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
            splits = prepare(config, console, keep=False)  # one pass: nothing is gained
            _refuse_changed_data(self.folder, splits, predictor.metadata)
            samples, labels = splits.valid.samples, splits.valid.labels
        else:
            samples, labels = labeled_rows(
                predictor.targets, _with_groups(self._labelled(config, Path(table), images), config), config
            )
            for note in samples.notes:
                console.line(f"warning: {note}")
            self._warn_of_training_rows(samples, console)
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
        samples = self._any_source(config, Path(source), images)
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

    def _warn_of_training_rows(self, samples: Samples, console: Console) -> None:
        """Scores on images that the model was trained on say nothing of others."""
        split = self.folder.split()
        trained = set(split.filter(pl.col("split") == "train")["path"].to_list())
        root = samples.root.resolve()  # as the config's folders are
        seen = sum(str(root / name) in trained for name in samples.names)
        if seen:
            console.line(
                f"warning: the model was trained on {seen} of these {len(samples)} images (split.csv)"
            )

    def _predictor(self) -> "Predictor":
        return Predictor.of(read_checkpoint(self.folder.checkpoints / "best"))

    def _labelled(self, config: Config, table: Path, images: str | Path | None) -> Samples:
        root = Path(images) if images is not None else Path(config.data.images)
        try:
            return read_source(table, root, config.data.path, config.data.id, None)
        except DataError as error:
            raise DataError(str(error).replace("data.source: ", "")) from None

    def _any_source(self, config: Config, source: Path, images: str | Path | None) -> Samples:
        if not source.is_dir():
            return self._labelled(config, source, images)
        names = image_names(source)
        if not names:
            raise DataError(f"{source}: no images in this folder")
        return samples_of(pl.DataFrame({"path": names}), str(source), source, "path", None, None)


def _with_groups(samples: Samples, config: Config) -> Samples:
    """The groups of the run's own column, where a table has it: intervals are then drawn by group."""
    column = config.data.group
    if column is None or column not in samples.frame.columns or samples.frame[column].null_count():
        return samples
    return dataclasses.replace(samples, groups=tuple(samples.frame[column].to_list()))


def _split_table(splits: DatasetSplits) -> pl.DataFrame:
    parts = []
    for split, name in ((splits.train, "train"), (splits.valid, "valid")):
        s = split.samples
        groups = [None] * len(s) if s.groups is None else list(s.groups)
        columns = {"id": list(s.ids), "group": groups, "split": [name] * len(s)}
        columns["path"] = [str(path) for path in s.paths]
        parts.append(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
    return pl.concat(parts)


def _refuse_changed_data(folder: RunFolder, splits: DatasetSplits, metadata: dict[str, Any]) -> None:
    """The same rows with the same labels must stand on the same sides: else validation would see what was
    trained on, or outputs would be taken for other labels."""
    then, now = folder.split(), _split_table(splits)
    what = None
    if not then.select("id", "group", "split").equals(now.select("id", "group", "split")):
        what = f"split.csv has {then.height} rows, the data now {now.height}, or they differ"
    elif metadata["targets"] != [target.as_dict() for target in splits.targets]:
        what = "its targets or their label lists differ"
    elif metadata["data"] != data_digest(splits):
        what = "some rows have other labels, or their images have other bytes"
    if what:
        raise CheckpointError(
            f"{folder.path}: the data is not what the run was trained on: {what}; start a new run, or bring the"
            " table and the images back to what they were"
        )


def _compare_fingerprints(checkpoint: Checkpoint, now: dict[str, Any], console: Console) -> None:
    differ = [
        f"{key} {checkpoint.fingerprint.get(key)} then, {value} now"
        for key, value in now.items()
        if checkpoint.fingerprint.get(key) != value
    ]
    if differ:
        console.line(
            "warning: this is not where the checkpoint was made (" + "; ".join(differ) + "): the run goes on,"
            " but its numbers may differ in the last digits from an uninterrupted one's"
        )


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


def _new_model(
    config: Config, splits: DatasetSplits, processes: Processes
) -> tuple[dict[str, Head], Classifier]:
    heads = build_heads(config, splits)
    model = build_model(config, heads)
    check_recipe(config, splits, model, processes)  # its errors before anything is measured
    return heads, model


def _restored_parts(
    config: Config,
    splits: DatasetSplits,
    checkpoint: Checkpoint,
    device: torch.device,
    processes: Processes,
) -> Parts:
    """All parts as the checkpoint holds them, the size of an update too: it stays, however many processes share it now."""
    # From the checkpoint: neither hub nor package is asked for weights that training has replaced anyway.
    model = restored_model(checkpoint)
    heads = build_heads(config, splits)
    with reading(checkpoint):
        update_size = checkpoint.metadata["micro_batches_per_update"]
        if isinstance(update_size, bool) or not isinstance(update_size, int) or not 1 <= update_size < 2**31:
            raise ValueError(f"{update_size!r:.50} micro-batches in an update")
    parts = assemble(config, splits, model, heads, device, processes, update_size)
    restore(parts.state, checkpoint)
    return parts


@contextlib.contextmanager
def _new_folder(config: Config, run: str | Path | None, processes: Processes) -> Iterator[RunFolder]:
    """Made and held by the first process; nothing of it stays if the run does not begin."""
    wanted = None if run is None else Path(run)
    with contextlib.ExitStack() as stack:
        with defer_signals():
            path = processes.from_rank_zero(
                lambda: str(stack.enter_context(new_folder(config.name, wanted)).path)
            )
        yield RunFolder(Path(path))


@contextlib.contextmanager
def _held(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """The first process holds the run directory; all raise if somebody else does."""
    with contextlib.ExitStack() as stack:
        with defer_signals():
            processes.from_rank_zero(lambda: stack.enter_context(locked(folder.path)))
        yield


def _be_patient(stop: StopFlag, processes: Processes) -> None:
    """All processes or none: one that a signal ends now would leave the others without it."""
    with stop.holding():
        processes.any(False)
        stop.wait_for_updates()


def _has_ended(folder: RunFolder, processes: Processes, console: Console) -> bool:
    """And says so. Raises CheckpointError if there is no run, OutputError if another process is about to begin one."""

    def status() -> dict[str, Any]:
        try:
            return folder.status()
        except CheckpointError:
            refuse_held(folder.path)
            raise

    found = processes.from_rank_zero(status)
    ended: bool = found["state"] in ("finished", "early_stopped")
    if ended:
        console.line(f"{folder.path}: {found['state']} already, after epoch {found['epoch']}; nothing to do")
    return ended


def _begin(folder: RunFolder, config: Config, splits: DatasetSplits, console: Console) -> None:
    """What stands in a run's directory from the start."""
    console.log_to(folder.log)
    write_text(folder.config, config.to_toml())
    folder.write_split(_split_table(splits))
