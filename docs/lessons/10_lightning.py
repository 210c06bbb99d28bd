# %% [markdown]
# # 10. Lightning
#
# PyTorch Lightning shortens a training script: you write what a step does, and its `Trainer` has the loop. That is
# good once the plain process (lessons 4 to 7) is understood, since the loop has not gone away: it is only out of
# sight. Here you write a `LightningModule` by hand, find three of the traps of the earlier lessons inside, and
# train a config of classwise in Lightning, with the same weights to the bit.
#
# This lesson needs `pip install "classwise[lightning]"`.

# %%
import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_f1_score

import classwise
from classwise.demo.fashion import LABELS, read_bundle, write_fashion
from classwise.integrations.lightning import from_config

warnings.filterwarnings("ignore", module="pytorch_lightning")  # its advice on loaders
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
torch.set_num_threads(1)
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}

# %% [markdown]
# ## By hand: the loop and the module
#
# The same five lines, and a class that has two of them. `train`, `zero_grad`, `backward` and `step` are in the
# Trainer.

# %%
pixels, labels = (torch.from_numpy(array) for array in read_bundle("train"))
pixels, labels = pixels.float() / 255, labels.long()
chosen = torch.randperm(1492, generator=torch.Generator().manual_seed(0))[:208]
loader = DataLoader(TensorDataset(pixels[chosen], labels[chosen]), batch_size=32)  # in this order, to compare


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


class Plain(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = new_model()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, truth = batch
        return F.cross_entropy(self.model(images), truth)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def by_hand(accumulate: int, divisors: list[int]) -> torch.Tensor:
    """The weights after one epoch; the sum of each update's mean losses is divided by its entry of `divisors`."""
    model = new_model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = list(loader)
    for start, divisor in zip(range(0, len(batches), accumulate), divisors, strict=True):
        optimizer.zero_grad()
        for images, truth in batches[start : start + accumulate]:
            (F.cross_entropy(model(images), truth) / divisor).backward()
        optimizer.step()
    return model[1].weight.detach()


def in_lightning(accumulate: int) -> torch.Tensor:
    module = Plain()
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", accumulate_grad_batches=accumulate, **QUIET)
    trainer.fit(module, loader)
    return module.model[1].weight.detach()


assert torch.equal(in_lightning(accumulate=1), by_hand(1, divisors=[1] * 7))

# %% [markdown]
# ## Trap 1: accumulation
#
# 208 images are 7 batches: with 4 to an update, the first update has 4 of them and the last 3. Lightning divides by
# 4 both times (lesson 5).

# %%
assert len(loader) == 7
accumulated = in_lightning(accumulate=4)
torch.testing.assert_close(accumulated, by_hand(4, divisors=[4, 4]))
assert not torch.allclose(accumulated, by_hand(4, divisors=[4, 3]))

# %% [markdown]
# ## Trap 2: the mean of batch scores
#
# `self.log("f1", ...)` in `validation_step` shows the mean over the batches. That is right for a loss, and wrong
# for F1 (lesson 3).


# %%
class Logging(Plain):
    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        images, truth = batch
        self.log(
            "f1", multiclass_f1_score(self.model(images), truth, 10, average="macro"), batch_size=len(truth)
        )


trainer = pl.Trainer(max_epochs=5, accelerator="cpu", num_sanity_val_steps=0, **QUIET)
module = Logging()
trainer.fit(module, loader, loader)
predicted = module.model(pixels[chosen]).argmax(dim=1)
right = f1_score(labels[chosen], predicted, labels=range(10), average="macro", zero_division=0)
assert abs(float(trainer.callback_metrics["f1"]) - right) > 0.02

# %% [markdown]
# ## Trap 3: several processes
#
# Lightning gives each process as many validation rows, and takes some twice for it: an odd number of rows becomes
# even in two processes. What that does to a score, and what else differs, is measured in [the
# results](../results/lightning.md).
#
# ## The same with classwise
#
# `from_config` makes a module and the data of any config. Here with class weights and accumulation: two things that
# a plain module gets wrong.

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
            "augment": "light",
        },
        "targets": {"label": {"column": "label", "labels": list(LABELS)}},
        "model": {"backbone": "small_cnn_gn", "image_size": [28, 28], "channels": 1},
        "loss": {"name": "cross_entropy", "class_weights": "inverse"},
        "optimizer": {"name": "adamw", "lr": 2e-3},
        "training": {"epochs": 1, "batch_size": 32, "accumulate": 4, "precision": "fp32", "threads": 1},
        "report": {"baselines": False, "resamples": 0},
    }
)
module, data = from_config(config)
trainer = pl.Trainer(**module.trainer_options(), **QUIET)
trainer.fit(module, data)

run = classwise.train(config, place / "run", quiet=True)
theirs = load_file(run.path / "checkpoints" / "last" / "model.safetensors")
ours = module.model.state_dict()
assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
assert abs(float(trainer.callback_metrics["valid_macro_f1"]) - run.metrics["value"]) < 1e-6

# %% [markdown]
# The module's hooks are in `src/classwise/integrations/lightning.py`: each calls what the loop of classwise calls
# in the same place. When it pays to go there, and what you give up, is in [the guide](../guide/lightning.md).
#
# ## Exercise
#
# Repair trap 1 in `Plain` without touching the Trainer: Lightning divides what `training_step` returns by 4, so
# what must it return for the update of three batches, to have the mean by images?

# %% [markdown]
# ### Answer
#
# The summed loss of the batch, divided by the images of the update, times 4. The update's images are 128 for the
# first four batches and 80 for the last three: 32, 32 and 16.


# %%
class Exact(Plain):
    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, truth = batch
        rows = 128 if batch_idx < 4 else 80
        return 4 * F.cross_entropy(self.model(images), truth, reduction="sum") / rows


assert [len(truth) for _, truth in loader] == [32, 32, 32, 32, 32, 32, 16]
exact = Exact()
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", accumulate_grad_batches=4, **QUIET)
trainer.fit(exact, loader)
model = new_model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for rows in chosen.split(128):
    optimizer.zero_grad()
    F.cross_entropy(model(pixels[rows]), labels[rows]).backward()
    optimizer.step()
torch.testing.assert_close(exact.model[1].weight, model[1].weight)

# %%
folder.cleanup()
