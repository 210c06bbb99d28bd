"""Decisions of folds through the commands. What the models say is planted where a decision has to gain: the outputs of
each fold for its own rows are replaced, and the folds are resumed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score

import classwise
from classwise.errors import CheckpointError
from tests.end_to_end.test_folds import CONFIG, FOLDS, people, read
from tests.helpers.browsed import Page
from tests.helpers.scenes import MANY, PLAIN, command, many_table, write_config

Json = dict[str, Any]
CHOOSING = {"training": {**CONFIG["training"], "epochs": 6}}
"""With six epochs the default is to take the better of the last two."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of people, a config, and folds `F` of two epochs with test rows, without a decision."""
    folder = tmp_path_factory.mktemp("decisions")
    people(folder, 72)
    config = write_config(folder, {**CONFIG, "data": {**CONFIG["data"], "test": 0.2}})
    command("folds", config, "--folds", FOLDS, "--run", folder / "F", "--decision.offsets", "none").ok()
    return folder


def with_planted(trained: Path, folder: Path, shift: Sequence[float], **decision: Any) -> Path:
    """A copy of the folds whose models know most kinds, but say each with logits that are shifted; decided anew."""
    run = folder / "F"
    shutil.copytree(trained / "F", run)
    plant(run, trained / "samples.csv", shift)
    return decided_again(run, **decision)


def plant(run: Path, table: Path, shift: Sequence[float]) -> None:
    """Replace the kept outputs of every fold for its validation rows; of `other` they are always right."""
    rows = pl.read_csv(table)
    kinds, others = (dict(rows.select("path", name).rows()) for name in ("kind", "other"))
    for fold in range(FOLDS):
        split = pl.read_csv(run / f"fold-{fold}/split.csv").filter(pl.col("split") == "valid")
        true = np.array(["abc".index(kinds[id]) for id in split["id"]])
        rng = np.random.default_rng(fold)
        logits = rng.normal(size=(len(true), 3)) + np.array(shift)
        logits[np.arange(len(true)), true] += 3
        right = np.eye(2)[["xy".index(others[id]) for id in split["id"]]] * 5
        path = run / f"fold-{fold}/outputs.safetensors"
        kept = load_file(path)
        kept["valid/kind"] = torch.from_numpy(logits.astype(np.float32))
        kept["valid/other"] = torch.from_numpy(right.astype(np.float32))
        save_file(kept, path)


def decided_again(run: Path, **decision: Any) -> Path:
    """Resume folds as if they had been stopped before their results, with another [decision]."""
    config = (run / "config.toml").read_text(encoding="utf-8").split("[decision]")[0]
    lines = [f"{key} = {json.dumps(value)}" for key, value in decision.items()]
    (run / "config.toml").write_text("\n".join([config, "[decision]", *lines, ""]), encoding="utf-8")
    status = read(run, "status.json") | {"state": "interrupted"}
    (run / "status.json").write_text(json.dumps(status))
    command("resume", run).ok()
    return run


