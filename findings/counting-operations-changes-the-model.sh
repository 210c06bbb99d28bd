#!/usr/bin/env bash
# Counting a model's operations changes the model: three libraries, three ways.
#
# One would guess that a count leaves the model as it was, as torchinfo does. What happens: thop adds entries to the state_dict
# (total_ops, total_params), so that the checkpoint does not load into a fresh model; ptflops leaves the model in evaluation
# mode, so that training goes on without dropout and with fixed batch norm; fvcore runs a training-mode model as it is, so that
# batch norm's running statistics have learned from its random input.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 thop==0.1.1.post2209072238 ptflops==0.7.5 fvcore==0.1.5.post20221221 torchinfo==1.8.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from thop import profile
from torchinfo import summary


def by_thop(model, image):
    profile(model, inputs=(image,), verbose=False)


def by_ptflops(model, image):
    get_model_complexity_info(model, (3, 8, 8), print_per_layer_stat=False, as_strings=False)


def by_fvcore(model, image):
    count = FlopCountAnalysis(model, image)
    count.unsupported_ops_warnings(False)
    count.total()


def by_torchinfo(model, image):
    summary(model, input_data=image, verbose=0)


found = {}
for name, count in (("thop", by_thop), ("ptflops", by_ptflops), ("fvcore", by_fvcore), ("torchinfo", by_torchinfo)):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ).train()
    keys = set(model.state_dict())
    count(model, torch.randn(1, 3, 8, 8))
    found[name] = (len(set(model.state_dict()) - keys), model.training, int(model[1].num_batches_tracked))
    added, training, batches = found[name]
    print(f"{name} {version(name)}: {added} entries added, training mode {training}, batches seen {batches}")
assert found["thop"][0] > 0
assert found["ptflops"][1] is False
assert found["fvcore"][2] == 1
assert found["torchinfo"] == (0, True, 0)
PY
