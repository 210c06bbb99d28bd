"""The parts of a run are put together as the config says: baselines, frozen features, mixing, selection."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
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

from classwise.compose.autotune import resolve_auto
from classwise.compose.baselines import Baselines, run_baselines
from classwise.compose.checks import check_recipe
from classwise.compose.dataset import prepare
from classwise.compose.loaders import augmentation, build_data, evaluation_images, model_features
from classwise.compose.losses import build_heads
from classwise.compose.settings import build_settings, device_of, worker_count
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import build_model
from classwise.config.load import absolute_paths, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.augment import PRESETS
from classwise.data.batch import Batch
from classwise.errors import ConfigError, DataError
from classwise.model.classifier import Classifier, build_classifier
from classwise.model.heads import Head
from classwise.training.compiled import compiled_sizes

CPU = torch.device("cpu")
SIDE = 12
KIND = {"column": "kind"}
AREA = {"column": "area", "type": "regression"}
LEVEL = {"column": "level", "type": "ordinal", "labels": ["low", "mid", "high"]}
TAGS = {"column": "tags", "type": "multilabel"}


class Scene(NamedTuple):
    """A config and what comes of it before training."""

    config: Config
    splits: DatasetSplits
    heads: dict[str, Head]
    model: Classifier

    @property
    def pixels(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The images of both sides as values from 0 to 1, (N, SIDE * SIDE * 3), read by OpenCV alone."""
        return tuple(
            np.stack([cv2.imread(str(path))[:, :, ::-1].ravel() / 255 for path in split.samples.paths])
            for split in (self.splits.train, self.splits.valid)
        )

    def labels(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """A target's answers on both sides."""
        return self.splits.train.labels[name], self.splits.valid.labels[name]

    def baselines(self) -> Baselines:
        return run_baselines(self.config, self.splits, self.model, self.heads, CPU)


@pytest.fixture
def scene(tmp_path: Path, make_table: Callable[..., Path]) -> Callable[..., Scene]:
    """`scene(targets, **sections)`: 60 noisy images of SIDE x SIDE, of which 20 are for validation; the brighter,
    the larger `area` and `level`; three kinds, 6 to 3 to 1. Every seventh kind is unknown."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(60):
        kind, level = "aaaaaabbbc"[number % 10], number % 3
        image = rng.integers(0, 160, (SIDE, SIDE, 3)) + 25 * level
        image[:, :, "abc".index(kind)] += 14
        (tmp_path / f"{number:02}.png").write_bytes(
            cv2.imencode(".png", image.astype(np.uint8)[:, :, ::-1])[1].tobytes()
        )
        tags = "|".join(label for label, there in (("x", level > 0), ("y", kind == "b")) if there) or "|"
        unknown = number % 7 == 3
        rows.append(
            {
                **{"path": f"{number:02}.png", "kind": "" if unknown else kind, "tags": tags},
                **{"level": ("low", "mid", "high")[level], "area": 100 * level + int(rng.integers(0, 30))},
            }
        )
    make_table(tmp_path / "train.csv", rows[:40])
    make_table(tmp_path / "valid.csv", rows[40:])

    def build(targets: dict[str, Any], **sections: Any) -> Scene:
        data = {"source": "train.csv", "valid": "valid.csv", "workers": 0, "augment": "none"}
        training = {"epochs": 3, "batch_size": 8, "precision": "fp32", "threads": 1, "device": "cpu"}
        values = {"targets": targets, "model": {"image_size": [SIDE, SIDE]}} | sections
        values |= {
            "data": data | {"unlabeled": "skip"} | sections.get("data", {}),
            "training": training | sections.get("training", {}),
        }
        config = absolute_paths(make_config(values), tmp_path)
        splits = prepare(config, Console(quiet=True))
        heads = build_heads(config, splits)
        return Scene(config, splits, heads, build_model(config, heads))

    return build


# The baselines


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


def test_the_probe_looks_at_features_where_weights_were_learnt_before(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """With weights from a file: standardised features of the backbone in eval mode, not pixels."""
    weights = tmp_path / "body.safetensors"
    body = build_classifier("small_cnn", "none", (SIDE, SIDE), "squash", 0.0, {"k": 3}, seed=9)
    save_file({key: value.contiguous() for key, value in body.state_dict().items()}, weights)
    model = {"image_size": [SIDE, SIDE], "weights": "body.safetensors"}
    s = scene({"level": LEVEL}, model=model, selection={"metric": "accuracy"})
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


# Frozen features


def reference_features(s: Scene, split: Any) -> npt.NDArray[np.float32]:
    """The backbone in eval mode on normalised pixels, written out; one image at a time."""
    body = build_model(s.config, s.heads).backbone.eval()
    rows = []
    for path in split.samples.paths:
        image = cv2.imread(str(path))[:, :, ::-1] / 255
        x = torch.tensor(((image - 0.5) / 0.5).transpose(2, 0, 1)[None], dtype=torch.float32)
        with torch.no_grad():
            rows.append(body(x)[0].numpy())
    return np.stack(rows)


def test_frozen_features_are_the_backbones_eval_outputs(scene: Callable[..., Scene]) -> None:
    """To float32's rounding, whatever the batches; and the model is in the mode that it was in."""
    s = scene({"kind": KIND})
    want = reference_features(s, s.splits.train)
    dataset = evaluation_images(s.splits.train.samples, s.model.metadata, 10**6)
    s.model.train()
    found = model_features(s.model, dataset, s.config, CPU)
    assert s.model.training
    assert found.shape == (len(want), s.model.feature_count)
    np.testing.assert_allclose(found.numpy(), want, atol=2e-6)


def test_batches_hold_features_while_the_backbone_is_frozen(scene: Callable[..., Scene]) -> None:
    """In the first `freeze_epochs` epochs each row's features, on both sides; then images."""
    s = scene({"kind": KIND}, training={"freeze_epochs": 2}, data={"augment": "strong"})
    data, valid = build_data(s.config, s.splits, s.model, CPU)
    pair = {
        "train": (lambda epoch: (b for window in data.updates(epoch) for b in window), s.splits.train),
        "valid": (valid.batches, s.splits.valid),
    }
    for batches, split in pair.values():
        want = reference_features(s, split)
        for epoch in (0, 1):
            rows = []
            for batch in batches(epoch):
                # Not augmented: the features are computed once, of the images as evaluation sees them.
                np.testing.assert_allclose(batch.images.numpy(), want[batch.rows], atol=2e-6)
                assert batch.targets["kind"].tolist() == split.labels["kind"][batch.rows].tolist()
                rows += batch.rows.tolist()
            assert sorted(rows) == list(range(len(want)))
        assert all(batch.images.shape[1:] == (3, SIDE, SIDE) for batch in batches(2))


def test_nothing_is_frozen_or_mixed_unless_asked(scene: Callable[..., Scene]) -> None:
    """By default the first batches are images already, and a window is handed on as it is."""
    s = scene({"kind": KIND})
    data, valid = build_data(s.config, s.splits, s.model, CPU)
    assert data.features is None
    assert next(data.updates(0))[0].images.dtype == torch.uint8
    assert next(valid.batches(0)).images.dtype == torch.uint8
    window = next(data.updates(0))
    assert data.mixing(window, 0) is window


# Mixing


def test_mixing_is_wired(scene: Callable[..., Scene]) -> None:
    """data.mixup, cutmix, mix_share and the seed arrive; labels of class and ordinal targets become shares, others
    are mixed as numbers, and what is unknown stays unknown."""
    mixed = {"mixup": 0.4, "cutmix": 0.7, "mix_share": 0.9}
    targets = {"kind": KIND, "level": LEVEL, "tags": TAGS, "area": AREA}
    s = scene(targets, data=mixed, seed=11, selection={"metric": "kind.macro_f1"})
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    mixing: Any = data.mixing
    assert (mixing.mixup, mixing.cutmix, mixing.share, mixing.seed) == (0.4, 0.7, 0.9, 11)
    assert mixing.classes == {"kind": 3, "level": 3}
    window = next(data.updates(0))
    found = data.mixing(window, 0)
    assert not torch.equal(found[0].images.float(), window[0].images.float())
    shares_BK, hard_B = found[0].targets["level"], window[0].targets["level"]
    assert torch.allclose(shares_BK.sum(dim=1), torch.ones(len(hard_B)))
    assert (shares_BK.gather(1, hard_B[:, None]) > 0).all()
    assert ((shares_BK > 0).sum(dim=1) > 1).any()
    assert (found[0].targets["kind"].sum(dim=1) < 1 - 1e-6).any() == (window[0].targets["kind"] < 0).any()
    assert found[0].targets["area"].min() >= window[0].targets["area"].min()
    assert not torch.equal(found[0].targets["area"], window[0].targets["area"])


# Compiling


@pytest.mark.parametrize(("batch", "micro"), [(64, 0), (50, 0), (64, 10), (7, 3), (1, 0), (33, 40)])
def test_whole_batches_are_compiled_in_whatever_pieces(batch: int, micro: int) -> None:
    """All sizes that a whole batch's parts have, from the given micro-batch down to one image, halved each time that
    memory runs out."""
    whole, most, found = Batch(torch.zeros(batch, 1), {}, np.arange(batch)), micro, set[int]()
    while 1 not in found:
        found |= {len(part) for part in whole.parts(most)}
        most = -(-(most or batch) // 2)
    assert compiled_sizes(batch, micro) == found


# Selection, and what is refused before anything takes time


def test_a_metric_that_the_classes_are_too_few_for(scene: Callable[..., Scene]) -> None:
    """top5_accuracy of three classes would always be 1: refused, and what there is is offered."""
    for metric in ("top5_accuracy", "top3_accuracy"):
        s = scene({"kind": KIND}, selection={"metric": metric})
        with pytest.raises(ConfigError, match=f"selection.metric.*{metric}.*accuracy"):
            check_recipe(s.config, s.splits, s.model)
    fitting = {"column": "area", "edges": [20, 110, 215]}
    s = scene({"area": fitting}, selection={"metric": "top3_accuracy"})
    check_recipe(s.config, s.splits, s.model)  # four classes


def test_what_is_never_answered_is_neither_selected_by_nor_balanced(scene: Callable[..., Scene]) -> None:
    """A metric over validation rows without an answer, and sampling by classes that never meet in a row."""
    s = scene({"kind": KIND, "area": AREA}, selection={"metric": "area.mae"})
    s.splits.valid.labels["area"][:] = np.nan
    with pytest.raises(DataError, match=r"selection\.metric: area\.mae cannot be computed"):
        check_recipe(s.config, s.splits, s.model)
    s = scene({"kind": KIND, "level": LEVEL}, data={"sampling": "balanced"}, selection={"metric": "kind.mcc"})
    s.splits.train.labels["kind"][::2] = -1
    s.splits.train.labels["level"][1::2] = -1
    with pytest.raises(ConfigError, match=r"data\.sampling: found 'balanced', but no training row"):
        check_recipe(s.config, s.splits, s.model)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"optimizer": {"name": "adamw", "options": {"nope": 1}}}, "optimizer.options.nope"),
        ({"schedule": {"name": "cosine", "warmup_epochs": 3.0}}, "schedule.warmup_epochs"),
        ({"loss": {"name": "focal", "class_weights": [1.0, 2.0]}}, "loss.class_weights"),
        ({"training": {"device": "tpu"}}, "training.device"),
    ],
)
def test_a_recipe_is_checked_before_anything_is_measured(
    scene: Callable[..., Scene], sections: dict[str, Any], message: str
) -> None:
    """Optimizer, schedule, loss and device: the error names the key."""
    s = scene({"kind": KIND}, **sections)
    with pytest.raises(ConfigError, match=message):
        check_recipe(s.config, s.splits, s.model)


