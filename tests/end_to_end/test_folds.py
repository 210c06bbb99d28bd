"""`classwise folds` and every command that takes its directory, on drawn images."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

import classwise
from classwise.errors import CheckpointError
from classwise.kfold import training
from classwise.run.unattended import Outcome
from tests.helpers.browsed import Page
from tests.helpers.children import child_environment
from tests.helpers.pretrained import probed_config
from tests.helpers.scenes import MANY, PLAIN, class_folder, command, draw, many_table, write_config, write_csv

FOLDS = 3


def people(folder: Path, count: int = 24) -> None:
    """samples.csv of people with one to three images each, of three kinds, the last of which is rare; two of them hold
    the same image under two names."""
    rows = []
    for person in range(count):
        for image in range(1 + person % 3):
            kind = 2 if person % 6 == 5 else (person + image) % 2
            path = f"images/{person:02}-{image}.png"
            draw(folder / path, kind, 10 * person + image)
            rows.append([path, f"p{person}", "abc"[kind], "xy"[person // 3 % 2]])
    shutil.copy(folder / rows[0][0], folder / "images/twin.png")
    rows.append(["images/twin.png", "p-twin", rows[0][2], rows[0][3]])
    write_csv(folder / "samples.csv", ("path", "person", "kind", "other"), rows)


TARGETS = {"kind": {"column": "kind"}, "other": {"column": "other"}}
CONFIG: dict[str, Any] = {
    **PLAIN,
    "name": "people",
    "data": {**PLAIN["data"], "group": "person"},
    "targets": TARGETS,
    "selection": {"metric": "kind.macro_f1"},
    "report": {"resamples": 100},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, the config, and the folds in `F`."""
    folder = tmp_path_factory.mktemp("folds")
    people(folder)
    config = write_config(folder, CONFIG)
    assert command("folds", config, "--folds", FOLDS, "--run", folder / "F").ok().path == folder / "F"
    return folder


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def out_of_fold(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "oof.parquet")


# The rows


def test_every_labeled_row_is_there_once_in_the_order_of_the_table(here: Path) -> None:
    rows = pl.read_csv(here / "samples.csv")["path"].to_list()
    assert out_of_fold(here / "F")["id"].to_list() == rows
    assert pl.read_csv(here / "F/folds.csv")["id"].to_list() == rows


def test_oof_csv_and_oof_parquet_hold_the_same(here: Path) -> None:
    text = pl.read_csv(here / "F/oof.csv")
    table = out_of_fold(here / "F")
    assert text.columns == table.columns
    assert text.columns[:4] == ["id", "fold", "kind", "kind_true"]
    np.testing.assert_allclose(text["kind_p_a"].to_numpy(), table["kind_p_a"].to_numpy(), rtol=1e-6)


def test_no_model_has_seen_a_row_of_its_fold_nor_one_of_its_group(here: Path) -> None:
    folds = pl.read_csv(here / "F/folds.csv")
    for fold in range(FOLDS):
        split = pl.read_csv(here / f"F/fold-{fold}/split.csv")
        trained = split.filter(pl.col("split") == "train")
        own = folds.filter(pl.col("fold") == fold)
        assert set(split.filter(pl.col("split") == "valid")["id"]) == set(own["id"])
        assert not set(trained["id"]) & set(own["id"])
        assert not set(trained["group"]) & set(own["group"])


def test_an_image_under_two_names_is_in_one_fold(here: Path) -> None:
    """The two rows are of two people."""
    fold_of = dict(pl.read_csv(here / "F/folds.csv").select("id", "fold").rows())
    assert fold_of["images/twin.png"] == fold_of["images/00-0.png"]


def test_a_row_is_predicted_by_the_model_of_its_fold(here: Path) -> None:
    table = out_of_fold(here / "F")
    for fold in range(FOLDS):
        own = pl.read_csv(here / f"F/fold-{fold}/predictions.csv")
        rows = table.filter(pl.col("fold") == fold).sort("id")
        assert rows["kind"].to_list() == own.sort("id")["kind"].to_list()
        np.testing.assert_allclose(rows["kind_p_b"], own.sort("id")["kind_p_b"], rtol=1e-5)


