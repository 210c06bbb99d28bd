#!/usr/bin/env bash
# MONAI's FocalLoss on the logits of exclusive classes is a sum of binary losses unless use_softmax is given.
#
# One would guess that a multi-class focal loss with gamma 0 is cross entropy, above all since labels are given as class
# numbers (to_onehot_y=True). What happens: by default every class has a sigmoid of its own; the loss is that of K binary
# problems, and a network of any quality has a loss that cannot be compared with cross entropy. With use_softmax=True it is
# cross entropy.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 monai==1.6.1 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import monai
import torch
import torch.nn.functional as F

print("monai", monai.__version__)
torch.manual_seed(0)
logits = torch.randn(6, 3)
labels = torch.arange(6) % 3
cross_entropy = F.cross_entropy(logits, labels, reduction="none")
binary = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 3).float(), reduction="none").sum(dim=1)
losses = {}
for use_softmax in (False, True):
    loss = monai.losses.FocalLoss(gamma=0.0, to_onehot_y=True, use_softmax=use_softmax, reduction="none")
    losses[use_softmax] = loss(logits, labels[:, None].float()).sum(dim=1)
    print(f"use_softmax={use_softmax}: {losses[use_softmax].mean():.4f}")
print(f"cross entropy {cross_entropy.mean():.4f}, sum of binary cross entropies {binary.mean():.4f}")
assert torch.allclose(losses[False], binary, atol=1e-5)
assert torch.allclose(losses[True], cross_entropy, atol=1e-5)
PY
