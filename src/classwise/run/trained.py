"""A trained run, opened to use: evaluate, predict, submit, export, report."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.dataset import prepare
from classwise.compose.tta import tta_of_run
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import CheckpointError, DataError
from classwise.explain.explanation import Explanation
from classwise.files import refuse_existing
from classwise.infer.engines import check_engine
from classwise.infer.ensemble import undecoded
from classwise.infer.export import InOrder, metadata_of
from classwise.infer.export_form import ExportForm
from classwise.infer.export_whole import Exportable
from classwise.infer.module import TrainedModel
from classwise.report.page import write_report
from classwise.run.checkpoint import read_checkpoint
from classwise.run.evaluation import split_scores, table_scores
from classwise.run.explanation import Question, explanations_of
from classwise.run.folder import RunFolder
from classwise.run.int8 import quantizer
from classwise.run.liveness import ending_note, status_of, true_status
from classwise.run.onnx_file import check_export, say_single_view, write_export
from classwise.run.own_code import Trust, admit_run
from classwise.run.prediction import SubmissionForm, predictions_of, submission_of
from classwise.run.prediction_inputs import Source
from classwise.run.predictor import Predictor
from classwise.run.resume_checks import refuse_changed_data


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
        """status.json: state, reason, epoch, update, best, data, environment. `state` is what is true now: `killed` or
        `silent` where the file still says `running` (run/liveness.py)."""
        return true_status(self.path, self.folder.status())

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
            scores = self._evaluate_own_rows(predictor, config, console)
        else:
            scores = table_scores(
                predictor,
                config,
                self.folder.split() if (self.path / "split.csv").exists() else None,
                table=Path(table),
                images=images,
                bad_images=bad_images,
                console=console,
            )
        if note := ending_note(self.status):
            console.line(note)
        return scores

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
        standard input), an array (H, W, 3) of uint8, an image of Pillow's, the bytes of an image file or an open file,
        or a list of any of these; also a batch (N, H, W, C), and a column of paths. One image is a table of one row.
        `ids`: those of a list (default: the paths as given, and the number of an image in memory).

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

    def explain(
        self,
        source: Source,
        target: str | None = None,
        label: str | None = None,
        method: str = "auto",
        images: str | Path | None = None,
        ids: Sequence[str] | None = None,
        quiet: bool = True,
    ) -> list[Explanation]:
        """Heat maps, in the order of the source: where in each image the model finds what speaks for its answer.

        `source`, `images`, `ids`: as in `predict`, up to 200 images. `target`: a target of the run, or `joint`
        (default: each target, one after the other). `label`: what to explain (default: the predicted label). `method`:
        auto | gradcam | attention | occlusion (docs/guide/explain.md).

        Raises ConfigError for an unknown target, label or method, ModelError where captum is missing, DataError for a
        bad table or image.
        """
        config = self._config()
        return explanations_of(
            self._predictor(config),
            config,
            source,
            images=images,
            ids=ids,
            question=Question(target, label, method),
            console=Console(quiet),
        )

    def model(self) -> TrainedModel:
        """The best checkpoint's model as a plain module in eval mode, on the CPU, with its transform."""
        config = self._config()
        return self._predictor(config).module(config.data.max_pixels)

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

    def export(
        self,
        out: str | Path,
        force: bool = False,
        quiet: bool = True,
        preprocessing: bool = False,
        int8: bool = False,
        max_loss: float | None = None,
    ) -> Path:
        """Write the best checkpoint's model to `out` in the format that its suffix says, and return `out`.

        `.onnx`: one ONNX file for any batch size; with `preprocessing` it takes images of any size and gives the
        answers of `predict`, else it takes images at the model's size and gives raw outputs. No suffix: a folder with
        such a file, labels.json and a client that needs neither torch nor classwise. `.pt2`: an archive of
        torch.export's. All of them hold targets, labels and how images are prepared (docs/guide/export.md).

        `int8`: the network in 8 bits, calibrated on training images, for at most `max_loss` (default: 0.01) of the
        selection metric on the validation rows.

        Raises OutputError if `out` exists or is of another kind, ModelError if the model cannot be exported, a package
        is missing, or 8 bits lose more; nothing is written then.
        """
        out, console = Path(out), Console(quiet)
        form = ExportForm(preprocessing, int8, max_loss)
        config = self._config()
        predictor = self._predictor(config)
        check_export(out, force, form, predictor.model.metadata.channels)
        exportable = Exportable(
            network=InOrder(predictor.model),
            properties=predictor.model.metadata,
            heads=undecoded(predictor.heads),
            targets=predictor.metadata["targets"],
            joint=predictor.joint,
            metadata=metadata_of(predictor.model, predictor.metadata),
        )
        quantize = quantizer(self.folder, predictor, config, form.allowed_loss, console) if int8 else None
        write_export(exportable, out, form, quantize)
        say_single_view(predictor.tta, console)
        return out

    def for_inference(self, console: Console) -> tuple[Config, Predictor]:
        """The config and the best checkpoint's model, for callers that run the model themselves. A single run has
        nothing to say on the console; folds have."""
        config = self._config()
        return config, self._predictor(config)

    def report(self) -> Path:
        """Write report.html again from what the run directory holds, and return its path."""
        return write_report(self.path, status_of(self.path) or None)

    def _config(self) -> Config:
        return load_config(self.folder.config, self.overrides)

    def _predictor(self, config: Config | None = None) -> Predictor:
        tta = tta_of_run(config or self._config())
        return Predictor.of(read_checkpoint(self.folder.checkpoints / "best")).with_tta(tta)
