"""From probabilities to raw outputs: the baselines predict probabilities, and a head decodes a model's outputs."""

import math

import numpy as np
import numpy.typing as npt

from classwise.model.heads import ClassHead, Head

Floats = npt.NDArray[np.float64]
LOG_FLOOR = -50.0  # in place of log 0: e^-50 is negligible, but a finite output


def log_of(probabilities: Floats) -> Floats:
    """The logarithm, not below LOG_FLOOR."""
    return np.log(np.maximum(probabilities, math.exp(LOG_FLOOR)))


def raw_class(head: Head, log_p_K: Floats) -> Floats:
    """Logits of a class head, classes along the last axis. The head's own adjustment is taken off: it is meant for a
    model that has learned the prior, and `decode` adds it again."""
    assert isinstance(head, ClassHead)
    return log_p_K - np.array(head.adjustment) if head.adjustment else log_p_K


def raw_ordinal(log_p_K: Floats) -> Floats:
    """Logits of P(y > k | y >= k), k = 0 to K - 2, along the last axis: log P(y > k) - log P(y = k)."""
    p_K = np.exp(log_p_K)
    p_at_least_K = np.cumsum(p_K[..., ::-1], axis=-1)[..., ::-1]
    return log_of(p_at_least_K[..., 1:]) - np.maximum(log_p_K[..., :-1], LOG_FLOOR)
