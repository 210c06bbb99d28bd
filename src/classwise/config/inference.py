"""The config of how trained models predict: [inference]."""

from typing import Literal

from pydantic import Field

from classwise.config.base import Section


class Inference(Section):
    """[inference]: how predict, evaluate and submit use the trained model, or all models of folds. It changes nothing
    that is learned, so a run's config.toml may be edited here."""

    tta: Literal["none", "flip", "flip+scale", "auto"] = Field(
        "none",
        description="test-time augmentation, whose probabilities are averaged: none | flip (the image and its mirror"
        " image) | flip+scale (both also enlarged) | auto (what out-of-fold rows show a gain for; with `classwise"
        " folds` only)",
    )
    ensemble: Literal["probabilities", "logits"] = Field(
        "probabilities",
        description="what is averaged over the models of folds: probabilities | logits (the geometric mean of the"
        " probabilities)",
    )
