"""From probabilities to the raw outputs that a head decodes: what the baselines answer with."""

import math

import numpy as np
import numpy.typing as npt

from classwise.model.heads import ClassHead, Head

Floats = npt.NDArray[np.float64]
LOG_FLOOR = -50.0  # instead of log 0: e^-50 is nothing, but finite


def log_of(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, math.exp(LOG_FLOOR)))


def raw_class(head: Head, log_p_K: Floats) -> Floats:
    """Without the head's own adjustment, which is for a model that learnt the prior: its `decode` adds it again."""
    assert isinstance(head, ClassHead)
    return log_p_K - np.array(head.adjustment) if head.adjustment else log_p_K


def raw_ordinal(log_p_K: Floats) -> Floats:
    """The logits of P(y > k | y >= k), k = 0 to K - 2, along the last axis: log P(y > k) - log P(y = k)."""
    p_K = np.exp(log_p_K)
    above_K = np.cumsum(p_K[..., ::-1], axis=-1)[..., ::-1]
    return log_of(above_K[..., 1:]) - np.maximum(log_p_K[..., :-1], LOG_FLOOR)
