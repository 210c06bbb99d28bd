"""Inference on what is not clean: images that cannot be used, unknown labels, and whatever a user has at hand."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from classwise.errors import DataError, ImageError
from classwise.run.api import Run
from tests.helpers.refusals import refused, says
from tests.helpers.scenes import (
    MANY,
    PEOPLE,
    Result,
    class_folder,
    command,
    draw,
    many_table,
    people_table,
    plain_table,
    write_config,
    write_csv,
)
from tests.helpers.tables import read_csv

QUICK: dict[str, Any] = {"report__resamples": 0, "report__baselines": False, "training__epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of a and b, six new images of which `3.png` is cut short, and a table of them."""
    folder = tmp_path_factory.mktemp("unclean")
    plain_table(folder)
    command("train", write_config(folder, **QUICK), "--run", folder / "run").ok()
    for number in range(6):
        draw(folder / f"new/{number}.png", number % 2, 100 + number)
    broken = folder / "new/3.png"
    broken.write_bytes(broken.read_bytes()[:300])
    write_csv(folder / "new.csv", ("path", "label"), [[f"new/{n}.png", "ab"[n % 2]] for n in range(6)])
    return folder


def predict(folder: Path, out: Path, *arguments: object) -> Result:
    return command("predict", folder / "run", *arguments, "--out", out)


def clean(folder: Path, to: Path) -> Path:
    """The five images that can be used."""
    shutil.copytree(folder / "new", to)
    (to / "3.png").unlink()
    return to


# Images that cannot be used.


def test_others_get_their_predictions(folder: Path, tmp_path: Path) -> None:
    """The row is there, in its place, with the reason and nothing else; the others are as without it; exit code 3."""
    result = predict(folder, tmp_path / "p.csv", folder / "new", "--bad-images", "skip")
    assert result.code == 3
    assert result.out.strip() == str(tmp_path / "p.csv")
    says(result.err, "warning: 1 of 6 images cannot be used, such as 3.png: PNG: cut short")
    rows = read_csv(tmp_path / "p.csv")
    assert [row["id"] for row in rows] == [f"{number}.png" for number in range(6)]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, False, False]
    assert (rows[3]["label"], rows[3]["label_p_a"]) == ("", "")
    predict(folder, tmp_path / "clean.csv", clean(folder, tmp_path / "clean")).ok()
    others = [{k: v for k, v in row.items() if k != "error"} for row in rows if not row["error"]]
    assert others == read_csv(tmp_path / "clean.csv")


def test_nothing_is_skipped_unasked(folder: Path, tmp_path: Path) -> None:
    """By default it is an error that lists them and names the way; without a bad image the exit code is 0."""
    message = refused(folder, "predict", folder / "run", folder / "new", "--out", tmp_path / "p.csv", lines=2)
    says(message, "--bad-images skip predicts the others and marks these", "3.png")
    result = predict(
        folder, tmp_path / "p.csv", clean(folder, tmp_path / "clean"), "--bad-images", "skip"
    ).ok()
    assert [row["error"] for row in read_csv(tmp_path / "p.csv")] == [""] * 5
    assert "warning" not in result.err
    assert predict(folder, tmp_path / "q.csv", folder / "new", "--bad-images", "ignore").code == 1


def test_a_table_with_a_missing_file(folder: Path, tmp_path: Path) -> None:
    """A file that is not there is one that cannot be used; if none can, it is an error."""
    shutil.copytree(clean(folder, tmp_path / "new"), tmp_path / "x/new")
    table = write_csv(tmp_path / "x/t.csv", ("path",), [["new/0.png"], ["new/gone.png"], ["new/1.png"]])
    arguments = (table, "--images", tmp_path / "x", "--bad-images", "skip")
    assert predict(folder, tmp_path / "p.parquet", *arguments).code == 3
    found = pl.read_parquet(tmp_path / "p.parquet")
    assert found["id"].to_list() == ["new/0.png", "new/gone.png", "new/1.png"]
    assert found["error"].is_not_null().to_list() == [False, True, False]
    write_csv(table, ("path",), [["new/gone.png"]])
    result = predict(folder, tmp_path / "q.csv", *arguments)
    assert result.code == 1
    says(result.err, "not one of its 1 image can be used")


