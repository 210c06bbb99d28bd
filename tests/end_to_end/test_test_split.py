"""`data.test`: rows that neither train nor select, scored once at the end; everything that is done with the other rows
is done with them."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.metrics import f1_score

import classwise
from tests.helpers.scenes import PEOPLE, command, people_table, plain_table, write_config
from tests.helpers.tables import read_csv


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over people with a share for the test."""
    folder = tmp_path_factory.mktemp("people")
    people_table(folder)
    config = write_config(folder, PEOPLE, data__test=0.2)
    result = command("train", config, "--run", folder / "run").ok()
    (folder / "err.txt").write_text(result.err)
    return folder


def splits_of(run: Path) -> dict[str, str]:
    return {row["id"]: row["split"] for row in read_csv(run / "split.csv")}


def test_a_share_is_drawn_by_people_and_scored_once(people: Path) -> None:
    """Shares are of all rows, nobody is in two splits, and metrics.json has the test's scores beside validation's."""
    rows = pl.read_csv(people / "run" / "split.csv", infer_schema=False)
    counts = dict(rows["split"].value_counts().iter_rows())
    assert counts["test"] == pytest.approx(0.2 * 72, abs=3)
    assert counts["valid"] == pytest.approx(0.25 * 72, abs=3)
    assert rows.group_by("group").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 24

    metrics = classwise.Run.open(people / "run").metrics
    test = metrics["test"]
    assert metrics["samples"] == counts["valid"]
    assert test["samples"] == counts["test"]
    assert test["metric"] == metrics["metric"]
    absent = {"absent", "macro_f1_present"}  # there where some class has no row
    assert test["joint"].keys() - absent == metrics["joint"].keys() - absent
    assert test["targets"]["mask"]["intervals"].keys() == metrics["targets"]["mask"]["intervals"].keys()
    predicted = read_csv(people / "run" / "predictions-test.csv")
    assert [row["id"] for row in predicted] == rows.filter(pl.col("split") == "test")["id"].to_list()
    f1 = f1_score(
        [row["mask_true"] for row in predicted],
        [row["mask"] for row in predicted],
        labels=test["targets"]["mask"]["labels"],
        average="macro",
        zero_division=0,
    )
    assert test["targets"]["mask"]["macro_f1"] == pytest.approx(f1, abs=1e-12)


def test_the_last_line_is_the_score_on_the_test(people: Path) -> None:
    """It is the one to quote, and so it comes last."""
    test = classwise.Run.open(people / "run").metrics["test"]
    last = (people / "err.txt").read_text().strip().splitlines()[-1]
    assert last.startswith(f"{test['metric']} {test['value']:.4f} [")
    assert last.endswith(f"on {test['samples']} rows: the test, which selected nothing")


def test_status_and_report_count_the_test_rows(people: Path) -> None:
    """Rows, labels, groups and classes of the test are in status.json, and the headline of the page is its score."""
    run = classwise.Run.open(people / "run")
    data = run.status["data"]
    assert data["rows"] == data["train"] + data["valid"] + data["test"] == 72
    assert data["groups"]["test"] * 3 == data["test"]
    assert [row["test"] for row in data["labels"]["mask"]] == [data["groups"]["test"]] * 3
    assert sum(data["joint"]["test"]) == data["test"]
    assert data["masked"]["mask"] == {"train": 0, "valid": 0, "test": 0}
    page = (people / "run" / "report.html").read_text(encoding="utf-8")
    assert f'<p class="value">{run.metrics["test"]["value"]:.3f}</p>' in page
    assert f"{data['test']} test rows, which were scored once and selected nothing" in page
    assert f"{data['groups']['test']} in the test, none in several" in page


def test_evaluate_gives_both(people: Path) -> None:
    """On the run's own rows `evaluate` repeats metrics.json, and prints the test first."""
    run = classwise.Run.open(people / "run")
    found = run.evaluate()
    assert found["test"] == run.metrics["test"]
    assert found["value"] == run.metrics["value"]
    assert "test" not in run.evaluate(people / "samples.csv")
    lines = command("evaluate", people / "run").ok().out.splitlines()
    headlines = [line for line in lines if " rows" in line and line.startswith(("test: ", "validation: "))]
    assert headlines[0] == lines[0]
    assert f"{run.metrics['test']['value']:.4f}" in headlines[0]
    assert f"{run.metrics['value']:.4f}" in headlines[1]


