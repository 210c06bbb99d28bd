"""The main job, whole: labeled images in, a checked submission and a report out, by command line and by Python."""

import json
import shutil
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
)

import classwise
import classwise.run.api
from tests.helpers.scenes import (
    FORKS,
    MANY,
    MASKS,
    PEOPLE,
    PLAIN,
    class_folder,
    command,
    contents,
    draw,
    generators_untouched,
    many_table,
    people_table,
    plain_table,
    write_config,
    write_csv,
)
from tests.helpers.tables import read_csv


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of people, three targets, a group and a joint class, trained into `run`."""
    folder = tmp_path_factory.mktemp("사람 '둘'")
    people_table(folder)
    config = write_config(folder, PEOPLE)
    command("train", config, "--run", folder / "run").ok()
    return folder


def test_a_folder_of_class_folders_comes_to_a_submission_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """init, train, evaluate, predict, submit and report each succeed, and each prints where its result is."""
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "옷 사진", {"바지": 8, 'a "quoted" dress': 12, "it's a bag": 20})
    for seed in range(6):
        draw(tmp_path / "새 사진" / f"{seed} 번.png", seed % 3, 100 + seed)
    template = write_csv(
        tmp_path / "template.csv", ("ImageID", "ans"), [[f"{seed} 번", ""] for seed in (3, 0, 5)]
    )

    written = command("init", "옷 사진").ok()
    assert written.path == Path("classwise.toml")
    options = ("--training.epochs", "2", "--training.precision", "fp32")
    run = command("train", "classwise.toml", *options).ok().path
    assert run == Path("runs/옷 사진")
    scores = command("evaluate", run).ok().out
    assert scores.startswith("macro_f1 ")
    assert 'a "quoted" dress' in scores
    csv_file, parquet = tmp_path / "p.csv", tmp_path / "p.parquet"
    assert command("predict", run, "새 사진", "--out", csv_file).ok().path == csv_file
    assert command("predict", run, "새 사진", "--out", parquet).ok().path == parquet
    out = tmp_path / "submission.csv"
    assert command("submit", run, template, "--images", "새 사진", "--out", out).ok().path == out
    (run / "report.html").unlink()
    assert command("report", run).ok().path == run / "report.html"

    predicted = {row["id"]: row for row in read_csv(csv_file)}
    assert list(predicted) == [f"{seed} 번.png" for seed in range(6)]
    labels = read_csv(out)
    assert [row["ImageID"] for row in labels] == ["3 번", "0 번", "5 번"]
    assert [row["ans"] for row in labels] == [predicted[f"{row['ImageID']}.png"]["label"] for row in labels]
    assert pl.read_parquet(parquet)["label"].to_list() == [row["label"] for row in predicted.values()]
    for row in predicted.values():
        shares = {key: float(share) for key, share in row.items() if key.startswith("label_p_")}
        assert len(shares) == 3
        assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
        assert max(shares, key=shares.__getitem__) == f"label_p_{row['label']}"
    assert "옷 사진" in (run / "report.html").read_text(encoding="utf-8")


def test_the_python_verbs_give_what_the_commands_give(people: Path, tmp_path: Path) -> None:
    """classwise.train(config) and Run's methods: the same bytes, numbers and files as the command line."""
    run = classwise.train(people / "classwise.toml", tmp_path / "run", quiet=True)
    weights = "checkpoints/best/model.safetensors"
    assert (run.path / weights).read_bytes() == (people / "run" / weights).read_bytes()

    opened = classwise.Run.open(people / "run")
    assert opened.status["state"] == "finished"
    assert len(opened.history) == 2
    shown = json.loads(command("evaluate", people / "run", "--json").ok().out)
    assert opened.evaluate() == shown
    assert opened.metrics == run.metrics == {**shown, "epoch": opened.metrics["epoch"]}
    frame = opened.predict(people / "samples.csv")
    command("predict", people / "run", people / "samples.csv", "--out", tmp_path / "p.parquet").ok()
    assert frame.equals(pl.read_parquet(tmp_path / "p.parquet"))
    assert opened.report() == people / "run" / "report.html"
    rows = [[row["path"], ""] for row in read_csv(people / "samples.csv")[:5]]
    template = write_csv(tmp_path / "template.csv", ("ImageID", "ans"), rows)
    out = opened.submit(template, people, tmp_path / "answers.csv")
    assert [row["ans"] for row in read_csv(out)] == [str(k) for k in frame["joint"][:5]]


