"""Scores on resamples, from the predictions that runs have written."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from classwise.compare import resamples
from classwise.compare.plan import PlannedRun
from classwise.compare.resamples import resampled_runs
from classwise.config.load import load_config
from classwise.metrics.collection import flat_scores
from classwise.metrics.names import RANKED_SCORES
from classwise.run import api
from classwise.run.folder import RunFolder
from tests.helpers.scenes import MANY, PEOPLE, PLAIN, many_table, people_table, plain_table, write_config


def planned(folder: Path) -> PlannedRun:
    return PlannedRun("a", 1, folder, (), load_config(folder / "config.toml"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with targets of four types, a few labels missing, and test rows."""
    folder = tmp_path_factory.mktemp("many")
    many_table(folder, 60)
    config = write_config(folder, MANY, data__test=0.25)
    api.train(config, folder / "run", quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a joint class and groups, scored on its validation rows."""
    folder = tmp_path_factory.mktemp("people")
    people_table(folder)
    api.train(write_config(folder, PEOPLE, training__epochs=1), folder / "run", quiet=True)
    return folder / "run"


@pytest.mark.parametrize("split", ["valid", "test"])
def test_predictions_lead_to_every_score(many: Path, split: str) -> None:
    """Every score of class, ordinal, multilabel and regression targets, on either split, is that of metrics.json."""
    metrics = RunFolder(many).metrics()
    scores = flat_scores(metrics["test"] if split == "test" else metrics)
    assert {"label.macro_f1", "label.log_loss", "level.quadratic_kappa", "tags.map", "size.mae"} <= set(
        scores
    )
    for metric, value in scores.items():
        found = resampled_runs([planned(many)], metric, {many: value}, split)
        if metric.rpartition(".")[2] in RANKED_SCORES:  # of the order of all rows, which is not resampled
            assert not found
            continue
        assert list(found) == [many], metric
        assert found[many].shape == (resamples.RESAMPLES,)


def test_the_joint_class_is_resampled_by_groups(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many units as there are people, each with all their rows."""
    drawn: list[int] = []
    plain = resamples.resampled_scores

    def spy(resampling: tuple[object, int, object], **options: int) -> object:
        drawn.append(resampling[1])
        return plain(resampling, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(resamples, "resampled_scores", spy)
    value = RunFolder(people).metrics()["value"]
    assert list(resampled_runs([planned(people)], "joint.macro_f1", {people: value}, "valid")) == [people]
    split = RunFolder(people).split()
    assert drawn == [split.filter(split["split"] == "valid")["group"].n_unique()]


def test_scores_at_a_prior_are_resampled_at_it(tmp_path: Path) -> None:
    """Those of the class shares that the run was selected at, which are not those of its rows."""
    plain_table(tmp_path, 40)
    changes = {"selection": {"prior": {"a": 0.9, "b": 0.1}}, "training__epochs": 1}
    api.train(write_config(tmp_path, PLAIN, **changes), tmp_path / "run", quiet=True)
    metrics = RunFolder(tmp_path / "run").metrics()
    assert metrics["metric"] == "macro_f1_at_prior"
    found = resampled_runs(
        [planned(tmp_path / "run")], metrics["metric"], {tmp_path / "run": metrics["value"]}, "valid"
    )
    assert list(found) == [tmp_path / "run"]
    interval = metrics["targets"]["label"]["at_prior"]["intervals"]["macro_f1"]
    middle = (np.percentile(found[tmp_path / "run"], 2.5) + np.percentile(found[tmp_path / "run"], 97.5)) / 2
    assert interval[0] - 0.1 <= middle <= interval[1] + 0.1


def test_equal_runs_have_equal_resamples(many: Path, tmp_path: Path) -> None:
    """The draws are the same for all runs, so that their differences are paired; they vary around the score."""
    shutil.copytree(many, tmp_path / "copy")
    value = flat_scores(RunFolder(many).metrics()["test"])["size.mae"]
    runs = [planned(many), planned(tmp_path / "copy")]
    found = resampled_runs(runs, "size.mae", {run.folder: value for run in runs}, "test")
    np.testing.assert_array_equal(found[many], found[tmp_path / "copy"])
    assert abs(found[many].mean() - value) < found[many].std() / 5


def test_runs_that_cannot_be_resampled_are_left_out(many: Path, tmp_path: Path) -> None:
    """Where the predictions do not give the score, and where a run has other rows than the first."""
    assert not resampled_runs([planned(many)], "size.mae", {many: 123.0}, "test")
    other = tmp_path / "other"
    shutil.copytree(many, other)
    shutil.copy(many / "predictions.csv", other / "predictions-test.csv")
    value = flat_scores(RunFolder(many).metrics())["size.mae"]
    test_value = flat_scores(RunFolder(many).metrics()["test"])["size.mae"]
    runs = [planned(many), planned(other)]
    assert list(resampled_runs(runs, "size.mae", {many: test_value, other: value}, "test")) == [many]
