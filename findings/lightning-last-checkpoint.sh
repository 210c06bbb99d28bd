#!/usr/bin/env bash
# PyTorch Lightning: with ModelCheckpoint(monitor=..., save_last=True) last.ckpt is not the last epoch.
#
# One would guess that last.ckpt is written after every epoch, to resume from. What happens: it is written together with a
# checkpoint that is among the best. In a run of four epochs whose score falls after the second, last.ckpt holds the second
# epoch: resuming repeats the others, and whoever compares 'best' with 'last' compares one epoch with itself.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 pytorch-lightning==2.6.6 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import logging
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
print("pytorch-lightning", lightning.__version__)
SCORES = (0.5, 0.6, 0.4, 0.3)


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        return self.layer(batch).mean()

    def validation_step(self, batch, index):
        self.log("f1", torch.tensor(SCORES[self.current_epoch]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


loader = torch.utils.data.DataLoader(torch.randn(8, 2), batch_size=4)
trainer = lightning.Trainer(
    max_epochs=4,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[ModelCheckpoint("checkpoints", monitor="f1", mode="max", save_last=True)],
)
trainer.fit(Model(), loader, loader)
epochs = {path.name: torch.load(path, weights_only=False)["epoch"] for path in Path("checkpoints").iterdir()}
print("epochs 0 to 3 were trained; checkpoints:", epochs)
assert epochs["last.ckpt"] == 1, epochs
PY
