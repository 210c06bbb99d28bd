"""The verbs of a run (train, resume, evaluate, predict, submit, export, report), each from start to end."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.autotune import resolve_auto
from classwise.compose.dataset import ReadData, prepare
from classwise.compose.first_answer import wants_first_answer
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
from classwise.errors import CheckpointError, ConfigError, DataError
from classwise.files import refuse_existing, write_bytes
from classwise.infer.engines import check_engine
from classwise.infer.export import metadata_of, onnx_bytes
from classwise.report.page import write_report
from classwise.run.assembly import assemble, new_model, restored_parts
from classwise.run.checkpoint import (
    fingerprint,
    newest_checkpoint,
    read_checkpoint,
    read_on_rank_zero,
    weights_digest,
)
from classwise.run.evaluation import split_scores, table_scores
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
from classwise.run.onnx_file import check_onnx_file, say_single_view
from classwise.run.own_code import (
    Trust,
    admit_config,
    admit_run,
    admit_run_on_all_ranks,
    agree_on_code,
    with_copies,
)
from classwise.run.prediction import SubmissionForm, predictions_of, submission_of
from classwise.run.prediction_inputs import Source
from classwise.run.predictor import Predictor, preserve_torch_state, set_threads
from classwise.run.quick_start import config_to_train
from classwise.run.resume_checks import has_ended, refuse_changed_data, warn_of_other_machine
from classwise.run.resume_config import refuse_changed_config, with_begun_plan
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

        # The folder comes before the baselines: if it cannot be used, nobody should wait for them first. They in turn
        # wait for the first answer, where there is one (session.py).
        folder = stack.enter_context(new_folder_on_rank_zero(resolved.name, run, processes))
        resolved = with_copies(resolved, folder.path, processes)
        baselines = None
        if not wants_first_answer(resolved):
            baselines = processes.from_rank_zero(
                lambda: score_baselines(resolved, splits, model, heads=heads, device=device, console=console)
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
        say_start(console, folder, splits, parts)
        stop_between_updates(stop, processes)
        processes.from_rank_zero(lambda: checkpointer.after(parts.state))
        checkpointer.save(parts.state, best=False)

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


@dataclass(frozen=True)
class Run:
    """A run directory, to read results from and to use the trained model. Open one with `Run.open(path)`."""

    folder: RunFolder
    overrides: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def open(path: str | Path, trust: Trust = (), tta: str | None = None) -> "Run":
        """The run in the folder `path`. `tta`: replaces inference.tta of its config in all that it predicts.

        `trust`: for a run with code of its own (code/), at least the first eight characters of the SHA-256 of each of
        its files, which you have read and trust: such code can do anything. Raises CheckpointError if there is no run,
        or a file of its code has changed; TrustError for code that is not trusted.
        """
        folder = RunFolder(Path(path))
        if "kind" in folder.status():
            raise CheckpointError(f"{path} is a folds directory; open it with classwise.Folds.open")
        admit_run(folder.path, trust)
        return Run(folder, () if tta is None else (("inference.tta", tta),))

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
        """metrics.json: of the best checkpoint on the validation rows and, under `test`, on the test rows if any."""
        return self.folder.metrics()

    @property
    def history(self) -> list[dict[str, Any]]:
        """history.jsonl: one dict per epoch."""
        return self.folder.history()

    def evaluate(
        self,
        table: str | Path | None = None,
        images: str | Path | None = None,
        quiet: bool = True,
        bad_images: str = "error",
    ) -> dict[str, Any]:
        """Metrics as in metrics.json, on the validation rows or on another labeled table or folder of class folders.
        Without a table, `test` has those on the test rows, if the run has any.

        `images`: the folder that the table's paths are relative to (default: that of the run's config). For a table,
        `warnings` says what makes the scores mean less than it seems: rows that were trained on, classes without rows
        (with `macro_f1_present`, the mean F1 of those that have rows), a missing group column, labels that the model
        has never seen, which count as mistakes (with `unseen`, and `macro_f1_known` without them).

        `bad_images="skip"`: rows of the table whose image cannot be used are left out, and are in `skipped`.

        Raises DataError for a bad table or image, CheckpointError for a damaged checkpoint.
        """
        console = Console(quiet)
        config = self._config()
        predictor = self._predictor(config)
        if table is None:
            return self._evaluate_own_rows(predictor, config, console)
        return table_scores(
            predictor,
            config,
            self.folder.split(),
            table=Path(table),
            images=images,
            bad_images=bad_images,
            console=console,
        )

    def _evaluate_own_rows(self, predictor: Predictor, config: Config, console: Console) -> dict[str, Any]:
        """The metrics on the run's validation and test rows."""
        # The images are read once, for which a cache saves nothing.
        splits = prepare(config, console, use_cache=False, sides=self.folder.sides())
        refuse_changed_data(self.folder, splits, predictor.metadata)
        if not len(splits.valid.samples) and splits.test is None:
            raise DataError(
                f"{self.path}: the run was trained on all rows (data.valid = 0), so it has none to be evaluated on;"
                " name a labeled table or folder"
            )
        metrics = split_scores(predictor, splits.valid, config, console)
        # What the choice of the epoch does to the score is known from training, of the predictions that were made then.
        with contextlib.suppress(CheckpointError):  # a run that has not ended has no metrics.json
            if self.metrics.get("inference") == metrics.get("inference"):
                metrics |= {k: v for k, v in self.metrics.items() if k == "selection"}
        if splits.test is not None:
            metrics["test"] = split_scores(predictor, splits.test, config, console)
        return metrics

    def predict(
        self,
        source: Source,
        images: str | Path | None = None,
        quiet: bool = True,
        engine: str = "torch",
        bad_images: str = "error",
        ids: Sequence[str] | None = None,
        probabilities: str = "auto",
    ) -> pl.DataFrame:
        """Predictions for a folder of images, a table, image files, or images in memory, in the order of the source.

        `source`: a path (a table, a folder, an image, a pattern such as `new/*.png`, or `-` for a list of paths on
        standard input), an array (H, W, 3) of uint8, an image of Pillow's, the bytes of an image file, or a list of any
        of these. `ids`: those of a list (default: the paths as given, and the number of an image in memory).

        The columns are `id` and, for every target (see predictions.csv), its label and its probabilities: of all
        classes, or the `top` five, with `auto` of all up to 200 classes. `images`: the folder that a table's paths are
        relative to (default: that of the run's config). `engine`: torch | compile | onnx | auto
        (docs/guide/training.md).

        `bad_images="skip"`: an image that cannot be used has a row with empty cells, and the reason in the column
        `error`.

        Raises ConfigError for an unknown engine, ModelError for one that is missing or whose numbers differ, DataError
        for a bad table or image.
        """
        check_engine(engine)
        config = self._config()
        return predictions_of(
            self._predictor(config),
            config,
            source,
            images=images,
            ids=ids,
            engine=engine,
            bad_images=bad_images,
            probabilities=probabilities,
            console=Console(quiet),
        )

    def submit(
        self,
        template: str | Path,
        images: str | Path,
        out: str | Path,
        id: str | None = None,
        force: bool = False,
        quiet: bool = True,
        engine: str = "torch",
        answer: str = "auto",
        positive: str | None = None,
        clip: float | None = None,
        bad_images: str = "error",
        fallback: str | None = None,
    ) -> Path:
        """Predict the images in `images`, write the template's rows with the predictions to `out`, and return `out`.

        `id`: the template's id column (default: its first). `engine` as in `predict`. `answer`: what is written: label,
        index, probability, rank, or auto (what the template's columns and values show: infer/answers.py). `positive`:
        the label whose probability a single column takes. `clip`: how near to 0 and 1 a probability may come.

        `bad_images="skip"`: a row whose image is missing or cannot be used holds `fallback` or, by default, what one
        would guess without an image: the most frequent label of the training rows.

        Raises OutputError if `out` exists or the template's values contradict the predictions, DataError for a bad
        template or image; nothing is written then.
        """
        self.submit_with_note(
            template,
            images,
            out,
            id=id,
            force=force,
            quiet=quiet,
            engine=engine,
            answer=answer,
            positive=positive,
            clip=clip,
            bad_images=bad_images,
            fallback=fallback,
        )
        return Path(out)

    def submit_with_note(
        self,
        template: str | Path,
        images: str | Path,
        out: str | Path,
        force: bool,
        quiet: bool,
        engine: str,
        **form: Any,
    ) -> str:
        """`submit`, where `form` has its other arguments; returns a note on the images that could not be used, empty
        if all could."""
        check_engine(engine)
        refuse_existing(Path(out), force)
        config = self._config()
        return submission_of(
            self._predictor(config),
            config,
            self.folder.status,
            Path(template),
            Path(images),
            Path(out),
            form=SubmissionForm(**form),
            engine=engine,
            console=Console(quiet),
        )

    def export(self, out: str | Path, force: bool = False, quiet: bool = True) -> Path:
        """Write the best checkpoint's model to `out` as an ONNX file for any batch size, and return `out`. The file's
        metadata holds targets, labels and how images are to be preprocessed.

        Raises OutputError if `out` exists, ModelError if the model cannot be exported or a package is missing.
        """
        out = Path(out)
        check_onnx_file(out, force)
        predictor = self._predictor()
        write_bytes(out, onnx_bytes(predictor.model, metadata_of(predictor.model, predictor.metadata)))
        say_single_view(predictor.tta, Console(quiet))
        return out

    def report(self) -> Path:
        """Write report.html again from what the run directory holds, and return its path."""
        return write_report(self.path)

    def _config(self) -> Config:
        return load_config(self.folder.config, self.overrides)

    def _predictor(self, config: Config | None = None) -> Predictor:
        tta = tta_of_run(config or self._config())
        return Predictor.of(read_checkpoint(self.folder.checkpoints / "best")).with_tta(tta)


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
