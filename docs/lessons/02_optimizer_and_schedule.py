# %% [markdown]
# # 2. Optimizer and schedule
#
# The gradient says in which direction the loss rises. The optimizer decides how to move the other way, and the
# schedule how far. Here you write SGD, momentum, Adam, AdamW and one step of AdamP by hand, then the learning rates
# of the three schedules of the notes.

# %%
import math
from collections.abc import Callable

import torch
from torch import Tensor

from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import build_schedule

# %% [markdown]
# ## A valley to walk down
#
# The loss is x^2 + 100 y^2: flat along x, 100 times as steep along y. The start is (10, 1), the lowest point (0,
# 0). Its gradient is (2x, 200y).

# %%
START = torch.tensor([10.0, 1.0], dtype=torch.float64)


def gradient(w: Tensor) -> Tensor:
    """Of x^2 + 100 y^2, by hand."""
    return torch.stack([2 * w[0], 200 * w[1]])


leaf = START.clone().requires_grad_()
(leaf[0] ** 2 + 100 * leaf[1] ** 2).backward()
assert torch.equal(leaf.grad, gradient(START))

# %% [markdown]
# ## The optimizers by hand
#
# Each is one step: weights and gradient in, new weights out. What it remembers from step to step is in `memory`.
#
# - **SGD**: lr times the gradient.
# - **Momentum**: a heavy ball. The velocity keeps 0.9 of itself and adds the gradient.
# - **Adam**: two running means, m of the gradient and v of its square. The step is m divided by the root of v, so
#   that every weight moves by about lr, whether its gradients are large or small. Both means start at 0, which the
#   divisions by 1 - beta^t make good.
# - **AdamW**: Adam, and the weights shrink by lr times the weight decay, beside the gradient and not through it.


# %%
def sgd(w: Tensor, g: Tensor, memory: dict, lr: float) -> Tensor:
    return w - lr * g


def momentum(w: Tensor, g: Tensor, memory: dict, lr: float) -> Tensor:
    memory["velocity"] = 0.9 * memory.get("velocity", 0) + g
    return w - lr * memory["velocity"]


def adam(w: Tensor, g: Tensor, memory: dict, lr: float) -> Tensor:
    t = memory["t"] = memory.get("t", 0) + 1
    m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    v = memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    return w - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def adamw(w: Tensor, g: Tensor, memory: dict, lr: float) -> Tensor:
    return adam(w * (1 - lr * 0.01), g, memory, lr)


def walk(step: Callable[..., Tensor], lr: float, steps: int) -> Tensor:
    """Where one is after so many steps."""
    w, memory = START.clone(), {}
    for _ in range(steps):
        w = step(w, gradient(w), memory, lr)
    return w


# %% [markdown]
# ## The same with classwise
#
# `build_optimizer` takes a name and returns torch's optimizer, or timm's. After 50 steps both are at the same
# place.


# %%
def walk_built(name: str, lr: float, steps: int, **options: float) -> Tensor:
    w = torch.nn.Parameter(START.clone())
    optimizer = build_optimizer(name, [{"params": [w]}], lr=lr, **({"weight_decay": 0.0} | options))
    for _ in range(steps):
        w.grad = gradient(w.detach())
        optimizer.step()
    return w.detach()


torch.testing.assert_close(walk(sgd, 0.005, 50), walk_built("sgd", 0.005, 50, momentum=0.0))
torch.testing.assert_close(walk(momentum, 0.005, 50), walk_built("sgd", 0.005, 50, momentum=0.9))
torch.testing.assert_close(walk(adam, 0.3, 50), walk_built("adam", 0.3, 50))
torch.testing.assert_close(walk(adamw, 0.3, 50), walk_built("adamw", 0.3, 50, weight_decay=0.01))

# %% [markdown]
# ## Cleverer movement converges faster
#
# How small can the loss become in 100 steps? SGD may not have a rate of 0.01 or more here: along y each step would
# overshoot further than the one before. With a rate that small, x is slow. Each may choose among the rates 0.001,
# 0.003, 0.01, 0.03, 0.1, 0.3 and 1: SGD ends above 30, momentum and Adam below 0.01.

# %%
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def lowest(step: Callable[..., Tensor]) -> float:
    """The smallest loss after 100 steps that one of the rates reaches."""
    ends = [walk(step, lr, 100) for lr in RATES]
    return min(float(w[0] ** 2 + 100 * w[1] ** 2) for w in ends if w.isfinite().all())


assert abs(1 - 0.01 * 200) == 1  # the factor of y in each step; above 1 it grows
assert walk(sgd, 0.0101, 100)[1].abs() > 1
assert lowest(sgd) > 30
assert lowest(momentum) < 0.01
assert lowest(adam) < 0.01
assert RATES == (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1)

# %% [markdown]
# The first step of Adam is lr in every direction, however large the gradient is: m / root of v is then g / |g|.
# Here it goes 0.3 along x and 0.3 along y, though the gradients are 20 and 200.

# %%
moved = START - walk(adam, 0.3, 1)
assert gradient(START).tolist() == [20, 200]
torch.testing.assert_close(moved, torch.tensor([0.3, 0.3], dtype=torch.float64), atol=1e-8, rtol=0)

# %% [markdown]
# ## AdamP
#
# A weight in front of a norm layer is *scale-invariant*: twice the weight gives the same outputs, so only its
# direction matters. Its gradient stands at a right angle to it. Adam divides every entry of the gradient by its own
# size, so its step no longer does: a part of it points along the weight, changes nothing but the length, and a
# longer weight turns less in the next step. AdamP takes that part out.