@pytest.fixture(scope="module")
def planted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folds whose models say `a` far too often."""
    return with_planted(trained, tmp_path_factory.mktemp("planted"), shift=(4.0, 0, 0))


def entry(run: Path, target: str = "kind") -> Json:
    found: Json = read(run, "decision.json")["targets"][target]
    return found


# What is decided


def test_offsets_that_gain_are_adopted(planted: Path) -> None:
    """The planted shift is found again, and the nested score stands beside the plain one."""
    found = entry(planted)
    assert found["rule"]["name"] == "tuned"
    offsets = found["rule"]["offsets"]
    assert offsets[0] < min(offsets[1:]) - 1
    tuned = next(one for one in found["candidates"] if one["name"] == "tuned")
    assert tuned["nested"]["interval"][0] > 0
    nested = read(planted, "metrics.json")["nested"]["targets"]["kind"]
    assert nested["value"] == tuned["nested"]["value"] > nested["plain"] + 0.2
    assert nested["plain"] == pytest.approx(read(planted, "metrics.json")["value"])


def test_the_plain_score_is_that_of_oof(planted: Path) -> None:
    """As scikit-learn has it: oof.parquet holds what the models say, without a decision."""
    table = pl.read_parquet(planted / "oof.parquet")
    plain = f1_score(
        table["kind_true"], table["kind"], labels=["a", "b", "c"], average="macro", zero_division=0
    )
    assert entry(planted)["candidates"][0]["nested"]["plain"] == pytest.approx(plain)


def test_without_a_gain_nothing_is_adopted(trained: Path, tmp_path: Path) -> None:
    run = with_planted(trained, tmp_path, shift=(0, 0, 0))
    found = entry(run)
    assert found["rule"]["name"] == "none"
    assert found["reason"]
    assert "nested" not in read(run, "metrics.json")
    assert [one["adopted"] for one in found["candidates"]] == [False, False]


def test_the_terminal_says_what_is_decided(trained: Path, tmp_path: Path) -> None:
    run = with_planted(trained, tmp_path, shift=(4.0, 0, 0))
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "decision for kind: tuned, kind.macro_f1" in log
    assert "decision for other: none" in log


def test_a_decision_made_again_is_the_same_bytes(trained: Path, planted: Path, tmp_path: Path) -> None:
    again = with_planted(trained, tmp_path, shift=(4.0, 0, 0))
    for name in ("decision.json", "metrics.json", "oof.parquet"):
        assert (again / name).read_bytes() == (planted / name).read_bytes()


# Each key


def test_offsets_none(trained: Path, tmp_path: Path) -> None:
    found = entry(with_planted(trained, tmp_path, shift=(4.0, 0, 0), offsets="none"))
    assert (found["rule"]["name"], found["candidates"]) == ("none", [])


@pytest.mark.parametrize("name", ["half_prior", "tuned"])
def test_offsets_by_name_try_nothing_else(trained: Path, tmp_path: Path, name: str) -> None:
    found = entry(with_planted(trained, tmp_path, shift=(4.0, 0, 0), offsets=name))
    assert [one["name"] for one in found["candidates"]] == [name]


def test_costs_are_what_offsets_minimize(trained: Path, tmp_path: Path) -> None:
    """A missed `c` costs twenty times as much as any other mistake."""
    costs = {"kind": [[0, 1, 1], [1, 0, 1], [20, 20, 0]]}
    run = tmp_path / "F"
    shutil.copytree(trained / "F", run)
    plant(run, trained / "samples.csv", (0, 0, -2.0))
    decided_again(run, offsets="auto")
    config = (run / "config.toml").read_text(encoding="utf-8")
    rows = "\n".join(f"{name} = {matrix}" for name, matrix in costs.items())
    (run / "config.toml").write_text(f"{config}\n[decision.costs]\n{rows}\n", encoding="utf-8")
    status = read(run, "status.json") | {"state": "interrupted"}
    (run / "status.json").write_text(json.dumps(status))
    command("resume", run).ok()
    found = entry(run)
    assert found["judged_by"] == "kind.mean_cost"
    assert [one["name"] for one in found["candidates"]] == ["expected_cost", "tuned"]
    assert found["rule"]["name"] != "none"
    adopted = next(one for one in found["candidates"] if one["adopted"])
    assert adopted["nested"]["value"] < adopted["nested"]["plain"]


def test_costs_of_another_size_are_refused_before_anything_is_trained(trained: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, {**CONFIG, "decision": {"costs": {"kind": [[0, 1], [1, 0]]}}})
    shutil.copytree(trained / "images", tmp_path / "images")
    shutil.copy(trained / "samples.csv", tmp_path)
    found = command("folds", config, "--run", tmp_path / "F")
    assert found.code == 1
    assert "decision.costs: found 2 rows for 'kind', which has 3 labels: a, b, c" in found.err
    assert not (tmp_path / "F/fold-0").exists()


def test_a_given_temperature_is_that_of_the_ensemble(trained: Path, tmp_path: Path) -> None:
    """The labels stay; the logs of the probabilities are divided by it, up to their sum."""
    run = with_planted(trained, tmp_path, shift=(0, 0, 0), temperature=3.0, offsets="none")
    hot = classwise.Folds.open(run).predict(trained / "samples.csv", images=trained)
    cold = classwise.Folds.open(trained / "F").predict(trained / "samples.csv", images=trained)
    columns = ["kind_p_a", "kind_p_b", "kind_p_c"]
    scaled = cold.select(columns).to_numpy().astype(np.float64) ** (1 / 3)
    np.testing.assert_allclose(hot.select(columns), scaled / scaled.sum(axis=1, keepdims=True), atol=1e-5)
    assert hot["kind"].to_list() == cold["kind"].to_list()


def test_a_fitted_temperature_is_reported_and_not_applied(planted: Path) -> None:
    found = entry(planted)["temperature"]
    assert found["ensemble"] == 1.0
    assert found["out_of_fold"] != 1.0
    assert found["after"]["log_loss"] < found["before"]["log_loss"]
    assert {"before", "after", "at", "rows"} == set(found["ensemble_on_test"])


def test_temperature_none(trained: Path, tmp_path: Path) -> None:
    assert "temperature" not in entry(with_planted(trained, tmp_path, shift=(0, 0, 0), temperature="none"))


def test_answers_below_abstain_are_marked(trained: Path, tmp_path: Path) -> None:
    """In the rows out of fold and in predictions."""
    run = with_planted(trained, tmp_path, shift=(0, 0, 0), abstain=0.6)
    rows = pl.read_parquet(run / "oof.parquet")
    for table in (rows, classwise.Folds.open(run).predict(trained / "samples.csv", images=trained)):
        surest = table.select(pl.max_horizontal("kind_p_a", "kind_p_b", "kind_p_c")).to_series()
        assert table["kind_abstain"].to_list() == (surest < 0.6).to_list()
    found = entry(run)["abstain"]
    assert found["threshold"] == 0.6
    answered = rows.filter(~pl.col("kind_abstain"))
    assert 0 < answered.height < rows.height
    assert found["coverage"] == pytest.approx(answered.height / rows.height)
    assert found["risk"] == pytest.approx((answered["kind"] != answered["kind_true"]).mean())


def test_a_submission_says_how_many_answers_abstain(trained: Path, tmp_path: Path) -> None:
    run = with_planted(trained, tmp_path, shift=(0, 0, 0), abstain=0.99)
    pl.DataFrame({"id": ["00-0", "01-0"], "kind": "a"}).write_csv(tmp_path / "t.csv")
    out = tmp_path / "s.csv"
    shown = command("submit", run, tmp_path / "t.csv", "--images", trained / "images", "--out", out).ok()
    assert "2 of 2 answers of 'kind' are below decision.abstain" in shown.err
    assert pl.read_csv(out)["kind"].null_count() == 0


def test_an_abstention_without_probabilities_is_refused(tmp_path: Path) -> None:
    many_table(tmp_path)
    size = {"size": {"column": "size", "type": "regression"}}
    values = {**MANY, "targets": size, "loss": {"name": "mse"}, "decision": {"abstain": 0.5}}
    values |= {"data": {**MANY["data"], "unlabeled": "skip"}, "training": PLAIN["training"]}
    found = command("folds", write_config(tmp_path, values), "--folds", 2, "--run", tmp_path / "F")
    assert found.code == 1
    assert "decision.abstain: found 0.5, but no target has probabilities" in found.err


# Rows that have chosen


def config_of(folder: Path, data: Path, **changes: Any) -> Path:
    return write_config(
        folder,
        {
            **CONFIG,
            "data": {**CONFIG["data"], "source": str(data / "samples.csv"), "images": str(data)},
            **CHOOSING,
        },
        **changes,
    )


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("selection.first_epoch", {"selection__first_epoch": 4}),
        ("selection.patience", {"selection__patience": 2}),
        ("schedule.name", {"schedule__name": "plateau"}),
        ("training.plan", {"training__plan": "probe_then_finetune"}),
    ],
)
def test_rows_that_choose_are_refused_by_name(
    trained: Path, tmp_path: Path, key: str, change: dict[str, Any]
) -> None:
    config = config_of(tmp_path, trained, decision__offsets="tuned", **change)
    found = command("folds", config, "--run", tmp_path / "F")
    assert found.code == 1
    assert f"{key}: found" in found.err
    assert "decision.offsets = 'tuned'" in found.err
    assert not (tmp_path / "F").exists()


def test_without_a_decision_asked_for_they_are_left_out_with_the_reason(
    trained: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, trained)
    err = command("folds", config, "--folds", 2, "--run", tmp_path / "F").ok().err
    found = read(tmp_path / "F", "decision.json")
    assert (found["tuned"], found["own_rows_chose"]) == (False, True)
    assert found["targets"]["kind"]["candidates"] == []
    assert found["targets"]["kind"]["temperature"]["how"] == "not fitted"
    reason = "selection.first_epoch: found 0.8, with which each fold's own rows choose among epochs 5 to 6"
    assert err.count(f"decisions: none; {reason}") == 1
    assert "decision for" not in err
    assert "selected on this one" in " ".join(Page(tmp_path / "F/report.html").text.split())


def test_a_decision_fixes_the_epoch(trained: Path, tmp_path: Path) -> None:
    """[decision] without selection.first_epoch: every fold keeps its last epoch."""
    config = config_of(tmp_path, trained, decision__offsets="tuned")
    err = command("folds", config, "--folds", 2, "--run", tmp_path / "F").ok().err
    assert "every fold keeps its last epoch" in err
    assert [one["epoch"] for one in read(tmp_path / "F", "metrics.json")["per_fold"]] == [6, 6]
    assert read(tmp_path / "F", "decision.json")["tuned"] is True


def test_train_says_that_it_has_no_rows_for_a_decision(trained: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, trained, decision__abstain=0.5, training__epochs=1)
    assert (
        "[decision] has no effect on a single run"
        in command("train", config, "--run", tmp_path / "R").ok().err
    )


# The ensemble answers as decided


def test_predict_applies_the_offsets(planted: Path, trained: Path) -> None:
    """Of the mean of the models' probabilities the largest after the offsets is taken; these stay as they were."""
    shown = command(
        "predict", planted, trained / "samples.csv", "--images", trained, "--out", planted / "p.csv"
    )
    assert "decision for kind (decision.json): tuned" in shown.ok().err
    table = pl.read_csv(planted / "p.csv")
    columns = ["kind_p_a", "kind_p_b", "kind_p_c"]
    sums = np.log(table.select(columns).to_numpy()) + np.array(entry(planted)["rule"]["offsets"])
    assert table["kind"].to_list() == ["abc"[k] for k in sums.argmax(axis=1)]
    plain = classwise.Folds.open(trained / "F").predict(trained / "samples.csv", images=trained)
    np.testing.assert_allclose(table.select(columns), plain.select(columns), atol=1e-6)
    assert table["kind"].to_list() != plain["kind"].to_list()


