# %% [markdown]
# # 5. Gradient accumulation
#
# You want the gradient of 128 images, but only 32 fit into memory. Since gradients add up (lesson 4), call
# `backward()` for four micro-batches of 32, and `optimizer.step()` once. Four micro-batches make one *update*.
#
# It looks simple, and many scripts get it wrong. This lesson does it by hand, shows three traps, and ends at the
# rule that classwise's loop follows: **add sums, and divide by what belongs to the whole update.**

# %%
import torch
from torch import nn
from torch.nn import functional as F

from classwise.demo.fashion import read_bundle
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.model.small_cnn import SmallCNN, group_norm

torch.set_num_threads(1)
images, labels = (torch.from_numpy(array) for array in read_bundle("train"))
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
images, labels = images[order].double() / 255, labels[order].long()

# %% [markdown]
# The model is one linear layer, in float64, so that what remains of a difference is a mistake and not rounding.

# %%
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()


def gradient() -> torch.Tensor:
    """All gradients as one vector, taken away from the parameters."""
    vector = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return vector


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The size of the difference as a share of the size of what is wanted."""
    return float((found - wanted).norm() / wanted.norm())


# %% [markdown]
# ## By hand: four micro-batches of 32
#
# The mean loss of 128 images is the mean of the four mean losses. So each is divided by 4. That is the lecture's
# recipe, and here it is right.

# %%
F.cross_entropy(model(images[:128]), labels[:128]).backward()
big = gradient()
for rows in torch.arange(128).split(32):
    (F.cross_entropy(model(images[rows]), labels[rows]) / 4).backward()
assert off(gradient(), big) < 1e-12

# %% [markdown]
# ## Trap 1: when to step
#
# `if i % 4 == 0: optimizer.step()` stands in many scripts. With i = 0, 1, 2, ... it steps after the *first*
# micro-batch. The epoch has 47: there are 12 steps, the first with one micro-batch instead of four, and the last 2
# micro-batches are never stepped at all. Their gradients stay until the next epoch.

# %%
steps = [i for i in range(47) if i % 4 == 0]
assert -(-len(labels) // 32) == 47
assert len(steps) == 12
assert steps[0] == 0
assert 46 - steps[-1] == 2

# %% [markdown]
# Cut the order of the epoch into updates first, and each update into micro-batches: then the last update is
# shorter, but none is forgotten. Here it has 3 micro-batches, of 32, 32 and 20 images.

# %%
updates = [update.split(32) for update in torch.arange(len(labels)).split(128)]
assert len(updates) == 12
assert [len(rows) for rows in updates[-1]] == [32, 32, 20]

# %% [markdown]
# ## Trap 2: what to divide by
#
# In this last update, dividing by 4 makes the gradient about a quarter too small, since only three losses are added
# up. Dividing by 3 is better, but still wrong: an image among 20 then counts more than one among 32.

# %%
last = torch.cat(list(updates[-1]))
F.cross_entropy(model(images[last]), labels[last]).backward()
big = gradient()
for divisor, at_least, at_most in ((4, 0.2, 0.3), (3, 0.01, 0.1)):
    for rows in updates[-1]:
        (F.cross_entropy(model(images[rows]), labels[rows]) / divisor).backward()
    assert at_least < off(gradient(), big) < at_most

# %% [markdown]
# ## Trap 3: class weights
#
# With weights, PyTorch's mean is the weighted sum divided by the *sum of the weights of the batch*. Micro-batches
# weigh differently, whichever classes they happen to have. So even with four full micro-batches the mean of the
# means is wrong, here by more than 3 percent.

# %%
counts = labels.bincount()
weight = len(labels) / (10 * counts.double())  # a class with a tenth of the images has weight 1
F.cross_entropy(model(images[:128]), labels[:128], weight).backward()
big = gradient()
for rows in torch.arange(128).split(32):
    (F.cross_entropy(model(images[rows]), labels[rows], weight) / 4).backward()
assert off(gradient(), big) > 0.03

# %% [markdown]
# ## The rule: sums, and one normalizer
#
# Sums can be added, means cannot. So first add up what the loss of the whole update is divided by, the
# **normalizer**: the number of its images or, with class weights, the sum of their weights. Then let every
# micro-batch add its *sum* divided by that number. It is exact for any sizes and weights.

# %%
F.cross_entropy(model(images[last]), labels[last], weight).backward()
big = gradient()
normalizer = sum(weight[labels[rows]].sum() for rows in updates[-1])
for rows in updates[-1]:
    total = F.cross_entropy(model(images[rows]), labels[rows], weight, reduction="sum")
    (total / normalizer).backward()
by_hand = gradient()
assert off(by_hand, big) < 1e-12

# %% [markdown]
# ## The same with classwise
#
# Every loss of classwise has a method `normalizer` beside `forward`, and so has the criterion, which joins the
# losses of all targets. The four lines below are those of the training loop (`training/update.py`,
# `training/loop.py`).

# %%
criterion = Criterion({"label": CrossEntropy(weight)}, weights={"label": 1.0})
targets = [{"label": labels[rows]} for rows in updates[-1]]
normalizer = sum(criterion.normalizer(labels_of_batch) for labels_of_batch in targets)
for rows, labels_of_batch in zip(updates[-1], targets, strict=True):
    loss = criterion({"label": model(images[rows])}, labels_of_batch, normalizer)
    loss.backward()
assert off(gradient(), by_hand) < 1e-12

# %% [markdown]
# ## What no loss can repair: batch norm
#
# Batch norm normalizes an image by the mean and variance of the images *beside it*. In a micro-batch of 32 others
# stand beside it than in a batch of 128, so the outputs themselves differ. Group norm looks at one image at a time.
# classwise's log says so when a run accumulates with batch norm.

# %%
pixels = images[:128, None].float().expand(-1, 3, -1, -1)
for norm, is_exact in ((nn.BatchNorm2d, False), (group_norm, True)):
    torch.manual_seed(0)
    network = SmallCNN(norm=norm).train()
    whole = network(pixels)
    parts = torch.cat([network(part) for part in pixels.split(32)])
    assert (off(parts.detach(), whole.detach()) < 1e-5) == is_exact

# %% [markdown]
# ## Exercise
#
# A colleague keeps the mean losses of micro-batches with 32 and 8 images, and wants to repair the sum without
# changing the loss function. By which two numbers must the means be multiplied?

# %% [markdown]
# ### Answer
#
# By each batch's share of the update's images: 0.8 and 0.2.

# %%
F.cross_entropy(model(images[:40]), labels[:40]).backward()
big = gradient()
assert 32 / (32 + 8) == 0.8
for rows, share in ((torch.arange(32), 0.8), (torch.arange(32, 40), 0.2)):
    (share * F.cross_entropy(model(images[rows]), labels[rows])).backward()
assert off(gradient(), big) < 1e-12
