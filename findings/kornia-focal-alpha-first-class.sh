#!/usr/bin/env bash
# kornia's focal loss for several classes: `alpha` weighs the first class by 1 - alpha and every other class by alpha.
#
# One would guess that alpha is one factor for all classes of a multi-class loss, as in the formula of its docstring,
# -alpha_t (1 - p_t)^gamma log(p_t), or that it needs one number per class. What happens: class 0 is treated as a background
# class. With the usual alpha of 0.25 and no real background, the first class in the alphabet counts three times as much as
# each of the others, which then looks like a property of the data.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 kornia==0.9.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import kornia
import torch
import torch.nn.functional as F

print("kornia", kornia.__version__, "torch", torch.__version__)
torch.manual_seed(0)
logits = torch.randn(9, 3)
labels = torch.arange(9) % 3
# With gamma 0 a focal loss is cross entropy times alpha.
loss = kornia.losses.focal_loss(logits, labels, alpha=0.25, gamma=0.0, reduction="none").sum(dim=1)
factors = loss / F.cross_entropy(logits, labels, reduction="none")
for number in range(3):
    print(f"factor of class {number}: {factors[labels == number].mean():.2f}")
assert torch.allclose(factors[labels == 0], torch.tensor(0.75)), factors
assert torch.allclose(factors[labels > 0], torch.tensor(0.25)), factors
PY
