#!/usr/bin/env bash
# torch's ONNX exporter for traced models (dynamo=False) puts a network that was in eval mode into training mode, if it is
# wrapped for the export.
#
# One would guess that an export leaves the mode of every module as it was: it exports in eval mode and restores afterwards.
# What happens: only the mode of the outermost module is remembered, and set recursively at the end. Whoever wraps a network to
# export a part of it (its features, outputs as a tuple) makes a module that is in training mode, as every new module is. After
# the export the network inside is in training mode: the next forward pass normalizes by its batch and moves the running
# statistics, and nothing warns. The exporter of torch.export (dynamo=True) leaves the modes alone.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy onnx==1.20.0 onnxscript==0.6.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import io

import torch
from torch import nn

print("torch", torch.__version__)


class Features(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).mean((2, 3))


def network_in_eval_mode():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


images = torch.randn(8, 3, 16, 16)
for dynamo in (False, True):
    network = network_in_eval_mode()
    before = network(images).detach()
    wrapped = Features(network)
    torch.onnx.export(wrapped, (images,), "features.onnx" if dynamo else io.BytesIO(), dynamo=dynamo, verbose=False)
    print(f"dynamo={dynamo}: wrapper training {wrapped.training}, network training {network.training}")
    assert network.training is (not dynamo)
    difference = float((network(images).detach() - before).abs().max())
    moved = float(network[1].running_mean.abs().max())
    print(f"  the next forward pass differs by {difference:.3f}; running mean moved by {moved:.4f}")
    assert (difference > 0.1 and moved > 0) is (not dynamo)

# What helps is to put the wrapper into eval mode, too.
network = network_in_eval_mode()
torch.onnx.export(Features(network).eval(), (images,), io.BytesIO(), dynamo=False)
print(f"wrapper in eval mode: network training {network.training}")
assert not network.training
PY