def test_a_resumed_run_ends_with_the_same_test(people: Path, tmp_path: Path) -> None:
    """Stopped before the results were written, it scores the test when it ends."""
    config = people / "classwise.toml"
    command("train", config, "--run", tmp_path / "run", "--quiet").ok()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    (tmp_path / "run" / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    files = ("metrics.json", "predictions-test.csv")
    before = [(people / "run" / name).read_bytes() for name in files]
    for name in files:
        (tmp_path / "run" / name).unlink()
    command("resume", tmp_path / "run", "--quiet").ok()
    assert [(tmp_path / "run" / name).read_bytes() for name in files] == before


def plain(folder: Path, **changes: Any) -> Path:
    plain_table(folder, 24)
    plain_table(folder, 8, "test.csv", first=24)
    return write_config(folder, **changes)


def test_a_table_is_tested_whole(tmp_path: Path) -> None:
    """data.test may name a table: all its rows are tested, and the split of the others does not change a byte."""
    config = plain(tmp_path)
    command("train", config, "--run", tmp_path / "without").ok()
    command("train", config, "--data.test", "test.csv", "--run", tmp_path / "run").ok()
    without, found = splits_of(tmp_path / "without"), splits_of(tmp_path / "run")
    assert {id: split for id, split in found.items() if split != "test"} == without
    assert [id for id, split in found.items() if split == "test"] == [
        f"images/{n}.png" for n in range(24, 32)
    ]
    ids = [row["id"] for row in read_csv(tmp_path / "run" / "predictions-test.csv")]
    assert ids == [f"images/{n}.png" for n in range(24, 32)]
    weights = "checkpoints/best/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "without" / weights).read_bytes()
    config = json.loads(json.dumps((tmp_path / "run" / "config.toml").read_text()))
    assert f'test = "{tmp_path / "test.csv"}"' in config


@pytest.mark.parametrize("valid", [0.25, "valid.csv"])
def test_a_table_that_shares_rows_is_refused(tmp_path: Path, valid: float | str) -> None:
    """Neither training nor validation may hold a row of the test."""
    config = plain(tmp_path, data__test="test.csv", data__valid=valid)
    plain_table(tmp_path, 8, "valid.csv", first=31)
    shared = "23" if valid == 0.25 else "31"
    plain_table(tmp_path, 9 if valid == 0.25 else 8, "test.csv", first=23 if valid == 0.25 else 24)
    err = command("train", config, "--run", tmp_path / "run").err
    assert "(data.test): image '" in err
    assert f"images/{shared}.png' is in" in err
    assert "the test and the other rows must not share any" in err
    assert not (tmp_path / "run").exists()


def test_changed_test_rows_are_noticed(tmp_path: Path) -> None:
    """`evaluate` and `resume` compare the test rows as they do the others."""
    config = plain(tmp_path, data__test="test.csv")
    command("train", config, "--run", tmp_path / "run").ok()
    plain_table(tmp_path, 7, "test.csv", first=24)
    assert "the data is not what the run was trained on" in command("evaluate", tmp_path / "run").err


def test_bad_images_of_the_test_are_named(tmp_path: Path) -> None:
    """They are found before anything is trained, or left out and counted."""
    config = plain(tmp_path, data__test="test.csv")
    (tmp_path / "images/25.png").write_bytes(b"no image")
    assert "images/25.png" in command("train", config, "--run", tmp_path / "run").err
    command("train", config, "--data.bad_images", "skip", "--run", tmp_path / "run").ok()
    status = classwise.Run.open(tmp_path / "run").status
    assert status["data"]["test"] == 7
    assert Path(status["data"]["bad_images"][0]["path"]).name == "25.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__test": 0.5, "data__valid": 0.5}, "data.test: found 0.5 beside data.valid = 0.5"),
        ({"data__test": 1.5}, "data.test: found 1.5"),
        ({"data__test": "gone.csv"}, "data.test"),
    ],
)
def test_what_cannot_be_tested_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    result = command("train", plain(tmp_path, **changes), "--run", tmp_path / "run")
    assert result.code == 1
    assert message in result.err


def test_a_test_without_any_row_is_refused(tmp_path: Path) -> None:
    """Where every class is too rare, there is nothing to test on."""
    plain_table(tmp_path, 4)
    err = command("train", write_config(tmp_path, data__test=0.25), "--run", tmp_path / "run").err
    assert "a share of 0.25 of 4 rows leaves no row for the test (data.test)" in err


def test_a_rare_class_is_left_to_the_others_with_a_warning(tmp_path: Path) -> None:
    """Two rows of a class are not enough for three splits; that is no error."""
    plain_table(tmp_path, 24)
    table = pl.read_csv(tmp_path / "samples.csv", infer_schema=False)
    labels = ["rare" if n in (3, 8) else label for n, label in enumerate(table["label"])]
    table.with_columns(pl.Series("label", labels)).write_csv(tmp_path / "samples.csv")
    result = command("train", write_config(tmp_path, data__test=0.25), "--run", tmp_path / "run").ok()
    assert (
        "no test rows for label=rare: fewer than 3 rows each, which are left to training and validation"
        in result.err
    )
    found = splits_of(tmp_path / "run")
    assert {found["images/03.png"], found["images/08.png"]} == {"train", "valid"}
