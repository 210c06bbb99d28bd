"""What a submission holds for an image that cannot be used: what one would guess without it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.compose.raw_outputs import log_of, raw_class, raw_ordinal
from classwise.infer.ensemble import DecodedHead, decoded_outputs
from classwise.model.heads import Head


def fallback_outputs(
    heads: Mapping[str, Head], status: Mapping[str, Any], outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Raw outputs (1, outputs) by target: the class shares of the training rows (so the most frequent class), the share
    of each label, the mean of the values; of a ranking the median score of the other rows.

    `status`: status.json of the run, which has the counts; `outputs`: those of the images that can be used.
    """
    data = status["data"]
    found = {}
    for name, given in heads.items():
        # Of an ensemble the outputs are decoded already.
        head = given.head if isinstance(given, DecodedHead) else given
        if head.type in ("class", "ordinal"):
            count_K = np.array([row["train"] for row in data["labels"][name]], dtype=np.float64)
            log_p_K = log_of(count_K / max(1.0, count_K.sum()))
            raw_O = raw_class(head, log_p_K) if head.type == "class" else raw_ordinal(log_p_K)
        elif head.type == "multilabel":
            # Rows in which a part of the labels is unknown count as labeled.
            count_L = np.array([row["train"] for row in data["labels"][name]], dtype=np.float64)
            labeled = data["train"] - data.get("masked", {}).get(name, {}).get("train", 0)
            share_L = (count_L / max(1, labeled)).clip(0, 1)
            raw_O = log_of(share_L) - log_of(1 - share_L)
        elif head.type == "ranking" and len(outputs.get(name, ())):
            raw_O = outputs[name].median(dim=0).values.double().numpy()
        else:
            raw_O = np.zeros(head.outputs)  # the mean of the training rows
        found[name] = torch.from_numpy(np.asarray(raw_O, dtype=np.float64)).float()[None]
        # The median score is one of the ensemble's already.
        if isinstance(given, DecodedHead) and head.type != "ranking":
            found[name] = decoded_outputs({name: found[name]}, {name: head})[name]
    return found


def fallback_text(
    heads: Mapping[str, Head], labels: Mapping[str, tuple[str, ...]], found: Mapping[str, Tensor]
) -> str:
    """What a row without an image holds, in words: `colour: 'red'`."""
    parts = []
    for name, head in heads.items():
        decoded = head.decode(found[name])
        if head.type in ("class", "ordinal"):
            parts.append(
                f"{name}: {labels[name][int(head.predicted(decoded)[0])]!r}, the training rows' shares as p"
            )
        elif head.type == "multilabel":
            parts.append(f"{name}: the share of each label in training")
        elif head.type == "regression":
            parts.append(f"{name}: {float(decoded[0]):.4g}, the mean in training")
        else:
            parts.append(f"{name}: the median score")
    return "; ".join(parts)