def test_evaluation_counts_what_it_leaves_out(folder: Path) -> None:
    """The scores are of the others; the JSON lists the images; exit code 3."""
    arguments = ("evaluate", folder / "run", folder / "new.csv", "--images", folder)
    assert command(*arguments).code == 1
    result = command(*arguments, "--bad-images", "skip", "--json")
    assert result.code == 3
    says(result.err, "warning: 1 image cannot be used and is not scored, such as", "3.png")
    metrics = json.loads(result.out)
    assert metrics["samples"] == 5
    assert [Path(entry["path"]).name for entry in metrics["skipped"]] == ["3.png"]
    assert metrics["skipped"][0]["reason"].startswith("PNG: cut short")


@pytest.mark.parametrize(
    ("columns", "options", "wanted"),
    [
        (("id", "label"), (), ["a"]),
        (("id", "a", "b"), (), None),
        (("id", "label"), ("--fallback", "b"), ["b"]),
        (("id", "a", "b"), ("--fallback", "0.5"), ["0.5", "0.5"]),
    ],
    ids=["label", "probabilities", "given label", "given probability"],
)
def test_a_submission_is_whole(
    columns: tuple[str, ...], options: tuple[str, ...], wanted: list[str] | None, folder: Path, tmp_path: Path
) -> None:
    """A bad image and a missing one get a stated answer: the most frequent label or the shares of the training rows, or
    what the user names."""
    ids = ["0", "1", "2", "3", "gone"]
    template = write_csv(tmp_path / "t.csv", columns, [[id, *[""] * (len(columns) - 1)] for id in ids])
    arguments = (
        "submit",
        folder / "run",
        template,
        "--images",
        folder / "new",
        "--out",
        tmp_path / "out.csv",
    )
    message = refused(tmp_path, *arguments)
    says(message, "gone")
    result = command(*arguments, "--bad-images", "skip", *options)
    assert result.code == 3, result.err
    says(
        result.err, "2 of 5 images cannot be used", "their rows hold", "the answers of their rows are guesses"
    )
    rows = read_csv(tmp_path / "out.csv")
    assert [row["id"] for row in rows] == ids
    answers = [[row[column] for column in columns[1:]] for row in rows]
    assert answers[3] == answers[4]
    if wanted is not None:
        assert answers[3] == wanted
    else:
        shares = json.loads((folder / "run/status.json").read_text())["data"]["labels"]["label"]
        total = sum(row["train"] for row in shares)
        assert list(map(float, answers[3])) == pytest.approx(
            [row["train"] / total for row in shares], abs=1e-6
        )


def test_a_fallback_must_be_an_answer(folder: Path, tmp_path: Path) -> None:
    """It is checked as every answer is, and refused where no row could have it."""
    template = write_csv(tmp_path / "t.csv", ("id", "label"), [["0", ""], ["3", ""]])
    arguments = ("submit", folder / "run", template, "--images", folder / "new", "--out", tmp_path / "o.csv")
    result = command(*arguments, "--bad-images", "skip", "--fallback", "zebra")
    assert result.code == 1
    says(result.err, "holds 'zebra', which is not a possible answer")
    says(refused(tmp_path, *arguments, "--fallback", "a"), "--fallback: found without --bad-images skip")
    assert not (tmp_path / "o.csv").exists()


def test_guesses_of_every_type_of_target(tmp_path: Path) -> None:
    """Labels, levels, label sets and numbers: what one would say without an image."""
    many_table(tmp_path)
    config = write_config(tmp_path, MANY, **QUICK, training__freeze_epochs=0, loss={"name": "cross_entropy"})
    command("train", config, "--run", tmp_path / "run").ok()
    columns = ("id", "label", "level", "tags", "size")
    template = write_csv(tmp_path / "t.csv", columns, [["00", *[""] * 4], ["gone", *[""] * 4]])
    arguments = (
        "submit",
        tmp_path / "run",
        template,
        "--images",
        tmp_path / "images",
        "--out",
        tmp_path / "o.csv",
    )
    assert command(*arguments, "--bad-images", "skip").code == 3
    guess = read_csv(tmp_path / "o.csv")[1]
    train = pl.read_csv(tmp_path / "run/split.csv").filter(pl.col("split") == "train")["id"].to_list()
    rows = [row for row in read_csv(tmp_path / "samples.csv") if row["path"] in train]
    sizes = [float(row["size"]) for row in rows if row["size"]]
    assert float(guess["size"]) == pytest.approx(np.mean(sizes), rel=1e-4)
    labels = [row["label"] for row in rows if row["label"]]
    assert labels.count(guess["label"]) == max(map(labels.count, "abc"))
    assert guess["tags"] in ("|", "x", "x|y", "x|y|z")