def test_a_config_made_in_python_trains_without_any_file(tmp_path: Path) -> None:
    """`make_config` takes plain values, and `train` takes its result."""
    plain_table(tmp_path)
    config = classwise.make_config(
        {
            "data": {"source": str(tmp_path / "samples.csv"), "images": str(tmp_path), "workers": 0},
            "targets": {"label": {"column": "label"}},
            "model": {"image_size": [16, 16]},
            "training": {"epochs": 1, "precision": "fp32"},
        }
    )
    run = classwise.train(config, tmp_path / "run", quiet=True)
    assert run.metrics["samples"] == 3
    assert run.evaluate() == {key: value for key, value in run.metrics.items() if key != "epoch"}


def test_the_run_directory_holds_what_the_contract_lists(people: Path) -> None:
    """Every file of the contract is there, with the documented keys, and nothing besides."""
    run = people / "run"
    parts = ("model.safetensors", "training.safetensors", "state.json", "manifest.json")
    assert set(contents(run)) == {
        *("config.toml", "split.csv", "status.json", "history.jsonl", "metrics.json", "predictions.csv"),
        *("report.html", "augmented.json", "explanations.json", "log.txt"),
        *("checkpoints", "checkpoints/best", "checkpoints/last"),
        *(f"checkpoints/{name}/{part}" for name in ("best", "last") for part in parts),
    }
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert {"state", "reason", "epoch", "update", "best"} <= set(status)
    assert (status["state"], status["epoch"]) == ("finished", 2)
    history = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = {"epoch", "update", "lr", "train_loss", "valid", "seconds", "images_per_second"}
    assert [set(row) for row in history] == [keys, keys]
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["update"] == status["update"]
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics)[:4] == ["metric", "value", "epoch", "samples"]
    assert (set(metrics["targets"]), metrics["metric"]) == ({"mask", "gender", "age"}, "joint.macro_f1")
    averages = {f"{mean}_{part}" for mean in ("macro", "weighted") for part in ("precision", "recall", "f1")}
    of_labels = averages | {"accuracy", "balanced_accuracy", "micro_f1", "mcc", "kappa"}
    of_probabilities = {"log_loss", "calibration_error", "roc_auc", "average_precision"}
    for name, target in (*metrics["targets"].items(), ("joint", metrics["joint"])):
        scores = of_labels | (set() if name == "joint" else of_probabilities)
        others = {"type", "samples", "labels", "per_class", "confusion", "intervals", "no_interval"}
        assert scores | others - {"no_interval"} <= set(target) <= scores | others
        assert {"label", "precision", "recall", "f1", "support", "intervals"} <= set(target["per_class"][0])
        assert {*target["intervals"], *target.get("no_interval", {})} == scores
        assert all(low <= high for low, high in target["intervals"].values())
    assert (
        metrics["value"] == status["best"]["value"] == max(row["valid"]["joint.macro_f1"] for row in history)
    )
    split = read_csv(run / "split.csv")
    assert {"id", "group", "split"} <= set(split[0])
    assert len(split) == len(read_csv(people / "samples.csv"))


def test_the_log_names_batch_norm_where_it_makes_updates_inexact(people: Path, tmp_path: Path) -> None:
    """Two micro-batches per update: how many layers, and how many images each pass and each update has; once. With
    group norm nothing is said."""
    log = (people / "run" / "log.txt").read_text()
    assert log.count("note: small_cnn has 4 batch norm layers, which normalize by the 8 images") == 1
    assert "the 16 of an update" in log
    plain_table(tmp_path)
    config = write_config(tmp_path, PLAIN, training__accumulate=2, model__backbone="small_cnn_gn")
    command("train", config, "--run", tmp_path / "run").ok()
    assert "batch norm" not in (tmp_path / "run" / "log.txt").read_text()


