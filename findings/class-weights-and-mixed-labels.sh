#!/usr/bin/env bash
# torch's weighted cross entropy changes its normalization with the form of the labels: with torchvision's MixUp in front of
# it, the same class weights make the loss several times larger.
#
# One would guess that a label and the same label as a one-hot row give the same loss. What happens: for class numbers the mean
# is over the sum of the rows' weights, for probabilities over the number of rows. MixUp and CutMix return probabilities in
# every batch, even where nothing was mixed in, so switching them on multiplies loss and gradients by the batch's mean weight.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

print("torch", torch.__version__)
torch.manual_seed(0)
logits = torch.randn(8, 3)
labels = torch.tensor([2, 2, 2, 2, 2, 2, 0, 1])
weights = torch.tensor([1.0, 2.0, 10.0])

by_number = F.cross_entropy(logits, labels, weights)
by_row = F.cross_entropy(logits, F.one_hot(labels, 3).float(), weights)
mean_weight = weights[labels].mean()
print(f"class numbers {by_number:.4f}, one-hot rows {by_row:.4f}, mean weight of the batch {mean_weight:.3f}")
assert torch.allclose(by_row, by_number * mean_weight)

# The labels that MixUp gives are rows of probabilities.
_, mixed = v2.MixUp(num_classes=3)(torch.zeros(8, 3, 4, 4), labels)
print("labels from MixUp:", tuple(mixed.shape), mixed.dtype)
assert mixed.shape == (8, 3)
PY
