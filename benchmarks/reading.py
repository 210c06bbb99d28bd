"""How fast do JPEG files become batches, two workers each?

    python benchmarks/reading.py [--images 600] [--blocks 5] [--json FILE]

Draws JPEG files of 500 x 375 pixels, and makes batches of 32 random resized crops of 224 x 224, mirrored half of the
time, as uint8, from a shuffled order: with a DataLoader, Pillow and torchvision's transforms, as in torchvision's and
timm's scripts (in plain order); with a DataLoader, classwise's own decoder and OpenCV, in channels_last; with
classwise's Loader from the files (its first epoch without a cache), and from its store of decoded images. All in one
process, in alternating blocks, each with two worker processes that stay; the numbers are medians of paired ratios of
images a second. `classwise (again)` against `classwise` shows what the machine's noise makes of it.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from classwise.data.augment import Augment
from classwise.data.cache import CachedImages, ImageCache
from classwise.data.checking import check_images
from classwise.data.collate import Collate
from classwise.data.dataset import ImageDataset
from classwise.data.images import min_image_size
from classwise.data.loader import Loader

SIZE, BATCH, WORKERS = (224, 224), 32, 2


def draw_images(folder: Path, count: int, height: int = 375, width: int = 500) -> list[Path]:
    """Files with the detail of photographs: about 1.5 bits a pixel at quality 90."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        image = np.zeros((height, width, 3), np.float32)
        for cells, strength in ((4, 90), (16, 40), (64, 18), (256, 9)):
            grid = rng.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
            image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(
            ".jpg", (image + 128).clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90]
        )[1]
        paths.append(folder / f"{i:05}.jpg")
        paths[-1].write_bytes(data.tobytes())
    return paths


class PillowImages(Dataset[Any]):
    """As in torchvision's and timm's training scripts, up to the tensor of bytes."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.change = transforms.Compose(
            [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        with self.paths[row].open("rb") as file:
            return self.change(Image.open(file).convert("RGB")), row


class SameDecoder(Dataset[Any]):
    """The same with simplejpeg and OpenCV, as a careful user would write it."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        image = simplejpeg.decode_jpeg(self.paths[row].read_bytes(), "RGB")
        top, left, height, width = transforms.RandomResizedCrop.get_params(
            torch.empty(3, *image.shape[:2]), [0.08, 1.0], [3 / 4, 4 / 3]
        )
        image = cv2.resize(
            image[top : top + height, left : left + width], SIZE[::-1], interpolation=cv2.INTER_AREA
        )
        if torch.rand(()) < 0.5:
            image = cv2.flip(image, 1)
        return image, row


def in_channels_last(samples: list[Any]) -> Any:
    """A batch without a transposition: what decoders give, one behind the other."""
    images_BHWC = torch.from_numpy(np.stack([image for image, _ in samples]))
    return images_BHWC.permute(0, 3, 1, 2), torch.tensor([row for _, row in samples])


def plain(dataset: Dataset[Any], collate: Callable[[list[Any]], Any] | None = None) -> Callable[[int], int]:
    """An epoch of a DataLoader; returns its images."""
    options: Any = {"num_workers": WORKERS, "persistent_workers": True, "worker_init_fn": one_thread}
    loader = DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate, **options)

    def epoch(number: int) -> int:
        return sum(len(images) for images, _ in loader)

    return epoch


def one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def ours(paths: list[Path], cached: CachedImages | None, slots: bool = True) -> Callable[[int], int]:
    """An epoch of classwise's Loader; without `slots`, in new shared memory for every batch."""
    changes = Augment(flip=0.5, crop=0.08, ratio=4 / 3)
    dataset = ImageDataset(paths, SIZE, "squash", 10**8, 0, changes, cached=cached)
    loader = Loader(dataset, {"row": np.arange(len(paths))}, BATCH, WORKERS)
    if not slots:
        loader._loader.make_collate = Collate  # type: ignore[attr-defined]

    def epoch(number: int) -> int:
        order = np.random.default_rng(number).permutation(len(paths))
        return sum(len(batch) for batch in loader.batches(parts_of(order), number))

    return epoch


def parts_of(order: Any) -> list[Any]:
    return [order[at : at + BATCH] for at in range(0, len(order), BATCH)]


def ways(paths: list[Path], base: Path) -> Iterator[tuple[str, Callable[[int], int]]]:
    """All that is compared; filling the store is timed beside."""
    cache = ImageCache(base / "store", 10**11, 0)
    started = time.perf_counter()
    checked = check_images(paths, min_size=min_image_size(SIZE), cache=cache)
    assert not checked.bad
    cache.flush()
    cached = cache.locate(checked.files)
    print(f"checking and storing all images: {len(paths) / (time.perf_counter() - started):,.0f}/s")
    yield "Pillow", plain(PillowImages(paths))
    yield "same decoder", plain(SameDecoder(paths), in_channels_last)
    yield "classwise", ours(paths, None)
    yield "classwise (again)", ours(paths, None)
    yield "classwise, stored", ours(paths, cached)
    yield "stored, no slots", ours(paths, cached, slots=False)


def measure(count: int, blocks: int) -> dict[str, Any]:
    """Images a second by way, and ratios to the two DataLoaders."""
    with tempfile.TemporaryDirectory() as name:
        paths = draw_images(Path(name), count)
        epochs = dict(ways(paths, Path(name)))
        speeds: dict[str, list[float]] = {way: [] for way in epochs}
        for block in range(blocks + 1):
            for way, epoch in list(epochs.items())[:: 1 if block % 2 else -1]:
                started = time.perf_counter()
                assert epoch(block) == count
                if block:  # the first starts the workers
                    speeds[way].append(count / (time.perf_counter() - started))

    def ratio(way: str, other: str) -> list[float]:
        return sorted(a / b for a, b in zip(speeds[way], speeds[other], strict=True))

    return {
        "speed": {way: statistics.median(found) for way, found in speeds.items()},
        "ratios": {
            f"{way} / {other}": ratio(way, other)
            for way, other in (
                ("classwise", "Pillow"),
                ("classwise", "same decoder"),
                ("classwise, stored", "Pillow"),
                ("classwise, stored", "stored, no slots"),
                ("classwise (again)", "classwise"),
            )
        },
    }


# Pillow returns every image's memory to the system and asks for it again: the same setting for all, which the
# allocator reads when a process starts.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "268435456"}


def main() -> None:
    if not ALLOCATOR.keys() <= os.environ.keys():
        os.environ.update(ALLOCATOR)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.images, arguments.blocks)
    for way, speed in found["speed"].items():
        print(f"{way:<20} {speed:8,.0f} images/s")
    for pair, ratios in found["ratios"].items():
        print(f"{pair:<40} x {statistics.median(ratios):.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
