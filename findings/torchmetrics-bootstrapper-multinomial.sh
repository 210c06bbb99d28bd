#!/usr/bin/env bash
# torchmetrics' BootStrapper with sampling_strategy="multinomial" resamples within every update, not over the set.
#
# One would guess that the standard deviation of a bootstrapped score depends on the data alone. What happens: every call of
# `update` draws as many rows as the batch has from this batch. Rows that are fed one at a time are never exchanged, so the
# standard deviation is 0; in batches of ten it is too small, and only for one batch it is that of the bootstrap. The default
# ("poisson") draws row by row and has no such dependence.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchmetrics==1.9.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
import torchmetrics
from torchmetrics.classification import BinaryAccuracy
from torchmetrics.wrappers import BootStrapper

print("torchmetrics", torchmetrics.__version__)
torch.manual_seed(0)
labels = torch.randint(0, 2, (400,)).sort().values
predictions = torch.where(torch.rand(400) < 0.8, labels, 1 - labels)


def deviation(strategy, batch_size):
    metric = BootStrapper(BinaryAccuracy(), num_bootstraps=100, sampling_strategy=strategy)
    for start in range(0, 400, batch_size):
        metric.update(predictions[start : start + batch_size], labels[start : start + batch_size])
    return float(metric.compute()["std"])


found = {(s, b): deviation(s, b) for s in ("multinomial", "poisson") for b in (1, 400)}
for (strategy, batch_size), value in found.items():
    print(f"{strategy}, batches of {batch_size}: standard deviation {value:.4f}")
assert found["multinomial", 1] < 1e-6
assert min(found["multinomial", 400], found["poisson", 1], found["poisson", 400]) > 0.012
PY
