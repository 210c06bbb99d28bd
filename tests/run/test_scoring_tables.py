"""`evaluate` with a table: what its scores and intervals mean, and what is said where they mean less than it seems."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

import classwise
from classwise.compose import dataset
from classwise.data.split import split_rows
from classwise.errors import DataError
from classwise.run.api import Run
from classwise.run.predictor import Predictor
from tests.helpers.scenes import PLAIN, command, draw, write_config, write_csv

HEADER = ("id", "path", "label", "person")
Row = list[str]


def rows_of(folder: Path, first: int, count: int) -> list[Row]:
    """Rows with drawn images of three classes; two rows a person."""
    rows = []
    for number in range(first, first + count):
        path = f"images/{number:03}.png"
        draw(folder / path, number % 3, number)
        rows.append([f"r{number}", path, "abc"[number % 3], f"p{number // 2}"])
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was trained in bf16 on 36 rows of three classes, grouped by person."""
    folder = tmp_path_factory.mktemp("scored")
    write_csv(folder / "samples.csv", HEADER, rows_of(folder, 0, 36))
    data = PLAIN["data"] | {"id": "id", "group": "person"}
    config = write_config(folder, PLAIN, data=data, training__precision="bf16", report__resamples=200)
    command("train", config, "--run", folder / "run").ok()
    return folder


def scores(folder: Path, rows: Sequence[Row], header: Sequence[str] = HEADER) -> dict[str, Any]:
    """What `Run.evaluate` says of a table of these rows."""
    table = write_csv(folder / "test.csv", header, rows)
    return Run.open(folder / "run").evaluate(table)


def interval(metrics: dict[str, Any], score: str = "accuracy") -> list[float]:
    """The interval of a score of the only target."""
    found: list[float] = metrics["targets"]["label"]["intervals"][score]
    return found


def test_a_table_of_new_rows_has_no_warnings(trained: Path) -> None:
    """New images of all classes with groups: nothing is to be said."""
    assert scores(trained, rows_of(trained, 100, 24))["warnings"] == []


