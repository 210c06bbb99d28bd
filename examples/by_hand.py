"""Training by hand, equal to the bit with examples/by-hand.toml: `python examples/by_hand.py [RUN]` compares."""

import math
import sys
from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from classwise.demo.fashion import read_bundle

SEED, EPOCHS, BATCH, ACCUMULATE, CLASSES, LR, DECAY = 42, 2, 32, 4, 10, 2e-3, 0.01


def random(stream: int, epoch: int = 0) -> np.random.Generator:  # a function of where it is used: no state
    return np.random.Generator(np.random.Philox(key=SEED, counter=[0, stream, epoch, 0]))


def images_and_labels(split: str) -> tuple[Tensor, Tensor]:
    images_NHW, labels_N = (torch.from_numpy(array) for array in read_bundle(split))
    return (images_NHW[:, None] - 127.5) / 127.5, labels_N.long()


def block(inputs: int, outputs: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(outputs // 8, outputs), relu=nn.ReLU()))


def new_model() -> nn.Module:
    torch.manual_seed(int(random(stream=4).integers(0, 2**63 - 1)))
    parts = {"stem": block(1, 24), "stage1": block(24, 24), "pool1": nn.MaxPool2d(2), "stage2": block(24, 48)}
    parts |= {"pool2": nn.MaxPool2d(2), "stage3": block(48, 96), "pool3": nn.MaxPool2d(2)}
    parts |= {"mean": nn.AdaptiveAvgPool2d(3), "flat": nn.Flatten()}
    parts = {"backbone": nn.Sequential(OrderedDict(parts)), "heads": nn.Sequential(nn.Linear(864, CLASSES))}
    return nn.Sequential(OrderedDict(parts)).to(memory_format=torch.channels_last)


def train() -> dict[str, Tensor]:
    """The weights of the best epoch by macro F1."""
    images, labels = images_and_labels("train")
    updates, model, best = math.ceil(len(labels) / (BATCH * ACCUMULATE)), new_model(), (-1.0, {})
    decayed, others = ([p for p in model.parameters() if (p.ndim > 1) is large] for large in (True, False))
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
    for epoch in range(EPOCHS):
        model.train()
        order = torch.from_numpy(random(stream=0, epoch=epoch).permutation(len(labels)))
        for update, rows in enumerate(order.split(BATCH * ACCUMULATE), start=epoch * updates):
            for group in optimizer.param_groups:
                group["lr"] = LR * (1 + math.cos(math.pi * update / (updates * EPOCHS))) / 2
            optimizer.zero_grad()
            for part in rows.split(BATCH):  # each a sum, divided by the rows of the whole update
                loss = cross_entropy(model(images[part]), labels[part], reduction="sum", label_smoothing=0.1)
                (loss * (1 / len(rows))).backward()
            optimizer.step()
        score = macro_f1(model, *images_and_labels("test"))
        print(f"epoch {epoch + 1}: macro F1 {score:.6f}")
        if score > best[0]:
            best = score, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return best[1]


@torch.no_grad()
def macro_f1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    predicted = torch.cat([model(batch).argmax(dim=1) for batch in images.split(BATCH)])
    counts = torch.bincount(labels * CLASSES + predicted, minlength=CLASSES**2).view(CLASSES, -1).double()
    return float((2 * counts.diag() / (counts.sum(0) + counts.sum(1))).nan_to_num().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the config: another number may change the last digits
    ours = train()
    for run in sys.argv[1:]:
        theirs = load_file(f"{run}/checkpoints/best/model.safetensors")
        print("largest difference:", max(float((ours[name] - theirs[name]).abs().max()) for name in theirs))