def test_predictions_have_the_columns_of_the_contract(people: Path) -> None:
    """id; per target the label, the true one and every class's probability; the joint class as a number."""
    rows = read_csv(people / "run" / "predictions.csv")
    columns = {"id", "mask", "mask_true", "gender", "gender_true", "age", "age_true"}
    columns |= {f"mask_p_{label}" for label in MASKS} | {"gender_p_남", "gender_p_여"}
    columns |= {"age_p_<30", "age_p_30 to <60", "age_p_>=60", "joint", "joint_true", "joint_p"}
    assert set(rows[0]) == columns
    truth = {row["path"]: row for row in read_csv(people / "samples.csv")}
    ages = ["<30", "30 to <60", ">=60"]
    for row in rows:
        true = truth[row["id"]]
        assert (row["mask_true"], row["gender_true"]) == (true["mask"], true["gender"])
        mask, gender, age = MASKS.index(true["mask"]), "남여".index(true["gender"]), int(true["age"])
        number = mask * 6 + gender * 3 + (0 if age < 30 else 1 if age < 60 else 2)
        assert (int(row["joint_true"]), row["age_true"]) == (number, ages[number % 3])
        assert int(row["joint"]) == (
            MASKS.index(row["mask"]) * 6 + "남여".index(row["gender"]) * 3 + ages.index(row["age"])
        )


def test_metrics_are_scikit_learns_on_the_predictions_file(people: Path) -> None:
    """metrics.json equals scikit-learn's scores of predictions.csv to 1e-12, per target and joint."""
    rows = read_csv(people / "run" / "predictions.csv")
    metrics = json.loads((people / "run" / "metrics.json").read_text(encoding="utf-8"))
    for name, scores in (*metrics["targets"].items(), ("joint", metrics["joint"])):
        numbers = [str(k) for k in range(18)] if name == "joint" else scores["labels"]
        true, predicted = [row[f"{name}_true"] for row in rows], [row[name] for row in rows]
        given = {"labels": numbers, "zero_division": 0}
        seen = sorted(set(true))  # balanced accuracy looks at the classes that occur
        balanced = recall_score(true, predicted, labels=seen, average="macro", zero_division=0)
        if set(predicted) <= set(true):
            assert balanced == pytest.approx(balanced_accuracy_score(true, predicted), abs=1e-12)
        wanted = {
            "accuracy": accuracy_score(true, predicted),
            "balanced_accuracy": balanced,
            "macro_f1": f1_score(true, predicted, average="macro", **given),
            "macro_precision": precision_score(true, predicted, average="macro", **given),
            "macro_recall": recall_score(true, predicted, average="macro", **given),
            "weighted_f1": f1_score(true, predicted, average="weighted", **given),
        }
        assert {key: scores[key] for key in wanted} == pytest.approx(wanted, abs=1e-12, rel=0)
        per_class = np.array(precision_recall_fscore_support(true, predicted, **given)).T
        ours = [[row[key] for key in ("precision", "recall", "f1", "support")] for row in scores["per_class"]]
        np.testing.assert_allclose(ours, per_class, atol=1e-12, rtol=0)
        assert scores["confusion"] == confusion_matrix(true, predicted, labels=numbers).tolist()


def test_no_person_stands_on_both_sides_and_the_share_is_kept(people: Path) -> None:
    """The group column of the table decides the split, and a quarter of the people validates."""
    person = {row["path"]: row["사람"] for row in read_csv(people / "samples.csv")}
    pair: dict[str, set[str]] = {"train": set(), "valid": set()}
    for row in read_csv(people / "run" / "split.csv"):
        assert row["group"] == person[row["id"]]
        pair[row["split"]].add(row["group"])
    assert not pair["train"] & pair["valid"]
    assert len(pair["valid"]) == 6
    assert len(pair["train"]) == 18


