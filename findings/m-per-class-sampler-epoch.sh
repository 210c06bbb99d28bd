#!/usr/bin/env bash
# pytorch-metric-learning's MPerClassSampler: an epoch of a data set of 100 images is 99,996 images.
#
# One would guess that an epoch has about as many images as the data set, as with other samplers. What happens: its
# `length_before_new_iter` is 100000 unless it is given, and the only image of the rarest class is drawn 33,332 times in one
# epoch. Learning-rate schedules, early stopping and "epochs" in a paper then mean something else by a factor of 1,000.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 pytorch-metric-learning==2.9.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import numpy as np
import pytorch_metric_learning
from pytorch_metric_learning.samplers import MPerClassSampler

print("pytorch-metric-learning", pytorch_metric_learning.__version__)
labels = np.repeat([0, 1, 2], [90, 9, 1])
rows = list(MPerClassSampler(labels, m=4))
counts = np.bincount(labels[rows])
print(f"{len(labels)} images; one epoch: {len(rows)} images, by class {counts.tolist()}")
assert len(rows) == 99_996
assert counts.tolist() == [33_332] * 3
PY
