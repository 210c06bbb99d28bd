"""Running statistics computed anew: the mean over batches, of every norm that has some."""

import pytest
import torch
from timm.layers import BatchNormAct2d, EvoNorm2dB0
from torch import Tensor, nn

from classwise.model.batch_norm import estimate_statistics


def batches() -> list[Tensor]:
    rng = torch.Generator().manual_seed(3)
    return [3 + 2 * torch.randn(8, 4, 5, 5, generator=rng) for _ in range(3)]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, BatchNormAct2d, EvoNorm2dB0])
def test_statistics_are_the_mean_over_batches(norm: type[nn.Module]) -> None:
    """Whatever they were before, and also of norms that torch's `update_bn` does not know."""
    layer = norm(4)
    layer.running_var.fill_(100.0)
    model = nn.Sequential(layer, nn.Dropout(0.5))
    estimate_statistics(model, batches())
    expected = torch.stack([batch.var(dim=(0, 2, 3), unbiased=True) for batch in batches()]).mean(dim=0)
    torch.testing.assert_close(layer.running_var, expected, rtol=1e-5, atol=1e-6)
    assert layer.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_nothing_but_norms_is_in_training_mode() -> None:
    """Dropout would change what the norms behind it see."""
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(4))
    estimate_statistics(model, batches())
    expected = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches()]).mean(dim=0)
    torch.testing.assert_close(model[1].running_mean, expected, rtol=1e-5, atol=1e-6)
