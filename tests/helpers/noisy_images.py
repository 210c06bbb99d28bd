"""Noisy images with labels of four types, and what comes of a config for them before training."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from classwise.compose.baselines import Baselines, run_baselines
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import build_model
from classwise.config.schema import Config
from classwise.model.classifier import Classifier
from classwise.model.heads import Head

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
        """The images of both splits as values from 0 to 1, (N, SIDE * SIDE * 3), read by OpenCV alone."""
        return tuple(
            np.stack([cv2.imread(str(path))[:, :, ::-1].ravel() / 255 for path in split.samples.paths])
            for split in (self.splits.train, self.splits.valid)
        )

    def labels(self, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """A target's labels, training and validation."""
        return self.splits.train.labels[name], self.splits.valid.labels[name]

    def baselines(self) -> Baselines:
        return run_baselines(self.config, self.splits, self.model, self.heads, CPU)


def reference_features(s: Scene, split: Any) -> npt.NDArray[np.float32]:
    """The backbone in eval mode on normalized pixels, written out; one image at a time."""
    body = build_model(s.config, s.heads).backbone.eval()
    rows = []
    for path in split.samples.paths:
        image = cv2.imread(str(path))[:, :, ::-1] / 255
        x = torch.tensor(((image - 0.5) / 0.5).transpose(2, 0, 1)[None], dtype=torch.float32)
        with torch.no_grad():
            rows.append(body(x)[0].numpy())
    return np.stack(rows)