# Labels that the model has never seen.


def test_unseen_labels_count_as_mistakes(folder: Path, tmp_path: Path) -> None:
    """Each is a class that is never predicted: accuracy over all rows, macro F1 with and without it, and a warning."""
    test = class_folder(tmp_path / "test", {"a": 5, "b": 5})
    for number in range(3):
        draw(test / f"owl/{number}.png", 2, number)
    known = Run.open(folder / "run").evaluate(class_folder(tmp_path / "known", {"a": 5, "b": 5}))
    result = command("evaluate", folder / "run", test, "--json").ok()
    says(result.err, "label: the model does not know 1 label (owl), so 3 rows count as mistakes")
    scores = json.loads(result.out)["targets"]["label"]
    assert scores["samples"] == 13
    assert scores["accuracy"] == pytest.approx(known["targets"]["label"]["accuracy"] * 10 / 13)
    owl = scores["per_class"][2]
    assert (owl["label"], owl["recall"], owl["f1"], owl["support"]) == ("owl", 0.0, 0.0, 3)
    assert scores["unseen"] == ["owl"]
    parts = [row["f1"] for row in scores["per_class"]]
    assert scores["macro_f1"] == pytest.approx(sum(parts) / 3)
    assert scores["macro_f1_known"] == pytest.approx(sum(parts[:2]) / 2)
    assert sum(map(sum, scores["confusion"])) == 13


def test_unseen_labels_with_intervals_and_a_joint_class(tmp_path: Path) -> None:
    """The joint class has no number for such rows and is scored on the others; the rest as for one target."""
    rows = people_table(tmp_path)
    config = write_config(tmp_path, PEOPLE, report__resamples=20, report__baselines=False)
    command("train", config, "--run", tmp_path / "run").ok()
    for row in rows[:6]:
        row[3] = "unknown"
    table = write_csv(tmp_path / "other.csv", ("path", "사람", "mask", "gender", "age"), rows)
    metrics = Run.open(tmp_path / "run").evaluate(table)
    assert metrics["targets"]["gender"]["samples"] == len(rows)
    assert metrics["joint"]["samples"] == len(rows) - 6
    assert metrics["targets"]["gender"]["per_class"][-1]["support"] == 6
    assert any("gender: the model does not know 1 label (unknown)" in text for text in metrics["warnings"])
    assert len(metrics["joint"]["labels"]) == 18


def test_unseen_labels_of_a_set_and_of_levels(tmp_path: Path) -> None:
    """A further label of a set is a cell that is never predicted; a level that has no place stays an error; so does a
    column in which no label is known."""
    many_table(tmp_path)
    config = write_config(tmp_path, MANY, **QUICK, training__freeze_epochs=0, loss={"name": "cross_entropy"})
    command("train", config, "--run", tmp_path / "run").ok()
    rows = read_csv(tmp_path / "samples.csv")

    def table(column: str, values: dict[int, str]) -> Path:
        changed = [{**row, column: values.get(number, row[column])} for number, row in enumerate(rows)]
        return write_csv(tmp_path / f"{column}.csv", list(rows[0]), [list(row.values()) for row in changed])

    scores = Run.open(tmp_path / "run").evaluate(table("tags", {1: "x|new", 2: "new"}))["targets"]["tags"]
    assert scores["unseen"] == ["new"]
    assert scores["per_class"][-1]["support"] == 2
    assert scores["per_class"][-1]["recall"] == 0
    with pytest.raises(DataError, match=r"found 9, which are no levels of 'level'.*leave these rows out"):
        Run.open(tmp_path / "run").evaluate(table("level", {1: "9"}))
    with pytest.raises(DataError, match="are none of target 'label'"):
        Run.open(tmp_path / "run").evaluate(table("label", dict.fromkeys(range(len(rows)), "q") | {0: "r"}))


