#!/usr/bin/env bash
# Under Lightning, a hook before torch's optimizer step runs before the backward pass, and reads no gradient or an old one.
#
# One would guess that a hook of Optimizer.register_step_pre_hook sees the gradient that the step will use: that is what it is
# registered for (to log its norm, to check that it is finite), and in a loop of zero_grad, backward, step it does.
# What happens: Lightning's automatic optimization gives the training step to the optimizer as a closure, so that forward,
# zero_grad and backward run inside optimizer.step(), after the hook. Without accumulation the hook reads None in the first
# step and the gradient of the batch before in every other one, with the same norms one step late; with two micro-batches it
# reads the gradient of the first alone. A hook after the step, or Lightning's on_before_optimizer_step, sees the right one.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 pytorch-lightning==2.6.6 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY' 2>/dev/null
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

print("torch", torch.__version__, "pytorch-lightning", pl.__version__)


class Module(pl.LightningModule):
    """The gradient of the batch n is n."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.before, self.after, self.of_lightning = [], [], []

    def gradient(self):
        return None if self.weight.grad is None else self.weight.grad.item()

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).sum()

    def on_before_optimizer_step(self, optimizer):
        self.of_lightning.append(self.gradient())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: self.before.append(self.gradient()))
        optimizer.register_step_post_hook(lambda *_: self.after.append(self.gradient()))
        return optimizer


def seen(micro_batches):
    module = Module()
    trainer = pl.Trainer(
        max_epochs=1, accumulate_grad_batches=micro_batches, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.tensor([1.0, 2.0, 3.0, 4.0]), batch_size=1))
    return module


one, two = seen(1), seen(2)
for module, text in ((one, "a step each batch"), (two, "a step each two batches")):
    print(f"{text}: before the step {module.before}, after it {module.after}, in Lightning's hook {module.of_lightning}")
assert one.before == [None, 1.0, 2.0, 3.0] and one.after == one.of_lightning == [1.0, 2.0, 3.0, 4.0]
assert two.before == [0.5, 1.5] and two.after == two.of_lightning == [1.5, 3.5]
PY
