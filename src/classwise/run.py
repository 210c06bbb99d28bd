"""The verbs of a run: train, resume, evaluate, predict, submit, report. The only file that knows every stage."""

import contextlib
import dataclasses
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

import classwise
from classwise.baselines import Baselines
from classwise.build_losses import build_criterion, build_heads
from classwise.checkpoint import (
    Checkpoint,
    CheckpointKeeper,
    fingerprint,
    newest_checkpoint,
    read_checkpoint,
    restore,
)
from classwise.compose import (
    ONE_ROW,
    build_data,
    build_model,
    build_settings,
    build_state,
    check_recipe,
    device_of,
    run_baselines,
    settle,
)
from classwise.config import Config
from classwise.config_file import absolute_paths, load_config
from classwise.conflicts import check_conflicts
from classwise.console import Console
from classwise.data.loader import Batch, TrainingData, ValidationData
from classwise.data.sources import Samples, picture_names, read_source, samples_of
from classwise.errors import CheckpointError, ClasswiseError, ConfigError, DataError, Interrupted
from classwise.files import refuse_existing, write_bytes, write_text
from classwise.infer.submission import fill, find_pictures, read_template, submission_bytes
from classwise.metrics.scoreboard import Scoreboard
from classwise.model.classifier import Classifier, ModelFacts, restore_classifier
from classwise.model.heads import Head, head_as_dict
from classwise.predictor import Predictor, set_threads, torch_kept
from classwise.prepare import (
    Prepared,
    check_pictures,
    data_digest,
    encode,
    prepare,
    refuse_bad,
)
from classwise.report.page import write_report
from classwise.rundir import RunFolder, new_folder
from classwise.status import ending_text, status_frame, status_now
from classwise.train import loop
from classwise.train.state import TrainState


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
    console = Console(quiet)
    if not isinstance(config, Config):
        config = load_config(Path(config), overrides)
    elif overrides:
        raise ConfigError("overrides go with a config file; change a Config with classwise.make_config")
    else:
        config = absolute_paths(config, Path.cwd())
    conflicts = check_conflicts(config)
    with torch_kept():
        prepared = prepare(config, console)
        prepared = dataclasses.replace(prepared, warnings=(*prepared.warnings, *conflicts))
        heads = build_heads(config, prepared)
        model = build_model(config, heads)
        check_recipe(config, prepared, model)  # its errors before anything is measured
        config, device = settle(config, prepared, model, console)
        set_threads(config)
        baselines = _baselines(config, prepared, model, heads, device, console)
        parts = _assemble(config, prepared, model, heads, device)
        folder = new_folder(config.name, None if run is None else Path(run))
        with _stop_flag() as should_stop:
            with _removed_unless_begun(folder):
                console.log_to(folder.log)
                write_text(folder.config, config.to_toml())
                folder.write_split(_split_table(prepared))
                keeper = _keeper(folder, config, prepared, parts, device, baselines)
                _say_start(console, folder, prepared, parts)
                keeper.save(parts.state, best=False)
            _run_to_the_end(folder, config, prepared, parts, keeper, console, should_stop)
    return Run.open(folder.path)


