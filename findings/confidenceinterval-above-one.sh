#!/usr/bin/env bash
# confidenceinterval's macro F1 for a model without a mistake: an interval that reaches above 1, from a few rare rows.
#
# One would guess that an interval of a score that cannot exceed 1 ends at 1, or, since the delta method's variance of a
# perfect score is 0, that it is the point 1. What happens: its formula for macro F1 (Takahashi et al. 2022) gives
# 0.89 to 1.11 for 100 rows of which the rarest class has two.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check confidenceinterval==1.0.5 scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import confidenceinterval
import numpy as np

print("confidenceinterval", version("confidenceinterval"))
labels = np.repeat([0, 1, 2], [80, 18, 2])
value, (low, high) = confidenceinterval.f1_score(labels.tolist(), labels.tolist(), average="macro", method="takahashi")
print(f"perfect predictions: {value:.3f}, 95 % {low:.3f} to {high:.3f}")
assert abs(value - 1) < 1e-6 and high > 1.1 and low < 0.9
PY
