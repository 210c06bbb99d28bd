"""Scores on resamples, from the predictions that runs have written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch

from classwise.compare import resamples
from classwise.compare.plan import PlannedRun
from classwise.compare.resamples import resampled_runs
from classwise.config.load import load_config
from classwise.metrics.classification import LabelMetric
from classwise.metrics.collection import flat_scores, score_of
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


@pytest.mark.parametrize(
    "metric",
    ["label.f1[b]", "label.recall[a]", "level.worst_f1", "0.7*label.macro_f1 + 0.3*label.worst_recall"],
)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_scores_of_a_class_and_shares_are_resampled(many: Path, split: str, metric: str) -> None:
    """They lead to the value of metrics.json."""
    metrics = RunFolder(many).metrics()
    value = score_of(metrics["test"] if split == "test" else metrics, metric)
    assert value is not None
    found = resampled_runs([planned(many)], metric, {many: value}, split)
    assert list(found) == [many]
    assert found[many].shape == (resamples.RESAMPLES,)


def test_the_scores_of_classes_under_weights_are_scikit_learns() -> None:
    """F1, precision and recall of a class, and those of the worst class with rows, with `sample_weight`."""
    rng = np.random.default_rng(0)
    true_N, predicted_N = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    counts = LabelMetric(5, keep_rows=True, labels=list("abcde"))
    counts.update(torch.from_numpy(predicted_N), torch.from_numpy(true_N))
    weights_NR = rng.integers(0, 3, (60, 20)).astype(float)
    weights_NR[true_N == 3, 0] = 0  # in the first resample there is no d
    for score in ("precision", "recall", "f1"):
        function = getattr(sklearn.metrics, f"{score}_score")
        expected_RK = np.array(
            [
                function(
                    true_N,
                    predicted_N,
                    labels=range(5),
                    average=None,
                    zero_division=0,
                    sample_weight=weights_N,
                )
                for weights_N in weights_NR.T
            ]
        )
        _, (scorer, _, _) = resamples._class_score(counts, f"{score}[b]", None)
        np.testing.assert_allclose(scorer(weights_NR)[f"{score}[b]"], expected_RK[:, 1], atol=1e-12)
        _, (scorer, _, _) = resamples._class_score(counts, f"worst_{score}", None)
        support_RK = np.stack([weights_NR[true_N == k].sum(axis=0) for k in range(5)], axis=1)
        worst_R = np.where(support_RK > 0, expected_RK, np.inf).min(axis=1)
        np.testing.assert_allclose(scorer(weights_NR)[f"worst_{score}"], worst_R, atol=1e-12)


def test_shares_are_taken_of_the_same_resamples(people: Path) -> None:
    """A draw's score is the sum of its parts' scores on that draw."""
    metrics = RunFolder(people).metrics()
    parts = {"joint.macro_f1": 0.7, "joint.weighted_f1": 0.3}
    metric = " + ".join(f"{share}*{part}" for part, share in parts.items())
    (whole,) = resampled_runs(
        [planned(people)], metric, {people: score_of(metrics, metric)}, "valid"
    ).values()
    drawn = [
        share * resampled_runs([planned(people)], part, {people: score_of(metrics, part)}, "valid")[people]
        for part, share in parts.items()
    ]
    np.testing.assert_allclose(whole, sum(drawn), atol=1e-12)
    assert whole.min() < whole.max()


def test_what_depends_on_the_order_of_all_rows_is_not(many: Path) -> None:
    """AP and AUC of a class, and scores of one label of several."""
    metrics = RunFolder(many).metrics()
    for metric in ("label.ap[b]", "label.roc_auc", f"tags.f1[{metrics['targets']['tags']['labels'][0]}]"):
        assert not resampled_runs([planned(many)], metric, {many: score_of(metrics, metric)}, "valid")


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