def test_a_fold_can_be_trained_by_itself(here: Path, tmp_path: Path) -> None:
    """`train` with the fold's config.toml gives the same run."""
    command("train", here / "F/fold-1/config.toml", "--run", tmp_path / "run").ok()
    for name in ("split.csv", "predictions.csv", "config.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (here / "F/fold-1" / name).read_bytes()


# The scores


def test_the_score_is_pooled_over_all_rows(here: Path) -> None:
    """As scikit-learn computes it from oof.parquet, and not the mean of the folds."""
    table = out_of_fold(here / "F")
    metrics = read(here / "F", "metrics.json")
    expected = f1_score(
        table["kind_true"], table["kind"], labels=["a", "b", "c"], average="macro", zero_division=0
    )
    assert metrics["metric"] == "kind.macro_f1"
    assert metrics["value"] == pytest.approx(expected, abs=1e-12)
    assert metrics["samples"] == table.height
    assert metrics["targets"]["kind"]["intervals"]["macro_f1"][0] <= expected


def test_each_fold_has_its_own_score(here: Path) -> None:
    metrics = read(here / "F", "metrics.json")
    values = [read(here / f"F/fold-{fold}", "metrics.json")["value"] for fold in range(FOLDS)]
    assert [entry["value"] for entry in metrics["per_fold"]] == values
    assert metrics["spread"]["mean"] == pytest.approx(np.mean(values))


def test_evaluate_predicts_the_rows_again(here: Path) -> None:
    metrics = read(here / "F", "metrics.json")
    again = json.loads(command("evaluate", here / "F", "--json").ok().out)
    assert again["value"] == metrics["value"]
    assert again["per_fold"] == metrics["per_fold"]


def test_status_tells_what_is_done(here: Path) -> None:
    status = read(here / "F", "status.json")
    assert (status["state"], status["done"], status["of"]) == ("finished", FOLDS, FOLDS)
    assert [entry["state"] for entry in status["folds"]] == ["finished"] * FOLDS


# All models as one


def test_predict_averages_the_probabilities_of_all_folds(here: Path) -> None:
    single = [pl.read_csv(_predicted(here, here / f"F/fold-{fold}")) for fold in range(FOLDS)]
    both = pl.read_csv(_predicted(here, here / "F"))
    assert both.columns == single[0].columns
    for column in ("kind_p_a", "kind_p_b", "kind_p_c", "other_p_x"):
        np.testing.assert_allclose(
            both[column].to_numpy(), np.mean([one[column].to_numpy() for one in single], axis=0), rtol=2e-5
        )


def _predicted(here: Path, run: Path) -> Path:
    out = here / f"{run.name}.csv"
    command("predict", run, here / "samples.csv", "--images", here, "--out", out, "--force").ok()
    return out


def test_evaluate_warns_that_every_row_was_trained_on(here: Path) -> None:
    rows = pl.read_csv(here / "samples.csv").height
    found = command("evaluate", here / "F", here / "samples.csv", "--images", here).ok()
    assert f"trained on {rows} of these {rows} images" in found.err


def test_a_submission_is_filled_by_all_folds(here: Path) -> None:
    template = write_csv(here / "template.csv", ("id", "kind"), [["00-0.png", "a"], ["05-1.png", "a"]])
    out = here / "submission.csv"
    command("submit", here / "F", template, "--images", here / "images", "--out", out, "--force").ok()
    predicted = dict(pl.read_csv(_predicted(here, here / "F")).select("id", "kind").rows())
    assert pl.read_csv(out).rows() == [
        (name, predicted[f"images/{name}"]) for name in ("00-0.png", "05-1.png")
    ]


def test_an_image_that_cannot_be_used_gets_the_most_frequent_label(here: Path, tmp_path: Path) -> None:
    template = write_csv(tmp_path / "template.csv", ("id", "kind"), [["00-0.png", "a"], ["gone.png", "a"]])
    out = tmp_path / "submission.csv"
    images = here / "images"
    found = command("submit", here / "F", template, "--images", images, "--out", out, "--bad-images", "skip")
    assert found.code == 3
    counts = pl.read_csv(here / "samples.csv")["kind"].value_counts(sort=True)
    assert pl.read_csv(out)["kind"][1] == counts["kind"][0]


def test_folds_from_python(here: Path) -> None:
    folds = classwise.Folds.open(here / "F")
    assert folds.metrics["value"] == read(here / "F", "metrics.json")["value"]
    assert folds.out_of_fold.height == folds.metrics["samples"]
    assert [run.path.name for run in folds.runs] == ["fold-0", "fold-1", "fold-2"]
    with pytest.raises(CheckpointError, match=r"Folds\.open"):
        classwise.Run.open(here / "F")


# The report


def test_the_report_shows_the_pooled_score_and_each_fold(here: Path) -> None:
    page = Page(command("report", here / "F").ok().path)
    metrics = read(here / "F", "metrics.json")
    assert f"on {metrics['samples']} out-of-fold rows, pooled over 3 folds" in " ".join(page.text.split())
    scores = page.tables[page.table_names.index("Score of each fold")]
    assert [row[-1] for row in scores[1:]] == [f"{entry['value']:.3f}" for entry in metrics["per_fold"]]


def test_the_report_counts_the_rows_of_each_class_in_each_fold(here: Path) -> None:
    page = Page(here / "F/report.html")
    table = out_of_fold(here / "F")
    counts = page.tables[page.table_names.index("Rows of each class of kind in each fold")]
    for label, *cells in counts[1:]:
        rows = table.filter(pl.col("kind_true") == label)
        by_fold = [rows.filter(pl.col("fold") == fold).height for fold in range(FOLDS)]
        assert cells == [*map(str, by_fold), str(rows.height)]


# Stopping and going on


def without_times(folder: Path) -> dict[str, bytes]:
    """What has to be the same after a stop."""
    return {
        name: (folder / name).read_bytes()
        for name in ("oof.parquet", "oof.csv", "decision.json", "metrics.json", "folds.csv")
    }


def test_what_is_finished_is_left_as_it_is(here: Path) -> None:
    before = (here / "F/status.json").read_bytes()
    assert "finished already" in command("resume", here / "F").ok().err
    assert (here / "F/status.json").read_bytes() == before


def test_options_of_a_single_run_are_refused(here: Path) -> None:
    found = command("resume", here / "F", "--epochs", 5)
    assert found.code == 1
    assert "--epochs" in found.err


def test_a_fold_that_fails_does_not_stop_the_others(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names it, and the directory is resumable."""
    real = training.train_or_resume

    def fails(folder: Path, *arguments: Any, **options: Any) -> Outcome:
        if folder.name == "fold-1":
            return Outcome("failed", "the disk is full")
        return real(folder, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(training, "train_or_resume", fails)
        run = tmp_path / "F"
        found = command("folds", here / "classwise.toml", "--folds", FOLDS, "--run", run, "--quiet")
    assert found.code == 1
    assert "2 of 3 folds done, 1 failed: fold-1: the disk is full" in found.err
    status = read(run, "status.json")
    assert [entry["state"] for entry in status["folds"]] == ["finished", "failed", "finished"]
    assert not (run / "oof.parquet").exists()
    assert "not fold-1" in command("predict", run, here / "samples.csv", "--images", here).err

    command("resume", run, "--quiet").ok()
    assert without_times(run) == without_times(here / "F")


def killed(folder: Path, config: Path, when: Callable[[], bool]) -> None:
    """Start the folds in a process of their own, and kill it as soon as `when` is true."""
    arguments = ["folds", str(config), "--folds", str(FOLDS), "--run", str(folder), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "classwise", *arguments], env=child_environment(), stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while not when() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert when()
    assert process.returncode == -signal.SIGKILL


KILLS = {
    "drawn": "folds.csv",
    "first": "fold-0/status.json",
    "within": "fold-1/history.jsonl",
    "between": "fold-1/metrics.json",
    "last": "fold-2/report.html",
    "results": "oof.parquet",
}


@pytest.mark.parametrize(
    "phase",
    [phase if phase == "within" else pytest.param(phase, marks=pytest.mark.full) for phase in KILLS],
)
def test_killed_and_resumed_the_folds_are_the_same_bytes(here: Path, tmp_path: Path, phase: str) -> None:
    run = tmp_path / "F"
    killed(run, here / "classwise.toml", (run / KILLS[phase]).exists)
    command("resume", run, "--quiet").ok()
    assert without_times(run) == without_times(here / "F")


def test_a_signal_stops_after_the_update_and_leaves_what_can_be_resumed(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    options = ["--folds", "2", "--training.epochs", "400", "--run", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "classwise", "folds", str(here / "classwise.toml"), *options],
        env=child_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (run / "fold-0/history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate()
    assert process.returncode == 75
    assert f"stopped with 0 of 2 folds done; go on with: classwise resume {run}" in messages
    status = read(run, "status.json")
    assert status["state"] == "interrupted"
    assert [entry["state"] for entry in status["folds"]] == ["interrupted", "waiting"]


def test_a_folder_of_images_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_images: Callable[..., list[str]]
) -> None:
    """Config and table are written beside the folds, under their name."""
    make_images(tmp_path / "photos", {"a": 12, "b": 12})
    monkeypatch.chdir(tmp_path)
    options = ["--training.epochs", 1, "--model.image_size", "[16, 16]", "--model.backbone", "small_cnn"]
    plain = [
        "--model.weights",
        "none",
        "--model.pooling",
        "last",
        "--training.precision",
        "fp32",
        "--data.workers",
        0,
        "--quiet",
    ]
    found = command("folds", "photos", "--folds", 2, *options, *plain).ok()
    assert found.path == Path("runs/photos-folds")
    assert {path.name for path in Path("runs").iterdir()} == {
        "photos-folds",
        "photos-folds.csv",
        "photos-folds.toml",
    }
    assert out_of_fold(Path("runs/photos-folds")).height == 24


# Folds of other kinds


def test_seeds_are_a_second_axis(here: Path, tmp_path: Path) -> None:
    """Of each row the mean of the models of its fold; the folds are the same for all seeds."""
    run = tmp_path / "F"
    command("folds", here / "classwise.toml", "--folds", 2, "--repeats", 2, "--run", run, "--quiet").ok()
    table = out_of_fold(run)
    for fold in range(2):
        own = [
            pl.read_csv(run / name / "predictions.csv").sort("id")
            for name in (f"fold-{fold}", f"fold-{fold}-seed-2")
        ]
        assert own[0]["id"].to_list() == own[1]["id"].to_list()
        rows = table.filter(pl.col("fold") == fold).sort("id")
        expected = np.mean([one["kind_p_a"].to_numpy() for one in own], axis=0)
        np.testing.assert_allclose(rows["kind_p_a"].to_numpy(), expected, rtol=2e-5)


def test_test_rows_are_in_no_fold_and_scored_by_all_models(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    command("folds", here / "classwise.toml", "--folds", 2, "--data.test", 0.25, "--run", run, "--quiet").ok()
    split = pl.read_csv(run / "fold-0/split.csv")
    tested = set(split.filter(pl.col("split") == "test")["id"])
    assert tested
    assert not tested & set(out_of_fold(run)["id"])
    assert read(run, "metrics.json")["test"]["samples"] == len(tested)
    assert json.loads(command("evaluate", run, "--json").ok().out)["test"]["value"] == pytest.approx(
        read(run, "metrics.json")["test"]["value"]
    )


def test_folds_of_a_column(here: Path, tmp_path: Path) -> None:
    rows = pl.read_csv(here / "samples.csv")
    part = rows["person"].str.len_chars() + rows["person"].str.tail(1).str.contains("[13579]").cast(int)
    rows = rows.filter(pl.col("path") != "images/twin.png").with_columns(
        part=part.head(rows.height - 1).cast(str)
    )
    rows.write_csv(tmp_path / "folds.csv")
    changes = {"data__source": str(tmp_path / "folds.csv"), "data__images": str(here), "data__fold": "part"}
    run = tmp_path / "F"
    command("folds", write_config(tmp_path, CONFIG, **changes), "--run", run, "--quiet").ok()
    values = sorted(set(rows["part"]))
    found = out_of_fold(run)
    assert [values[fold] for fold in found["fold"]] == rows["part"].to_list()
    refused = command("folds", tmp_path / "classwise.toml", "--folds", 7, "--run", tmp_path / "G")
    assert "folds.count: found 7" in refused.err


def test_folds_of_a_given_split_share_out_what_is_not_for_the_test(here: Path, tmp_path: Path) -> None:
    """Rows given for training and for validation alike; rows to be skipped stay out."""
    rows = pl.read_csv(here / "samples.csv")
    number = rows["person"].str.strip_prefix("p").str.strip_prefix("-twin").replace("", "0").cast(int)
    parts = pl.Series([("train", "val", "test", "skip")[(n // 6) % 4] for n in number])
    rows = rows.with_columns(part=parts)
    rows.write_csv(tmp_path / "parts.csv")
    changes = {"data__source": str(tmp_path / "parts.csv"), "data__images": str(here), "data__split": "part"}
    values = {"train": "train", "val": "valid", "test": "test", "skip": "skip"}
    config = write_config(tmp_path, CONFIG, data__split_values=values, **changes)
    run = tmp_path / "F"
    command("folds", config, "--folds", 2, "--run", run, "--quiet").ok()
    assert (
        out_of_fold(run)["id"].to_list()
        == rows.filter(pl.col("part").is_in(["train", "val"]))["path"].to_list()
    )
    tested = pl.read_csv(run / "fold-0/split.csv").filter(pl.col("split") == "test")["id"]
    assert set(tested) == set(rows.filter(pl.col("part") == "test")["path"])


def test_targets_of_every_type(tmp_path: Path) -> None:
    many_table(tmp_path)
    run = tmp_path / "F"
    command("folds", write_config(tmp_path, MANY), "--folds", 2, "--run", run, "--quiet").ok()
    table = out_of_fold(run)
    metrics = read(run, "metrics.json")
    known = table.drop_nulls("size_true")
    assert metrics["value"] == pytest.approx(float((known["size"] - known["size_true"]).abs().mean()))
    out = tmp_path / "p.csv"
    command("predict", run, tmp_path / "samples.csv", "--images", tmp_path, "--out", out).ok()
    single = []
    for fold in range(2):
        one = tmp_path / f"p{fold}.csv"
        command(
            "predict", run / f"fold-{fold}", tmp_path / "samples.csv", "--images", tmp_path, "--out", one
        ).ok()
        single.append(pl.read_csv(one))
    for column in ("size", "tags_p_x", "level_p_1"):
        expected = np.mean([one[column].to_numpy() for one in single], axis=0)
        np.testing.assert_allclose(pl.read_csv(out)[column].to_numpy(), expected, rtol=1e-4)


def test_queries_are_kept_whole(tmp_path: Path) -> None:
    rows = []
    for row in range(48):
        path = f"images/{row:02}.png"
        draw(tmp_path / path, row % 3, row)
        rows.append([path, str(row % 3), f"q{row // 4}"])
    write_csv(tmp_path / "samples.csv", ("path", "relevance", "query"), rows)
    target = {"column": "relevance", "type": "ranking", "query": "query", "loss": {"name": "listnet"}}
    changes = {"targets": {"it": target}, "selection__metric": "ndcg"}
    run = tmp_path / "F"
    command("folds", write_config(tmp_path, PLAIN, **changes), "--folds", 3, "--run", run, "--quiet").ok()
    fold_of = dict(pl.read_csv(run / "folds.csv").select("id", "fold").rows())
    assert len({(query, fold_of[path]) for path, _, query in rows}) == 12
    assert out_of_fold(run).height == 48


def test_features_are_computed_once_for_all_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen backbone sees every image once, whatever the number of folds."""
    from classwise.compose import features

    class_folder(tmp_path / "images", {"a": 10, "b": 10})
    targets = {"label": {"column": "label"}}
    config = probed_config(
        tmp_path,
        training__plan="probe",
        data__source="images",
        data__cache=str(tmp_path / "cache"),
        targets=targets,
    )
    real = features._computed
    seen: list[int] = []

    def counted(split: Any, *arguments: Any) -> Any:
        seen.append(len(split.samples))
        return real(split, *arguments)

    monkeypatch.setattr(features, "_computed", counted)
    command("folds", config, "--folds", 4, "--run", tmp_path / "F", "--quiet").ok()
    assert seen == [20]


# Several at a time


@pytest.fixture(scope="module")
def side_by_side(here: Path) -> Path:
    """The folds of `here`, two at a time."""
    options = ["--folds", FOLDS, "--jobs", 2, "--run", here / "side-by-side"]
    found = command("folds", here / "classwise.toml", *options).ok()
    assert "2 folds at a time, a process each: about 2 times the memory of one" in found.err
    assert "fold-1: " in found.err
    return here / "side-by-side"


def test_folds_in_processes_are_the_same_bytes(here: Path, side_by_side: Path) -> None:
    """With threads = 1 in both, how many are trained at a time changes no number."""
    assert without_times(side_by_side) == without_times(here / "F")


def test_a_signal_stops_the_folds_in_all_processes(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    options = ["--folds", "3", "--jobs", "2", "--training.epochs", "400", "--run", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "classwise", "folds", str(here / "classwise.toml"), *options],
        env=child_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    begun = [run / "fold-0/history.jsonl", run / "fold-1/history.jsonl"]
    while not all(path.exists() for path in begun) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate()
    assert process.returncode == 75, messages
    assert f"stopped with 0 of 3 folds done; go on with: classwise resume {run}" in messages
    states = [entry["state"] for entry in read(run, "status.json")["folds"]]
    assert states == ["interrupted", "interrupted", "waiting"]


def test_killed_the_process_takes_those_of_its_folds_with_it(
    here: Path, side_by_side: Path, tmp_path: Path
) -> None:
    """None goes on with a fold and its lock, so that the folds can be resumed at once, to the same bytes."""
    run = tmp_path / "F"
    arguments = [
        "folds",
        str(here / "classwise.toml"),
        "--folds",
        str(FOLDS),
        "--jobs",
        "2",
        "--run",
        str(run),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "classwise", *arguments],
        env=child_environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while not (run / "fold-0/status.json").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        # It reads to the end of stderr, which every process of the folds holds: none of them is left.
        process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert not (run / "fold-0/report.html").exists()  # it has not come to its end by itself
    command("resume", run, "--quiet").ok()
    assert without_times(run) == without_times(side_by_side)


def test_features_are_computed_before_the_processes_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, by the process that starts the others, which find them on the disk."""
    from classwise.compose import features

    class_folder(tmp_path / "images", {"a": 10, "b": 10})
    config = probed_config(
        tmp_path,
        training__plan="probe",
        data__source="images",
        data__cache=str(tmp_path / "cache"),
        targets={"label": {"column": "label"}},
    )
    seen: list[int] = []
    real = features._computed

    def counted(split: Any, *arguments: Any) -> Any:
        seen.append(len(split.samples))
        return real(split, *arguments)

    monkeypatch.setattr(features, "_computed", counted)
    command("folds", config, "--folds", 2, "--jobs", 2, "--run", tmp_path / "F", "--quiet").ok()
    assert seen == [20]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


# What is refused, and what is said


def refused(here: Path, tmp_path: Path, *options: object) -> str:
    """The error of folds that cannot be trained, which leave nothing behind."""
    found = command("folds", here / "classwise.toml", "--run", tmp_path / "none", *options)
    assert found.code == 1
    assert not (tmp_path / "none").exists()
    return found.err


def test_more_folds_than_groups(here: Path, tmp_path: Path) -> None:
    """The twin has linked two people."""
    assert "found 24 groups for 25 folds (folds.count)" in refused(here, tmp_path, "--folds", 25)


def test_a_table_of_validation_rows(here: Path, tmp_path: Path) -> None:
    assert "data.valid: found" in refused(here, tmp_path, "--data.valid", here / "samples.csv")


def test_parts_of_ones_own(here: Path, tmp_path: Path) -> None:
    """Code of the user's own is for single runs so far; and nothing asks for trust in folds."""
    (tmp_path / "my_losses.py").write_text("def mine(outputs, targets):\n    return outputs.sum(1)\n")
    message = refused(here, tmp_path, "--loss.name", f"{tmp_path / 'my_losses.py'}:mine")
    assert "loss.name: found" in message
    assert "code of your own, which `classwise train` runs and folds do not yet" in message
    result = command("predict", here / "F", here / "samples.csv", "--trust", "12345678")
    assert result.code == 1
    assert "--trust: found 12345678 for the folds" in result.err


def test_a_fold_that_the_metric_cannot_score(here: Path, tmp_path: Path) -> None:
    """Only two people have a value: one of three folds has none, which is said before any is trained."""
    rows = pl.read_csv(here / "samples.csv")
    has_value = rows["person"].is_in(["p1", "p2"])
    rows = rows.with_columns(size=pl.Series([str(row) if has else None for row, has in enumerate(has_value)]))
    rows.write_csv(tmp_path / "sizes.csv")
    changes = {"data__source": str(tmp_path / "sizes.csv"), "data__images": str(here)}
    size = {"size": {"column": "size", "type": "regression"}}
    config = write_config(
        tmp_path, CONFIG, targets={**TARGETS, **size}, selection__metric="size.mae", **changes
    )
    found = command("folds", config, "--folds", 3, "--run", tmp_path / "none")
    assert found.code == 1
    assert "has no label of 'size'" in found.err
    assert not (tmp_path / "none").exists()


def test_one_fold_alone(here: Path, tmp_path: Path) -> None:
    assert "folds.fold: found 1" in refused(here, tmp_path, "--folds.fold", 1)


def test_a_fold_that_does_not_exist(here: Path, tmp_path: Path) -> None:
    found = command("train", here / "classwise.toml", "--folds.fold", 5, "--run", tmp_path / "none")
    assert "fold: found 5, allowed: 0 to 4" in found.err


def test_a_class_with_fewer_groups_than_folds_is_named(here: Path, tmp_path: Path) -> None:
    """It has four groups; whatever is wrong with one of the folds, the others go on."""
    run = tmp_path / "F"
    found = command("folds", here / "classwise.toml", "--folds", 5, "--training.epochs", 1, "--run", run)
    assert "has no rows of kind=c (4 groups)" in found.ok().err


def test_a_foreign_fold_is_refused(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    shutil.copytree(here / "F", run)
    shutil.rmtree(run / "fold-1")
    shutil.copytree(run / "fold-0", run / "fold-1")
    found = command("predict", run, here / "samples.csv", "--images", here)
    assert found.code == 1
    assert f"{run / 'fold-1'} is not this fold" in found.err


def test_a_damaged_fold_is_refused(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    shutil.copytree(here / "F", run)
    weights = run / "fold-2/checkpoints/best/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    found = command("predict", run, here / "samples.csv", "--images", here)
    assert found.code == 1
    assert "fold-2" in found.err


def test_a_missing_fold_is_named(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    shutil.copytree(here / "F", run)
    shutil.rmtree(run / "fold-2")
    found = command("submit", run, here / "samples.csv", "--images", here, "--out", tmp_path / "s.csv")
    assert found.code == 1
    assert f"2 of 3 folds are done, not fold-2; go on with: classwise resume {run}" in found.err


def test_changed_data_are_refused(here: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(here / "images", folder / "images")
    shutil.copy(here / "samples.csv", folder)
    run = tmp_path / "F"
    command("folds", write_config(folder, CONFIG), "--folds", FOLDS, "--run", run, "--quiet").ok()
    shutil.rmtree(run / "fold-1")
    (run / "status.json").write_text(json.dumps(read(run, "status.json") | {"state": "running"}))
    rows = (folder / "samples.csv").read_text().splitlines()
    (folder / "samples.csv").write_text("\n".join(rows[:-2]) + "\n")
    found = command("resume", run)
    assert found.code == 1
    assert "the data is not what the folds were drawn from" in found.err
