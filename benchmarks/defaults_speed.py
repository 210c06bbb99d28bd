"""Everybody at their defaults: how many images a second, and how good is the model after as many epochs?

    python benchmarks/defaults_speed.py [--backbones resnet18@64 mobilenetv3_large_100@128] [--blocks 2]
        [--epochs 10] [--json FILE]

Drawn JPEG files of 256 x 192 pixels in eight classes, the rarest a tenth of the largest. classwise: the config that
`classwise init` writes, with the backbone, size, epochs and batch size given. The others, each as its tutorial does:
a DataLoader with two workers, Pillow and torchvision (random resized crop, mirror image), fp32, cross entropy, AdamW.
timm has no trainer that can be imported: its script's order of steps is written out (forward, zero_grad, backward,
step, with its loss meter's synchronization). All in turns, in one process each time; the speed is that of the epochs
after the first, training alone, with whatever each does meanwhile; macro F1 is that of the last epoch on the same rows.
Every block has another seed, for all.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

COUNTS = (150, 120, 100, 80, 60, 40, 25, 15)
EPOCHS, SEED = int(os.environ.get("BENCH_EPOCHS", "10")), int(os.environ.get("BENCH_SEED", "0"))
BATCH, WORKERS = 32, 2


def draw(folder: Path) -> None:
    """Images of each class in a folder of its own: a texture of its own direction and colour, in noise."""
    rng = np.random.default_rng(0)
    height, width = 192, 256
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for k, count in enumerate(COUNTS):
        (folder / "images" / str(k)).mkdir(parents=True)
        for i in range(count):
            angle = np.pi * (k + rng.uniform(-0.25, 0.25)) / len(COUNTS)
            wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.2, 0.4) + rng.uniform(0, 6))
            image = (
                128 + 60 * wave[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 25, (height, width, 3))
            )
            data = cv2.imencode(".jpg", image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[
                1
            ]
            (folder / "images" / str(k) / f"{i}.jpg").write_bytes(data.tobytes())


def split(folder: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The rows that classwise trains and validates on."""
    import polars as pl

    table = pl.read_csv(folder / "split.csv", infer_schema=False)
    rows = [(path, int(Path(path).parent.name)) for path in table["path"].to_list()]
    sides = table["split"].to_list()
    train = [row for row, side in zip(rows, sides, strict=True) if side == "train"]
    return train, [row for row, side in zip(rows, sides, strict=True) if side != "train"]


def classwise(folder: Path, backbone: str, size: int) -> tuple[float, float]:
    from classwise.run.api import train

    given = {
        "seed": SEED,
        "model.backbone": backbone,
        "model.weights": "none",
        "model.image_size": f"[{size}, {size}]",
        "training.epochs": EPOCHS,
        "training.batch_size": BATCH,
        "optimizer.lr": 1e-3,
        "selection.first_epoch": EPOCHS,
    }
    overrides = [(key, str(value)) for key, value in given.items()]
    run = train(folder / "classwise.toml", folder / f"run-{time.time_ns()}", overrides, quiet=True)
    (run.path / "split.csv").replace(folder / "split.csv")
    speeds = [row["images_per_second"] for row in run.history[1:]]
    return statistics.median(speeds), float(run.history[-1]["valid"]["macro_f1"])


