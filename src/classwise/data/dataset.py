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

from classwise.data.augment import Augment, augment_geometry, augment_on_host, rows_needed
from classwise.data.cache import CachedImages
from classwise.data.decode_jpeg import RowsNeeded
from classwise.data.fit import fit_image
from classwise.data.image_file import Folders
from classwise.data.images import min_image_size, read_image
from classwise.data.memory_images import MemoryImages
from classwise.data.own_augment import OwnAugment
from classwise.data.pixel_format import RGB, PixelFormat
from classwise.data.row_paths import RowPaths
from classwise.data.workers import Heartbeat, begin_worker
from classwise.errors import ConfigError, DataError, ImageError
from classwise.randomness import AUGMENT, OWN_AUGMENT, generator

Item = tuple[npt.NDArray[np.uint8], int, Sequence[float]] | ImageError
"""An image, its row, and what is left of its augmentation for the device (a `DeviceAugment`, or empty); or why the
image could not be read."""


@dataclass(frozen=True)
class ImageDataset(Dataset[Item]):
    """Images by (epoch, row), as (height, width, channels) uint8, all of one `size` (height, width).

    augment: None for evaluation, where an image is only fitted to `size`.
    root: no file outside of this folder, or these folders, is read; None allows any.
    cached: images that are taken from the image cache, or from memory, instead of their files; the pixels are the same
    either way.
    pixels: what a file becomes, see `read_image`.
    augments_on_host: False leaves the second half of the augmentation to the device (see device_augment.py).
    own_augment: the user's own, which comes last; not beside augments_on_host=False.
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    fit: str
    max_pixels: int
    seed: int = 0
    augment: Augment | None = None
    root: Folders = None
    cached: CachedImages | MemoryImages | None = None
    pixels: PixelFormat = RGB
    augments_on_host: bool = True
    own_augment: OwnAugment | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> "ImageDataset":
        """A dataset of these rows only, in this order."""
        cached = None if self.cached is None else self.cached.take(rows)
        paths = (
            self.paths.take(rows) if isinstance(self.paths, RowPaths) else [self.paths[row] for row in rows]
        )
        return dataclasses.replace(self, paths=paths, cached=cached)

    def read(self, row: int, rows_needed: RowsNeeded = None) -> npt.NDArray[np.uint8]:
        """The image from the cache (read-only) or else from its file, as far as `rows_needed` (see `read_image`).
        Raises ImageError."""
        image_HWC = self.cached.get(row) if self.cached is not None else None
        if image_HWC is None:
            min_size = min_image_size(self.size)
            image_HWC = read_image(
                self.paths[row],
                self.max_pixels,
                root=self.root,
                min_size=min_size,
                pixels=self.pixels,
                rows_needed=rows_needed,
            )
        return image_HWC

    def _rows_needed(self, epoch: int, row: int) -> RowsNeeded:
        """What `transform` looks at of the image of this row in this epoch."""
        augment = self.augment
        if augment is None:
            return None
        return lambda image_size: rows_needed(
            image_size,
            size=self.size,
            fit=self.fit,
            augment=augment,
            rng=generator(self.seed, AUGMENT, epoch, row),
        )

    def transform(
        self, image_HWC: npt.NDArray[np.uint8], epoch: int, row: int
    ) -> tuple[npt.NDArray[np.uint8], Sequence[float]]:
        """The image at the dataset's size, augmented for this epoch; and what is left for the device to do."""
        if self.augment is None:
            return fit_image(image_HWC, self.size, self.fit), ()
        rng = generator(self.seed, AUGMENT, epoch, row)
        image_HWC, device_augment = augment_geometry(
            image_HWC, size=self.size, fit=self.fit, augment=self.augment, rng=rng
        )
        if not self.augments_on_host:
            return image_HWC, device_augment
        image_HWC = augment_on_host(image_HWC, device_augment)
        if self.own_augment is not None:
            try:
                image_HWC = self.own_augment(image_HWC, generator(self.seed, OWN_AUGMENT, epoch, row))
            except ConfigError as error:
                raise ImageError(self.paths[row], str(error)) from error
        return image_HWC, ()

    def __getitem__(self, epoch_and_row: tuple[int, int]) -> Item:
        epoch, row = epoch_and_row
        try:
            image_HWC, device_augment = self.transform(
                self.read(row, self._rows_needed(epoch, row)), epoch, row
            )
            return image_HWC, row, device_augment
        except ImageError as error:
            # The parent raises it: a worker's traceback would hide which file it was.
            return error
        except DataError as error:
            # A shard that is gone, or no longer what it was.
            return ImageError(self.paths[row], str(error))
        except Exception as error:
            # A bug or too little memory: which file it was helps here, too.
            return _reading_failed(self.paths[row], error)


def _reading_failed(path: Path, error: Exception) -> ImageError:
    """An ImageError for an image on which the code itself failed; the traceback is added as a note."""
    image_error = ImageError(path, f"reading it failed with {type(error).__name__}: {error}")
    image_error.add_note("".join(traceback.format_exception(error)))
    return image_error


@dataclass(frozen=True)
class TrackedImageDataset(Dataset[Item]):
    """The same images, read in a worker that reports in `heartbeat` which row it is reading."""

    dataset: ImageDataset
    heartbeat: Heartbeat

    def __getitem__(self, epoch_and_row: tuple[int, int]) -> Item:
        worker = get_worker_info()
        assert worker is not None
        row = epoch_and_row[1]
        self.heartbeat.begin(worker.id, row)
        item = self.dataset[epoch_and_row]
        self.heartbeat.end(worker.id, row)
        return item


def start_worker(worker: int) -> None:
    """Called first in every worker. One thread each: several workers with several threads only slow each other down."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    begin_worker()
