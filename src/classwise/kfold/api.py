"""The verbs of folds: train them, resume them, and use all of their models as one."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.dataset import read_data
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.distributed import SINGLE_PROCESS
from classwise.errors import CheckpointError, ConfigError, OutputError
from classwise.explain.explanation import Explanation
from classwise.files import refuse_existing
from classwise.infer.engines import check_engine
from classwise.infer.ensemble import undecoded
from classwise.infer.export_form import ExportForm
from classwise.infer.export_mean import Mean, mean_metadata_of
from classwise.infer.export_whole import Exportable
from classwise.infer.module import TrainedModel
from classwise.kfold.chosen_on import with_fixed_epoch
from classwise.kfold.decisions import applied_lines, decided, other_inference_line, refuse_nothing_to_decide
from classwise.kfold.folder import LAST, SOUP, FoldsFolder, has_begun, is_folds
from classwise.kfold.last import check_last, wants_last
from classwise.kfold.members import ensemble_of
from classwise.kfold.plan import fold_runs, folds_config
from classwise.kfold.reporting import refuse_trust
from classwise.kfold.results import metrics_again
from classwise.kfold.soup import check_soup, wants_soup
from classwise.kfold.training import train_folds
from classwise.kfold.tta import tta_of_folds
from classwise.report.page import write_report
from classwise.run import api as run_api
from classwise.run.api import Run, checked_config
from classwise.run.evaluation import table_scores
from classwise.run.explanation import Question, explanations_of
from classwise.run.folder import new_folder
from classwise.run.liveness import status_of, true_status
from classwise.run.lock import locked
from classwise.run.onnx_file import check_export, has_answers, say_single_view, write_export
from classwise.run.own_code import Trust
from classwise.run.prediction import SubmissionForm, predictions_of, submission_of
from classwise.run.prediction_inputs import Source
from classwise.run.predictor import Predictor
from classwise.run.quick_start import config_to_train
from classwise.run.unattended import is_done
from classwise.training.loop import never


def folds(
    config: Config | str | Path,
    run: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    quiet: bool = False,
) -> "Folds":
    """Train a model for each fold of [folds] and return them with their predictions of all rows.

    `config` may also be a folder of images or a table, as in `train`. `run`: the folds directory (default:
    runs/NAME-folds, numbered if it exists). Each fold trains as `train` would on all rows outside of it, and is
    stopped early and selected on its own rows; its predictions of these are the out-of-fold ones.

    Raises ClasswiseError for whatever is wrong with config or data, and leaves nothing behind then; once the others
    are done, also for folds that failed; Interrupted after a signal. Both can be resumed.
    """
    console = Console(quiet)
    with contextlib.ExitStack() as stack:
        made_for_source = config_to_train(
            config, run, overrides, SINGLE_PROCESS, console, suffix="-folds", has_begun=has_begun
        )
        config, run = stack.enter_context(made_for_source)
        checked, conflicts = checked_config(config, overrides)
        refuse_nothing_to_decide(checked)
        checked = with_fixed_epoch(folds_config(checked), console)
        check_last(checked)
        check_soup(checked)
        for conflict in conflicts:
            console.line(f"warning: {conflict}")
        wanted = None if run is None else Path(run)
        made = stack.enter_context(new_folder(f"{checked.name}-folds", wanted, has_begun))
        folder = FoldsFolder(made.path)
        train_folds(folder, checked, console, quiet)
    return Folds(folder)


def resume_folds(path: str | Path, quiet: bool = False) -> "Folds":
    """Go on with folds: what is done is not done again, and a fold that was stopped goes on from its last checkpoint.
    Raises as `folds` does, CheckpointError for a folder that holds no folds and for data that has changed."""
    console = Console(quiet)
    opened = Folds.open(path)
    folder = opened.folder
    with locked(folder.path):
        if folder.status().get("state") == "finished" and not opened.lacks_model:
            console.line(f"{folder.path}: finished already; nothing to do")
            return opened
        if not folder.files.config.exists():
            raise CheckpointError(
                f"{folder.path}: stopped before it had a config.toml; delete the folder, and start again"
            )
        train_folds(folder, load_config(folder.files.config), console, quiet, is_new=False)
    return opened


@dataclass(frozen=True)
class Folds:
    """A folds directory, to read results from and to use its models as one. Open one with `Folds.open(path)`."""

    folder: FoldsFolder
    overrides: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def open(path: str | Path, tta: str | None = None, ensemble: str | None = None) -> "Folds":
        """The folds in the folder `path`. `tta`, `ensemble`: replace inference.tta and inference.ensemble of its config
        in all that it predicts. Raises CheckpointError if there are none."""
        if not is_folds(Path(path)):
            raise CheckpointError(f"{path} is no folds directory; `classwise folds` makes one")
        given = (("inference.tta", tta), ("inference.ensemble", ensemble))
        return Folds(
            FoldsFolder(Path(path)), tuple((key, value) for key, value in given if value is not None)
        )

    @property
    def path(self) -> Path:
        """The folds directory."""
        return self.folder.path

    @property
    def lacks_model(self) -> bool:
        """Whether the config asks for a further model (folds.last, folds.soup) that is not there yet."""
        wanted = {LAST: wants_last(self._config()), SOUP: wants_soup(self._config())}
        return any(is_wanted and not is_done(self.path / name) for name, is_wanted in wanted.items())

    @property
    def status(self) -> dict[str, Any]:
        """status.json: state (as of `Run`), reason, how many folds are done, the state of each, data, model."""
        return true_status(self.path, self.folder.status())

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: over all rows out of fold, pooled; `per_fold`, `spread` and, with test rows, `test`."""
        return self.folder.files.metrics()

    @property
    def decision(self) -> dict[str, Any] | None:
        """decision.json: by target the adopted rule, what the others gained, temperature and abstention."""
        return self.folder.decision()

    @property
    def out_of_fold(self) -> pl.DataFrame:
        """oof.parquet: id, fold, then as predictions.csv, one row for each labeled row of the data."""
        return self.folder.out_of_fold()

    @property
    def runs(self) -> list[Run]:
        """The runs of the folds that have begun."""
        names = [run.name for run in fold_runs(self._config())]
        return [Run.open(self.path / name) for name in names if (self.path / name / "status.json").exists()]

    def evaluate(
        self,
        table: str | Path | None = None,
        images: str | Path | None = None,
        quiet: bool = True,
        bad_images: str = "error",
    ) -> dict[str, Any]:
        """The metrics of the ensemble on another labeled table, as `Run.evaluate`. Without one, those of the folds' own
        rows, each predicted again by the models of its fold, as in metrics.json, and with the decision of
        decision.json."""
        console = Console(quiet)
        config = self._config()
        if table is not None:
            return table_scores(
                self._predictor(console),
                config,
                self._trained_rows(),
                table=Path(table),
                images=images,
                bad_images=bad_images,
                console=console,
            )
        with contextlib.closing(read_data(config, console, use_cache=False)) as read:
            return metrics_again(self.folder, config, read, console, never)

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
        """The mean of what all models predict, as `Run.predict`: each image is read once."""
        check_engine(engine)
        console = Console(quiet)
        return predictions_of(
            self._predictor(console),
            self._config(),
            source,
            images=images,
            ids=ids,
            engine=engine,
            bad_images=bad_images,
            probabilities=probabilities,
            console=console,
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
        """Heat maps as from `Run.explain`, the mean of those of all models, for what they say together."""
        console = Console(quiet)
        return explanations_of(
            self._predictor(console),
            self._config(),
            source,
            images=images,
            ids=ids,
            question=Question(target, label, method),
            console=console,
        )

    def model(self) -> TrainedModel:
        """All models as one plain module, whose answers are their mean, with the decision of decision.json; otherwise
        as `Run.model`."""
        return self._predictor(Console(quiet=True)).module(self._config().data.max_pixels)

    def submit(
        self,
        template: str | Path,
        images: str | Path,
        out: str | Path,
        force: bool = False,
        quiet: bool = True,
        engine: str = "torch",
        **form: Any,
    ) -> Path:
        """Fill in a template with the mean of what all models predict; `form`: the other arguments of `Run.submit`."""
        self.submit_with_note(template, images, out, force, quiet, engine, **form)
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
        """`submit`; returns a note on the images that could not be used, empty if all could."""
        check_engine(engine)
        refuse_existing(Path(out), force)
        console = Console(quiet)
        return submission_of(
            self._predictor(console),
            self._config(),
            self.folder.status,
            Path(template),
            Path(images),
            Path(out),
            form=SubmissionForm(**form),
            engine=engine,
            console=console,
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
        """Write all models and their mean to `out`, as `Run.export` does; what gives final answers has the decision of
        decision.json. Raises as `Run.export`, CheckpointError for a fold that is missing, damaged or foreign, and
        OutputError for `int8`: no rows are held back from all models, on which its cost could be measured."""
        out, console = Path(out), Console(quiet)
        form = ExportForm(preprocessing, int8, max_loss)
        if int8:
            raise OutputError(
                f"--int8: found the folds {self.path}, whose models together have seen all rows, so that its cost"
                f" cannot be measured; allowed: a run, such as {self.path / 'fold-0'}"
            )
        ensemble = self._ensemble()
        check_export(out, force, form, ensemble.model.metadata.channels)
        members, of = ensemble.members, ensemble.ensemble
        heads = [undecoded(member.heads) for member in members]
        exportable = Exportable(
            network=Mean([member.model for member in members], heads, of),
            properties=ensemble.model.metadata,
            heads=decided(self.folder, ensemble).heads,
            targets=ensemble.metadata["targets"],
            joint=ensemble.joint,
            metadata=mean_metadata_of(ensemble.model, ensemble.metadata, len(members), of),
        )
        write_export(exportable, out, form)
        say_single_view(ensemble.tta, console)
        for line in self._applied():
            if has_answers(out, form):
                console.line(f"in the file: {line}")
            else:
                console.line(f"note: the file gives the mean of all models, without the {line}")
        return out

    def for_inference(self, console: Console) -> tuple[Config, Predictor]:
        """The config and all models as one, for callers that run the models themselves; the console says what their
        decision changes."""
        return self._config(), self._predictor(console)

    def report(self) -> Path:
        """Write report.html again from what the folds directory holds, and return its path."""
        return write_report(self.path, status_of(self.path) or None)

    def _config(self) -> Config:
        return load_config(self.folder.files.config, self.overrides)

    def _ensemble(self) -> Predictor:
        """All models as one."""
        config = self._config()
        return ensemble_of(self.folder, config, tta_of_folds(self.folder, config))

    def _predictor(self, console: Console) -> Predictor:
        """All models as one, with the decision of decision.json; the console says what it changes, and where it was
        fitted to predictions of another kind."""
        ensemble = self._ensemble()
        predictor = decided(self.folder, ensemble)  # refuses a damaged decision.json
        decision = self.folder.decision() or {"targets": {}}
        other = other_inference_line(decision, ensemble.tta, ensemble.ensemble)
        for line in [*applied_lines(decision), *([other] if other else [])]:
            console.line(line)
        return predictor

    def _applied(self) -> list[str]:
        return applied_lines(self.folder.decision() or {"targets": {}})

    def _trained_rows(self) -> pl.DataFrame:
        """As a split.csv: every row but those of the test was trained on by some model."""
        split = self.folder.run(fold_runs(self._config())[0].name).split()
        trained = pl.when(pl.col("split") == "valid").then(pl.lit("train")).otherwise(pl.col("split"))
        return split.with_columns(trained.alias("split"))


def open_run(
    path: str | Path, trust: Trust = (), tta: str | None = None, ensemble: str | None = None
) -> Run | Folds:
    """The run or the folds in the folder `path`. `trust`, `tta`: as of `Run.open`; `ensemble`: as of `Folds.open`.
    Raises CheckpointError if there is neither, TrustError for code that is not trusted, and ConfigError for trust in
    folds, which have no such code, and for an ensemble of a single run."""
    if not is_folds(Path(path)):
        if ensemble is not None:
            raise ConfigError(f"--ensemble: found {ensemble!r} for the run {path}; allowed: for folds")
        return Run.open(path, trust, tta)
    refuse_trust(path, trust)
    return Folds.open(path, tta, ensemble)


def resume(
    path: str | Path,
    quiet: bool = False,
    workers: int | None = None,
    epochs: int | None = None,
    schedule: str = "planned",
    trust: Trust = (),
) -> Run | Folds:
    """Go on with a run (see run/api.py) or with folds. What is only for a run is refused for folds by a ConfigError."""
    if not is_folds(Path(path)):
        return run_api.resume(path, quiet, workers, epochs, schedule, trust)
    given = {
        "--workers": workers,
        "--epochs": epochs,
        "--schedule": None if schedule == "planned" else schedule,
    }
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option}: found {value} for the folds {path}; allowed: for a single run")
    refuse_trust(path, trust)
    return resume_folds(path, quiet)
