"""The plan of two stages, as a user runs it: the first answer, then the better of two."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from classwise.compose import features
from classwise.compose.first_answer import FirstAnswer
from classwise.run import stages
from classwise.run.api import Run
from classwise.run.checkpoint import read_checkpoint
from classwise.training.probe import LinearHead
from tests.helpers.pretrained import probed_config, save_weights
from tests.helpers.scenes import (
    MANY,
    PEOPLE,
    Result,
    command,
    contents,
    many_table,
    people_table,
    plain_table,
    write_config,
)
from tests.helpers.tables import read_csv

TOO_LARGE = {"optimizer": {"name": "sgd", "lr": 10.0}, "training__clip_norm": 1.0}
"""Steps that are so long that little of the weights is left, in numbers that are finite all the same."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of two classes and weights, a run with the plan `probe` in `probe`, and one with `auto` in `auto`."""
    folder = tmp_path_factory.mktemp("plan")
    plain_table(folder, 24)
    for name, changes in {"probe": {"training__plan": "probe"}, "auto": {}}.items():
        result = train(folder, folder / name, **changes).ok()
        (folder / f"{name}.txt").write_text(result.err)
    return folder


def train(folder: Path, run: Path, **changes: Any) -> Result:
    return command("train", probed_config(folder, **changes), "--run", run)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text())


def model_bytes(run: Path, name: str) -> bytes:
    return (run / "checkpoints" / name / "model.safetensors").read_bytes()


def checkpoint_names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def backbone_of(run: Path, name: str) -> dict[str, torch.Tensor]:
    tensors = read_checkpoint(run / "checkpoints" / name).model
    return {key: value for key, value in tensors.items() if key.startswith("backbone.")}


def test_a_config_for_fine_tuning_with_the_plan_of_a_probe(folder: Path, tmp_path: Path) -> None:
    """What a config of `init` has for fine-tuning has no effect, which is said: no epoch, and nothing is timed."""
    config = probed_config(
        folder, training__minutes=3.0, training__ema=0.99, training__plan="probe_then_finetune"
    )
    result = command("train", config, "--training.plan", "probe", "--run", tmp_path / "run").ok()
    assert "trains no epoch, so these have no effect: training." in result.err
    assert "training.minutes, training.ema" in result.err
    assert "leaves time for" not in result.err
    assert model_bytes(tmp_path / "run", "best") == model_bytes(folder / "probe", "best")


def test_the_dash_of_an_interval_is_explained_once(folder: Path, tmp_path: Path) -> None:
    """In the log, below the first line that has one; the test's has one as well."""
    changes = {"training__plan": "probe", "data__test": 0.25, "report__resamples": 20}
    train(folder, tmp_path / "run", **changes).ok()
    log = (tmp_path / "run" / "log.txt").read_text().splitlines()
    first, *others = [number for number, line in enumerate(log) if "[—] on" in line]
    assert others
    assert [number for number, line in enumerate(log) if line.startswith("[—]")] == [first + 1]
    assert log[first + 1] == "[—]: no 95% interval: 6 rows; an interval needs 10 or more"


def test_a_probe_is_a_whole_run(folder: Path) -> None:
    """No epoch, three checkpoints of the same model, metrics, predictions, a report, and a status that says so."""
    run = folder / "probe"
    assert checkpoint_names(run) == ["best", "first", "last"]
    assert len({model_bytes(run, name) for name in ("best", "first", "last")}) == 1
    metrics, status = read_json(run / "metrics.json"), read_json(run / "status.json")
    assert metrics["epoch"] == 0
    assert "plan" not in metrics
    assert metrics["selection"]["epochs"] == 1
    assert metrics["selection"]["optimism"] == 0.0
    assert metrics["selection"]["corrected"] == metrics["value"]
    assert (status["state"], status["epoch"], status["update"]) == ("finished", 0, 0)
    assert status["best"] == {"metric": "macro_f1", "value": metrics["value"], "epoch": 0}
    assert (run / "history.jsonl").read_text() == ""
    assert len(read_csv(run / "predictions.csv")) == metrics["samples"]
    assert "<html" in (run / "report.html").read_text()

    # Its backbone is that of the file.
    found = backbone_of(run, "best")
    given = load_file(folder / "weights.safetensors")
    assert all(torch.equal(found[f"backbone.{key}"], value) for key, value in given.items())


