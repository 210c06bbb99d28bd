#!/usr/bin/env bash
# torchmetrics' MetricCollection reports one metric's value for another if the first batch does not tell them apart.
#
# One would guess that each metric of a collection counts by its own settings. What happens: after the first update, metrics
# whose counts are equal are put into one group (compute_groups is True by default), and from then on only the first of them is
# updated. Two thresholds that agree on the first batch share all later counts; likewise ignore_index where the first batch
# has no such label. The scores are wrong without a warning, and which ones are depends on the order of the rows.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchmetrics==1.9.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
import torchmetrics
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score

print("torchmetrics", torchmetrics.__version__)
first = torch.tensor([0.95, 0.1]), torch.tensor([1, 0])
second = torch.tensor([0.6, 0.6, 0.6]), torch.tensor([1, 1, 1])
found = {}
for compute_groups in (True, False):
    metrics = {"threshold_50": BinaryF1Score(threshold=0.5), "threshold_90": BinaryF1Score(threshold=0.9)}
    collection = MetricCollection(metrics, compute_groups=compute_groups)
    collection.update(*first)
    collection.update(*second)
    found[compute_groups] = {name: round(float(value), 4) for name, value in collection.compute().items()}
    print(f"compute_groups={compute_groups}: F1 {found[compute_groups]}")
assert found[False] == {"threshold_50": 1.0, "threshold_90": 0.4}, found
assert found[True] == {"threshold_50": 1.0, "threshold_90": 1.0}, found
PY