# %%
torch.manual_seed(0)
w = torch.randn(1, 8, dtype=torch.float64)
target = torch.randn(1, 8, dtype=torch.float64)
leaf = w.clone().requires_grad_()
(leaf / leaf.norm() * target).sum().backward()  # depends on the direction of the weight alone
g = leaf.grad
assert abs(float((g * w).sum())) < 1e-12

unit = w / w.norm()
step = g / (g.abs() + 1e-8)  # Adam's first one
along = (unit * step).sum() * unit
by_hand = w - 0.1 * (step - along)

after = {}
for name in ("adam", "adamp"):
    parameter = torch.nn.Parameter(w.clone())
    optimizer = build_optimizer(name, [{"params": [parameter]}], lr=0.1, weight_decay=0.0)
    parameter.grad = g.clone()
    optimizer.step()
    after[name] = parameter.detach()
torch.testing.assert_close(after["adamp"], by_hand, atol=1e-6, rtol=0)
assert abs(float((after["adamp"] - w).mul(unit).sum())) < 1e-6  # nothing along the weight
assert abs(float((after["adam"] - w).mul(unit).sum())) > 1e-3

# %% [markdown]
# ## Schedules
#
# Large steps at first, small ones at the end. An epoch of 12 updates, 30 epochs, a base rate of 0.1.
#
# ![StepLR](../images/schedule-step.svg)
# ![CosineAnnealingLR](../images/schedule-cosine.svg)
# ![ReduceLROnPlateau](../images/schedule-plateau.svg)
#
# - **StepLR**: times 0.1 every 10 epochs.
# - **CosineAnnealingLR**: half a cosine, from the base rate to 0. At the half it is half: 0.05.
# - **ReduceLROnPlateau**: times 0.1 when the metric has not improved for more than `patience` epochs.

# %%
UPDATES, EPOCHS, BASE = 12, 30, 0.1


def step_lr(update: int) -> float:
    return BASE * 0.1 ** (update // UPDATES // 10)


def cosine_lr(update: int) -> float:
    return BASE * (1 + math.cos(math.pi * update / (UPDATES * EPOCHS))) / 2


for name, by_hand, options in (("step", step_lr, {"step_size": 10, "gamma": 0.1}), ("cosine", cosine_lr, {})):
    schedule = build_schedule(name, [BASE], updates_per_epoch=UPDATES, epochs=EPOCHS, **options)
    for update in range(UPDATES * EPOCHS):
        assert abs(schedule.lrs(update)[0] - by_hand(update)) < 1e-15
assert abs(cosine_lr(UPDATES * EPOCHS // 2) - 0.05) < 1e-15

# %% [markdown]
# At the start of each epoch these are the rates of torch's schedulers. classwise's change with every update, so
# that a curve is smooth, and have no state: a resumed run has the right rate by itself.

# %%
for name, torch_class, options in (
    ("step", torch.optim.lr_scheduler.StepLR, {"step_size": 10}),
    ("cosine", torch.optim.lr_scheduler.CosineAnnealingLR, {"T_max": EPOCHS}),
):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = torch_class(optimizer, **options)
    schedule = build_schedule(name, [BASE], updates_per_epoch=UPDATES, epochs=EPOCHS, **options)
    for epoch in range(EPOCHS):
        assert abs(optimizer.param_groups[0]["lr"] - schedule.lrs(epoch * UPDATES)[0]) < 1e-9
        optimizer.step()
        scheduler.step()

# %% [markdown]
# Plateau is the only one that looks at results. With a patience of 2, the third epoch in a row without improvement
# lowers the rate: of these eight scores, epoch 6 does.

# %%
f1_of_epochs = [0.30, 0.40, 0.45, 0.44, 0.45, 0.43, 0.46, 0.47]
schedule = build_schedule("plateau", [BASE], updates_per_epoch=UPDATES, epochs=EPOCHS, patience=2)
lr, best, waited, by_hand, found = BASE, 0.0, 0, [], []
for epoch, score in enumerate(f1_of_epochs, start=1):
    best, waited = (score, 0) if score > best * 1.0001 else (best, waited + 1)
    if waited > 2:
        lr, waited = lr * 0.1, 0
    by_hand.append(lr)
    schedule.end_epoch(score, epoch * UPDATES)
    found.append(schedule.lrs(epoch * UPDATES)[0])
assert found == by_hand
assert next(epoch for epoch, rate in enumerate(found, start=1) if rate < BASE) == 6

# %% [markdown]
# In a config: `[optimizer] name = "adamp"`, `[schedule] name = "cosine"`. `classwise schedule CONFIG` draws the
# rates of a run before you start it. The files are `optim/optimizers.py` and `optim/schedules.py`.
#
# ## Exercise
#
# Warm-up begins with small steps: over one epoch of 4 updates the rate rises evenly, and the update after the
# warm-up has the full one. Which rates do the first five updates have, with a base of 0.1 and no other schedule?

# %% [markdown]
# ### Answer
#
# 0.02, 0.04, 0.06, 0.08, and then 0.1.

# %%
schedule = build_schedule("constant", [0.1], updates_per_epoch=4, epochs=3, warmup_epochs=1)
assert [round(schedule.lrs(update)[0], 12) for update in range(5)] == [0.02, 0.04, 0.06, 0.08, 0.1]