def test_what_a_probe_says(folder: Path) -> None:
    """The first answer with the score of the cross-validation, and that the rows of the score chose nothing."""
    said = (folder / "probe.txt").read_text()
    assert re.search(
        r"^first answer after [\d.]+ s: macro_f1 .*; [\d.]+ cross-validated on 18 training rows,"
        r" with the best of 4 penalties$",
        said,
        re.MULTILINE,
    )
    assert "6 validation rows, which chose nothing" in said
    assert "epochs are done" not in said
    assert "marks the best" not in said


@pytest.mark.parametrize("name", ["probe", "auto"])
def test_evaluate_gives_the_numbers_of_the_run(folder: Path, name: str) -> None:
    """Those of metrics.json, but for the choice between two models, which is not made again."""
    found = Run.open(folder / name).evaluate()
    written = read_json(folder / name / "metrics.json")
    for key in ("epoch", "plan"):
        written.pop(key, None)
    assert json.loads(json.dumps(found)) == written


@pytest.mark.parametrize("name", ["probe", "auto"])
def test_the_run_predicts(folder: Path, name: str) -> None:
    """What predictions.csv says of the validation rows is what `predict` says of the same images."""
    table = Run.open(folder / name).predict(folder / "samples.csv")
    rows = {row["id"]: row for row in table.iter_rows(named=True)}
    for row in read_csv(folder / name / "predictions.csv"):
        assert rows[row["id"]]["label"] == row["label"]


def test_the_report_is_written_again(folder: Path) -> None:
    """Also of a run without an epoch: the score that was kept, and charts of epochs only where there were some."""
    for name, charts in (("probe", False), ("auto", True)):
        text = Run.open(folder / name).report().read_text()
        value = read_json(folder / name / "metrics.json")["value"]
        assert f"{value:.3f}" in text
        assert ("Loss per epoch" in text) == charts
        stayed_first = read_json(folder / name / "metrics.json")["epoch"] == 0
        assert ("from the first answer" in text) == stayed_first
        assert "best in epoch 0" not in text
        assert ("of 2<" in text) == charts  # how many epochs were planned


def test_two_stages(folder: Path) -> None:
    """The entry `plan` says which of both was kept and why; `best` is that one, byte for byte, with both beside it."""
    run = folder / "auto"
    assert checkpoint_names(run) == ["best", "finetuned", "first", "last"]
    metrics, status = read_json(run / "metrics.json"), read_json(run / "status.json")
    plan = metrics["plan"]
    assert set(plan) == {
        *("kept", "difference", "optimism", "interval", "share", "needed", "first_answer", "finetuned")
    }
    kept = {"finetuned": "finetuned", "first_answer": "first"}[plan["kept"]]
    whole = contents(run / "checkpoints" / kept)
    assert contents(run / "checkpoints" / "best") == whole
    assert (plan["share"] >= plan["needed"]) == (plan["kept"] == "finetuned")
    low, high = plan["interval"]
    assert low <= plan["difference"] <= high
    assert plan["difference"] == pytest.approx(
        plan["finetuned"]["value"] - plan["first_answer"]["value"] - plan["optimism"]
    )
    assert metrics["value"] == plan[plan["kept"]]["value"]
    assert (
        metrics["epoch"]
        == plan[plan["kept"]].get("epoch", 0)
        == read_checkpoint(run / "checkpoints/best").epoch
    )
    assert status["best"] == {key: metrics[key] for key in ("metric", "value", "epoch")}
    assert status["state"] == "finished"
    assert len((run / "history.jsonl").read_text().splitlines()) == 2
    assert 'plan = "probe_then_finetune"' in (run / "config.toml").read_text()
    first = read_checkpoint(run / "checkpoints/first").state["progress"]["first_answer"]
    assert plan["first_answer"]["cross_validated"] == first["cross_validated"]
    said = (folder / "auto.txt").read_text()
    assert said.index("first answer after") < said.index("epoch 1/2") < said.index("kept: ")

    # The first stage is that of a probe alone.
    assert model_bytes(run, "first") == model_bytes(folder / "probe", "first")
    assert any(
        not torch.equal(one, other)
        for one, other in zip(
            backbone_of(run, "first").values(), backbone_of(run, "last").values(), strict=True
        )
    )