def test_submit_and_evaluate_answer_as_predict_does(planted: Path, trained: Path, tmp_path: Path) -> None:
    names = pl.read_csv(trained / "samples.csv")["path"]
    pl.DataFrame({"id": [name.removeprefix("images/") for name in names], "kind": "a"}).write_csv(
        tmp_path / "t.csv"
    )
    out = tmp_path / "s.csv"
    shown = command("submit", planted, tmp_path / "t.csv", "--images", trained / "images", "--out", out)
    assert "decision for kind (decision.json): tuned" in shown.ok().err
    predicted = classwise.Folds.open(planted).predict(trained / "samples.csv", images=trained)
    assert pl.read_csv(out)["kind"].to_list() == predicted["kind"].to_list()
    metrics = json.loads(
        command("evaluate", planted, trained / "samples.csv", "--images", trained, "--json").ok().out
    )
    expected = f1_score(
        predicted["kind_true"], predicted["kind"], labels=["a", "b", "c"], average="macro", zero_division=0
    )
    assert metrics["targets"]["kind"]["macro_f1"] == pytest.approx(expected)


def test_an_image_that_cannot_be_used_gets_the_shares_without_the_decision(
    trained: Path, tmp_path: Path
) -> None:
    """Neither offsets, which have the most frequent label answered less often, nor the temperature, nor a mark."""
    run = with_planted(trained, tmp_path, shift=(4.0, 4.0, 0), temperature=3.0, abstain=0.99)
    assert entry(run)["rule"]["name"] == "tuned"
    count = {row["label"]: row["train"] for row in read(run, "status.json")["data"]["labels"]["kind"]}
    options = ("--images", trained / "images", "--bad-images", "skip", "--force")
    out = tmp_path / "s.csv"

    pl.DataFrame({"id": ["00-0", "gone.png"], "kind": "a"}).write_csv(tmp_path / "t.csv")
    found = command("submit", run, tmp_path / "t.csv", *options, "--out", out)
    assert found.code == 3
    assert pl.read_csv(out)["kind"][1] == max(count, key=lambda label: count[label])
    assert "1 of 1 answers of 'kind' are below decision.abstain" in found.err

    pl.DataFrame({"id": ["00-0", "gone.png"], "kind_a": 0.5, "kind_b": 0.5, "kind_c": 0.5}).write_csv(
        tmp_path / "t.csv"
    )
    assert command("submit", run, tmp_path / "t.csv", *options, "--out", out).code == 3
    shares = [count[label] / sum(count.values()) for label in "abc"]
    np.testing.assert_allclose(pl.read_csv(out).row(1)[1:], shares, atol=1e-6)


