#!/usr/bin/env bash
# mlxtend's accuracy_score(method="average") is high for a model that never predicts the rare classes.
#
# One would guess that the 'average per-class accuracy' is the mean recall, scikit-learn's balanced accuracy: 1/3 for a model
# that always answers the first of three classes. What happens: for each class it is the accuracy of the question 'this class or
# another', which a rare class answers by its rarity. With 90, 5 and 5 rows the useless model has .93, more than its accuracy.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check mlxtend==0.25.0 scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import mlxtend
import numpy as np
from mlxtend.evaluate import accuracy_score
from sklearn.metrics import balanced_accuracy_score

print("mlxtend", mlxtend.__version__)
labels = np.repeat([0, 1, 2], [90, 5, 5])
always_first = np.zeros(100, dtype=int)
average = accuracy_score(labels, always_first, method="average")
balanced = balanced_accuracy_score(labels, always_first)
print(f"accuracy {np.mean(labels == always_first):.2f}, average per-class accuracy {average:.3f}, mean recall {balanced:.3f}")
assert abs(average - 14 / 15) < 1e-9
assert abs(balanced - 1 / 3) < 1e-9
PY
