# %% [markdown]
# # 7. Checkpoint and early stopping
#
# The last epoch is not always the best one. So keep the weights of the epoch with the best score, and stop when
# nothing has become better for a while. And a run that is interrupted should go on as if nothing had happened. All
# three are a few lines by hand, with a trap in each.

# %%
import copy
import io
import math
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import classwise
from classwise.demo.fashion import LABELS, read_bundle, write_fashion
from classwise.training.state import Progress

torch.set_num_threads(1)

# %% [markdown]
# ## The best epoch, by hand
#
# Take the macro F1 of eight epochs as given. A higher one replaces the best, and its weights would be saved. With a
# patience of 3, training ends after three epochs in a row that were not better: here after epoch 7, and the best is
# epoch 4.

# %%
f1_of_epochs = [0.31, 0.44, 0.43, 0.52, 0.50, 0.52, 0.51, 0.60]


def best_and_last(scores: list[float], patience: int) -> tuple[int, int]:
    """The epoch whose weights are kept, and the one after which training ends; both from 1."""
    best, best_epoch, waited = -math.inf, 0, 0
    for epoch, score in enumerate(scores, start=1):
        if score > best:
            best, best_epoch, waited = score, epoch, 0
        else:
            waited += 1
        if waited == patience:
            return best_epoch, epoch
    return best_epoch, len(scores)


assert best_and_last(f1_of_epochs, patience=3) == (4, 7)

# %% [markdown]
# Epoch 6 has the same score as epoch 4, and is not *better*. Epoch 8 would have been the best of all: patience
# saves time, and costs that chance.
#
# ### Traps
#
# - `best = math.inf`: no F1 is above it, so nothing is ever saved. This stood in the competition's baseline.
# - The best by *accuracy*, where the leaderboard ranks by F1.
# - `best = model.state_dict()`: this is no copy. The tensors go on changing with the model.

# %%
model = nn.Linear(2, 2)
kept, copied = model.state_dict(), copy.deepcopy(model.state_dict())
with torch.no_grad():
    model.weight += 1
assert torch.equal(kept["weight"], model.weight)
assert not torch.equal(copied["weight"], model.weight)
assert not any(score > math.inf for score in f1_of_epochs)

# %% [markdown]
# ## The same with classwise
#
# `Progress.end_epoch` counts the epochs, and says whether one is the best so far.

# %%
progress = Progress()
is_best = []
while progress.epochs_without_improvement < 3:
    score = f1_of_epochs[progress.epoch]
    is_best.append(progress.end_epoch(score, row={}))
assert (progress.best_epoch, progress.epoch) == best_and_last(f1_of_epochs, patience=3)
assert is_best == [True, True, False, True, False, False, False]

# %% [markdown]
# In a config: `[selection] metric = "macro_f1"` and `patience = 3`. With a learning rate of almost nothing no epoch
# is better than the first, so this run stops after 1 + 3 epochs of the 20 that it may have.

# %%
folder = tempfile.TemporaryDirectory()
place = Path(folder.name)
write_fashion(place)
values = {
    "data": {"source": str(place / "test.csv"), "images": str(place), "valid": 0.2, "augment": "none"},
    "targets": {"label": {"column": "label", "labels": list(LABELS)}},
    "model": {"backbone": "small_cnn_gn", "image_size": [28, 28], "channels": 1},
    "optimizer": {"name": "sgd", "lr": 1e-12, "momentum": 0.9, "weight_decay": 0.0},
    "schedule": {"name": "constant"},
    "training": {"epochs": 20, "batch_size": 32, "precision": "fp32", "threads": 1},
    "selection": {"metric": "macro_f1", "patience": 3},
    "report": {"baselines": False, "resamples": 0},
}
run = classwise.train(classwise.make_config(values), place / "stopped", quiet=True)
assert run.status["state"] == "early_stopped"
assert run.status["epoch"] == 1 + 3
assert run.status["best"]["epoch"] == 1
scores = [row["valid"]["macro_f1"] for row in run.history]
assert best_and_last(scores, patience=3) == (1, 4)

# %% [markdown]
# ## Going on after an interruption
#
# A checkpoint with the weights alone is enough to predict, but not to go on. The optimizer has a memory as well:
# momentum, or the moments of Adam. By hand, four epochs in a row, against two, saved, loaded, and two more:

# %%
pixels, labels = (torch.from_numpy(array) for array in read_bundle("test"))
pixels, labels = pixels.float() / 255, labels.long()


def new() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer, the same every time."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return linear, torch.optim.SGD(linear.parameters(), lr=0.01, momentum=0.9)


def train(linear: nn.Module, optimizer: torch.optim.Optimizer, epochs: range) -> torch.Tensor:
    """The weights after these epochs. The order of the rows is a function of the epoch."""
    for epoch in epochs:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(32):
            optimizer.zero_grad()
            F.cross_entropy(linear(pixels[rows]), labels[rows]).backward()
            optimizer.step()
    return linear[1].weight.detach().clone()


whole = train(*new(), range(4))
for with_optimizer in (True, False):
    linear, optimizer = new()
    train(linear, optimizer, range(2))
    file = io.BytesIO()
    torch.save({"model": linear.state_dict(), "optimizer": optimizer.state_dict()}, file)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    linear, optimizer = new()
    linear.load_state_dict(saved["model"])
    if with_optimizer:
        optimizer.load_state_dict(saved["optimizer"])
    resumed = train(linear, optimizer, range(2, 4))
    assert torch.equal(resumed, whole) == with_optimizer

# %% [markdown]
# The same holds for the schedule, the count of epochs without improvement, the average of the weights, and random
# numbers: whatever is forgotten makes another run. classwise keeps all of it in `checkpoints/last`, and has no
# random state to save, since every random number is a function of where it is used (seed, epoch, row).
#
# A run of two epochs that is given a third by `resume` ends with the weights of a run of three.

# %%
values["optimizer"]["lr"] = 0.01
values["selection"] = {"metric": "macro_f1"}
values["training"]["epochs"] = 3
three = classwise.train(classwise.make_config(values), place / "three", quiet=True)
values["training"]["epochs"] = 2
two = classwise.train(classwise.make_config(values), place / "two", quiet=True)
two = classwise.resume(two.path, epochs=3, quiet=True)
ours, theirs = (load_file(run.path / "checkpoints/last/model.safetensors") for run in (two, three))
assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

# %% [markdown]
# Ctrl-C, a kill, or a full disk in the middle of an epoch give the same: `classwise resume RUN` goes on from the
# last update that was saved. See `training/state.py` and `run/checkpoint.py`.
#
# ## Exercise
#
# With the scores above, what are the best and the last epoch with a patience of 2, and with 4?

# %% [markdown]
# ### Answer
#
# With 2: best 4, last 6. With 4 the run lives to see epoch 8, which is the best.

# %%
assert best_and_last(f1_of_epochs, patience=2) == (4, 6)
assert best_and_last(f1_of_epochs, patience=4) == (8, 8)

# %%
folder.cleanup()