def test_a_run_is_repeated_by_its_own_config(folder: Path, tmp_path: Path) -> None:
    """config.toml names the plan; the same bytes come out, also from features that are computed anew."""
    command("train", folder / "auto" / "config.toml", "--run", tmp_path / "again", "--data.cache", "off").ok()
    for name in checkpoint_names(folder / "auto"):
        assert model_bytes(tmp_path / "again", name) == model_bytes(folder / "auto", name)


def test_without_plans_nothing_is_probed(folder: Path, tmp_path: Path) -> None:
    """With `finetune`, and with `auto` where there are no weights: as before there were plans."""
    train(folder, tmp_path / "finetune", training__plan="finetune").ok()
    train(folder, tmp_path / "none", training__plan="auto", model__weights="none").ok()
    for name in ("finetune", "none"):
        run = tmp_path / name
        assert checkpoint_names(run) == ["best", "last"]
        assert "plan" not in read_json(run / "metrics.json")
        assert 'plan = "finetune"' in (run / "config.toml").read_text()
        assert read_checkpoint(run / "checkpoints/last").state["progress"]["first_answer"] is None


def test_fine_tuning_that_fails_is_not_kept(folder: Path, tmp_path: Path) -> None:
    """With steps that are far too long the first answer is what the run ends with."""
    run = tmp_path / "run"
    said = train(folder, run, **TOO_LARGE).ok().err
    metrics = read_json(run / "metrics.json")
    assert metrics["plan"]["kept"] == "first_answer"
    assert metrics["plan"]["share"] < 0.5
    assert contents(run / "checkpoints/best") == contents(run / "checkpoints/first")
    assert metrics["epoch"] == 0
    assert metrics["value"] == read_json(folder / "probe" / "metrics.json")["value"]
    assert "kept: the first answer" in said
    assert "also chose between this and the fine-tuned model" in said
    # predictions.csv is that of the kept model as well.
    assert read_csv(run / "predictions.csv") == read_csv(folder / "probe" / "predictions.csv")


def test_fine_tuning_that_ends_in_no_numbers_leaves_the_first_answer(folder: Path, tmp_path: Path) -> None:
    """The run has failed and says why; `best` is the first answer, with its metrics, to evaluate it and to predict."""
    run = tmp_path / "run"
    result = train(folder, run, optimizer={"name": "sgd", "lr": 1e30})
    assert result.code == 1
    status = read_json(run / "status.json")
    assert status["state"] == "failed"
    assert "NonFiniteError" in status["reason"]
    probe = read_json(folder / "probe" / "metrics.json")
    assert status["best"] == {"metric": "macro_f1", "value": probe["value"], "epoch": 0}
    assert contents(run / "checkpoints/best") == contents(run / "checkpoints/first")
    metrics = read_json(run / "metrics.json")
    assert (metrics["epoch"], metrics["value"]) == (0, probe["value"])
    assert Run.open(run).evaluate()["value"] == probe["value"]
    assert f"{probe['value']:.3f}" in (run / "report.html").read_text()


def spoiled(monkeypatch: pytest.MonkeyPatch, change: Callable[[LinearHead], LinearHead]) -> None:
    """First answers with other heads than those that were fitted."""
    real = stages.fit_first_answer

    def fit(*arguments: Any, **options: Any) -> FirstAnswer:
        answer = real(*arguments, **options)
        heads = {name: change(head) for name, head in answer.heads.items()}
        outputs = {name: change(LinearHead(raw, raw[0])).weight for name, raw in answer.outputs.items()}
        return dataclasses.replace(answer, heads=heads, outputs=outputs)

    monkeypatch.setattr(stages, "fit_first_answer", fit)


