#!/usr/bin/env bash
# torchmetrics' macro AUROC counts a class without rows as an AUROC of 0: a perfect model of four classes, one of them absent,
# scores 0.75. Its average precision does so or not by `thresholds`.
#
# One would guess that a class that has no row in the split is left out, as the macro F1, accuracy and average precision of the
# same library leave it out, or that the result is NaN, as scikit-learn's is. What happens: the curve of that class is set to
# zero, its area of 0 goes into the mean, and a warning is all that is said. `thresholds`, which is there to save memory, moves
# average precision over to the same side. AUROCs of validation splits with rare classes, of small clients or of folds
# then follow the number of classes that happen to be in the split rather than the model, and a threshold of 0.9 to ship a
# model is out of reach for one without a mistake.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.15.0 torchmetrics==1.9.0 scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import math

import sklearn
import torch
import torchmetrics
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassF1Score,
)

print("torchmetrics", torchmetrics.__version__, "scikit-learn", sklearn.__version__)
# A perfect model of four classes; the split has ten rows of each of the first three.
labels = torch.arange(3).repeat(10)
probabilities = 0.9 * torch.eye(4)[labels] + 0.025
print("rows by class:", torch.bincount(labels, minlength=4).tolist())

scores = {}
for name, metric in {
    "accuracy": MulticlassAccuracy(4, average="macro"),
    "F1": MulticlassF1Score(4, average="macro"),
    "AUROC": MulticlassAUROC(4),
    "AUROC, 50 thresholds": MulticlassAUROC(4, thresholds=50),
    "average precision": MulticlassAveragePrecision(4),
    "average precision, 50 thresholds": MulticlassAveragePrecision(4, thresholds=50),
}.items():
    metric.update(probabilities, labels)
    scores[name] = float(metric.compute())
    print(f"macro {name}: {scores[name]:.3f}")
by_class = MulticlassAUROC(4, average=None)
by_class.update(probabilities, labels)
print("AUROC by class:", by_class.compute().tolist())
by_sklearn = roc_auc_score(torch.eye(4)[labels].numpy(), probabilities.numpy(), average="macro")
print("scikit-learn's macro AUROC:", by_sklearn)

left_out = ["accuracy", "F1", "average precision"]
assert all(abs(scores[name] - 1) < 1e-6 for name in left_out)
assert all(abs(score - 0.75) < 1e-6 for name, score in scores.items() if name not in left_out)
assert by_class.compute().tolist() == [1, 1, 1, 0]
assert math.isnan(by_sklearn)
PY
