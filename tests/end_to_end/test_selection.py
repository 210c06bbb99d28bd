"""The entry `selection` of metrics.json: how many epochs the best one was chosen from, and what that does to its score;
said wherever the score is."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import classwise
from classwise.config.load import make_config
from classwise.metrics import optimism, outcomes
from classwise.run.checkpoint import read_checkpoint
from tests.helpers.scenes import MANY, PEOPLE, command, many_table, people_table, plain_table, write_config

ALL = {"selection__first_epoch": 1, "training__epochs": 4}


@pytest.fixture(scope="module", autouse=True)
def few_rows_suffice() -> Iterator[None]:
    """The runs of these tests have some 20 validation rows or groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimism, "FEWEST_UNITS", 15)
        yield


@pytest.fixture(scope="module")
def people(few_rows_suffice: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    people_table(folder, people=72)
    result = command("train", write_config(folder, PEOPLE, **ALL), "--run", folder / "run").ok()
    (folder / "err.txt").write_text(result.err)
    return folder


def selection_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())["selection"]
    return found


def test_the_score_without_the_luck_of_its_choice(people: Path) -> None:
    """The joint class of grouped rows: the optimism is positive, and the corrected score lower by it."""
    metrics = classwise.Run.open(people / "run").metrics
    selection = metrics["selection"]
    assert selection["epochs"] == 4
    assert selection["reason"] is None
    assert 0 < selection["optimism"] <= metrics["value"]
    assert selection["corrected"] == pytest.approx(metrics["value"] - selection["optimism"])
    # One group in some classes: the score has no interval, and so the corrected one has none.
    assert ("interval" in selection) == ("macro_f1" in metrics["joint"]["intervals"])


def test_every_place_that_shows_the_score_says_so(people: Path) -> None:
    """The end of training, evaluate, and the page."""
    selection = selection_of(people / "run")
    expected = (
        f"the best of 4 epochs on these rows, so about {selection['optimism']:.4f} too high:"
        f" expect {selection['corrected']:.4f} on other rows"
    )
    assert expected in (people / "err.txt").read_text()
    assert command("evaluate", people / "run").ok().out.splitlines()[1] == expected
    page = (people / "run" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"The best of 4 epochs on these rows, so about 0\.\d{3} too high: expect 0\.\d{3}", page)
    assert classwise.Run.open(people / "run").evaluate()["selection"] == selection
    assert "selection" not in classwise.Run.open(people / "run").evaluate(people / "samples.csv")


def test_every_checkpoint_holds_what_the_rows_came_to(people: Path) -> None:
    """One byte a row and epoch, in the order of the validation rows; the best checkpoint as far as it had come."""
    last = read_checkpoint(people / "run" / "checkpoints" / "last")
    rows = last.training["outcomes.rows"]
    assert rows.shape == (4, classwise.Run.open(people / "run").status["data"]["valid"])
    assert rows.dtype.itemsize == 1
    best = read_checkpoint(people / "run" / "checkpoints" / "best")
    assert best.training["outcomes.rows"].tolist() == rows[: best.epoch].tolist()


def test_only_epochs_that_can_be_selected_count(tmp_path: Path) -> None:
    """Of five epochs the last two: two are recorded and chosen from. With one there is no choice and no word of it."""
    plain_table(tmp_path, 24)
    changes = {"training__epochs": 5, "selection__first_epoch": 4}
    command("train", write_config(tmp_path, **changes), "--run", tmp_path / "two").ok()
    assert selection_of(tmp_path / "two")["epochs"] == 2
    assert len(read_checkpoint(tmp_path / "two/checkpoints/last").training["outcomes.rows"]) == 2
    result = command("train", write_config(tmp_path, training__epochs=5), "--run", tmp_path / "one").ok()
    run = classwise.Run.open(tmp_path / "one")
    assert {k: v for k, v in run.metrics["selection"].items() if k != "interval"} == {
        "epochs": 1,
        "optimism": 0.0,
        "corrected": run.metrics["value"],
        "reason": None,
    }
    assert run.status["best"]["epoch"] == 5
    assert "too high" not in result.err