def test_a_poor_first_answer_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads that say the opposite: fine-tuning is clearly better, and is kept, with its epoch."""
    spoiled(monkeypatch, lambda head: LinearHead(-0.3 * head.weight, -0.3 * head.bias))
    run = tmp_path / "run"
    said = train(folder, run, training__epochs=6, optimizer__lr=3e-3, training__batch_size=6).ok().err
    metrics = read_json(run / "metrics.json")
    plan = metrics["plan"]
    assert plan["first_answer"]["value"] < plan["finetuned"]["value"]
    assert plan["kept"] == "finetuned"
    assert contents(run / "checkpoints/best") == contents(run / "checkpoints/finetuned")
    assert metrics["epoch"] == plan["finetuned"]["epoch"] > 0
    assert metrics["selection"]["epochs"] > 1
    assert "kept: the fine-tuned model" in said
    assert "which also chose the epoch and the fine-tuned model" in said


EVERY: dict[str, Any] = {
    **MANY,
    "targets": {**MANY["targets"], "match": {"type": "ranking", "column": "relevance", "query": "query"}},
    "joint": {"targets": ["label", "level"]},
    "training": {**MANY["training"], "freeze_epochs": 0},
}


def test_targets_of_every_type(tmp_path: Path) -> None:
    """With empty cells, an average of the weights, learned weights of the targets and a joint: both stages run, and the
    run evaluates and predicts."""
    many_table(tmp_path)
    run = tmp_path / "run"
    command("train", probed_config(tmp_path, EVERY), "--run", run).ok()
    metrics = read_json(run / "metrics.json")
    assert metrics["metric"] == "size.mae"
    plan = metrics["plan"]
    lead = plan["first_answer"]["value"] - plan["finetuned"]["value"]  # of an error, less is better
    assert plan["difference"] == pytest.approx(lead - plan["optimism"])
    first = read_checkpoint(run / "checkpoints/first").state["progress"]["first_answer"]
    assert set(first["penalties"]) == set(EVERY["targets"])
    written = {key: value for key, value in metrics.items() if key not in ("epoch", "plan")}
    assert json.loads(json.dumps(Run.open(run).evaluate())) == written
    assert len(Run.open(run).predict(tmp_path / "samples.csv")) == 40


def test_groups_a_joint_and_test_rows(tmp_path: Path) -> None:
    """The test rows are scored once, by the kept model."""
    people_table(tmp_path, 24)
    run = tmp_path / "run"
    result = command("train", probed_config(tmp_path, PEOPLE, data__test=0.2), "--run", run).ok()
    metrics = read_json(run / "metrics.json")
    assert metrics["metric"].startswith("joint.")
    assert metrics["test"]["samples"] > 0
    assert (run / "predictions-test.csv").exists()
    assert "the test, which selected nothing" in result.err
    evaluated = Run.open(run).evaluate()
    assert json.loads(json.dumps(evaluated["test"])) == metrics["test"]


def test_too_few_rows_for_a_cross_validation(tmp_path: Path) -> None:
    """There is an answer all the same, without a score of it."""
    plain_table(tmp_path, 6)
    run = tmp_path / "run"
    said = train(tmp_path, run, training__plan="probe", data__valid=0.34).ok().err
    assert "cross-validated" not in said
    assert (
        read_checkpoint(run / "checkpoints/first").state["progress"]["first_answer"]["cross_validated"]
        is None
    )


def test_pooled_layers(folder: Path, tmp_path: Path) -> None:
    """model.pooling = "layers" gives more features, to the first answer and to fine-tuning; the checkpoint holds it."""
    run = tmp_path / "run"
    train(folder, run, model__pooling="layers").ok()
    tensors = read_checkpoint(run / "checkpoints/first").model
    plain = read_checkpoint(folder / "probe" / "checkpoints/first").model
    assert tensors["heads.0.weight"].shape[1] > plain["heads.0.weight"].shape[1]
    written = {k: v for k, v in read_json(run / "metrics.json").items() if k not in ("epoch", "plan")}
    assert json.loads(json.dumps(Run.open(run).evaluate())) == written


def test_a_second_run_computes_no_features(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are kept beside the decoded images; with other weights they are not those."""

    def forbidden(*arguments: Any, **options: Any) -> None:
        raise AssertionError("features were computed")

    monkeypatch.setattr(features, "feature_engine", forbidden)
    train(folder, tmp_path / "run", training__plan="probe").ok()
    assert model_bytes(tmp_path / "run", "best") == model_bytes(folder / "probe", "best")
    other = save_weights(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(AssertionError, match="features were computed"):
        train(folder, tmp_path / "other", training__plan="probe", model__weights=str(other))


def test_a_backbone_without_layers_is_refused(tmp_path: Path) -> None:
    """Before anything is made."""
    plain_table(tmp_path, 8)
    result = command("train", write_config(tmp_path, model__pooling="layers"), "--run", tmp_path / "run")
    assert result.code == 1
    assert 'model.pooling: found "layers", but small_cnn' in result.err
    assert not (tmp_path / "run").exists()
