"""Batch norm, whose outputs depend on which images are computed at once.

In training it normalizes by the mean and variance of the images of one forward pass (Ioffe and Szegedy 2015, section
3). So the gradient of a batch that is computed in parts is not that of the batch computed whole. In eval mode it
normalizes by the running statistics, which are constants: an image's outputs no longer depend on the others.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that normalize by statistics of the batch in training: torch's batch norms, what is derived from them,
    and others with a running variance (timm's EvoNorm-B0)."""
    return [module for module in model.modules() if _is_batch_norm(module)]


def freezable_norms(model: nn.Module) -> list[nn.Module]:
    """Those of them with running statistics, by which they normalize in eval mode; the others never do."""
    return [norm for norm in batch_norms(model) if _has_running_variance(norm)]


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute the running statistics of the model's norms anew: the mean over batches, each of which counts the same
    (Izmailov et al. 2018, section 3.2). Nothing else is in training mode meanwhile, so dropout is off; the model is in
    eval mode afterwards. torch's own `update_bn` knows torch's batch norms alone, not EvoNorm."""
    norms = freezable_norms(model.eval())
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
    for number, images in enumerate(batches, start=1):
        _set_momenta(norms, [1 / number] * len(norms))  # so that the first batch replaces what was there
        model(images)
    _set_momenta(norms, momenta)
    model.eval()


def _set_momenta(norms: Sequence[Any], momenta: Sequence[Any]) -> None:
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _is_batch_norm(module: nn.Module) -> bool:
    if isinstance(module, _InstanceNorm):
        return False  # it looks at one image at a time
    return isinstance(module, _BatchNorm) or _has_running_variance(module)


def _has_running_variance(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_var", None), Tensor)