# Numbers that are written otherwise.


@pytest.mark.parametrize(("trained", "scored"), [("{}", "{}.0"), ("{}.0", "{}"), ("{}", "0{}")])
def test_numbers_are_matched_by_value(tmp_path: Path, trained: str, scored: str) -> None:
    """The same scores as with the run's own text, which is said; a number that the run does not have is unseen."""
    rows = plain_table(tmp_path)

    def table(name: str, form: str, also: str = "") -> Path:
        cells = [[path, form.format("ab".index(label))] for path, label in rows]
        cells[0][1] = also or cells[0][1]
        return write_csv(tmp_path / name, ("path", "label"), cells)

    table("samples.csv", trained)
    command("train", write_config(tmp_path, **QUICK), "--run", tmp_path / "run").ok()
    expected = command("evaluate", tmp_path / "run", tmp_path / "samples.csv", "--json").ok()
    found = command("evaluate", tmp_path / "run", table("other.csv", scored), "--json").ok()
    assert json.loads(found.out)["targets"] == json.loads(expected.out)["targets"]
    pair = f"{scored.format(0)} as {trained.format(0)}"
    says(found.err, "label: 16 rows have their number written otherwise than the run's labels", pair)
    mixed = command("evaluate", tmp_path / "run", table("mixed.csv", scored, also="5"), "--json").ok()
    assert json.loads(mixed.out)["targets"]["label"]["unseen"] == ["5"]


def test_numbers_of_sets_and_levels_are_matched_by_value(tmp_path: Path) -> None:
    """Each label within a cell; a level that is written otherwise has its place."""
    rows = many_table(tmp_path)
    for row in rows:
        row[3] = row[3].replace("x", "1").replace("y", "2").replace("z", "3")
    header = ("path", "label", "level", "tags", "size", "relevance", "query")
    write_csv(tmp_path / "samples.csv", header, rows)
    config = write_config(tmp_path, MANY, **QUICK, training__freeze_epochs=0, loss={"name": "cross_entropy"})
    command("train", config, "--run", tmp_path / "run").ok()
    run = Run.open(tmp_path / "run")
    expected = run.evaluate(tmp_path / "samples.csv")["targets"]
    for row in rows:
        row[2] += ".0" if row[2] else ""
        row[3] = "|".join(f"{part}.0" for part in row[3].split("|")) if row[3].strip("|") else row[3]
    found = run.evaluate(write_csv(tmp_path / "other.csv", header, rows))
    assert found["targets"] == expected
    assert sum("matched by value" in line for line in found["warnings"]) == 2


def test_two_texts_of_one_value_are_two_labels(tmp_path: Path) -> None:
    """Then the value does not say which, and a third text is unseen."""
    rows = plain_table(tmp_path)
    numbered = [[path, {"a": "7", "b": "007"}[label]] for path, label in rows]
    write_csv(tmp_path / "samples.csv", ("path", "label"), numbered)
    command("train", write_config(tmp_path, **QUICK), "--run", tmp_path / "run").ok()
    numbered[0][1] = "7.0"
    scores = Run.open(tmp_path / "run").evaluate(write_csv(tmp_path / "o.csv", ("path", "label"), numbered))
    assert scores["targets"]["label"]["unseen"] == ["7.0"]


def test_what_the_run_takes_for_unknown_or_the_same_is_not_unseen(tmp_path: Path) -> None:
    """Cells of targets.NAME.missing have no label; with data.unify_labels another spelling is the same label."""
    rows = plain_table(tmp_path)
    keys = {"targets__label__missing": ["-1"], "data__unlabeled": "skip", "data__unify_labels": True}
    command("train", write_config(tmp_path, **QUICK, **keys), "--run", tmp_path / "run").ok()
    rows[0][1], rows[1][1], rows[2][1] = "-1", "-1.0", " A "
    result = Run.open(tmp_path / "run").evaluate(write_csv(tmp_path / "o.csv", ("path", "label"), rows))
    scores = result["targets"]["label"]
    assert (scores["samples"], scores.get("unseen")) == (14, None)
    assert not any("does not know" in line for line in result["warnings"])


