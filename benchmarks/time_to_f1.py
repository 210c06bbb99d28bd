"""How long until the macro F1 is there, on the demo's images and from the same first weights?

    python benchmarks/time_to_f1.py [--target 0.7] [--cap 120] [--blocks 2] [--json FILE]

The bundled long-tailed clothes: 1,492 training images, scored after every epoch on the balanced test set of 1,000.
The same small network with the same first weights for all. classwise: the demo's own config. The others, as their
tutorials do: a DataLoader with two workers, Pillow, random crop and turn, fp32, cross entropy, AdamW at the same rate,
as many epochs as the cap allows. The clock runs while they train and score, not while they import; who does not reach
the target within the cap is said so, with the best that it reached. A process each, in turns.
"""

import argparse
import csv
import json
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

from classwise.demo.fashion import LABELS, write_fashion

BATCH, WORKERS, LR, DECAY = 32, 2, 4e-3, 0.1


class ReachedError(Exception):
    """The target has been reached, or the time is over."""


class Clock:
    """Seconds so far, and scores; ends by ReachedError."""

    def __init__(self, target: float, cap: float) -> None:
        self.target, self.cap, self.best = target, cap, 0.0
        self.started = time.perf_counter()
        self.seconds: float | None = None

    def score(self, value: float) -> None:
        """After an epoch."""
        passed = time.perf_counter() - self.started
        self.best = max(self.best, value)
        if value >= self.target:
            self.seconds = passed
        if value >= self.target or passed > self.cap:
            raise ReachedError("reached, or too late")


def classwise(folder: Path, clock: Clock) -> None:
    """The demo's config, validated on the test set."""
    from classwise.run.api import train
    from classwise.training.state import Progress

    end_epoch = Progress.end_epoch

    def ended(progress: Progress, value: float, *rest: Any) -> bool:
        found = end_epoch(progress, value, *rest)
        clock.score(value)
        return found

    Progress.end_epoch = ended  # type: ignore[method-assign]
    clock.started = time.perf_counter()  # with the check of all images, measuring, baselines
    overrides = [("data.valid", "test.csv"), ("report.resamples", "0")]
    train(folder / "classwise.toml", folder / f"run-{time.time_ns()}", overrides, quiet=True)


def new_model() -> Any:
    """The demo's network, with the weights that its seed gives."""
    from classwise.model.classifier import build_classifier
    from classwise.randomness import WEIGHTS, torch_seed

    seed = torch_seed(42, WEIGHTS)
    return build_classifier("small_cnn", "none", (28, 28), "squash", 0.0, {"label": len(LABELS)}, seed)