def test_validation_is_computed_in_the_precision_of_training(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint's scores are those that the loop has seen, to the last digits of a sum of probabilities; in
    fp32 they would be others."""
    run = Run.open(trained / "run")
    best = run.history[run.metrics["epoch"] - 1]["valid"]
    own = run.evaluate()["targets"]["label"]["log_loss"]
    assert own == pytest.approx(best["log_loss"], rel=1e-12)

    of = Predictor.of
    monkeypatch.setattr(
        Predictor,
        "of",
        staticmethod(lambda checkpoint: dataclasses.replace(of(checkpoint), precision="fp32")),
    )
    assert run.evaluate()["targets"]["label"]["log_loss"] != pytest.approx(best["log_loss"], rel=1e-6)


def test_intervals_draw_the_groups_of_the_table(trained: Path) -> None:
    """Rows of four in a group are not independent: the interval is another than that of rows, and that of rows is the
    one of groups of one."""
    rows = rows_of(trained, 100, 48)
    alone = scores(trained, [[*row[:3], row[0]] for row in rows])
    grouped = scores(trained, [[*row[:3], f"g{number // 4}"] for number, row in enumerate(rows)])
    assert interval(grouped) != pytest.approx(interval(alone), rel=1e-3)
    assert alone["value"] == grouped["value"]

    without = scores(trained, [row[:3] for row in rows], HEADER[:3])
    assert interval(without) == pytest.approx(interval(alone))
    assert without["warnings"] == [
        f"{trained / 'test.csv'} has no column 'person' (data.group): its intervals are those of independent rows, too"
        " narrow if its rows belong to groups"
    ]


def test_an_empty_group_is_refused(trained: Path) -> None:
    """As in the run's own table: one empty cell must not turn the intervals into those of rows."""
    rows = rows_of(trained, 100, 24)
    rows[4][3] = rows[7][3] = ""
    with pytest.raises(DataError, match=r"test\.csv: column 'person' \(data\.group\) is empty in rows 5, 8"):
        scores(trained, rows)


def test_copies_in_a_table_are_drawn_together(trained: Path) -> None:
    """Each image three times: the interval is nearly that of the images; of three times as many rows, it would be 0.58
    times as wide."""
    rows = rows_of(trained, 100, 24)
    copies = [[f"{row[0]}-{k}", *row[1:3], f"{row[0]}-{k}"] for k in range(3) for row in rows]
    widths = {
        name: float(np.diff(interval(scores(trained, table)))[0])
        for name, table in (("once", [[*row[:3], row[0]] for row in rows]), ("copies", copies))
    }
    assert 0.75 * widths["once"] < widths["copies"] < 1.1 * widths["once"]


@pytest.mark.parametrize("how", ["path", "copy", "reencoded"])
def test_training_rows_are_counted(trained: Path, how: str) -> None:
    """By path, by bytes and by pixels; from Python and on the command line."""
    split = pl.read_csv(trained / "run" / "split.csv")
    assert split["content"].str.len_chars().unique().to_list() == [16]
    paths = split.filter(pl.col("split") == "train")["path"].to_list()[:3]
    rows = rows_of(trained, 100, 24)
    for number, path in enumerate(paths):
        label = "abc"[int(Path(path).stem) % 3]
        name = Path(path).relative_to(trained)
        if how != "path":
            name = Path(f"copies/{how}-{number}{'.bmp' if how == 'reencoded' else '.png'}")
            (trained / name).parent.mkdir(exist_ok=True)
            if how == "copy":
                shutil.copy(path, trained / name)
            else:
                cv2.imwrite(str(trained / name), cv2.imread(path))
        rows.append([f"t{number}", str(name), label, f"t{number}"])
    warning = "the model was trained on 3 of these 27 images (split.csv)"
    warning += "" if how == "path" else ", 3 of them under another path"
    assert scores(trained, rows)["warnings"] == [warning]

    result = command("evaluate", trained / "run", trained / "test.csv", "--json").ok()
    assert f"warning: {warning}" in result.err
    assert json.loads(result.out)["warnings"] == [warning]


def test_a_run_of_an_earlier_version_has_no_contents(trained: Path, tmp_path: Path) -> None:
    """Its split.csv has no such column: its rows are known by their paths, and everything else works."""
    shutil.copytree(trained / "run", tmp_path / "run")
    file = tmp_path / "run" / "split.csv"
    split = pl.read_csv(file)
    split.drop("content").write_csv(file)
    rows = [[f"x{n}", f"images/{n:03}.png", "abc"[n % 3], f"x{n}"] for n in range(36)]
    table = write_csv(trained / "old.csv", HEADER, rows)
    run = Run.open(tmp_path / "run")
    count = (split["split"] == "train").sum()
    assert run.evaluate(table)["warnings"] == [
        f"the model was trained on {count} of these 36 images (split.csv)"
    ]
    assert run.evaluate()["value"] == run.metrics["value"]


def test_a_class_without_rows_is_said(trained: Path) -> None:
    """It counts as F1 0 in the macro F1, as scikit-learn has it with all labels; the mean over the others is beside."""
    rows = [row for row in rows_of(trained, 100, 36) if row[2] != "b"]
    metrics = scores(trained, rows)
    target = metrics["targets"]["label"]
    present = [entry["f1"] for entry in target["per_class"] if entry["label"] != "b"]
    assert target["macro_f1_present"] == pytest.approx(np.mean(present))
    assert target["macro_f1"] == pytest.approx(sum(present) / 3)
    assert metrics["warnings"] == [
        f"label: no rows of 1 of 3 classes (b), which count as F1 0 in the macro F1 of {target['macro_f1']:.4f}; over"
        f" the classes with rows it is {target['macro_f1_present']:.4f} (macro_f1_present)"
    ]


def test_labels_that_the_model_does_not_know_are_named(trained: Path) -> None:
    """All of them, in a warning, and their rows count as mistakes."""
    rows = rows_of(trained, 100, 24)
    rows[2][2] = rows[5][2] = "owl"
    rows[9][2] = "cat"
    metrics = scores(trained, rows)
    assert (
        "label: the model does not know 2 labels (owl, cat), so 3 rows count as mistakes"
        in metrics["warnings"]
    )
    assert metrics["targets"]["label"]["samples"] == 24
    assert [row["support"] for row in metrics["targets"]["label"]["per_class"][-2:]] == [2, 1]
    for row in rows:
        row[2] = "owl"
    with pytest.raises(DataError, match=r"label 'owl' in rows 1, 2, .* is not one of target 'label'"):
        scores(trained, rows)


def interrupted(folder: Path, run: Path, **changes: Any) -> Path:
    """A copy of the run, marked as one that has not ended."""
    shutil.copytree(folder / "run", run)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted"} | changes))
    return run


def with_another_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a split of the same seed comes out differently, as in another version."""

    def other(strata: Any, groups: Any, share: float, seed: int, ids: Any) -> Any:
        return split_rows(strata, groups, share=share, seed=seed + 1, ids=ids)

    monkeypatch.setattr(dataset, "split_rows", other)


def test_a_run_keeps_its_split(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`resume` and `evaluate` take it from split.csv, so a version that draws another one can go on with the run."""
    with_another_draw(monkeypatch)
    run = interrupted(trained, tmp_path / "run")
    assert Run.open(run).evaluate()["value"] == Run.open(run).metrics["value"]
    before = (run / "predictions.csv").read_bytes()
    assert classwise.resume(run, quiet=True).status["state"] == "finished"
    assert (run / "predictions.csv").read_bytes() == before


def test_an_edited_split_is_noticed(trained: Path, tmp_path: Path) -> None:
    """A training row and a validation row that change places in split.csv are not what the run was trained on."""
    run = interrupted(trained, tmp_path / "run")
    split = pl.read_csv(run / "split.csv")
    sides = split["split"].to_list()
    train = sides.index("train")
    valid = sides.index("valid")
    sides[train], sides[valid] = "valid", "train"
    split.with_columns(pl.Series("split", sides)).write_csv(run / "split.csv")
    for verb in ("resume", "evaluate"):
        result = command(verb, run)
        assert result.code == 1
        assert "not what the run was trained on" in result.err


def test_a_leak_in_the_split_of_an_earlier_version_is_said(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose validation rows hold training images goes on, and it is told."""
    folder = tmp_path
    rows = rows_of(folder, 0, 24)
    copies = [[f"{row[0]}-copy", row[1], row[2], f"{row[0]}-copy"] for row in rows]
    write_csv(folder / "samples.csv", HEADER, rows + copies)
    config = write_config(folder, PLAIN, data=PLAIN["data"] | {"id": "id"}, report__resamples=0)
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "split_groups", lambda samples, labels, targets: None)
        command("train", config, "--run", folder / "run").ok()
    result = command("evaluate", folder / "run").ok()
    assert "validation rows hold an image that was trained on, so the scores are too high" in result.err
