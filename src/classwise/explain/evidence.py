"""What a heat map explains: one number an image, as a function of the model's raw outputs.

    class, ordinal   the log odds of one class, log p - log (1 - p)
    multilabel       the log odds of one label
    regression       the value, in the user's unit
    ranking          the score
    joint            the log odds of all its classes together

Not the probability, whose gradient vanishes where a model is certain; not the logit of the class alone, which ignores
the other classes: a channel that speaks for all of them alike would be shown.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.model.heads import Head

NUMBERS = ("regression", "ranking")
"""Types of targets whose answer is a number, which has no class to choose."""


def evidence(
    outputs: Mapping[str, Tensor], heads: Mapping[str, Head], classes: Mapping[str, Tensor]
) -> Tensor:
    """The number that is explained (B,), float64.

    `outputs`: raw outputs (B, outputs) by target; `classes`: by target, the class or label of each image, (B,) or (1,)
    for all. Several targets are explained as one answer, as the joint class is; numbers, whose entry is ignored, only
    alone. Raises ValueError for a number among several targets.
    """
    if len(classes) > 1 and any(heads[name].type in NUMBERS for name in classes):
        raise ValueError("a number is explained alone")
    odds = [
        _of_target(heads[name], outputs[name], class_B.to(outputs[name].device))
        for name, class_B in classes.items()
    ]
    if len(odds) == 1:
        return odds[0]

    # Targets are predicted independently, so logarithms add up. Divided by 1 - p, the gradient is that of the log odds.
    log_p_B = torch.stack([F.logsigmoid(odds_B) for odds_B in odds]).sum(dim=0)
    rest_B = (-torch.expm1(log_p_B.detach())).clamp_min(torch.finfo(torch.float64).tiny)
    return log_p_B / rest_B


def _of_target(head: Head, outputs: Tensor, class_B: Tensor) -> Tensor:
    decoded = head.decode(outputs).double()
    if head.type in NUMBERS:
        return decoded
    class_B = class_B.expand(len(decoded))
    chosen_B = decoded.gather(1, class_B[:, None])[:, 0]
    if head.type == "multilabel":
        return chosen_B
    # All other classes together; exact also where p rounds to 1.
    others_BK = decoded.scatter(1, class_B[:, None], -torch.inf)
    return chosen_B - others_BK.logsumexp(dim=1)


def probability(
    outputs: Mapping[str, Tensor], heads: Mapping[str, Head], classes: Mapping[str, Tensor]
) -> Tensor:
    """The probability (B,) of the answer that is explained; of a number, the number itself."""
    found = [
        (heads[name], _of_target(heads[name], outputs[name], class_B)) for name, class_B in classes.items()
    ]
    if found[0][0].type in NUMBERS:
        return found[0][1]
    return torch.stack([odds_B.sigmoid() for _, odds_B in found]).prod(dim=0)