def test_training_the_resolved_config_again_gives_the_same_bytes(people: Path, tmp_path: Path) -> None:
    """The run's own config.toml holds every key: another run of it ends in the same weights and predictions."""
    resolved = people / "run" / "config.toml"
    values = tomllib.loads(resolved.read_text(encoding="utf-8"))
    assert (values["training"]["precision"], values["data"]["workers"]) == ("fp32", 0)
    assert Path(values["data"]["source"]).is_absolute()
    command("train", resolved, "--run", tmp_path / "again").ok()
    assert_same_results(people / "run", tmp_path / "again")
    assert (tmp_path / "again" / "config.toml").read_bytes() == resolved.read_bytes()


@FORKS
def test_the_number_of_workers_changes_no_byte(people: Path, tmp_path: Path) -> None:
    """Two loader processes instead of none: order, augmentation and dropout are functions of the place."""
    command(
        "train", people / "classwise.toml", "--data.workers", "2", "--run", tmp_path / "two", "--quiet"
    ).ok()
    assert_same_results(people / "run", tmp_path / "two")


def test_another_seed_gives_other_weights(people: Path, tmp_path: Path) -> None:
    """The tests of equal bytes above could not pass by ignoring what they compare."""
    command("train", people / "classwise.toml", "--seed", "7", "--run", tmp_path / "run").ok()
    weights = "checkpoints/last/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() != (people / "run" / weights).read_bytes()


def test_the_callers_random_numbers_and_threads_stay_as_they_were(people: Path, tmp_path: Path) -> None:
    """Neither training nor inference touches Python's, numpy's or torch's global generators; and torch has as many
    threads as before, whatever the run's config says."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with generators_untouched():
            run = classwise.train(
                people / "classwise.toml", tmp_path / "run", [("training.threads", "1")], quiet=True
            )
            assert torch.get_num_threads() == 3
            run.evaluate()
            run.predict(people / "samples.csv")
        assert torch.get_num_threads() == 3
        assert run.status["environment"]["threads"] == 1
    finally:
        torch.set_num_threads(threads)


def test_a_validation_table_of_its_own_is_used_whole(tmp_path: Path) -> None:
    """data.valid may name a table: all its rows validate, and all of the source's rows train."""
    train = plain_table(tmp_path, 16)
    valid = plain_table(tmp_path, 6, "valid.csv", first=16)
    config = write_config(tmp_path, data__valid="valid.csv")
    command("train", config, "--run", tmp_path / "run").ok()
    split = {row["id"]: row["split"] for row in read_csv(tmp_path / "run" / "split.csv")}
    assert split == {path: "train" for path, _ in train} | {path: "valid" for path, _ in valid}
    ids = [row["id"] for row in read_csv(tmp_path / "run" / "predictions.csv")]
    assert ids == [path for path, _ in valid]


def test_skipped_images_are_counted_in_status_and_report(tmp_path: Path) -> None:
    """data.bad_images = "skip" goes on without the bad images and says which they were."""
    rows = plain_table(tmp_path, 18)
    (tmp_path / rows[3][0]).write_bytes(b"no image at all")
    (tmp_path / rows[8][0]).unlink()
    result = command("train", write_config(tmp_path, data__bad_images="skip"), "--run", tmp_path / "run").ok()
    data = classwise.Run.open(tmp_path / "run").status["data"]
    assert {Path(bad["path"]).name for bad in data["bad_images"]} == {"03.png", "08.png"}
    assert data["rows"] == data["train"] + data["valid"] == 16
    assert "2 images left out" in result.err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "03.png" in page
    assert "08.png" in page


def test_a_labeled_folder_and_a_labeled_table_can_be_evaluated(tmp_path: Path) -> None:
    """evaluate RUN TABLE scores rows that training never saw, from a table or from class folders."""
    plain_table(tmp_path, 16)
    command("train", write_config(tmp_path), "--run", tmp_path / "run").ok()
    plain_table(tmp_path, 6, "test.csv", first=16)
    class_folder(tmp_path / "folder", {"a": 3, "b": 3})
    run = classwise.Run.open(tmp_path / "run")
    assert run.evaluate(tmp_path / "test.csv")["samples"] == 6
    assert run.evaluate(tmp_path / "folder")["samples"] == 6
    shutil.rmtree(tmp_path / "images")  # inference needs the checkpoint and the images asked for, no more
    assert run.predict(tmp_path / "folder").height == 6


