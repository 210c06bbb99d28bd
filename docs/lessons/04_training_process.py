# %% [markdown]
# # 4. The training process
#
# A loss says how wrong the model is, an optimizer changes its weights, a metric says how good it has become. The
# training process puts the three together:
#
#     for every epoch:
#         model.train()
#         for every batch:
#             optimizer.zero_grad()
#             outputs = model(images)
#             loss = criterion(outputs, labels)
#             loss.backward()
#             optimizer.step()
#
# First you write these lines by hand and look at what each of them changes. Then `classwise train` does the same
# and ends with the same weights, to the bit.

# %%
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import classwise
from classwise.data.pixel_format import PixelFormat
from classwise.data.sampling import epoch_order
from classwise.demo.fashion import LABELS, read_bundle, write_fashion
from classwise.model.classifier import build_classifier
from classwise.randomness import WEIGHTS, torch_seed

torch.set_num_threads(1)  # another number of threads may change the last digits of a sum

# %% [markdown]
# ## Data and model
#
# 1,492 images of clothes, 28 x 28 pixels, 10 classes. They are far from balanced: 600 T-shirts, but only 6 ankle
# boots.

# %%
images, labels = (torch.from_numpy(array) for array in read_bundle("train"))
images, labels = images[:, None], labels.long()  # (N, 1, 28, 28) from 0 to 255, and (N,)
counts = labels.bincount()
assert images.shape == (1492, 1, 28, 28)
assert len(LABELS) == 10
assert counts[0] == 600
assert counts[9] == 6

# %% [markdown]
# A model is a function with parameters. This one has two layers of them: a convolution, and a linear layer that
# makes ten numbers of an image, one for each class. The class with the largest number is the prediction. Together
# 1,600 parameters.

# %%
torch.manual_seed(0)
tiny = nn.Sequential(
    nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(3),
    nn.Flatten(),
    nn.Linear(16 * 9, 10, bias=False),
)
batch, truth = images[::47] / 255, labels[::47]  # every 47th image: 32 of them
assert sum(parameter.numel() for parameter in tiny.parameters()) == 16 * 9 + 16 + 16 * 9 * 10 == 1600
assert tiny(batch).shape == (32, 10)

# %% [markdown]
# ## One step, line by line
#
# `model.train()` switches the layers that behave differently in training (dropout, batch norm). Before the first
# `backward()` no parameter has a gradient.

# %%
tiny.train()
optimizer = torch.optim.SGD(tiny.parameters(), lr=0.1)
weight = tiny[0].weight
assert weight.grad is None

# %% [markdown]
# `loss.backward()` walks back from the loss along the chain of `grad_fn` and fills `.grad` of every parameter: how
# much the loss rises if that parameter rises a little.

# %%
optimizer.zero_grad()
loss = F.cross_entropy(tiny(batch), truth)
loss.backward()
gradient = weight.grad.clone()
assert gradient.shape == weight.shape

# %% [markdown]
# Gradients *add up*. A second `backward()` without `zero_grad()` gives twice the gradient, which is why
# `zero_grad()` comes first. (Gradient accumulation, the next lesson, makes use of it.)

# %%
F.cross_entropy(tiny(batch), truth).backward()
assert torch.equal(weight.grad, 2 * gradient)

# %% [markdown]
# `optimizer.step()` changes the weights. For plain SGD: new = old - lr * gradient. After the step the loss of the
# same batch is smaller.

# %%
optimizer.zero_grad()
F.cross_entropy(tiny(batch), truth).backward()
old = weight.detach().clone()
optimizer.step()
torch.testing.assert_close(weight.detach(), old - 0.1 * gradient)
assert F.cross_entropy(tiny(batch), truth) < loss

# %% [markdown]
# Parameters with `requires_grad=False` get no gradient and stay as they are: so a part of a model is frozen.

# %%
tiny[0].requires_grad_(False)
tiny.zero_grad()
F.cross_entropy(tiny(batch), truth).backward()
assert weight.grad is None
assert tiny[4].weight.grad is not None