# Whatever a user has at hand.


def test_files_patterns_and_lists(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image, several, a pattern, a folder among files, and a list on standard input: the id is the path as given,
    and the prediction that of the folder."""
    images = clean(folder, tmp_path / "new")
    predict(folder, tmp_path / "all.csv", images).ok()
    expected = {row["id"]: row["label_p_a"] for row in read_csv(tmp_path / "all.csv")}

    def found(*sources: object) -> dict[str, str]:
        (tmp_path / "p.csv").unlink(missing_ok=True)
        predict(folder, tmp_path / "p.csv", *sources).ok()
        return {row["id"]: row["label_p_a"] for row in read_csv(tmp_path / "p.csv")}

    one = images / "1.png"
    assert found(one) == {str(one): expected["1.png"]}
    assert found(images / "4.png", one) == {
        str(images / "4.png"): expected["4.png"],
        str(one): expected["1.png"],
    }
    everything = {str(images / name): p for name, p in expected.items()}
    assert found(str(images / "*.png")) == everything
    assert found(one, images) == everything
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("new/1.png\n\nnew/0.png\nnew/1.png\n"))
    assert list(found("-")) == ["new/1.png", "new/0.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO("new/1.png\0new/2.png\0"))
    assert list(found("-")) == ["new/1.png", "new/2.png"]


def test_without_a_file_the_table_is_printed(folder: Path) -> None:
    """As CSV, for a pipe; nothing else is on standard output."""
    result = command("predict", folder / "run", folder / "new/1.png").ok()
    header, row = result.out.splitlines()
    assert header == "id,label,label_p_a,label_p_b"
    assert row.startswith(f"{folder / 'new/1.png'},")


def test_what_there_is_not(folder: Path, tmp_path: Path) -> None:
    """Each by its name."""
    run = folder / "run"
    says(
        refused(folder, "predict", run, folder / "gone.png"),
        "gone.png: there is no such table, folder or image",
    )
    says(refused(folder, "predict", run, folder / "*.gif"), "no file matches this pattern")
    says(
        refused(folder, "predict", run, "new.png", "--wrong"),
        "found '--wrong', which is neither an option",
    )
    says(refused(folder, "predict", run, folder / "new/0.png", folder / "gone.png", lines=2), "gone.png")


def test_images_from_python(folder: Path) -> None:
    """Arrays, Pillow's images, bytes and paths, alone or mixed: the predictions of their files, with the ids given."""
    run = Run.open(folder / "run")
    paths = [folder / f"new/{number}.png" for number in (0, 1, 2)]
    expected = run.predict(paths)["label_p_a"].to_list()
    arrays = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    found = run.predict([arrays[0], Image.open(paths[1]), paths[2].read_bytes()], ids=["x", "y", "z"])
    assert found["id"].to_list() == ["x", "y", "z"]
    assert found["label_p_a"].to_list() == expected
    mixed = run.predict([paths[0], arrays[1]])
    assert mixed["id"].to_list() == [str(paths[0]), "1"]
    assert mixed["label_p_a"].to_list() == expected[:2]
    assert run.predict(arrays[2])["label_p_a"].to_list() == expected[2:]


def test_bad_images_from_python(folder: Path) -> None:
    """An error that names which one, or a marked row."""
    run = Run.open(folder / "run")
    good = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ImageError, match="1: found an array of float64"):
        run.predict([good, np.zeros((9, 9, 3))])
    found = run.predict([good, b"no image", good], bad_images="skip", ids=["a", "b", "c"])
    assert found["id"].to_list() == ["a", "b", "c"]
    assert found["error"].is_not_null().to_list() == [False, True, False]
    assert found["label"].is_null().to_list() == [False, True, False]
    with pytest.raises(DataError, match="ids: found 1 for 2 images"):
        run.predict([good, good], ids=["a"])
    with pytest.raises(DataError, match="found no image"):
        run.predict([])


