"""One of several processes that validate in Lightning: `torchrun --nproc-per-node 2 padded.py ROWS OUT`."""

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import SumMetric


class Counting(pl.LightningModule):  # type: ignore[misc]
    """Counts rows; the first row of the table is a hit, the others are not."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = SumMetric()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        (numbers,) = batch
        hits = (numbers == 0).float()
        self.counted(torch.ones_like(hits))
        self.log("counted", self.counted, on_epoch=True)
        self.log("hits", hits.mean(), on_epoch=True, sync_dist=True)


def main() -> None:
    rows, out = int(sys.argv[1]), Path(sys.argv[2])
    loader = DataLoader(TensorDataset(torch.arange(rows)), batch_size=10)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (found,) = trainer.validate(Counting(), loader, verbose=False)
    if trainer.is_global_zero:
        out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
