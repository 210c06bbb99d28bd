"""The model that a service runs: from the bytes of an image file to an array, from arrays to answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.compose.settings import device_of
from classwise.console import Console
from classwise.data.fit import fit_image
from classwise.data.images import decode_image, min_image_size
from classwise.infer.engines import Engine
from classwise.kfold.api import Folds
from classwise.model.heads import Head
from classwise.run.api import Run
from classwise.run.predictor import Predictor, set_threads
from classwise.serve.answers import joint_answers, target_answers
from classwise.serve.engine import service_engine
from classwise.serve.schemas import Health, ImageAnswer, TargetInfo
from classwise.version import __version__

PreparedImage = npt.NDArray[np.uint8]
"""(H, W, C) at the model's size."""
NOT_FINITE = "the model's outputs for this image are not finite numbers"


@dataclass(frozen=True)
class ServedModel:
    """A trained model, opened. `engine`: what computes its outputs, called `engine_name`; `max_pixels`: of an image;
    `counts`: by target, how many training images each label has, where the run says so."""

    name: str
    predictor: Predictor
    engine: Engine
    engine_name: str
    max_pixels: int
    counts: Mapping[str, Mapping[str, int]]

    def prepare(self, data: bytes | bytearray) -> PreparedImage:
        """The bytes of an image file as the model's input, by the steps of `predict`. Raises ImageError."""
        metadata = self.predictor.model.metadata
        image_HWC = decode_image(
            bytes(data),
            "image",
            max_pixels=self.max_pixels,
            min_size=min_image_size(metadata.image_size),
            pixels=metadata.pixels,
        )
        return fit_image(image_HWC, metadata.image_size, metadata.fit)

    def answers(self, images: Sequence[PreparedImage]) -> list[ImageAnswer]:
        """The answers for a batch of prepared images, in their order, without names."""
        # (B, H, W, C) -> (B, C, H, W), as a view.
        images_BCHW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        outputs = self.engine(images_BCHW)
        is_finite_B = torch.stack([raw.isfinite().all(dim=1) for raw in outputs.values()]).all(dim=0)

        # One such image must not spoil its batch.
        finite = outputs if is_finite_B.all() else {name: raw[is_finite_B] for name, raw in outputs.items()}
        answers = iter(self._answers_of(finite)) if is_finite_B.any() else iter(())
        return [
            next(answers) if is_finite else ImageAnswer(error=NOT_FINITE)
            for is_finite in is_finite_B.tolist()
        ]

    def _answers_of(self, outputs: Mapping[str, Tensor]) -> list[ImageAnswer]:
        """The answers for outputs (B, outputs) by target, all finite."""
        predictor = self.predictor
        by_target = {
            name: target_answers(head, outputs[name], predictor.labels.get(name, ()))
            for name, head in predictor.heads.items()
        }
        joint = predictor.joint
        joined = joint_answers(joint, predictor.heads, outputs, by_target) if joint else []
        rows = len(next(iter(outputs.values())))
        return [
            ImageAnswer(
                targets={name: answers[row] for name, answers in by_target.items()},
                joint=joined[row] if joined else None,
            )
            for row in range(rows)
        ]

    def health(self, max_images: int, max_bytes: int) -> Health:
        """What /health says."""
        predictor = self.predictor
        metadata = predictor.model.metadata
        return Health(
            status="ready",
            version=__version__,
            model=self.name,
            backbone=Path(metadata.backbone).name,  # a backbone of the user's own is a path
            image_size=metadata.image_size,
            models=max(1, len(predictor.members)),
            engine=self.engine_name,
            targets={name: self._target_info(name, head) for name, head in predictor.heads.items()},
            max_images=max_images,
            max_bytes=max_bytes,
        )

    def _target_info(self, name: str, head: Head) -> TargetInfo:
        counts = self.counts.get(name)
        return TargetInfo(
            type=head.type,
            labels=list(self.predictor.labels.get(name, ())),
            training_images=dict(counts) if counts else None,
        )


def served_model(opened: Run | Folds, engine: str, max_pixels: int | None, console: Console) -> ServedModel:
    """The model of a run, or of folds, ready to answer. `engine`: see `service_engine`; `max_pixels`: default
    data.max_pixels of the run. Sets torch's number of threads to the run's. Raises ClasswiseError."""
    config, predictor = opened.for_inference(console)
    set_threads(config)
    device = device_of("auto" if config.training.device.startswith("cuda") else config.training.device)
    run, name = service_engine(predictor, engine, device, console.line)
    model = ServedModel(
        name=opened.path.resolve().name,
        predictor=predictor,
        engine=run,
        engine_name=name,
        max_pixels=config.data.max_pixels if max_pixels is None else max_pixels,
        counts=_training_counts(opened),
    )
    # What is set up at the first use is set up now.
    metadata = predictor.model.metadata
    model.answers([np.zeros((*metadata.image_size, metadata.channels), dtype=np.uint8)])
    return model


def _training_counts(opened: Run | Folds) -> dict[str, dict[str, int]]:
    """How many training images each label has, by target, from status.json; empty where it does not say."""
    labels = opened.status.get("data", {}).get("labels", {})
    found: dict[str, dict[str, int]] = {}
    for target, rows in labels.items():
        counts = {row["label"]: row["train"] for row in rows if isinstance(row.get("train"), int)}
        if counts and len(counts) == len(rows):
            found[target] = counts
    return found