@pytest.mark.parametrize("name", ["tpu", "mps", "cpu:1", "cuda:99", "no device", ""])
def test_a_device_that_there_is_not(name: str) -> None:
    """Whatever torch may think of the name: only auto, cpu and GPUs that are there."""
    with pytest.raises(ConfigError, match=r"training\.device: found"):
        device_of(name)


def test_worker_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is taken as it is; auto is one a core up to 16 for a GPU, a quarter of the cores up to 8 for a CPU."""
    gpu = torch.device("cuda")
    for cores, on_cpu, on_gpu in ((1, 0, 1), (2, 0, 2), (8, 2, 8), (128, 8, 16)):
        monkeypatch.setattr("classwise.compose.settings.core_count", lambda cores=cores: cores)
        assert (worker_count("auto", CPU), worker_count("auto", gpu)) == (on_cpu, on_gpu)
        assert worker_count(5, CPU) == worker_count(5, gpu) == 5


def test_settling_leaves_no_auto(scene: Callable[..., Scene]) -> None:
    """The resolved config gives the same run again: every `auto` and every part of the augmentation is a value. How
    workers are started and where decoded images are kept is the machine's matter, and changes no
    number; the micro-batch falls where memory runs out."""
    training = {"precision": "auto", "threads": "auto", "device": "auto"}
    data = {"workers": "auto", "augment": {"preset": "standard", "flip": 0.25}}
    s = scene({"kind": KIND}, training=training, data=data)
    settled, device, _plans = resolve_auto(s.config, s.splits, s.model, Console(quiet=True))
    for section in (settled.data, settled.training):
        assert "auto" not in section.model_dump(exclude={"start_method", "cache", "micro_batch"}).values()
    assert settled.training.device == str(device)
    assert settled.data.id == "path"
    parts = settled.data.augment.model_dump()
    assert parts == {"preset": "standard"} | vars(PRESETS["standard"]) | {"flip": 0.25}
    assert augmentation(settled) == augmentation(s.config)
    assert resolve_auto(settled, s.splits, s.model, Console(quiet=True))[0] == settled
    assert make_config(settled.model_dump()) == settled


def test_initial_weights_follow_from_the_seed(scene: Callable[..., Scene]) -> None:
    """The same seed the same bytes, another seed other ones; torch's own generator is left alone."""
    state = torch.get_rng_state()
    one, two, other = (scene({"kind": KIND}, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["backbone.stem.conv.weight"], other["backbone.stem.conv.weight"])
    assert not torch.equal(one["heads.0.weight"], other["heads.0.weight"])


def test_training_images_are_augmented_and_validation_is_not(scene: Callable[..., Scene]) -> None:
    """The preset with its parts; the validation images are the files' own pixels."""
    s = scene({"kind": KIND}, data={"augment": {"preset": "light", "flip": 1.0}})
    assert augmentation(s.config) == PRESETS["light"].__class__(**vars(PRESETS["light"]) | {"flip": 1.0})
    data, valid = build_data(s.config, s.splits, s.model, CPU)
    for batch in valid.batches():
        pixels = batch.images.permute(0, 2, 3, 1).reshape(len(batch), -1).numpy()
        assert (pixels == np.rint(255 * s.pixels[1][batch.rows])).all()
    batch = next(data.updates(0))[0]
    pixels = batch.images.permute(0, 2, 3, 1).reshape(len(batch), -1).numpy()
    assert (pixels != np.rint(255 * s.pixels[0][batch.rows])).any(axis=1).all()
