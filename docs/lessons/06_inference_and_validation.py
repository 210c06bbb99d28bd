# %% [markdown]
# # 6. Inference and validation
#
# Inference is the forward pass alone: the model answers, and nothing changes. It takes two lines: `model.eval()`
# and `torch.no_grad()`. Inference on the validation rows is validation. Here you see what each line does, validate
# a run by hand, and find the numbers of `classwise evaluate` and `classwise predict`.

# %%
import tempfile
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

import classwise
from classwise.data.pixel_format import PixelFormat
from classwise.demo.fashion import LABELS, read_bundle, write_fashion
from classwise.model.classifier import build_classifier

torch.set_num_threads(1)

# %% [markdown]
# ## model.eval()
#
# Two kinds of layers behave differently in training. **Dropout** sets a random part of its inputs to 0. **Batch
# norm** normalizes by the images of the batch, and keeps running statistics of them. In eval mode dropout does
# nothing, and batch norm uses its statistics. `eval()` is the same as `train(False)`.

# %%
torch.manual_seed(0)
images = torch.randn(8, 4)
model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
model.train()
assert not torch.equal(model(images), model(images))  # dropout draws anew
model.eval()
assert torch.equal(model(images), model(images))
alone, together = model(images[:1]), model(images)[:1]
torch.testing.assert_close(alone, together)  # an answer no longer depends on the other images
assert not model.training

# %% [markdown]
# Forgetting `eval()` does not only give noisy scores. It changes the model: batch norm goes on updating its
# statistics, with the validation images, also under `no_grad`.

# %%
before = model[1].running_mean.clone()
model.train()
with torch.no_grad():
    model(images)
assert not torch.equal(model[1].running_mean, before)
model.eval()

# %% [markdown]
# ## torch.no_grad()
#
# Without it, every result keeps the chain of `grad_fn`, and with it all that `backward()` would need: memory for
# nothing. It does not change a single number.

# %%
with_chain = model(images)
with torch.no_grad():
    without = model(images)
assert with_chain.grad_fn is not None
assert without.grad_fn is None
assert torch.equal(with_chain, without)

# %% [markdown]
# ## A run to validate
#
# One epoch of classwise, with 1,000 other images for validation, 100 of each class.

# %%
folder = tempfile.TemporaryDirectory()
place = Path(folder.name)
write_fashion(place)
config = classwise.make_config(
    {
        "data": {
            "source": str(place / "train.csv"),
            "valid": str(place / "test.csv"),
            "images": str(place),
            "augment": "standard",
        },
        "targets": {"label": {"column": "label", "labels": list(LABELS)}},
        "model": {"backbone": "small_cnn", "image_size": [28, 28], "channels": 1},
        "optimizer": {"name": "adamw", "lr": 2e-3},
        "training": {"epochs": 1, "batch_size": 32, "precision": "fp32", "threads": 1},
        "report": {"baselines": False, "resamples": 0},
    }
)
run = classwise.train(config, place / "run", quiet=True)

# %% [markdown]
# ## By hand
#
# Load the weights of the best checkpoint, switch to eval mode, and go through the validation images, each once and
# not augmented. Collect all predictions first, and count at the end (lesson 3). The loss is that of the whole set:
# a sum, divided by all rows.

# %%
model = build_classifier(
    backbone="small_cnn",
    weights="none",
    image_size=(28, 28),
    fit="squash",
    dropout=0.0,
    heads={"label": 10},
    seed=0,
    pixels=PixelFormat(1),
)
model.load_state_dict(load_file(run.path / "checkpoints" / "best" / "model.safetensors"))
pixels, labels = (torch.from_numpy(array) for array in read_bundle("test"))
pixels, labels = pixels[:, None], labels.long()
assert labels.bincount().tolist() == [100] * 10

model.eval()
with torch.no_grad():
    logits = torch.cat([model(batch)["label"] for batch in pixels.split(32)])
predicted = logits.argmax(dim=1)
macro_f1 = f1_score(labels, predicted, average="macro", zero_division=0)
loss = F.cross_entropy(logits, labels, reduction="sum") / 1000

# %% [markdown]
# ## The same with classwise
#
# `run.metrics` is what the run found at its end, `run.evaluate` counts again.

# %%
assert abs(run.metrics["value"] - macro_f1) < 1e-12
again = run.evaluate(place / "test.csv", images=place)
assert abs(again["targets"]["label"]["macro_f1"] - macro_f1) < 1e-12
assert abs(run.history[0]["valid"]["loss"] - loss.item()) < 1e-6

# %% [markdown]
# `run.predict` takes images without labels. Its table has an id, the predicted label, and the probability of each
# class: the softmax of our logits.

# %%
table = run.predict(place / "test.csv", images=place)
assert table["label"].to_list() == [LABELS[k] for k in predicted]
probabilities = table.select(pl.col(f"label_p_{label}") for label in LABELS).to_torch()
torch.testing.assert_close(probabilities.double(), logits.softmax(dim=1).double(), atol=1e-5, rtol=0)

# %% [markdown]
# The loop's own lines are in `training/loop.py`, in `evaluate`; what makes scores of the outputs is
# `training/validation.py`.
#
# ## Exercise
#
# A baseline of the competition validated with `DataLoader(..., batch_size=32, drop_last=True)` and divided the hits
# by `len(dataset)`. On these 1,000 images: how many are never looked at, and how large can the accuracy be at most?

# %% [markdown]
# ### Answer
#
# 31 batches of 32 are 992 images. 8 are dropped, and still divided by: a perfect model reaches 0.992.

# %%
looked_at = 1000 // 32 * 32
assert 1000 // 32 == 31
assert looked_at == 992
assert 1000 - looked_at == 8
assert looked_at / 1000 == 0.992

# %%
folder.cleanup()