def test_ids_of_a_table_without_the_id_column(tmp_path: Path, folder: Path) -> None:
    """A table to predict need not have the column of ids: then its paths are its ids."""
    rows = plain_table(tmp_path)
    write_csv(
        tmp_path / "samples.csv", ("key", "path", "label"), [[f"k{n}", *row] for n, row in enumerate(rows)]
    )
    config = write_config(tmp_path, **QUICK, data__id="key")
    command("train", config, "--run", tmp_path / "run").ok()
    with_ids = command("predict", tmp_path / "run", tmp_path / "samples.csv").ok().out.splitlines()
    assert [line.split(",")[0] for line in with_ids[1:3]] == ["k0", "k1"]
    table = write_csv(tmp_path / "bare.csv", ("path",), [[row[0]] for row in rows[:2]])
    bare = command("predict", tmp_path / "run", table).ok().out.splitlines()
    assert [line.split(",")[0] for line in bare[1:]] == [row[0] for row in rows[:2]]


def test_a_probability_for_a_template_of_halves(folder: Path, tmp_path: Path) -> None:
    """From the command line: probabilities where the template holds 0.5, labels where it is told to write them."""
    template = write_csv(tmp_path / "t.csv", ("id", "is_b"), [["0", 0.5], ["1", 0.5]])
    arguments = ("submit", folder / "run", template, "--images", folder / "new")
    result = command(*arguments, "--out", tmp_path / "p.csv", "--clip", 0.01).ok()
    says(result.err, "column 'is_b': the probability of 'b'")
    assert all(0.01 <= float(row["is_b"]) <= 0.99 for row in read_csv(tmp_path / "p.csv"))
    command(*arguments, "--out", tmp_path / "a.csv", "--positive", "a").ok()
    both = [float(read_csv(tmp_path / name)[0]["is_b"]) for name in ("p.csv", "a.csv")]
    assert sum(both) == pytest.approx(1, abs=0.02)
    command(*arguments, "--out", tmp_path / "l.csv", "--answer", "label").ok()
    assert {row["is_b"] for row in read_csv(tmp_path / "l.csv")} <= {"a", "b"}


@pytest.mark.parametrize(
    ("name", "separator"), [("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", ";")]
)
def test_a_submission_has_the_separator_of_its_template(
    folder: Path, tmp_path: Path, name: str, separator: str
) -> None:
    """Not that of its suffix; otherwise it is what the same template with commas gets."""
    out = tmp_path / f"s{Path(name).suffix}"
    (tmp_path / name).write_text(
        separator.join(["id", "label"]) + "\n" + "".join(f"{n}{separator}a\n" for n in "012")
    )
    command("submit", folder / "run", tmp_path / name, "--images", folder / "new", "--out", out).ok()
    commas = write_csv(tmp_path / "commas.csv", ("id", "label"), [[n, "a"] for n in "012"])
    command("submit", folder / "run", commas, "--images", folder / "new", "--out", tmp_path / "c.csv").ok()
    assert out.read_text() == (tmp_path / "c.csv").read_text().replace(",", separator)


# Tables and lists of images that are somewhere else.


def test_a_table_beside_its_own_images(folder: Path, tmp_path: Path) -> None:
    """Where none of its paths is below the run's folder, they are those of the table's folder, which is said."""
    clean(folder, tmp_path / "fresh")
    table = write_csv(
        tmp_path / "t.csv", ("path", "label"), [[f"fresh/{n}.png", "ab"[n % 2]] for n in (0, 1)]
    )
    result = command("predict", folder / "run", table).ok()
    says(result.err, "t.csv: its images were found below", tmp_path, "and none of them in")
    assert [line.split(",")[0] for line in result.out.splitlines()[1:]] == ["fresh/0.png", "fresh/1.png"]
    says(command("evaluate", folder / "run", table).ok().out, "on 2 rows")