def test_the_test_rows_are_scored_as_decided(planted: Path, trained: Path) -> None:
    """And without the decision as well; they have decided nothing."""
    test = read(planted, "metrics.json")["test"]
    assert test["without_decision"] == read(trained / "F", "metrics.json")["test"]["value"]
    split = pl.read_csv(planted / "fold-0/split.csv").filter(pl.col("split") == "test")["id"]
    rows = classwise.Folds.open(planted).predict(trained / "samples.csv", images=trained)
    rows = rows.filter(pl.col("id").is_in(split.to_list()))
    expected = f1_score(
        rows["kind_true"], rows["kind"], labels=["a", "b", "c"], average="macro", zero_division=0
    )
    assert test["value"] == pytest.approx(expected)


def test_other_views_than_those_of_the_decision_are_said(planted: Path, trained: Path) -> None:
    """The offsets are the same; without such an option there is nothing to say."""
    table = ("predict", planted, trained / "samples.csv", "--images", trained, "--out", planted / "v.csv")
    flipped = command(*table, "--force", "--tta", "flip").ok().err
    assert "fitted with tta = none, ensemble = probabilities" in flipped
    assert "these predictions have tta = flip, ensemble = probabilities" in flipped
    assert "applied as it is" not in command(*table, "--force").ok().err
    assert read(planted, "decision.json")["inference"] == {"tta": "none", "ensemble": "probabilities"}


