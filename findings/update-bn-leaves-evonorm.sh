#!/usr/bin/env bash
# torch's `update_bn`, with which averaged weights get running statistics of their own, leaves those of timm's EvoNorm as they
# were, and says nothing.
#
# One would guess that after `update_bn(batches, model)` every running statistic of the model is that of the batches: the layers are
# reset, and the model has seen all data in training mode. What happens: `update_bn` looks for torch's own batch norms. EvoNorm-B0
# normalizes by a running variance, too, and timm's networks take it as their norm (norm_layer=EvoNorm2dB0), but it is no subclass. In a
# network without torch's own the function returns before it takes the first batch. Beside one of torch's, the network does see all
# batches in training mode, but EvoNorm is not reset and keeps its momentum of 0.1: after three batches 73 % of what it had before
# are still there, a mixture of two networks' statistics.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 timm==1.0.31 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import timm
import torch
from timm.layers import BatchNormAct2d, EvoNorm2dB0
from torch import nn
from torch.optim.swa_utils import update_bn

print("torch", torch.__version__, "timm", timm.__version__)
torch.manual_seed(0)
batches = [2 * torch.randn(64, 4, 8, 8) for _ in range(3)]  # a variance of 4

left = {}
for kind in (nn.BatchNorm2d, BatchNormAct2d, EvoNorm2dB0):
    layer = kind(4)
    layer.running_var.fill_(104.0)  # what it was, for other weights
    update_bn(batches, nn.Sequential(layer))
    left[kind.__name__] = (layer.running_var.mean().item() - 4) / 100
    print(f"{kind.__name__:15s} running variance {layer.running_var.mean():7.2f}, of the old one left: {left[kind.__name__]:.0%}")
assert abs(left["BatchNorm2d"]) < 0.01
assert abs(left["BatchNormAct2d"]) < 0.01
assert left["EvoNorm2dB0"] == 1.0

layer = EvoNorm2dB0(4)
layer.running_var.fill_(104.0)
update_bn(batches, nn.Sequential(layer, nn.BatchNorm2d(4)))
share = (layer.running_var.mean().item() - 4) / 100
print(f"EvoNorm2dB0 beside a BatchNorm2d: of the old one left: {share:.0%}")
assert abs(share - 0.9**3) < 0.01

model = timm.create_model("resnetv2_50", num_classes=3, norm_layer=EvoNorm2dB0)
norms = [module for module in model.modules() if hasattr(module, "running_var")]
known = [norm for norm in norms if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
print(f"resnetv2_50: {len(norms)} layers with a running variance, {len(known)} of them known to update_bn")
assert norms and not known
PY