def test_a_table_below_the_current_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that lead from where the command is run."""
    clean(folder, tmp_path / "fresh")
    (tmp_path / "tables").mkdir()
    table = write_csv(tmp_path / "tables/t.csv", ("path",), [["fresh/0.png"]])
    monkeypatch.chdir(tmp_path)
    says(command("predict", folder / "run", table).ok().err, "its images were found below", tmp_path)


def test_a_table_of_one_column(folder: Path, tmp_path: Path) -> None:
    """It holds the paths, whatever it is called."""
    table = write_csv(tmp_path / "t.csv", ("file",), [["images/00.png"], ["images/01.png"]])
    assert len(command("predict", folder / "run", table).ok().out.splitlines()) == 3


def test_the_runs_own_folder_comes_first(folder: Path, tmp_path: Path) -> None:
    """One image there is enough: the others are missing then."""
    table = write_csv(folder / "mixed.csv", ("path",), [["images/00.png"], ["fresh/0.png"]])
    clean(folder, tmp_path / "fresh")
    message = refused(folder, "predict", folder / "run", table, lines=2)
    says(message, "1 image cannot be used", "fresh/0.png")


def test_rows_without_a_label_are_not_scored(folder: Path, tmp_path: Path) -> None:
    """Whatever data.unlabeled says of the rows that were trained on; if no row has one, it is an error."""
    rows = [[f"images/{n:02}.png", "ab"[n % 2] if n else ""] for n in range(4)]
    table = write_csv(tmp_path / "t.csv", ("path", "label"), rows)
    result = command("evaluate", folder / "run", table).ok()
    says(result.err, "warning: 1 row has no label and is not scored")
    says(result.out, "on 3 rows")
    write_csv(table, ("path", "label"), [[row[0], ""] for row in rows])
    assert command("evaluate", folder / "run", table).code == 1


def test_what_is_no_image_and_no_run(folder: Path, tmp_path: Path) -> None:
    """A list of paths in a text file, and a file of the run in its place: the messages say what to write."""
    (tmp_path / "list.txt").write_text("new/0.png\n")
    message = refused(tmp_path, "predict", folder / "run", tmp_path / "list.txt")
    says(message, "a list of paths is read from standard input: predict RUN - <")
    says(
        refused(tmp_path, "predict", folder / "run/log.txt", folder / "new"), "is a file; a run is the folder"
    )


def test_other_objects_from_python(folder: Path) -> None:
    """An open file is its bytes; anything else is refused by the name of its type."""
    run = Run.open(folder / "run")
    data = (folder / "new/0.png").read_bytes()
    expected = run.predict(data)["label_p_a"].to_list()
    assert run.predict(io.BytesIO(data))["label_p_a"].to_list() == expected
    with (folder / "new/0.png").open("rb") as file:
        assert run.predict([file])["label_p_a"].to_list() == expected
    for other in (None, torch.zeros(3, 4, 4), [3], {"a": 1.5}.values()):
        with pytest.raises(DataError, match="for an image; allowed: a path, the bytes of a file"):
            run.predict(other)  # type: ignore[arg-type]


def test_a_process_that_changes_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same relative path is another folder then."""
    run = Run.open(folder / "run")
    for name in ("one", "two"):
        clean(folder, tmp_path / name / "new")
        monkeypatch.chdir(tmp_path / name)
        assert run.predict("new").height == 5


def test_a_template_of_zeros(folder: Path, tmp_path: Path) -> None:
    """Where 0 is a label, it is said how probabilities are written."""
    plain_table(tmp_path)
    rows = [[row["path"], "ab".index(row["label"])] for row in read_csv(tmp_path / "samples.csv")]
    write_csv(tmp_path / "samples.csv", ("path", "label"), rows)
    command("train", write_config(tmp_path, **QUICK), "--run", tmp_path / "run").ok()
    template = write_csv(tmp_path / "t.csv", ("id", "label"), [["0", 0], ["1", 0]])
    arguments = ("submit", tmp_path / "run", template, "--images", folder / "new")
    says(
        command(*arguments, "--out", tmp_path / "l.csv").ok().err,
        "column 'label': the label, as the template holds 0; --answer probability writes probabilities instead",
    )
    asked = command(*arguments, "--out", tmp_path / "p.csv", "--answer", "probability").ok()
    assert "instead" not in asked.err
