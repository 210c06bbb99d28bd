#!/usr/bin/env bash
# imbalanced-learn's SMOTE on uint8 pixels makes pixels that lie outside of every image it interpolates between.
#
# One would guess that a synthetic image lies between two real ones, rounded to uint8. What happens: differences of neighbours
# are taken in the dtype of the input, where 100 - 101 is 255, so pixels of a class that only has values from 100 to 119 come
# out anywhere from 0 to 255. Nothing is said; the same call on floats is right.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check imbalanced-learn==0.14.2 scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import imblearn
import numpy as np
from imblearn.over_sampling import SMOTE

print("imbalanced-learn", imblearn.__version__)
rng = np.random.default_rng(0)
common = rng.integers(0, 256, (50, 64), dtype=np.uint8)
rare = rng.integers(100, 120, (10, 64), dtype=np.uint8)
images = np.concatenate([common, rare])
labels = np.repeat([0, 1], [50, 10])
ranges = {}
for dtype in (np.uint8, np.float32):
    resampled, _ = SMOTE(random_state=0).fit_resample(images.astype(dtype), labels)
    new = resampled[60:]
    ranges[dtype] = float(new.min()), float(new.max())
    print(f"{np.dtype(dtype)}: real pixels {rare.min()} to {rare.max()}, synthetic {new.min():.0f} to {new.max():.0f}")
assert ranges[np.uint8][0] < 20 and ranges[np.uint8][1] > 235
assert ranges[np.float32][0] >= 100 and ranges[np.float32][1] <= 119
PY