def assert_same_results(one: Path, other: Path) -> None:
    """Weights, optimizer state and predictions of two runs are the same bytes."""
    for name in ("best", "last"):
        for part in ("model.safetensors", "training.safetensors"):
            file = f"checkpoints/{name}/{part}"
            assert (one / file).read_bytes() == (other / file).read_bytes(), file
    for file in ("predictions.csv", "metrics.json", "split.csv"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_relative_paths_of_a_config_made_in_python_count_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run can be evaluated later, from any folder: its config.toml holds absolute paths."""
    plain_table(tmp_path)
    values = {
        "data": {"source": "samples.csv"},
        "targets": {"label": {"column": "label"}},
        "model": {"image_size": [28, 28]},
        "training": {"epochs": 1, "precision": "fp32"},
    }
    monkeypatch.chdir(tmp_path)
    run = classwise.train(classwise.make_config(values), tmp_path / "run", quiet=True)
    monkeypatch.chdir("/")
    assert run.evaluate()["value"] == run.metrics["value"]
    with pytest.raises(classwise.ClasswiseError, match="overrides go with a config file"):
        classwise.train(classwise.make_config(values), overrides=[("seed", "1")])


def test_a_run_with_targets_of_every_type(tmp_path: Path) -> None:
    """An error chooses: the epoch with the lowest is kept, and a run whose error has not fallen stops and says so.
    status.json counts what each type of target has; metrics.json has each target's scores of that epoch."""
    many = many_table(tmp_path)
    ranked = {"type": "ranking", "column": "relevance", "query": "query"}
    stop = {
        "selection__patience": 2,
        "training__epochs": 20,
        "training__ema": None,
        "optimizer": {"lr": 0.05},
    }
    config = write_config(tmp_path, MANY, targets__ranked=ranked, **stop)
    command("train", config, "--run", tmp_path / "run").ok()
    run = classwise.Run.open(tmp_path / "run")
    errors = [row["valid"]["size.mae"] for row in run.history]
    assert run.status["best"] == {
        "metric": "size.mae",
        "value": min(errors),
        "epoch": errors.index(min(errors)) + 1,
    }
    assert run.status["state"] == "early_stopped"
    assert run.status["reason"] == "size.mae has not fallen for 2 epochs"
    assert len(errors) == run.status["best"]["epoch"] + 2 < 20
    assert run.metrics["targets"]["size"]["mae"] == pytest.approx(min(errors), rel=1e-5)
    assert run.metrics["value"] == run.metrics["targets"]["size"]["mae"]

    types = ("class", "ordinal", "multilabel", "regression", "ranking")
    found = [scores["type"] for scores in run.metrics["targets"].values()]
    assert sorted(found) == sorted(types)
    data, split = run.status["data"], {row["id"]: row["split"] for row in read_csv(run.path / "split.csv")}
    columns = {"label": 1, "level": 2, "tags": 3, "size": 4, "ranked": 5}
    for name, column in columns.items():
        empty = Counter(split[row[0]] for row in many if not row[column])
        assert data["masked"][name] == {part: empty[part] for part in ("train", "valid")}
        assert run.metrics["targets"][name]["samples"] == data["valid"] - empty["valid"]
    sizes = [float(row[4]) for row in many if row[4] and split[row[0]] == "train"]
    assert data["values"]["size"]["train"] == pytest.approx(
        {"known": len(sizes), "min": min(sizes), "mean": np.mean(sizes), "max": max(sizes)}
    )
    queries = {part: {row[6] for row in many if split[row[0]] == part} for part in ("train", "valid")}
    assert data["queries"]["ranked"] == {part: len(names) for part, names in queries.items()}
    assert not queries["train"] & queries["valid"]
    assert run.status["baselines"]["metric"] == "size.mae"
    assert run.status["baselines"]["probe_on"] == "pixels"


NUMBER = {"targets": {"size": {"column": "size", "type": "regression"}}, "selection": {"metric": "size.mae"}}
STILL = {"training__epochs": 1, "optimizer": {"lr": 1e-9}}
LEARNING = {"training__epochs": 12, "optimizer": {"lr": 0.02}}
CLASSES = ("the most frequent class", "a balanced linear probe on pixels")
NUMBERS = ("the training mean", "a linear probe on pixels")


@pytest.mark.parametrize(("metric", "target", "names"), [("macro_f1", {}, CLASSES), ("mae", NUMBER, NUMBERS)])
@pytest.mark.parametrize("recipe", [STILL, LEARNING], ids=["still", "learning"])
def test_a_run_says_its_baselines_first_and_last_which_it_does_not_beat(
    tmp_path: Path, metric: str, target: dict[str, Any], names: tuple[str, str], recipe: dict[str, Any]
) -> None:
    """One line with both before the first epoch, those of status.json; one at the end for each that is as good or
    better, where less is better too. Weights that stand still beat no probe, weights that learn beat the simplest
    answer. The simplest answer's score is scikit-learn's, and log.txt has the same lines."""
    rows = [[*row, number % 2 + number % 3 / 10] for number, row in enumerate(plain_table(tmp_path, 32))]
    write_csv(tmp_path / "samples.csv", ("path", "label", "size"), rows)
    # Without a cache nothing is remembered, of other tests with the same images.
    config = write_config(tmp_path, PLAIN, **recipe, **target, data__cache="off")
    lines = command("train", config, "--run", tmp_path / "run").ok().err.splitlines()

    status = json.loads((tmp_path / "run/status.json").read_text())
    scores = [status["baselines"][key] for key in ("most_frequent", "linear_probe")]
    text = ", ".join(f"{name} {score:.4f}" for name, score in zip(names, scores, strict=True))
    (said,) = [number for number, line in enumerate(lines) if line == f"{metric}: {text}"]
    assert lines[said - 1] == "scoring two baselines on the same split ..."
    assert said < min(number for number, line in enumerate(lines) if line.startswith("epoch "))

    value, sign = status["best"]["value"], -1 if metric == "mae" else 1
    unbeaten = [sign * value <= sign * score for score in scores]
    assert unbeaten[1] if recipe is STILL else not unbeaten[0]
    wanted = [
        f"this run does not beat {name} on the same split: {value:.4f} against {score:.4f}"
        for name, score, there in zip(names, scores, unbeaten, strict=True)
        if there
    ]
    assert [line for line in lines if line.startswith("this run ")] == wanted
    ends = [line for line in lines if line]
    assert ends[len(ends) - len(wanted) - 1] == f"report: {tmp_path / 'run/report.html'}"
    log = (tmp_path / "run/log.txt").read_text()
    assert all(line in log for line in wanted)

    split = {row["id"]: row["split"] for row in read_csv(tmp_path / "run/split.csv")}
    column = 2 if metric == "mae" else 1
    train, valid = (np.array([r[column] for r in rows if split[r[0]] == part]) for part in ("train", "valid"))
    dummy = DummyRegressor() if metric == "mae" else DummyClassifier()
    labels = dummy.fit(np.zeros((len(train), 1)), train).predict(np.zeros((len(valid), 1)))
    wanted_score = (
        np.abs(labels - valid).mean() if metric == "mae" else f1_score(valid, labels, average="macro")
    )
    assert scores[0] == pytest.approx(wanted_score, rel=1e-6)


def test_a_run_without_baselines_says_none(tmp_path: Path) -> None:
    """report.baselines = false: no line at the beginning, none at the end, null in status.json."""
    plain_table(tmp_path)
    config = write_config(tmp_path, PLAIN, **STILL, report={"baselines": False})
    said = command("train", config, "--run", tmp_path / "run").ok().err
    assert "scoring" not in said
    assert "does not beat" not in said
    assert json.loads((tmp_path / "run/status.json").read_text())["baselines"] is None
