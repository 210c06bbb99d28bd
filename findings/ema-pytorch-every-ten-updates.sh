#!/usr/bin/env bash
# ema-pytorch averages every tenth update only, and not at all in the first hundred.
#
# One would guess that after EMA(model, beta=0.9) and 100 calls of update() the average is one of the last ten weights or so.
# What happens: update_after_step is 100 and update_every is 10, so for a run of 100 updates the 'average' is the weights of
# the last multiple of ten, copied; after that nine calls of ten do nothing. A short fine-tuning is evaluated with plain
# weights, and beta means a horizon ten times as long as it says.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 ema-pytorch==0.8.3 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from ema_pytorch import EMA

print("ema-pytorch", version("ema-pytorch"))
model = torch.nn.Linear(1, 1, bias=False)
average = EMA(model, beta=0.9)
seen = []
for update in range(131):
    with torch.no_grad():
        model.weight.fill_(float(update))
    average.update()
    seen.append(average.ema_model.weight.item())
for update in (9, 10, 19, 100, 109, 110, 119, 120):
    print(f"weight {update}: average {seen[update]:.2f}")
assert seen[9] == 0 and seen[10] == seen[19] == 10
assert seen[100] == seen[109] == 100
assert seen[110] == seen[119] and 100 < seen[110] < 110
PY
