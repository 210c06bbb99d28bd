"""The inference process over any pictures: eval, no gradients, every row once and in order."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from classwise.data.loader import Loader
from classwise.errors import NonFiniteError
from classwise.metrics.joint import joint_number
from classwise.model.classifier import Classifier

Numbers = npt.NDArray[np.int64]


@torch.no_grad()
def predict_logits(
    model: Classifier, loader: Loader, device: torch.device, autocast: AbstractContextManager[Any]
) -> dict[str, Tensor]:
    """logits_NK (float32, on the host) by target for all of the loader's pictures, in their order."""
    model.eval()
    parts: dict[str, list[Tensor]] = {name: [] for name in model.facts.heads}
    rows = np.arange(len(loader.pictures))
    seen = 0
    for batch in loader.batches(rows):
        with autocast:
            outputs = model(batch.images.to(device, non_blocking=True))
        for name, logits in outputs.items():
            parts[name].append(logits.float().cpu())
        assert (batch.rows == rows[seen : seen + len(batch)]).all(), "a row is missing or out of order"
        seen += len(batch)
    assert seen == len(rows), "a row is missing"
    logits = {name: torch.cat(found) for name, found in parts.items()}
    for name, found in logits.items():
        broken = int((~found.isfinite()).any(dim=1).sum())
        if broken:
            raise NonFiniteError(f"target {name!r}: {broken} of {len(found)} rows have no finite prediction")
    return logits


def predictions_table(
    ids: Sequence[str],
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Sequence[str]],
    joint: Sequence[str] = (),
    truth: Mapping[str, Numbers] | None = None,
) -> pl.DataFrame:
    """`id`; per target the label, the true label where it is known, and every class's probability; and with a
    joint class its number, the true one, and its probability (the product of the parts', which are
    predicted apart)."""
    truth = truth or {}
    columns: dict[str, Any] = {"id": list(ids)}
    chosen: dict[str, Numbers] = {}
    best: dict[str, npt.NDArray[np.float64]] = {}
    for name, logits_NK in logits.items():
        probabilities_NK = torch.softmax(logits_NK.double(), dim=1).numpy()
        chosen[name] = logits_NK.argmax(dim=1).numpy()
        best[name] = probabilities_NK.max(axis=1)
        list_ = list(labels[name])
        columns[name] = [list_[k] for k in chosen[name]]
        if name in truth:
            columns[f"{name}_true"] = [list_[k] if k >= 0 else None for k in truth[name]]
        for k, label in enumerate(list_):
            columns[f"{name}_p_{label}"] = probabilities_NK[:, k].astype(np.float32)
    if joint:
        sizes = [len(labels[name]) for name in joint]
        columns["joint"] = joint_number([chosen[name] for name in joint], sizes)
        if all(name in truth for name in joint):
            true_N = joint_number([truth[name] for name in joint], sizes)
            columns["joint_true"] = [int(k) if k >= 0 else None for k in true_N]
        columns["joint_p"] = np.prod([best[name] for name in joint], axis=0).astype(np.float32)
    return pl.DataFrame(columns)
