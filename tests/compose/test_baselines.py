"""The baselines of a run against scikit-learn's own, on its own split."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, log_loss, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classwise.compose.settings import build_settings
from classwise.model.classifier import build_classifier
from tests.helpers.noisy_images import AREA, CPU, KIND, LEVEL, SIDE, Scene, reference_features


def known(
    side_x: npt.NDArray[np.float64], labels_N: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The rows with a known label."""
    return side_x[labels_N >= 0], labels_N[labels_N >= 0]


def test_baselines_of_a_class_are_scikit_learns(scene: Callable[..., Scene]) -> None:
    """DummyClassifier and balanced LogisticRegression on the very pixels, by macro F1; unknown rows left out."""
    s = scene({"kind": KIND, "level": LEVEL}, selection={"metric": "kind.macro_f1"})
    (train_x, train_y), (valid_x, valid_y) = map(known, s.pixels, s.labels("kind"))
    assert len(train_y) < 40
    assert len(valid_y) < 20
    dummy = DummyClassifier(strategy="most_frequent").fit(train_x, train_y)
    probe = LogisticRegression(class_weight="balanced", max_iter=500).fit(train_x, train_y)
    want = [f1_score(valid_y, model.predict(valid_x), average="macro") for model in (dummy, probe)]
    found = s.baselines()
    assert [found.most_frequent, found.linear_probe] == pytest.approx(want, abs=1e-9)
    assert 0 < want[0] < want[1] < 1  # neither trivial nor the same
    assert (found.metric, found.probe_on, found.kind) == ("kind.macro_f1", "pixels", "class")


def test_baselines_of_a_number_are_scikit_learns(scene: Callable[..., Scene]) -> None:
    """DummyRegressor's mean and Ridge on the pixels, in the user's unit."""
    s = scene({"kind": KIND, "area": AREA}, selection={"metric": "area.mae"})
    (train_x, valid_x), (train_y, valid_y) = s.pixels, s.labels("area")
    want = [
        mean_absolute_error(valid_y, model.fit(train_x, train_y).predict(valid_x))
        for model in (DummyRegressor(), Ridge(alpha=1.0))
    ]
    found = s.baselines()
    assert [found.most_frequent, found.linear_probe] == pytest.approx(want, rel=1e-5)
    assert want[1] < want[0]
    assert found.kind == "regression"


def test_which_baseline_is_beaten_depends_on_the_direction(scene: Callable[..., Scene]) -> None:
    """Of an error less is better, of a score more: a run between the two baselines beats the weaker one only."""
    for targets, metric, higher in (
        ({"area": AREA}, "mae", False),
        ({"area": AREA}, "r2", True),
        ({"kind": KIND}, "log_loss", False),
        ({"kind": KIND}, "balanced_accuracy", True),
    ):
        s = scene(targets, selection={"metric": metric})
        found = s.baselines()
        assert build_settings(s.config, CPU).higher_is_better is higher
        low, high = sorted([found.most_frequent, found.linear_probe])
        best, better, worse = (high, high + 0.5, low - 0.5) if higher else (low, low - 0.5, high + 0.5)
        assert found.not_beaten_by(better, higher) == {}
        assert list(found.not_beaten_by((low + high) / 2, higher).values()) == [best]
        assert sorted(found.not_beaten_by(worse, higher).values()) == [low, high]


def test_log_loss_of_the_dummy_is_the_entropy_of_the_frequencies(scene: Callable[..., Scene]) -> None:
    """Not only the answer but its probability is the training rows' frequency."""
    s = scene({"kind": KIND}, selection={"metric": "log_loss"})
    (train_x, train_y), (valid_x, valid_y) = map(known, s.pixels, s.labels("kind"))
    dummy = DummyClassifier(strategy="prior").fit(train_x, train_y)
    want = log_loss(valid_y, dummy.predict_proba(valid_x), labels=[0, 1, 2])
    assert s.baselines().most_frequent == pytest.approx(want, abs=1e-9)


def test_the_probe_looks_at_features_where_weights_were_learned_before(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """With weights from a file: standardized features of the backbone in eval mode, not pixels."""
    weights = tmp_path / "body.safetensors"
    body = build_classifier("small_cnn", "none", (SIDE, SIDE), "squash", 0.0, {"k": 3}, seed=9)
    save_file({key: value.contiguous() for key, value in body.state_dict().items()}, weights)
    model = {"image_size": [SIDE, SIDE], "weights": "body.safetensors"}
    s = scene({"level": LEVEL}, model=model, selection={"metric": "accuracy"}, training={"plan": "finetune"})
    features = [reference_features(s, split) for split in (s.splits.train, s.splits.valid)]
    train_y, valid_y = s.labels("level")
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=500))
    p_MK = probe.fit(features[0], train_y).predict_proba(features[1])
    # The answer of an ordinal target is its distribution's median.
    median_M = (1 - p_MK.cumsum(axis=1)[:, :-1] > 0.5).sum(axis=1)
    found = s.baselines()
    assert found.probe_on == "features"
    assert found.linear_probe == pytest.approx((median_M == valid_y).mean(), abs=1e-9)


def test_baselines_leave_the_model_as_it_was(scene: Callable[..., Scene]) -> None:
    """Neither weights nor statistics nor the mode change."""
    s = scene({"kind": KIND})
    before = {key: value.clone() for key, value in s.model.state_dict().items()}
    s.model.train()
    s.baselines()
    assert s.model.training
    assert all(torch.equal(before[key], value) for key, value in s.model.state_dict().items())


def test_baselines_of_the_joint_class(scene: Callable[..., Scene]) -> None:
    """The joint class's score of the parts' most frequent answers."""
    s = scene(
        {"kind": KIND, "level": LEVEL}, joint={"targets": ["kind", "level"]}, selection={"metric": "macro_f1"}
    )
    found = s.baselines()
    assert (found.metric, found.kind) == ("joint.macro_f1", "class")
    (kind_train, kind_valid), (level_train, level_valid) = s.labels("kind"), s.labels("level")
    median = int(np.median(level_train))
    answer = int(np.bincount(kind_train[kind_train >= 0]).argmax()) * 3 + median
    true_M = np.where(kind_valid >= 0, kind_valid * 3 + level_valid, -1)
    true_M = true_M[true_M >= 0]
    want = f1_score(true_M, np.full(len(true_M), answer), labels=range(9), average="macro", zero_division=0)
    assert found.most_frequent == pytest.approx(want)