def test_a_run_stopped_in_between_has_the_same_estimate(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the earlier epochs came to is in the checkpoint."""
    config = write_config(
        tmp_path, PEOPLE, **ALL, data__source=str(people / "samples.csv"), data__images=str(people)
    )
    stopped = tmp_path / "run"

    from classwise.run import session

    original = session.epoch_line

    def stop_after_two(row: dict[str, Any], *others: Any) -> str:
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        return original(row, *others)

    with monkeypatch.context() as patch:
        patch.setattr(session, "epoch_line", stop_after_two)
        assert command("train", config, "--run", stopped).code == 75
    assert not (stopped / "metrics.json").exists()
    command("resume", stopped).ok()
    assert selection_of(stopped) == selection_of(people / "run")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"selection__metric": "tags.macro_f1"}, "it is not estimated for macro_f1 of a multilabel target"),
        (
            {"selection__metric": "label.calibration_error"},
            "it is not estimated for calibration_error of a class target",
        ),
        ({"report__resamples": 0}, "report.resamples = 0"),
    ],
)
def test_where_it_is_not_estimated_this_is_said(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    many_table(tmp_path)
    result = command("train", write_config(tmp_path, MANY, **ALL | changes), "--run", tmp_path / "run").ok()
    selection = selection_of(tmp_path / "run")
    assert selection["optimism"] is selection["corrected"] is None
    assert selection["reason"].startswith(reason)
    assert f"by how much is not estimated ({selection['reason']})" in result.err
    assert "by how much is not estimated" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "outcomes.rows" not in read_checkpoint(tmp_path / "run/checkpoints/last").training


@pytest.mark.parametrize(
    "metric", ["size.mae", "size.r2", "label.log_loss", "label.accuracy", "level.quadratic_kappa"]
)
def test_other_types_of_score(tmp_path: Path, metric: str) -> None:
    """Of an error the corrected one is higher."""
    many_table(tmp_path, rows=80)
    changes = {**ALL, "selection__metric": metric}
    command("train", write_config(tmp_path, MANY, **changes), "--run", tmp_path / "run").ok()
    metrics = classwise.Run.open(tmp_path / "run").metrics
    shift = metrics["selection"]["corrected"] - metrics["value"]
    target, _, name = metric.partition(".")
    if interval := metrics["targets"][target]["intervals"].get(name):
        lowest = 0.0 if name not in ("r2", "quadratic_kappa") else -math.inf
        assert metrics["selection"]["interval"] == pytest.approx(
            [max(lowest, end + shift) for end in interval]
        )
    assert abs(shift) == pytest.approx(metrics["selection"]["optimism"])
    assert shift >= 0 if metric in ("size.mae", "label.log_loss") else shift <= 0


def test_too_few_rows_are_said(tmp_path: Path) -> None:
    """An estimate from six rows could not be trusted."""
    plain_table(tmp_path, 24)
    result = command("train", write_config(tmp_path, **ALL), "--run", tmp_path / "run").ok()
    selection = selection_of(tmp_path / "run")
    assert selection["optimism"] is selection["corrected"] is None
    assert selection["reason"] == "6 validation rows, and at least 15 are needed"
    assert f"by how much is not estimated ({selection['reason']})" in result.err


def test_too_many_rows_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be written with every checkpoint."""
    monkeypatch.setattr(outcomes, "MOST_BYTES", 10)
    monkeypatch.setattr("classwise.compose.selection.MOST_BYTES", 10)
    plain_table(tmp_path, 24)
    command("train", write_config(tmp_path, **ALL), "--run", tmp_path / "run").ok()
    assert (
        "6 validation rows in 4 epochs would take more than 0 MiB" in selection_of(tmp_path / "run")["reason"]
    )


def test_the_default_is_the_last_fifth_unless_training_stops_early() -> None:
    """With patience the first epoch counts: early stopping would otherwise have nothing to stop."""
    tree: dict[str, Any] = {
        "data": {"source": "x.csv"},
        "targets": {"x": {"column": "x"}},
        "training": {"epochs": 30},
    }
    assert make_config(tree).first_epoch == 25
    assert make_config({**tree, "selection": {"patience": 3}}).first_epoch == 1
    assert make_config({**tree, "selection": {"patience": 3, "first_epoch": 10}}).first_epoch == 10
    assert make_config(tree, [("selection.patience", "3")]).first_epoch == 1
    for epochs in range(1, 6):
        assert make_config({**tree, "training": {"epochs": epochs}}).first_epoch == epochs
