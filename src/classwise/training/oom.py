"""Training goes on in smaller chunks where memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import torch

from classwise.data.epochs import TrainingData
from classwise.errors import ConfigError, OutOfMemory
from classwise.training.state import TrainState

T = TypeVar("T")


def silent(size: int) -> None:
    """Nobody is told that chunks are smaller now."""


def retry_in_smaller_chunks(
    train: Callable[[], T], state: TrainState, data: TrainingData, report: Callable[[int], None] = silent
) -> T:
    """What `train` returns, which is called again with half as many images at once each time that memory runs out.
    `report` is then told their number.

    The update that did not fit has changed nothing, and `train` goes on with it. Raises ConfigError where not even one
    image fits.
    """
    while True:
        try:
            return train()
        except OutOfMemory as error:
            reason = str(error)
        halve_chunks(state, data, reason)  # once the error is gone, whose frames hold tensors
        report(state.progress.chunk_size)


def halve_chunks(state: TrainState, data: TrainingData, reason: str) -> None:
    """Half as many images at once from now on. With the update's normalizer, the gradient stays that of one batch, as
    far as an image's outputs do not depend on the others: batch norm sees smaller batches from here on."""
    size = state.progress.chunk_size or data.loader.batch_size
    if size == 1 or not state.criterion.additive or data.queries is not None:
        what = (
            "one image" if size == 1 else "a batch that cannot be computed in parts (soft F1, whole queries)"
        )
        raise ConfigError(f"training.batch_size: {what} does not fit the device's memory: {reason}")
    state.progress.chunk_size = -(-size // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