def resume(run: str | Path, quiet: bool = False) -> "Run":
    """Go on from the last good checkpoint; a run that has ended is returned as it is.

    Raises CheckpointError if there is no usable checkpoint or the data is not what it was.
    """
    folder, console = RunFolder(Path(run)), Console(quiet)
    status = folder.status()
    if status["state"] in ("finished", "early_stopped"):
        console.line(
            f"{folder.path}: {status['state']} already, after epoch {status['epoch']}; nothing to do"
        )
        return Run.open(folder.path)
    console.log_to(folder.log)
    config = load_config(folder.config)
    with torch_kept():
        checkpoint = newest_checkpoint(folder.checkpoints, lambda text: console.line(f"warning: {text}"))
        prepared = prepare(config, console)
        _refuse_changed_data(folder, prepared, checkpoint.facts)
        device = device_of(config.training.device)
        set_threads(config)
        # From the checkpoint: neither hub nor package is asked for weights that training has replaced anyway.
        model = restore_classifier(ModelFacts.from_dict(checkpoint.facts["model"]), checkpoint.model)
        parts = _assemble(config, prepared, model, build_heads(config, prepared), device)
        restore(parts.state, checkpoint)
        _compare_fingerprints(checkpoint, fingerprint(str(device)), console)
        console.line(f"resuming {folder.path} after epoch {checkpoint.epoch}, update {checkpoint.update}")
        with _stop_flag() as should_stop:
            keeper = _keeper(folder, config, prepared, parts, device, None)
            # A kill may have come between the saves of `best` and `last`: bring both to where the run is.
            p = parts.state.progress
            keeper.save(parts.state, best=p.epoch > 0 and p.window == 0 and p.best_epoch == p.epoch)
            _run_to_the_end(folder, config, prepared, parts, keeper, console, should_stop)
    return Run.open(folder.path)


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
        Raises DataError for a bad table or picture, CheckpointError for a damaged checkpoint.
        """
        console, config, predictor = Console(quiet), load_config(self.folder.config), self._predictor()
        if table is None:
            prepared = prepare(config, console)
            _refuse_changed_data(self.folder, prepared, predictor.facts)
            samples, answers = prepared.valid.samples, prepared.valid.answers
        else:
            samples = self._labelled(config, Path(table), images)
            answers = encode(predictor.targets, samples)
            refuse_bad(check_pictures(samples.paths, config.data.max_pixels, console), samples.where)
            self._warn_of_training_rows(samples, console)
        return predictor.score(predictor.outputs(samples, config), answers, samples.groups, config)

    def predict(
        self, source: str | Path, images: str | Path | None = None, quiet: bool = True
    ) -> pl.DataFrame:
        """Predictions for a folder of pictures or a table, one row each, in order: see the contract.

        Where a table holds all of a target's answers, they stand beside the predictions.
        """
        console, config = Console(quiet), load_config(self.folder.config)
        samples = self._any_source(config, Path(source), images)
        refuse_bad(check_pictures(samples.paths, config.data.max_pixels, console), samples.where)
        predictor = self._predictor()
        outputs = predictor.outputs(samples, config)
        return predictor.table(samples, outputs, predictor.known_truth(samples, console))

    def submit(
        self,
        template: str | Path,
        images: str | Path,
        out: str | Path,
        id: str | None = None,
        force: bool = False,
        quiet: bool = True,
    ) -> Path:
        """Fill the template's answers for the pictures in `images` and write the checked file to `out`.

        Raises OutputError if `out` exists or the template contradicts the answers; nothing is written then.
        """
        out = Path(out)
        refuse_existing(out, force)
        console, config = Console(quiet), load_config(self.folder.config)
        predictor = self._predictor()
        form = read_template(Path(template), list(predictor.heads), bool(predictor.joint), id)
        names = find_pictures(form, Path(images))
        frame = pl.DataFrame({"id": form.ids, "path": names})
        samples = Samples(str(template), Path(images), tuple(form.ids), tuple(names), None, frame)
        refuse_bad(check_pictures(samples.paths, config.data.max_pixels, console), samples.where)
        predictions = predictor.table(samples, predictor.outputs(samples, config), {})
        possible = predictor.answers()
        write_bytes(out, submission_bytes(fill(form, predictions, possible), form, possible))
        others = len(set(picture_names(Path(images))) - set(names))
        left = f"; {others} pictures in {images} are not in the template" if others else ""
        console.line(f"{len(names)} rows, checked against {template}{left}")
        return out

    def report(self) -> Path:
        """Write report.html again from what the run directory holds; returns its path."""
        return write_report(self.path)

    def _warn_of_training_rows(self, samples: Samples, console: Console) -> None:
        """Scores on pictures that the model was trained on say nothing of others."""
        split = self.folder.split()
        trained = set(split.filter(pl.col("split") == "train")["path"].to_list())
        root = samples.root.resolve()  # as the config's folders are
        seen = sum(str(root / name) in trained for name in samples.names)
        if seen:
            console.line(
                f"warning: the model was trained on {seen} of these {len(samples)} pictures (split.csv)"
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
        names = picture_names(source)
        if not names:
            raise DataError(f"{source}: no pictures in this folder")
        return samples_of(pl.DataFrame({"path": names}), str(source), source, "path", None, None)


@dataclass(frozen=True)
class _Parts:
    """The objects that the loop works with."""

    state: TrainState
    data: TrainingData
    valid: ValidationData
    heads: dict[str, Head]
    scoreboard: Scoreboard
    settings: loop.Settings


def _assemble(
    config: Config, prepared: Prepared, model: Classifier, heads: dict[str, Head], device: torch.device
) -> _Parts:
    data, valid = build_data(config, prepared, model, device)
    return _Parts(
        build_state(config, model, build_criterion(config, prepared), data, device),
        data,
        valid,
        heads,
        Scoreboard(heads, prepared.label_lists, prepared.joint, device),
        build_settings(config, device),
    )


def _baselines(
    config: Config,
    prepared: Prepared,
    model: Classifier,
    heads: dict[str, Head],
    device: torch.device,
    console: Console,
) -> Baselines | None:
    """Computed once, before anything is learnt; a resumed run has them in its status.json."""
    if not config.report.baselines:
        return None
    console.line("scoring two baselines on the same split ...")
    baselines = run_baselines(config, prepared, model, heads, device)
    for note in baselines.notes:
        console.line(f"note: {note}")
    console.line(str(baselines))
    return baselines


def _keeper(
    folder: RunFolder,
    config: Config,
    prepared: Prepared,
    parts: _Parts,
    device: torch.device,
    baselines: Baselines | None,
) -> CheckpointKeeper:
    """Keeps checkpoints, and after each brings history and status to where the checkpoint is."""
    facts = {
        "classwise": classwise.__version__,
        "model": parts.state.model.facts.as_dict(),
        "targets": [target.as_dict() for target in prepared.targets],
        "heads": {name: head_as_dict(head) for name, head in parts.heads.items()},
        "joint": list(prepared.joint),
        "precision": config.training.precision,
        "data": data_digest(prepared),
    }
    made_on = fingerprint(str(device))
    environment = {"classwise": classwise.__version__, **made_on}
    status = status_frame(folder, config, prepared, parts.state.model, baselines, environment)

    started, before = time.monotonic(), float(status["seconds"])

    def after(state: TrainState) -> None:
        folder.write_history(state.progress.history)
        seconds = round(before + time.monotonic() - started, 1)
        folder.write_status(status_now(status | {"seconds": seconds}, state, "running", "", parts.settings))

    return CheckpointKeeper(folder.checkpoints, facts, made_on, after)


def _run_to_the_end(
    folder: RunFolder,
    config: Config,
    prepared: Prepared,
    parts: _Parts,
    keeper: CheckpointKeeper,
    console: Console,
    should_stop: Callable[[], bool],
) -> None:
    """The loop, and whatever happens in it said in status.json."""

    def watch(windows: Iterable[list[Batch]], epoch: int, first: int) -> Iterable[list[Batch]]:
        title = f"epoch {epoch + 1}/{parts.settings.epochs}"
        return console.bar(windows, title, total=parts.data.updates_per_epoch, done=first)

    def say(row: dict[str, Any], best: bool) -> None:
        console.line(_epoch_line(row, parts.settings, best))

    started = time.monotonic()
    before = _seconds_before(folder)

    def end(state: str, reason: str) -> None:
        status = folder.status() | {"seconds": round(before + time.monotonic() - started, 1)}
        folder.write_status(status_now(status, parts.state, state, reason, parts.settings))

    p = parts
    try:
        with contextlib.closing(p.data.loader), contextlib.closing(p.valid.loader):
            ended = loop.train(
                *(p.state, p.data, p.valid, p.scoreboard, p.settings),
                *(keeper, should_stop, watch, say),
            )
        _write_results(folder, config, prepared)
    except (Interrupted, KeyboardInterrupt) as stop:
        reason = str(stop) or "stopped at once; the checkpoint from before is kept"
        end("interrupted", reason)
        _report_anyway(folder, console)
        raise Interrupted(f"{reason}; go on with: classwise resume {folder.path}") from None
    except BaseException as error:
        with contextlib.suppress(OSError, CheckpointError):
            end("failed", f"{type(error).__name__}: {error}")
            _report_anyway(folder, console)
        if "more than 1 value per channel" in str(error):
            raise ConfigError(ONE_ROW.format(config.training.batch_size)) from error
        raise
    end(ended, ending_text(ended, parts.settings))
    write_report(folder.path)
    best = parts.state.progress
    first = parts.settings.first_epoch
    since = f" (of those from epoch {first} on)" if first > 1 else ""
    console.line(
        f"{ended.replace('_', ' ')}: best {parts.settings.metric} {best.best:.4f} in epoch {best.best_epoch}{since}\n"
        f"report: {folder.report}"
    )
    _say_unbeaten(folder, best.best or 0.0, parts.settings.higher_is_better, console)


def _say_unbeaten(folder: RunFolder, value: float, higher_is_better: bool, console: Console) -> None:
    """The last line of a run that is no better than a baseline on the same split."""
    known = folder.status().get("baselines")
    if known:
        unbeaten = Baselines(**known).not_beaten_by(value, higher_is_better)
        for name, score in unbeaten.items():
            console.line(f"this run does not beat {name} on the same split: {value:.4f} against {score:.4f}")


def _write_results(folder: RunFolder, config: Config, prepared: Prepared) -> None:
    """metrics.json and predictions.csv of the best checkpoint on the validation rows."""
    checkpoint = read_checkpoint(folder.checkpoints / "best")
    predictor = Predictor.of(checkpoint)
    samples, answers = prepared.valid.samples, prepared.valid.answers
    outputs = predictor.outputs(samples, config)
    metrics = predictor.score(outputs, answers, samples.groups, config)
    order = ("metric", "value", "epoch")
    metrics["epoch"] = checkpoint.epoch
    folder.write_metrics({key: metrics[key] for key in order} | metrics)
    folder.write_predictions(predictor.table(samples, outputs, answers))


def _report_anyway(folder: RunFolder, console: Console) -> None:
    """A page for a run that did not end well is a help, but its failing must not hide the real error."""
    try:
        write_report(folder.path)
    except (ClasswiseError, OSError, ValueError, KeyError) as error:
        console.line(f"warning: the report could not be written: {error}")


def _split_table(prepared: Prepared) -> pl.DataFrame:
    parts = []
    for side, name in ((prepared.train, "train"), (prepared.valid, "valid")):
        s = side.samples
        groups = [None] * len(s) if s.groups is None else list(s.groups)
        columns = {"id": list(s.ids), "group": groups, "split": [name] * len(s)}
        columns["path"] = [str(path) for path in s.paths]
        parts.append(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
    return pl.concat(parts)


def _refuse_changed_data(folder: RunFolder, prepared: Prepared, facts: dict[str, Any]) -> None:
    """The same rows with the same labels must stand on the same sides: else validation would see what was
    trained on, or outputs would be taken for other labels."""
    then, now = folder.split(), _split_table(prepared)
    what = None
    if not then.select("id", "group", "split").equals(now.select("id", "group", "split")):
        what = f"split.csv has {then.height} rows, the data now {now.height}, or they differ"
    elif facts["targets"] != [target.as_dict() for target in prepared.targets]:
        what = "its targets or their label lists differ"
    elif facts["data"] != data_digest(prepared):
        what = "some rows have other labels or other pictures"
    if what:
        raise CheckpointError(
            f"{folder.path}: the data is not what the run was trained on: {what}; start a new run, or bring the"
            " table back to what it was"
        )


def _seconds_before(folder: RunFolder) -> float:
    return float(folder.status().get("seconds", 0.0))


def _epoch_line(row: dict[str, Any], settings: loop.Settings, best: bool) -> str:
    width = len(str(settings.epochs))
    star = "*" if best and row["epoch"] >= settings.first_epoch else " "
    return (
        f"epoch {row['epoch']:>{width}}/{settings.epochs}  loss {row['train_loss']:.4f}"
        f"  {settings.metric} {row['valid'][settings.metric]:.4f} {star}"
        f"  lr {row['lr']:.1e}  {row['seconds']:.1f} s  {row['images_per_second']:,.0f}/s"
    )


def _say_start(console: Console, folder: RunFolder, prepared: Prepared, parts: _Parts) -> None:
    train, valid = prepared.train.samples, prepared.valid.samples
    for warning in prepared.warnings:
        console.line(f"warning: {warning}")
    grouped = ""
    if train.groups is not None and valid.groups is not None:
        grouped = (
            f"\n{len(set(train.groups))} and {len(set(valid.groups))} groups, none of them on both sides"
        )
    console.line(
        f"{folder.path}: {len(train)} training and {len(valid)} validation rows{grouped}\n"
        f"{parts.data.updates_per_epoch} updates an epoch, {parts.settings.precision} on {parts.settings.device};"
        f" * marks the best {parts.settings.metric} so far"
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


@contextlib.contextmanager
def _removed_unless_begun(folder: RunFolder) -> Iterator[None]:
    """A new run's folder in which not even the first checkpoint could be written is no run: nothing stays."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


@contextlib.contextmanager
def _stop_flag() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask the loop to stop after the update that is under way; a second SIGINT stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return

    def ask(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
