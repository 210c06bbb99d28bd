#!/usr/bin/env bash
# timm loads the averaged weights of a checkpoint that holds both, not its state_dict.
#
# One would guess that load_state_dict and load_checkpoint read `state_dict`, and that an average has to be asked for. What
# happens: use_ema is True by default, so `state_dict_ema` wins without a word. A comparison of 'with and without EMA' by means
# of two loads compares the average with itself, and continuing a run from these weights continues from another point.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 timm==1.0.31 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import timm
import torch
from timm.models import load_checkpoint

print("timm", timm.__version__)
raw = torch.nn.Linear(1, 1)
average = torch.nn.Linear(1, 1)
torch.nn.init.ones_(raw.weight)
torch.nn.init.zeros_(average.weight)
torch.save({"state_dict": raw.state_dict(), "state_dict_ema": average.state_dict()}, "checkpoint.pth.tar")
weights = {}
for options in ({}, {"use_ema": False}):
    model = torch.nn.Linear(1, 1)
    load_checkpoint(model, "checkpoint.pth.tar", **options)
    weights[str(options)] = model.weight.item()
    print(f"options {options}: weight {model.weight.item():g} (state_dict 1, state_dict_ema 0)")
assert weights == {"{}": 0.0, "{'use_ema': False}": 1.0}, weights
PY
