#!/usr/bin/env bash
# timm's multi-step schedule lowers the rate one epoch before its milestones; its step schedule and torch's do it on them.
#
# One would guess that milestones 3 and 6 lower the rate at the start of epochs 3 and 6, as torch's MultiStepLR does, and as
# timm's own step schedule with a step of 3 does. What happens: it is lowered at epochs 2 and 5. Where updates are counted
# instead of epochs, it is one update early. A run that is moved from torch with its milestones has an epoch less at the full
# rate, and with a warm-up that ends at epoch 2 and a milestone at 3 there is none: the rate falls out of the warm-up.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 timm==1.0.31 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import timm
import torch
from timm.scheduler import create_scheduler_v2

print("torch", torch.__version__, "timm", timm.__version__)


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def timm_rates(**settings):
    """The learning rate of each of nine epochs, with timm's own calls: step(epoch + 1) after an epoch."""
    sgd = optimizer()
    schedule, _ = create_scheduler_v2(sgd, num_epochs=9, **settings)
    rates = []
    for epoch in range(9):
        rates.append(round(sgd.param_groups[0]["lr"], 4))
        sgd.step()
        schedule.step(epoch + 1)
    return rates


def torch_rates():
    sgd = optimizer()
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [3, 6])
    rates = []
    for _ in range(9):
        rates.append(round(sgd.param_groups[0]["lr"], 4))
        sgd.step()
        schedule.step()
    return rates


multi = {"sched": "multistep", "decay_milestones": [3, 6]}
rates = {
    "torch, milestones 3 and 6": torch_rates(),
    "timm, a step of 3": timm_rates(sched="step", decay_epochs=3),
    "timm, milestones 3 and 6": timm_rates(**multi),
    "timm, a step of 3, warm-up": timm_rates(sched="step", decay_epochs=3, warmup_epochs=2, warmup_lr=0.0),
    "timm, milestones 3 and 6, warm-up": timm_rates(**multi, warmup_epochs=2, warmup_lr=0.0),
}
for name, row in rates.items():
    print(f"{name:34}", row)

on_time = [1.0] * 3 + [0.1] * 3 + [0.01] * 3
early = [1.0] * 2 + [0.1] * 3 + [0.01] * 4
assert rates["torch, milestones 3 and 6"] == rates["timm, a step of 3"] == on_time
assert rates["timm, milestones 3 and 6"] == early
assert rates["timm, a step of 3, warm-up"] == [0.0, 0.5, *on_time[2:]]
assert rates["timm, milestones 3 and 6, warm-up"] == [0.0, 0.5, *early[2:]]

# Counted in updates, four to an epoch: update 11 instead of 12.
sgd = optimizer()
schedule, _ = create_scheduler_v2(sgd, num_epochs=9, step_on_epochs=False, updates_per_epoch=4, **multi)
by_update = []
for update in range(14):
    by_update.append(sgd.param_groups[0]["lr"])
    schedule.step_update(update + 1)
print("four updates an epoch: the first lower rate is that of update", by_update.index(0.1))
assert by_update.index(0.1) == 11
PY
