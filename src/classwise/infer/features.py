"""A backbone's features, computed once for all images: for linear probing and for the baselines."""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.data.loader import Loader
from classwise.data.sampling import batches_of
from classwise.model.classifier import Classifier
from classwise.model.oom import OOMFallback


@torch.no_grad()
def features_of(
    model: Classifier, loader: Loader, device: torch.device, autocast: AbstractContextManager[Any]
) -> Tensor:
    """features_NF (float32, on the host) of all images of the loader, in their order.

    Computed in eval mode, so that batch norm uses its running statistics and dropout is off; the model's mode is
    restored afterwards.
    """
    was_training = model.training
    model.eval()
    parts = []
    forward = OOMFallback(lambda images: {"": model.features(images)})
    for batch in loader.batches(batches_of(np.arange(len(loader.dataset)), loader.batch_size)):
        with autocast:
            features_BF = forward(batch.images.to(device, non_blocking=True))[""]
        parts.append(features_BF.float().cpu())
    model.train(was_training)
    return torch.cat(parts)