def loaders(folder: Path) -> tuple[Any, Any]:
    """DataLoaders of both tables."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms as t

    change = t.Compose([t.RandomResizedCrop(28, (0.9, 1.0)), t.RandomRotation(3), t.PILToTensor()])

    class ImageDataset(Dataset):  # type: ignore[type-arg]
        def __init__(self, name: str, transform: Any) -> None:
            with (folder / name).open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [(folder / row["path"], LABELS.index(row["label"])) for row in rows]
            self.transform = transform

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, i: int) -> Any:
            with self.rows[i][0].open("rb") as file:
                return self.transform(Image.open(file).convert("RGB")), self.rows[i][1]

    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    train = DataLoader(ImageDataset("train.csv", change), shuffle=True, **options)
    return train, DataLoader(ImageDataset("test.csv", t.PILToTensor()), **options)


def score_of(model: Any, valid: Any) -> float:
    import torch
    from sklearn.metrics import f1_score

    model.eval()
    with torch.no_grad():
        found = [(model(images)["label"].argmax(1), labels) for images, labels in valid]
    predicted, truth = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return float(f1_score(truth, predicted, average="macro", labels=range(len(LABELS)), zero_division=0))


def new_optimizer(model: Any) -> Any:
    import torch

    return torch.optim.AdamW(model.parameters(), LR, weight_decay=DECAY)


def by_hand(folder: Path, clock: Clock) -> None:
    """A loop by hand, in the order of timm's script."""
    import torch.nn.functional as F

    model, (train, valid) = new_model(), loaders(folder)
    optimizer = new_optimizer(model)
    clock.started = time.perf_counter()
    while True:
        model.train()
        for images, labels in train:
            loss = F.cross_entropy(model(images)["label"], labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        clock.score(score_of(model, valid))


def lightning(folder: Path, clock: Clock) -> None:
    import logging

    import pytorch_lightning as L
    import torch.nn.functional as F

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    train, valid = loaders(folder)

    class Module(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def training_step(self, batch: Any, index: int) -> Any:
            loss = F.cross_entropy(self.model(batch[0])["label"], batch[1])
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return new_optimizer(self)

        def on_train_epoch_end(self) -> None:
            clock.score(score_of(self.model, valid))
            self.model.train()

    trainer = L.Trainer(
        max_epochs=10**6,
        default_root_dir=folder / "lightning",
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    clock.started = time.perf_counter()
    trainer.fit(Module(), train)


def hf_trainer(folder: Path, clock: Clock) -> None:
    import torch
    import torch.nn.functional as F
    import transformers

    transformers.logging.set_verbosity_error()
    train, valid = loaders(folder)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def forward(self, pixel_values: Any, labels: Any) -> Any:
            logits = self.model(pixel_values)["label"]
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    model = Model()

    class Score(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            clock.score(score_of(model.model, valid))
            model.train()

    def collate(items: Any) -> Any:
        images, labels = zip(*items, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    arguments = transformers.TrainingArguments(
        str(folder / "hf"),
        num_train_epochs=60,  # its rate falls to 0 over all of them
        per_device_train_batch_size=BATCH,
        learning_rate=LR,
        weight_decay=DECAY,
        dataloader_num_workers=WORKERS,
        dataloader_persistent_workers=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=train.dataset, data_collator=collate, callbacks=[Score()]
    )
    clock.started = time.perf_counter()
    trainer.train()


def fastai(folder: Path, clock: Clock) -> None:
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - adds no_bar to the Learner
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from torch import nn

    train, valid = loaders(folder)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def forward(self, images: Any) -> Any:
            return self.model(images)["label"]

    class Score(Callback):  # type: ignore[misc]
        def after_train(self) -> None:
            clock.score(score_of(self.learn.model.model, valid))

    learner = Learner(
        DataLoaders(train, valid), Model(), nn.CrossEntropyLoss(), lr=LR, wd=DECAY, cbs=[Score()]
    )
    with learner.no_bar(), learner.no_logging():
        clock.started = time.perf_counter()
        learner.fit(10**6)


WAYS: dict[str, Callable[[Path, Clock], None]] = {
    "classwise": classwise,
    "by hand": by_hand,
    "Lightning": lightning,
    "HF Trainer": hf_trainer,
    "fastai": fastai,
}


def one(way: str, folder: Path, target: float, cap: float) -> dict[str, Any]:
    """In a process of its own: seconds (None if the cap came first) and the best score."""
    command = [sys.executable, __file__, "--one", way, str(folder), str(target), str(cap)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    return dict(json.loads(out.stdout.splitlines()[-1]))


def measure(target: float, cap: float, blocks: int) -> dict[str, list[dict[str, Any]]]:
    """Results of every block by way."""
    from classwise.config.load import make_config
    from classwise.demo.tour import CLOTHES

    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fashion(folder)
        (folder / "classwise.toml").write_text(make_config(CLOTHES).to_toml())
        for block in range(blocks):
            os.environ["XDG_CACHE_HOME"] = str(folder / f"cache {block}")  # the first time, each time
            for way in list(WAYS) if block % 2 == 0 else [*WAYS][::-1]:
                found[way].append(one(way, folder, target, cap))
    return found


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        way, folder, target, cap = sys.argv[2:]
        warnings.simplefilter("ignore")
        clock = Clock(float(target), float(cap))
        try:
            WAYS[way](Path(folder), clock)
        except ReachedError:
            pass
        except Exception as error:  # fastai wraps what a callback raises
            if "ReachedError" not in repr(error) and not isinstance(error.__cause__, ReachedError):
                raise
        print(json.dumps({"seconds": clock.seconds, "best": clock.best}))
        sys.stdout.flush()
        os._exit(0)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", type=float, default=0.7)
    parser.add_argument("--cap", type=float, default=120)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = measure(arguments.target, arguments.cap, arguments.blocks)
    print(f"seconds until macro F1 {arguments.target} on the demo's test set")
    for way, results in found.items():
        times = [result["seconds"] for result in results if result["seconds"] is not None]
        best = max(result["best"] for result in results)
        reached = f"{statistics.median(times):6.1f} s" if len(times) == len(results) else "not within the cap"
        print(f"  {way:<12} {reached}  (best {best:.3f})")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
