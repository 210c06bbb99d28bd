#!/usr/bin/env bash
# torch's ReduceLROnPlateau with mode="max" takes a falling score for an improvement as long as the score is negative.
#
# One would guess that with the default threshold_mode="rel" an improvement is at least `threshold` better than the best
# value. What happens: the bar is best * (1 + threshold), which for a negative best value is *below* it. R2, kappa, Matthews'
# correlation or a log-likelihood start below zero: a run that gets worse step by step counts as improving at every step, and
# the best value follows it down. mode="min" does the same with a negative loss.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

print("torch", torch.__version__)


def learning_rate(scores):
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=0.1)
    for score in scores:
        schedule.step(score)
        print(f"score {score:6.2f}  best {schedule.best:6.2f}  lr {optimizer.param_groups[0]['lr']:g}")
    return optimizer.param_groups[0]["lr"]


print("falling, below zero:")
below = learning_rate([-1.0, -1.05, -1.14, -1.24, -1.35])
print("falling, above zero:")
above = learning_rate([1.35, 1.24, 1.14, 1.05, 1.0])
assert below == 1.0, below
assert above < 1e-3, above
PY
