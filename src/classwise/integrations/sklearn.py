"""scikit-learn: an image classifier with its interface, for cross-validation, grid search and pipelines."""

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import tomli_w
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.data.images import MAX_PIXELS
from classwise.data.memory_images import file_bytes, image_of, is_in_memory
from classwise.files import numbered
from classwise.run.api import Run, train
from classwise.run.bundle import bundle, write_bundle
from classwise.run.folder import RunFolder
from classwise.suggest.backbone import FROM_SCRATCH, BackboneChoice, choose_backbone
from classwise.suggest.config import SAMPLED_IMAGES, suggest
from classwise.suggest.guess import Guess

TABLE = "samples.parquet"


class ClasswiseClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier with scikit-learn's interface.

        classifier = ClasswiseClassifier(random_state=0).fit(paths, labels)
        cross_val_score(classifier, paths, labels, scoring="f1_macro", cv=5)

    X of `fit`, `predict` and `predict_proba` are N images: paths, the bytes of files, images of Pillow's, arrays
    (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16, in a list of any of these, or as one array (N, H, W[, C]).
    Images in memory are trained on as PNG files with the same pixels. y are N labels of any kind that scikit-learn
    takes: texts, numbers, booleans. Each fit is a run of its own, configured as `classwise init` would.

    backbone: a name as in model.backbone; auto: what `init` takes, without asking a hub.
    weights: as in model.weights; auto: those that go with `backbone="auto"`, and none for another backbone. With
        `backbone="auto"` only auto and none.
    image_size: (height, width); auto: about that of the images.
    plan: training.plan: auto, probe (fits the heads to a frozen backbone, which takes seconds), probe_then_finetune,
        finetune.
    epochs, batch_size, lr: None: what `init` takes.
    augment: data.augment: none, light, standard, strong.
    validation_fraction: the share of the rows that chooses the epoch, drawn by class and within `groups`; 0 trains on
        all rows and keeps the last epoch.
    device: training.device.
    random_state: the seed; two fits with the same number give the same model. None: another one each time.
    run_dir: a folder in which each fit leaves its run directory (fit, fit-2, ...), with its report. None: a temporary
        one, which is removed with the estimator.
    config: further keys by their dotted names, such as {"loss.name": "focal", "report.resamples": 200}.
    verbose: whether training prints its lines to standard error.

    Attributes after `fit`: `classes_` (K,), `run_` (a `classwise.Run`, to evaluate, export or report).
    """

    def __init__(
        self,
        backbone: str = "auto",
        *,
        weights: str = "auto",
        image_size: Any = "auto",
        plan: str = "auto",
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        augment: str = "light",
        validation_fraction: float = 0.2,
        device: str = "auto",
        random_state: Any = None,
        run_dir: Any = None,
        config: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.plan = plan
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.augment = augment
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state
        self.run_dir = run_dir
        self.config = config
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> Self:
        """Train on N images X and labels y. `groups` (N,): rows of one group never stand on both sides of the
        validation split. `sample_weight` (N,): each row's part of the loss, 1 is average.

        Raises ValueError for what does not fit together, ClasswiseError for images and settings that cannot be used.
        """
        images = images_of(X)
        classes_K, columns = _table_columns(images, y, groups, sample_weight)
        size = _usual_size(images)

        # Until the new model is there, the estimator keeps an earlier one with its folder.
        kept = _TemporaryFolder() if self.run_dir is None else None
        folder = _new_folder(Path(self.run_dir)) if kept is None else kept.path
        columns["path"] = _paths(images, folder)
        pl.DataFrame(columns).write_parquet(folder / TABLE)
        config = self._run_config(folder, columns, _names(classes_K), size)
        self.run_ = train(config, folder / "run", quiet=not self.verbose)
        self.classes_, self._folder = classes_K, kept
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The label of each of N images, (N,), of `classes_`."""
        class_N, _ = self._predicted(X)
        return self.classes_[class_N]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """The probabilities (N, K) of each label, in the order of `classes_`, in single precision: those of a row may
        differ in the seventh digit with the rows beside it."""
        return self._predicted(X)[1]

    def _predicted(self, X: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The predicted classes (N,) and the probabilities (N, K)."""
        check_is_fitted(self)
        images = images_of(X)
        names = _names(self.classes_)
        table = self.run_.predict(images, ids=[str(row) for row in range(len(images))], probabilities="all")
        p_NK = table.select([f"label_p_{name}" for name in names]).to_numpy().astype(np.float64)
        number_of = {name: k for k, name in enumerate(names)}
        class_N = np.array([number_of[name] for name in table["label"].to_list()], np.int64)
        return class_N, p_NK / p_NK.sum(axis=1, keepdims=True)

    def __sklearn_tags__(self) -> Tags:
        """Images: N of them, or an array of three axes (gray) or four, and no table of features."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """A fitted estimator's pickle holds the files that predict (run/bundle.py), not the images nor the split."""
        state = dict(super().__getstate__())
        if "run_" in state:
            state |= {"run_": bundle(self.run_.folder), "_folder": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "run_" in state:
            self._folder = _TemporaryFolder()
            write_bundle(state["run_"], self._folder.path)
            # The run's own code, if any, still has to be trusted: the first prediction says how.
            self.run_ = Run(RunFolder(self._folder.path))

    def _run_config(
        self, folder: Path, columns: Mapping[str, Any], labels: Sequence[str], size: tuple[int, int]
    ) -> Config:
        """What `init` would write for images of this size (height, width), and the constructor's arguments over it."""
        data = {"source": str(folder / TABLE), "images": folder.anchor, "path": "path", "id": "id"}
        data |= {key: key for key in ("group", "weight") if key in columns}
        guess = Guess(
            table=pl.DataFrame(),
            folders=[Path(folder.anchor)],
            data={**data, "valid": self.validation_fraction},
            targets={"label": {"column": "label", "labels": list(labels)}},
        )
        choice = self._backbone_choice(*size)
        tree = suggest(guess, "fit", choice, height=size[0], width=size[1], prior=None).to_dict()
        # What is measured, such as how many epochs there is time for, would make two fits differ.
        del tree["training"]["minutes"]
        given = {
            "seed": _seed(self.random_state),
            "data.workers": 0,
            "data.cache": "off",
            "training.precision": "fp32",
            "training.threads": torch.get_num_threads(),
            "report.baselines": False,
            "report.resamples": 0,
            "model.image_size": self._given_size(),
            "training.plan": self.plan,
            "training.epochs": self.epochs,
            "training.batch_size": self.batch_size,
            "optimizer.lr": self.lr,
            "data.augment": self.augment,
            "training.device": self.device,
            **(self.config or {}),
        }
        overrides = [(key, _toml(value)) for key, value in given.items() if value is not None]
        return make_config(tree, overrides, where="ClasswiseClassifier")

    def _given_size(self) -> Any:
        """model.image_size, None for `auto`; what is no pair is for the config to refuse."""
        if isinstance(self.image_size, str):
            return None if self.image_size == "auto" else self.image_size
        return list(self.image_size) if isinstance(self.image_size, Iterable) else self.image_size

    def _backbone_choice(self, height: int, width: int) -> BackboneChoice:
        if self.backbone == "auto" and self.weights not in ("auto", "none"):
            raise ValueError(
                f"weights: found {self.weights!r} with backbone='auto'; allowed: auto or none. For these weights name"
                " their backbone"
            )
        if self.backbone != "auto":
            weights = "none" if self.weights == "auto" else self.weights
            return BackboneChoice(self.backbone, weights, "as asked for")
        return FROM_SCRATCH if self.weights == "none" else choose_backbone(height, width, hub=False)


class _TemporaryFolder:
    """A folder that is removed when nobody refers to this any more, by the process that made it: a forked one has a
    copy of this object, too."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="classwise-"))
        weakref.finalize(self, _remove, str(self.path), os.getpid())


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)


def _new_folder(base: Path) -> Path:
    """An empty folder in `base` for a fit."""
    for folder in numbered(base / "fit"):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder.absolute()
    raise AssertionError  # there is no last number


def images_of(X: Any) -> list[Any]:
    """The N images of X; see ClasswiseClassifier. Raises ValueError for what are no images, and for a single one."""
    if (is_in_memory(X) and not isinstance(X, np.ndarray)) or isinstance(X, str | Path):
        raise ValueError(f"X: found a single {type(X).__name__}; allowed: N images, such as a list of one")
    if issparse(X):
        raise TypeError(
            "X: found a sparse matrix, which holds no images; allowed: N images, such as (N, H, W, C)"
        )
    if callable(getattr(X, "to_list", None)):  # a column of pandas or polars
        X = X.to_list()
    images = list(_unstacked(np.asarray(X))) if hasattr(X, "__array__") else list(X)
    if not images:
        raise ValueError("X: Found array with 0 sample(s); a minimum of 1 is required")
    for row, image in enumerate(images):
        if not is_in_memory(image) and not isinstance(image, str | Path):
            raise ValueError(
                f"X: found {type(image).__name__} in row {row} for an image; allowed: a path, the bytes of a file, an"
                " array (H, W[, C]) of uint8, an image of Pillow's"
            )
    return images


def _unstacked(X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N,) of anything or (N, H, W[, C]) of pixels. Raises ValueError."""
    if X.ndim == 1 and X.dtype.kind in "OU":
        return X
    is_pixels = X.dtype in (np.uint8, np.uint16)
    if X.ndim == 3 and X.shape[2] in (3, 4) and is_pixels:
        raise ValueError(
            f"X: found an array {X.shape}, which may be one image or gray ones of {X.shape[2]} px; Reshape your data:"
            " X[None] is one image, X[..., None] are gray ones"
        )
    if X.ndim not in (3, 4) or not is_pixels:
        raise ValueError(
            f"X: found an array {X.shape} of {X.dtype}, which are no images; allowed: (N, H, W) or (N, H, W, C) of"
            " uint8 (0 to 255) or uint16, or N paths. Reshape your data, and bring it to 0 to 255"
        )
    return X


def _table_columns(
    images: Sequence[Any], y: Any, groups: Any, sample_weight: Any
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """The labels in order (K,), and the columns of the table of the training rows but that of the paths. Raises
    ValueError."""
    if y is None:
        raise ValueError("ClasswiseClassifier requires y to be passed, but the target y is None")
    y = column_or_1d(y, warn=True)
    check_consistent_length(images, y, groups, sample_weight)
    check_classification_targets(y)
    classes_K, class_N = np.unique(y, return_inverse=True)
    if len(classes_K) < 2:
        raise ValueError(f"y: found one class, {classes_K[0]}; allowed: two classes or more")
    names = _names(classes_K)
    columns: dict[str, Any] = {
        "id": [str(row) for row in range(len(images))],
        "label": [names[k] for k in class_N],
    }
    if groups is not None:
        columns["group"] = [str(group) for group in groups]
    if sample_weight is not None:
        weights_N = _check_sample_weight(sample_weight, y, dtype=np.float64, ensure_non_negative=True)
        if not weights_N.any():
            raise ValueError("sample_weight: found weights that are all zero; allowed: one above 0")
        columns["weight"] = weights_N
    return classes_K, columns


def _usual_size(images: Sequence[Any]) -> tuple[int, int]:
    """The median (height, width) of some of the images. Raises ImageError."""
    rows = range(0, len(images), max(1, len(images) // SAMPLED_IMAGES))
    sizes = [image_of(images[row], str(row), MAX_PIXELS, None).shape[:2] for row in rows]
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)


def _paths(images: Sequence[Any], folder: Path) -> list[str]:
    """The path of each image from the root of the file system on; images in memory are written below `folder`."""
    paths = []
    for row, image in enumerate(images):
        path = folder / "images" / f"{row:06}.png"
        if is_in_memory(image):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(file_bytes(image, str(row)))
        else:
            path = Path(image).absolute()
        paths.append(path.relative_to(folder.anchor).as_posix())
    return paths


def _names(classes_K: npt.NDArray[Any]) -> list[str]:
    """The labels of the run: those of y as text or, where two of them would be alike or one is empty, their numbers."""
    names = [str(label) for label in classes_K]
    is_clean = len({name.strip() for name in names} - {""}) == len(names)
    return names if is_clean else [str(k) for k in range(len(names))]


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _toml(value: Any) -> str:
    """A plain value as TOML, which the overrides of a config are written in."""
    return tomli_w.dumps({"value": value}).partition("=")[2].strip()
