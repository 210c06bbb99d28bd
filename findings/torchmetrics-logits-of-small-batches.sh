#!/usr/bin/env bash
# torchmetrics asks each batch anew whether it holds logits: in batches of one image, a model with 85% accuracy has 81% and an
# AUROC of 0.876 instead of 0.932.
#
# One would guess that accuracy and AUROC of the same scores do not depend on how they were cut into batches, least of all
# AUROC, which only knows ranks. What happens: scores are put through a sigmoid if one of *this batch* lies outside of 0 to 1.
# In a batch of one, every logit from 0 to 1 is taken for a probability: 0.3, a 'yes', is below the threshold of 0.5, and is
# ranked below the sigmoid of -0.8. Batches of one are common where images differ in size, and the last batch of an epoch is
# small. The scores are worse but not odd enough to be noticed, and the calibration error looks better than it is.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.15.0 torchmetrics==1.9.0 scikit-learn==1.9.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
import torchmetrics
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryCalibrationError

print("torchmetrics", torchmetrics.__version__)
generator = torch.Generator().manual_seed(0)
labels = torch.randint(0, 2, (2000,), generator=generator)
logits = torch.randn(2000, generator=generator) + 2 * labels - 1


def scores(values, size):
    metrics = BinaryAccuracy(), BinaryAUROC(), BinaryCalibrationError()
    for metric in metrics:
        for some, answers in zip(values.split(size), labels.split(size)):
            metric.update(some, answers)
    return [float(metric.compute()) for metric in metrics]


by_size = {size: scores(logits, size) for size in (2000, 64, 2, 1)}
for size, (accuracy, auroc, error) in by_size.items():
    print(f"logits in batches of {size:4}: accuracy {accuracy:.4f}, AUROC {auroc:.4f}, calibration error {error:.4f}")
right = roc_auc_score(labels, logits)
print(f"scikit-learn's AUROC: {right:.4f}; accuracy of 'logit above 0': {((logits > 0) == labels).float().mean():.4f}")
small = (logits > 0) & (logits < 1)
print(f"logits from 0 to 1: {small.float().mean():.1%}")

assert abs(by_size[2000][1] - right) < 1e-4 and abs(by_size[64][1] - right) < 1e-4
assert by_size[1][0] < by_size[2000][0] - 0.02
assert by_size[1][1] < by_size[2][1] < right - 0.005
# Probabilities have the same scores in batches of any size.
ones, whole = scores(logits.sigmoid(), 1), scores(logits.sigmoid(), 2000)
assert max(abs(one - other) for one, other in zip(ones, whole)) < 1e-5
PY
