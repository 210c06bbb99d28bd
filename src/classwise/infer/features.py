"""A backbone's features, computed once for all images: for linear probing and for the baselines."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.data.loader import Loader
from classwise.data.sampling import batches_of
from classwise.errors import Interrupted
from classwise.model.classifier import Classifier
from classwise.model.oom import OOMFallback
from classwise.training.loop import never


@torch.no_grad()
def features_of(
    model: Classifier,
    loader: Loader,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    should_stop: Callable[[], bool] = never,
) -> Tensor:
    """features_NF (float32, on the host) of all images of the loader, in their order.

    Computed in eval mode, so that batch norm uses its running statistics and dropout is off; the model's mode is
    restored afterwards. Raises Interrupted if asked to stop.
    """
    was_training = model.training
    model.eval()
    parts = []
    forward = OOMFallback(lambda images: {"": model.features(images)})
    for batch in loader.batches(batches_of(np.arange(len(loader.dataset)), loader.batch_size)):
        with autocast:
            features_BF = forward(batch.images.to(device, non_blocking=True))[""]
        parts.append(features_BF.float().cpu())
        if should_stop():
            raise Interrupted("stopped while features of the backbone were computed")
    model.train(was_training)
    return torch.cat(parts)