def loaders(folder: Path, size: int) -> tuple[Any, Any]:
    """DataLoaders as torchvision's and timm's scripts make them."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms as t

    normal = t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    change = t.Compose([t.RandomResizedCrop(size), t.RandomHorizontalFlip(), t.ToTensor(), normal])
    look = t.Compose([t.Resize((size, size)), t.ToTensor(), normal])

    class ImageDataset(Dataset):  # type: ignore[type-arg]
        def __init__(self, rows: Any, transform: Any) -> None:
            self.rows, self.transform = rows, transform

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, i: int) -> Any:
            with open(self.rows[i][0], "rb") as file:  # noqa: PTH123 - as everybody writes it
                return self.transform(Image.open(file).convert("RGB")), self.rows[i][1]

    train, valid = split(folder)
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    return (
        DataLoader(ImageDataset(train, change), shuffle=True, **options),
        DataLoader(ImageDataset(valid, look), **options),
    )


def new_model(backbone: str) -> Any:
    import timm
    import torch

    torch.manual_seed(SEED)
    return timm.create_model(backbone, num_classes=len(COUNTS))


def macro_f1(predicted: Any, truth: Any) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro", labels=range(len(COUNTS)), zero_division=0))


def timm_script(folder: Path, backbone: str, size: int) -> tuple[float, float]:
    """train.py's order: loader, forward, zero_grad, backward, step, then the meter."""
    import torch
    import torch.nn.functional as F

    model, (train, valid) = new_model(backbone), loaders(folder, size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    speeds, score = [], 0.0
    for _ in range(EPOCHS):
        model.train()
        started, total = time.perf_counter(), 0.0
        for images, labels in train:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        speeds.append(len(train.dataset) / (time.perf_counter() - started))
        score = evaluated(model, valid)
    return statistics.median(speeds[1:]), score


def evaluated(model: Any, valid: Any) -> float:
    import torch

    model.eval()
    with torch.no_grad():
        found = [(model(images).argmax(1), labels) for images, labels in valid]
    return macro_f1(*(torch.cat(part).numpy() for part in zip(*found, strict=True)))


def lightning(folder: Path, backbone: str, size: int) -> tuple[float, float]:
    import pytorch_lightning as L
    import torch
    import torch.nn.functional as F

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    train, valid = loaders(folder, size)
    times: list[float] = []

    class Module(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model(backbone)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("valid_loss", F.cross_entropy(self.model(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), 1e-3)

        def on_train_epoch_start(self) -> None:
            times.append(time.perf_counter())

        def on_validation_epoch_start(self) -> None:
            times.append(time.perf_counter())

    module = Module()
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        default_root_dir=folder / "lightning",
        accelerator="cpu",
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train, valid)
    spans = [b - a for a, b in zip(times[::2], times[1::2], strict=True)]
    return len(train.dataset) / statistics.median(spans[1:]), evaluated(module.model, valid)


def hf_trainer(folder: Path, backbone: str, size: int) -> tuple[float, float]:
    import torch
    import torch.nn.functional as F
    import transformers

    transformers.logging.set_verbosity_error()
    train, valid = loaders(folder, size)
    times: list[float] = []

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model(backbone)

        def forward(self, pixel_values: Any, labels: Any) -> Any:
            logits = self.model(pixel_values)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    def collate(items: Any) -> Any:
        images, labels = zip(*items, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    model = Model()
    arguments = transformers.TrainingArguments(
        str(folder / "hf"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-3,
        dataloader_num_workers=WORKERS,
        dataloader_persistent_workers=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=train.dataset, data_collator=collate, callbacks=[Clock()]
    )
    trainer.train()
    spans = [b - a for a, b in zip(times[::2], times[1::2], strict=True)]
    return len(train.dataset) / statistics.median(spans[1:]), evaluated(model.model, valid)


def fastai(folder: Path, backbone: str, size: int) -> tuple[float, float]:
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - adds no_bar to the Learner
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch.nn import CrossEntropyLoss

    train, valid = loaders(folder, size)
    times: list[float] = []

    class Clock(Callback):  # type: ignore[misc]
        def before_train(self) -> None:
            times.append(time.perf_counter())

        def after_train(self) -> None:
            times.append(time.perf_counter())

    learner = Learner(
        DataLoaders(train, valid), new_model(backbone), CrossEntropyLoss(), lr=1e-3, cbs=[Clock()]
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS)
    spans = [b - a for a, b in zip(times[::2], times[1::2], strict=True)]
    return len(train.dataset) / statistics.median(spans[1:]), evaluated(learner.model, valid)


WAYS: dict[str, Callable[[Path, str, int], tuple[float, float]]] = {
    "classwise": classwise,
    "timm's steps": timm_script,
    "Lightning": lightning,
    "HF Trainer": hf_trainer,
    "fastai": fastai,
}


def one(way: str, folder: Path, backbone: str, size: int, seed: int, epochs: int) -> tuple[float, float]:
    """In a process of its own."""
    there = os.environ | {"BENCH_SEED": str(seed), "BENCH_EPOCHS": str(epochs)}
    command = [sys.executable, __file__, "--one", way, str(folder), backbone, str(size)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=there)
    speed, score = json.loads(out.stdout.splitlines()[-1])
    return speed, score


def measure(backbones: list[str], blocks: int, epochs: int) -> dict[str, Any]:
    """By backbone and way: speeds and scores of every block."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for backbone in backbones:
            folder = Path(name) / backbone
            draw(folder)
            os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
            command = [sys.executable, "-m", "classwise", "init", "images"]
            subprocess.run(command, check=True, cwd=folder, capture_output=True)
            model, _, size = backbone.partition("@")
            results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for block in range(blocks):
                # classwise first: it splits the rows, by the seed.
                for way in list(WAYS):
                    results[way].append(one(way, folder, model, int(size), block, epochs))
            found[backbone] = results
    return found


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        way, folder, backbone, size = sys.argv[2:]
        warnings.simplefilter("ignore")
        print(json.dumps(WAYS[way](Path(folder), backbone, int(size))))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbones", nargs="+", default=["resnet18@64", "mobilenetv3_large_100@128"])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = measure(arguments.backbones, arguments.blocks, arguments.epochs)
    for backbone, results in found.items():
        print(f"{backbone}, {arguments.epochs} epochs of {sum(COUNTS)} images")
        ours = [speed for speed, _ in results["classwise"]]
        for way, pairs in results.items():
            ratios = [mine / speed for mine, (speed, _) in zip(ours, pairs, strict=True)]
            speed = statistics.median(speed for speed, _ in pairs)
            scores = sorted(score for _, score in pairs)
            ratio = f"classwise is x {statistics.median(ratios):.2f}" if way != "classwise" else ""
            print(
                f"  {way:<14} {speed:7.0f} images/s  macro F1 {statistics.mean(scores):.3f}"
                f" ({scores[0]:.3f} to {scores[-1]:.3f})  {ratio}"
            )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