# %% [markdown]
# ## The loop by hand
#
# Now the whole process, for two epochs. The network and the order of the images are those of classwise, so that
# both runs can be compared; the process is ours. An order is a function of the seed and the epoch: every image
# comes once in an epoch.

# %%
model = build_classifier(
    backbone="small_cnn_gn",
    weights="none",
    image_size=(28, 28),
    fit="squash",
    dropout=0.0,
    heads={"label": 10},
    seed=torch_seed(42, WEIGHTS),
    pixels=PixelFormat(1),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
losses = []
for epoch in range(2):
    model.train()
    order = torch.from_numpy(epoch_order("shuffle", labels.numpy(), seed=42, epoch=epoch))
    assert sorted(order.tolist()) == list(range(1492))
    for rows in order.split(32):
        optimizer.zero_grad()
        outputs = model(images[rows])["label"]  # the model has one head, called `label`
        loss = F.cross_entropy(outputs, labels[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

# %% [markdown]
# An epoch has 47 batches: 46 of 32 images, and a last one of the 20 that are left. The loss begins near 2.3, which
# is -log(1/10): a model that knows nothing gives each of ten classes a tenth. In the second epoch it is less than
# half of that.

# %%
assert len(losses) == 2 * 47
assert len(order.split(32)[-1]) == 1492 - 46 * 32 == 20
assert abs(torch.tensor(10.0).log() - 2.3) < 0.01
assert abs(losses[0] - 2.3) < 0.2
assert sum(losses[47:]) / 47 < 2.3 / 2

# %% [markdown]
# ## The same with classwise
#
# The config says what we have written: no augmentation, SGD with momentum, a constant learning rate, batches of 32.

# %%
folder = tempfile.TemporaryDirectory()
place = Path(folder.name)
write_fashion(place)
config = classwise.make_config(
    {
        "seed": 42,
        "data": {
            "source": str(place / "train.csv"),
            "valid": str(place / "test.csv"),
            "images": str(place),
            "augment": "none",
        },
        "targets": {"label": {"column": "label", "labels": list(LABELS)}},
        "model": {"backbone": "small_cnn_gn", "image_size": [28, 28], "channels": 1},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0},
        "schedule": {"name": "constant"},
        "training": {"epochs": 2, "batch_size": 32, "precision": "fp32", "threads": 1},
        "report": {"baselines": False, "resamples": 0},
    }
)
run = classwise.train(config, place / "run", quiet=True)
theirs = load_file(run.path / "checkpoints" / "last" / "model.safetensors")
ours = model.state_dict()
assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

# %% [markdown]
# All weights are equal. The training loss in `history.jsonl` is the mean of our losses, each counted with the rows
# of its batch.

# %%
sizes = [32] * 46 + [20]
mean = sum(loss * size for loss, size in zip(losses[47:], sizes, strict=True)) / 1492
assert abs(run.history[1]["train_loss"] - mean) < 1e-12

# %% [markdown]
# The lines that ran are in `src/classwise/training/loop.py`, in `train_one_epoch`: read them now. What stands there
# beside the five lines is for accumulation, for several processes, and for gradients that are not finite.
#
# ## Exercise
#
# A colleague calls `optimizer.zero_grad()` once per epoch instead of once per batch. Before you run it: what does
# the optimizer see in the third batch? Show it with `tiny`, without a step in between.

# %% [markdown]
# ### Answer
#
# The sum of the gradients of all batches so far. In the third batch that is the gradient of three losses.

# %%
tiny.requires_grad_(True)
batches = [(images[start : start + 32] / 255, labels[start : start + 32]) for start in (0, 600, 960)]
single = []
for pixels, numbers in batches:
    tiny.zero_grad()
    F.cross_entropy(tiny(pixels), numbers).backward()
    single.append(tiny[0].weight.grad.clone())
tiny.zero_grad()
for pixels, numbers in batches:
    F.cross_entropy(tiny(pixels), numbers).backward()
torch.testing.assert_close(tiny[0].weight.grad, sum(single))

# %%
folder.cleanup()
