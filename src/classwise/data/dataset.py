"""Images as a function of (epoch, row), and the worker processes' side of reading them.

Nothing here has a state to save: the random changes of an image are a function of (seed, epoch, row). The workers are
told the epoch with every row, so they can live for the whole run and still see each epoch.
"""

import dataclasses
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from classwise.data.augment import Augment, finish_image, place_image
from classwise.data.cache import CachedImages
from classwise.data.fit import fit_image
from classwise.data.images import min_image_size, read_image
from classwise.data.workers import Heartbeat, begin_worker
from classwise.errors import ImageError
from classwise.randomness import AUGMENT, generator

Item = tuple[npt.NDArray[np.uint8], int, Sequence[float]] | ImageError


@dataclass(frozen=True)
class ImageDataset(Dataset[Item]):
    """Images by (epoch, row), as (height, width, 3) uint8 of one size.

    `augment` None is evaluation: the image is brought to `size` and nothing else. No file outside of `root` is read,
    if one is given. Those that are `cached` are not read from their files: the pixels are the same either way.
    `augments_on_host` False leaves the second half of the augmentation to the device (see device_augment.py).
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    fit: str
    max_pixels: int
    seed: int = 0
    augment: Augment | None = None
    root: Path | None = None
    cached: CachedImages | None = None
    augments_on_host: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> "ImageDataset":
        """Those of some rows."""
        cached = None if self.cached is None else self.cached.take(rows)
        return dataclasses.replace(self, paths=[self.paths[row] for row in rows], cached=cached)

    def read(self, row: int) -> npt.NDArray[np.uint8]:
        """The image as it is stored, read-only, or as its file says. Raises ImageError."""
        found = self.cached.get(row) if self.cached is not None else None
        if found is None:
            found = read_image(self.paths[row], self.max_pixels, self.root, min_image_size(self.size))
        return found

    def change(
        self, image_HWC: npt.NDArray[np.uint8], epoch: int, row: int
    ) -> tuple[npt.NDArray[np.uint8], Sequence[float]]:
        """The image that has been read as a batch wants it, and what is left to do for the device."""
        if self.augment is None:
            return fit_image(image_HWC, self.size, self.fit), ()
        rng = generator(self.seed, AUGMENT, epoch, row)
        image_HWC, finish = place_image(image_HWC, self.size, self.fit, self.augment, rng)
        return (finish_image(image_HWC, finish), ()) if self.augments_on_host else (image_HWC, finish)

    def __getitem__(self, place: tuple[int, int]) -> Item:
        epoch, row = place
        try:
            image, left = self.change(self.read(row), epoch, row)
            return image, row, left
        except ImageError as error:
            return error  # raised by the parent: a worker's traceback would hide which file it was
        except (
            Exception
        ) as error:  # a mistake of ours or too little memory: which file it was helps then, too
            return _failed(self.paths[row], error)


def _failed(path: Path, error: Exception) -> ImageError:
    """The error of an image on which reading itself failed; where it did shows with its traceback."""
    found = ImageError(path, f"reading it failed with {type(error).__name__}: {error}")
    found.add_note("".join(traceback.format_exception(error)))
    return found


@dataclass(frozen=True)
class TrackedImageDataset(Dataset[Item]):
    """The same images in a worker, which notes what it does."""

    dataset: ImageDataset
    notes: Heartbeat

    def __getitem__(self, place: tuple[int, int]) -> Item:
        info = get_worker_info()
        assert info is not None
        self.notes.begin(info.id, place[1])
        item = self.dataset[place]
        self.notes.end(info.id, place[1])
        return item


def start_worker(worker: int) -> None:
    """One thread a worker: several workers with several threads each only get in each other's way."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    begin_worker()
