"""Images in which a bright checkered patch marks the class, and models that have learned so."""

import numpy as np
import torch
from torch import Tensor

from classwise.explain.model import ExplainedModel
from classwise.infer.ensemble import as_decoded
from classwise.model.classifier import Classifier
from classwise.model.heads import ClassHead

HEADS = {"mark": ClassHead(2)}
MARKED = {"mark": torch.tensor([1])}


def planted_images(count: int, size: int, patch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """images_BCHW (uint8) of noise, half of them with a patch at a random place; their classes (B,); and the places of
    the patches, (B, H, W) bool."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 3, size, size), dtype=np.uint8)
    places = np.zeros((count, size, size), dtype=bool)
    checkers = 135 * ((np.add.outer(np.arange(patch), np.arange(patch)) // 4) % 2).astype(np.uint8) + 120
    for row in range(1, count, 2):
        top, left = rng.integers(0, size - patch + 1, 2)
        images[row, :, top : top + patch, left : left + patch] = checkers
        places[row, top : top + patch, left : left + patch] = True
    return torch.from_numpy(images), torch.arange(count) % 2, torch.from_numpy(places)


def trained(model: Classifier, size: int, patch: int, updates: int, lr: float = 2e-3) -> Classifier:
    """The model after so many updates on planted images."""
    images_BCHW, class_B, _ = planted_images(256, size, patch, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    draw = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(updates):
        rows = torch.randint(len(class_B), (32,), generator=draw)
        loss = torch.nn.functional.cross_entropy(model(images_BCHW[rows])["mark"], class_B[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def explained(model: Classifier) -> ExplainedModel:
    return ExplainedModel.of([model], [HEADS], as_decoded(HEADS))


def mass_ratio(maps_BHW: Tensor, places_BHW: Tensor, margin: int) -> float:
    """The share of the maps' sum that lies in the patches, or within `margin` pixels of them, divided by their share of
    the area: 1 for a map that knows nothing."""
    widened = torch.nn.functional.max_pool2d(places_BHW[:, None].float(), 2 * margin + 1, 1, margin)[:, 0]
    share_B = (maps_BHW * widened).sum(dim=(1, 2)) / maps_BHW.sum(dim=(1, 2)).clamp_min(1e-9)
    return float((share_B / widened.mean(dim=(1, 2))).mean())