def test_evaluate_scores_with_the_decision_of_the_folder(planted: Path, trained: Path) -> None:
    """The test rows as decided, although their models, predicting anew, would have another one fitted."""
    again = json.loads(command("evaluate", planted, "--json").ok().out)
    assert again["test"]["value"] == read(planted, "metrics.json")["test"]["value"]
    assert again["test"]["without_decision"] == read(planted, "metrics.json")["test"]["without_decision"]
    other = command("evaluate", planted, "--ensemble", "logits", "--json").ok()
    assert "`nested` is left out" in other.err
    assert "nested" not in json.loads(other.out)


def test_evaluate_does_not_report_a_rule_that_no_command_uses(trained: Path, tmp_path: Path) -> None:
    """Rows that would have a rule adopted now, beside a decision.json without one."""
    run = with_planted(trained, tmp_path, shift=(4.0, 0, 0))
    found = read(run, "decision.json")
    found["targets"]["kind"]["rule"] = {"name": "none", "offsets": []}
    (run / "decision.json").write_text(json.dumps(found))
    again = json.loads(command("evaluate", run, "--json").ok().out)
    assert "nested" not in again
    assert "without_decision" not in again["test"]


@pytest.mark.parametrize("text", ["no json", '{"targets": {"kind": {}}}', "[]"])
def test_a_damaged_decision_is_refused_by_name(
    planted: Path, trained: Path, tmp_path: Path, text: str
) -> None:
    shutil.copytree(planted, tmp_path / "F")
    (tmp_path / "F/decision.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"decision\.json"):
        classwise.Folds.open(tmp_path / "F").predict(trained / "samples.csv", images=trained)


def test_a_decision_for_other_labels_is_refused(planted: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(planted, tmp_path / "F")
    found = read(planted, "decision.json")
    found["targets"]["kind"]["labels"] = ["c", "b", "a"]
    (tmp_path / "F/decision.json").write_text(json.dumps(found))
    with pytest.raises(CheckpointError, match="'kind' has other labels"):
        classwise.Folds.open(tmp_path / "F").predict(trained / "samples.csv", images=trained)


def test_every_type_of_target_has_its_decision(tmp_path: Path) -> None:
    """Classes, levels and labels; a regression has none."""
    many_table(tmp_path, 60)
    values = {**MANY, "data": {**MANY["data"], "unlabeled": "skip"}, "decision": {"abstain": 0.3}}
    values["training"] = {**MANY["training"], "epochs": 2}
    command("folds", write_config(tmp_path, values), "--folds", 2, "--run", tmp_path / "F").ok()
    found = read(tmp_path / "F", "decision.json")["targets"]
    assert {name: one["type"] for name, one in found.items()} == {
        "label": "class",
        "level": "ordinal",
        "tags": "multilabel",
    }
    assert len(found["level"]["candidates"][1]["thresholds"]) == 3
    assert len(found["tags"]["candidates"][1]["thresholds"]) == 3
    assert {"label_abstain", "level_abstain", "tags_abstain"} <= set(
        pl.read_csv(tmp_path / "F/oof.csv").columns
    )


# The report


def test_the_report_shows_what_was_tried(planted: Path) -> None:
    page = Page(planted / "report.html")
    rows = page.tables[page.table_names.index("Rules and what they gain")]
    kinds = [row for row in rows[1:] if row[0] == "kind"]
    assert [row[1] for row in kinds] == ["half the log prior", "tuned"]
    assert kinds[1][-1] == "adopted"
    assert kinds[1][4] == f"{entry(planted)['candidates'][1]['nested']['value']:.3f}"


def test_the_report_shows_why_a_target_has_no_rule(planted: Path, tmp_path: Path) -> None:
    """Beside the candidate that the reason is about, the one with the largest gain."""
    shutil.copytree(planted, tmp_path / "F")
    found = read(planted, "decision.json")
    found["targets"]["kind"] |= {"rule": {"name": "none", "offsets": []}, "reason": "for a reason of its own"}
    for one in found["targets"]["kind"]["candidates"]:
        one["adopted"] = False
    (tmp_path / "F/decision.json").write_text(json.dumps(found))
    page = Page(command("report", tmp_path / "F").ok().path)
    rows = page.tables[page.table_names.index("Rules and what they gain")]
    verdicts = {row[1]: row[-1] for row in rows[1:] if row[0] == "kind"}
    gains = {one["name"]: one["nested"]["gain"] for one in found["targets"]["kind"]["candidates"]}
    assert gains["tuned"] > gains["half_prior"]
    assert verdicts["tuned"] == "left out: for a reason of its own"
    assert "of its own" not in verdicts["half the log prior"]


def test_the_report_says_that_rows_chose_only_where_they_did(planted: Path, tmp_path: Path) -> None:
    """Nothing may be tuned on the rows of a run that the folds start from, and yet no fold's own rows chose."""
    shutil.copytree(planted, tmp_path / "F")
    found = read(planted, "decision.json")
    assert found["own_rows_chose"] is False
    (tmp_path / "F/decision.json").write_text(json.dumps(found | {"tuned": False, "reason": "model.weights"}))
    text = " ".join(Page(command("report", tmp_path / "F").ok().path).text.split())
    assert "trained on the other folds. The score" in text
    (tmp_path / "F/decision.json").write_text(json.dumps(found | {"own_rows_chose": True}))
    text = " ".join(Page(command("report", tmp_path / "F").ok().path).text.split())
    assert "selected on this one" in text


def test_the_report_shows_the_calibration_before_and_after(planted: Path) -> None:
    page = Page(planted / "report.html")
    rows = page.tables[page.table_names.index("Calibration at a temperature")]
    found = entry(planted)["temperature"]
    kind = [row for row in rows[1:] if row[0] == "kind"]
    assert kind[0][3:5] == [f"{found[key]['log_loss']:.3f}" for key in ("before", "after")]
    assert kind[1][1] == "test rows, all models together"
