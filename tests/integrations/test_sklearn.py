"""ClasswiseClassifier in scikit-learn's tools, with every kind of image and label, and in scikit-learn's own checks."""

import functools
import gc
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from classwise import ClasswiseClassifier
from classwise.errors import ConfigError, ImageError

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-2, "weights": "none", "augment": "none"}


@pytest.fixture(autouse=True)
def quick_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of runs that nobody needs after a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def quick(**changes: Any) -> ClasswiseClassifier:
    return ClasswiseClassifier(**{**QUICK, "random_state": 0, **changes})


def stripes(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """(N, 8, 8) uint8: noise with bright rows (label 0), bright columns (1) or neither (2)."""
    rng = np.random.default_rng(0)
    images_NHW = rng.integers(0, 100, (count, 8, 8), dtype=np.uint8)
    label_N = np.arange(count) % 3
    images_NHW[label_N == 0, ::2] += 150
    images_NHW[label_N == 1, :, ::2] += 150
    return images_NHW, label_N


def files(images_NHW: np.ndarray, folder: Path) -> list[Path]:
    paths = [folder / f"{row}.png" for row in range(len(images_NHW))]
    for path, image in zip(paths, images_NHW, strict=True):
        Image.fromarray(image).save(path)
    return paths


KINDS: dict[str, Callable[[np.ndarray, list[Path]], Any]] = {
    "(N, H, W, 1)": lambda images, paths: images[..., None],
    "(N, H, W, 3)": lambda images, paths: np.repeat(images[..., None], 3, axis=3),
    "a list of arrays": lambda images, paths: list(images),
    "paths": lambda images, paths: paths,
    "texts": lambda images, paths: [str(path) for path in paths],
    "an array of texts": lambda images, paths: np.array([str(path) for path in paths]),
    "a column of pandas": lambda images, paths: pd.Series([str(path) for path in paths]),
    "a column of polars": lambda images, paths: pl.Series([str(path) for path in paths]),
    "bytes": lambda images, paths: [path.read_bytes() for path in paths],
    "images of Pillow": lambda images, paths: [Image.open(path) for path in paths],
    "some of each": lambda images, paths: [*paths[:9], *images[9:]],
}


@pytest.fixture(scope="module")
def of_arrays() -> np.ndarray:
    """The probabilities of a model that was trained on an array."""
    images, labels = stripes()
    return quick().fit(images, labels).predict_proba(images)


REPEATED_KINDS = ("(N, H, W, 3)", "texts", "an array of texts", "a column of pandas", "a list of arrays")
"""Which are lists of the same as others are."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.full] if kind in REPEATED_KINDS else []) for kind in KINDS]
)
def test_any_kind_of_image(kind: str, of_arrays: np.ndarray, tmp_path: Path) -> None:
    """The same pixels give the same model and the same answers, to the bit, however they are handed over."""
    images, labels = stripes()
    X = KINDS[kind](images, files(images, tmp_path))
    found = quick().fit(X, labels).predict_proba(X)
    np.testing.assert_array_equal(found, of_arrays)


@pytest.mark.parametrize(
    "names",
    [
        ["고양이", 'a "dog"', "it's, an eel"],
        [30, -1, 7],
        ["x", "x ", " "],
        np.array([2.0, 1.0, 0.0]),
        ["null", "nan", "NA"],
    ],
)
def test_any_kind_of_label(names: Any) -> None:
    """`classes_` are those of numpy, predictions have their type, and columns of probabilities their order."""
    images, labels = stripes()
    y = np.array(names)[labels]
    fitted = quick().fit(images, y)
    np.testing.assert_array_equal(fitted.classes_, np.unique(y))
    predicted = fitted.predict(images)
    assert predicted.dtype == y.dtype
    probabilities = fitted.predict_proba(images)
    np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], predicted)
    assert fitted.score(images, y) > 0.6


def test_two_labels_that_are_booleans() -> None:
    """As from a comparison."""
    images, labels = stripes()
    fitted = quick().fit(images, labels == 1)
    assert fitted.classes_.dtype == bool
    assert fitted.score(images, labels == 1) > 0.6


def test_in_scikit_learns_tools() -> None:
    """Cross-validation with groups, a grid over arguments, and a pipeline whose first step makes the images."""
    images, labels = stripes(36)
    groups = np.arange(36) // 3
    scores = cross_val_score(quick(), images, labels, groups=groups, cv=GroupKFold(2), scoring="f1_macro")
    assert scores.shape == (2,)
    assert scores.min() > 0.5
    search = GridSearchCV(quick(), {"lr": [1e-5, 1e-2], "epochs": [2]}, cv=2, error_score="raise")
    assert search.fit(images, labels).best_params_["lr"] == 1e-2
    inverted = FunctionTransformer(lambda X: 255 - X)
    pipeline = Pipeline([("invert", inverted), ("classify", quick())])
    assert pipeline.fit(images, labels, classify__groups=groups).score(images, labels) > 0.6
    np.testing.assert_array_equal(
        pipeline.predict_proba(images), pipeline["classify"].predict_proba(255 - images)
    )


def test_groups_stay_together() -> None:
    """No group has rows on both sides of the split that chooses the epoch."""
    images, labels = stripes(36)
    fitted = quick().fit(images, labels, groups=[f"g{row // 4}" for row in range(36)])
    split = fitted.run_.folder.split()
    assert set(split["split"]) == {"train", "valid"}
    assert split.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1


def test_weights_change_what_is_learned() -> None:
    """Rows of a class that weigh nothing are not learned."""
    images, labels = stripes()
    weights = np.where(labels == 0, 0.0, 1.0)
    weighted, plain = quick().fit(images, labels, sample_weight=weights), quick().fit(images, labels)
    of_class = labels == 0
    shares = [one.predict_proba(images[of_class])[:, 0].mean() for one in (weighted, plain)]
    assert shares[0] < shares[1] / 2


def test_seeds() -> None:
    """The same number gives the same model, another one another, a RandomState goes on, and None draws anew."""
    images, labels = stripes()

    def fitted(state: Any) -> bytes:
        return quick(epochs=1, random_state=state).fit(images, labels).predict_proba(images).tobytes()

    assert fitted(3) == fitted(np.int64(3)) != fitted(4)
    generator = np.random.RandomState(5)
    assert fitted(generator) != fitted(generator)
    assert fitted(None) != fitted(None)


def test_a_pickle_stands_on_its_own() -> None:
    """It predicts when the first estimator and its folder are gone, and holds neither images nor paths."""
    images, labels = stripes()
    fitted = quick().fit(images, labels)
    expected, folder = fitted.predict_proba(images), fitted.run_.path.parent
    text = pickle.dumps(fitted)
    assert folder.is_dir()
    assert os.fsencode(folder) not in text
    assert b"PNG" not in text
    del fitted
    gc.collect()
    assert not folder.exists()
    restored = pickle.loads(text)
    np.testing.assert_array_equal(restored.predict_proba(images), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(restored)).predict_proba(images), expected)


def test_the_folder_of_a_fit_is_removed_with_the_next() -> None:
    """A search over many arguments leaves nothing behind."""
    images, labels = stripes()
    estimator = quick(epochs=1).fit(images, labels)
    first = estimator.run_.path
    second = estimator.fit(images, labels).run_.path
    assert not first.exists()
    assert second.exists()


def test_a_fit_that_fails_leaves_the_earlier_model() -> None:
    """Which predicts as it did."""
    images, labels = stripes()
    estimator = quick(epochs=1).fit(images, labels)
    before = estimator.predict_proba(images)
    with pytest.raises(ConfigError):
        estimator.set_params(epochs=0).fit(images, labels == 0)
    np.testing.assert_array_equal(estimator.predict_proba(images), before)
    assert len(estimator.classes_) == 3


def test_run_directories_are_kept_where_asked(tmp_path: Path) -> None:
    """One for each fit, with its report; a clone has none."""
    images, labels = stripes()
    estimator = quick(epochs=1, run_dir=tmp_path / "fits")
    for _ in range(2):
        estimator.fit(images, labels)
    del estimator
    gc.collect()
    assert sorted(path.name for path in (tmp_path / "fits").iterdir()) == ["fit", "fit-2"]
    assert (tmp_path / "fits" / "fit" / "run" / "report.html").is_file()


def test_arguments_reach_the_run() -> None:
    """Those with a name of their own, and any other key by `config`, which goes first; labels keep their names."""
    images, labels = stripes()
    config = {
        "loss.name": "focal",
        "optimizer.lr": 0.02,
        "report.resamples": 20,
        "training.batch_size": 4,
        "seed": 17,
    }
    estimator = quick(image_size=(8, 12), plan="finetune", config=config, validation_fraction=0.5, epochs=1)
    run = estimator.fit(images, np.array(["a", "b", "c"])[labels]).run_
    resolved = run.folder.config.read_text()
    for line in (
        "image_size = [8, 12]",
        'name = "focal"',
        "lr = 0.02",
        "batch_size = 4",
        'plan = "finetune"',
        "valid = 0.5",
        "seed = 17",
    ):
        assert line in resolved
    assert run.metrics["targets"]["label"]["labels"] == ["a", "b", "c"]
    assert "intervals" in run.metrics["targets"]["label"]
    assert clone(estimator).get_params() == estimator.get_params()


def test_wrong_arguments_are_refused_at_fit() -> None:
    """By their key, as everywhere; none is left out without a word."""
    images, labels = stripes()
    with pytest.raises(ConfigError, match=r"model\.image_size"):
        quick(image_size="large").fit(images, labels)
    with pytest.raises(ConfigError, match=r"model\.image_size"):
        quick(image_size=64).fit(images, labels)
    with pytest.raises(ValueError, match=r"weights: found 'mine\.safetensors' with backbone='auto'"):
        quick(weights="mine.safetensors").fit(images, labels)
    with pytest.raises(ConfigError, match=r"loss\.nam"):
        quick(config={"loss.nam": "focal"}).fit(images, labels)
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        quick(epochs=0).fit(images, labels)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((6, 4)), r"array \(6, 4\) of float64.*Reshape your data"),
        (np.zeros((6, 8, 8)), "of float64, which are no images"),
        (np.zeros((6, 8, 3), np.uint8), "may be one image or gray ones"),
        (np.zeros((2, 6, 8, 8, 3), np.uint8), "which are no images"),
        (pd.DataFrame({"path": ["a"] * 6}), r"array \(6, 1\) of"),
        ("photos", "a single str"),
        (Image.new("L", (8, 8)), "a single Image"),
        ([[1, 2]] * 6, "found list in row 0 for an image"),
        ([], "0 sample"),
    ],
)
def test_what_are_no_images_is_refused(X: Any, message: str) -> None:
    """With a ValueError, which scikit-learn's tools expect."""
    with pytest.raises(ValueError, match=message):
        quick().fit(X, [0, 1, 2, 0, 1, 2])


def test_other_mistakes() -> None:
    """Labels that are numbers to estimate, one class, another count; a file that is no image."""
    images, labels = stripes()
    for y, message in (
        (np.linspace(0, 1, 24), "Unknown label type"),
        ([1] * 24, "found one class, 1"),
        (labels[:5], "inconsistent numbers of samples"),
        (None, "requires y to be passed"),
    ):
        with pytest.raises(ValueError, match=message):
            quick().fit(images, y)
    with pytest.raises(ImageError, match=r"absent\.png"):
        quick().fit(["absent.png", *images[1:]], labels)
    with pytest.raises(ImageError, match=r"^80: not an image"):
        quick().fit([*np.repeat(images, 4, axis=0)[:80], b"none", *images[:15]], np.arange(96) % 3)
    with pytest.raises(NotFittedError):
        quick().predict(images)


def drawn(X: np.ndarray) -> np.ndarray:
    """A table of numbers as images (N, 8, W): each number the brightness of a column."""
    X = np.asarray(X, np.float64)
    columns_NW = (127.5 + 60 * np.arctan(X / 2) + 30 * np.sin(X)).astype(np.uint8)
    images_NHW = np.repeat(columns_NW[:, None, :], 8, axis=1)
    wide_NHW = np.repeat(images_NHW, -(-8 // images_NHW.shape[2]), axis=2)
    return wide_NHW[..., None]


class OfTables(ClasswiseClassifier):
    """The classifier on tables of numbers, drawn: scikit-learn's checks have no images."""

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> "OfTables":
        X, y = validate_data(self, X, y)
        return super().fit(drawn(X), y, groups, sample_weight)

    def predict(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().predict(drawn(validate_data(self, X, reset=False)))

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().predict_proba(drawn(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = False
        tags.input_tags.two_d_array = True
        return tags


EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "a row that comes twice is two rows to the split and to the order"
    " of an epoch, not one of double weight",
    "check_array_api_input": "images are read on the host, as numpy arrays",
}


REPEATED = (
    "check_classifiers_train(readonly_memmap",
    "check_classifiers_classes",
    "check_estimators_dtypes",
    "check_fit_score_takes_y",
    "check_estimators_pickle(readonly_memmap",
)
"""Checks that take longest, and fit again what others have fitted."""


def checks() -> list[Any]:
    """scikit-learn's checks with their names; those that repeat others are `full`."""
    estimator = OfTables(**QUICK, random_state=0, image_size=(8, 8))
    found = []
    for own, check in estimator_checks_generator(estimator):
        arguments = ",".join(f"{key}={value}" for key, value in check.keywords.items())
        name = check.func.__name__ + (f"({arguments})" if arguments else "")
        marks = [pytest.mark.full] if name.startswith(REPEATED) else []
        if check.func.__name__ in EXPECTED_FAILURES:
            marks.append(pytest.mark.xfail(reason=EXPECTED_FAILURES[check.func.__name__]))
        found.append(pytest.param(own, check, marks=marks, id=name))
    return found


IN_OTHER_BATCHES = ("check_methods_subset_invariance", "check_methods_sample_order_invariance")
"""Checks whose rows come in other batches the second time. By default they allow a relative difference of 1e-7, less
than one step of fp32 (1.2e-7), and the sums of oneDNN and MKL take another order in a batch of another size."""


@pytest.mark.parametrize(("estimator", "check"), checks())
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those in EXPECTED_FAILURES."""
    if check.func.__name__ in IN_OTHER_BATCHES:
        for name in ("assert_allclose", "assert_allclose_dense_sparse"):
            near = functools.partial(getattr(estimator_checks, name), rtol=2e-6)
            monkeypatch.setattr(estimator_checks, name, near)
    check(estimator)


def test_without_tables_scikit_learn_checks_nothing() -> None:
    """The tags say that a table of features is refused, for which there is hardly a check: hence the one above."""
    with pytest.warns(SkipTestWarning, match="Can't test estimator ClasswiseClassifier"):
        check_estimator(ClasswiseClassifier())
