"""An augmentation in the user's own file, and the test that it has to pass before a run begins.

It is a function of an image and a generator, and comes after what the keys of [data.augment] switch on:

    def augment(image, rng):          # (height, width, channels) uint8, at model.image_size; numpy.random.Generator
        return image[:, ::-1] if rng.random() < 0.5 else image

All its chance comes from `rng`, which is a function of (seed, epoch, row): the same image is made by any number of
workers, and after a resume.
"""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from classwise.errors import ConfigError
from classwise.own_parts.reference import split_reference
from classwise.own_parts.source import SourceFile, admitted, failure_text, part_of
from classwise.randomness import OWN_AUGMENT, generator

KEY = "data.augment"
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OwnAugment:
    """The function `name` of a file. Worker processes get the file's bytes with it, and need no file."""

    source: SourceFile
    name: str

    @staticmethod
    def of(reference: str) -> "OwnAugment":
        """From a reference with an absolute path. Raises TrustError, ConfigError."""
        return OwnAugment(admitted(reference, KEY), split_reference(reference)[1])

    @property
    def where(self) -> str:
        """For messages: `data.augment: my_augment.py:augment`."""
        return f"{KEY}: {Path(self.source.path).name}:{self.name}"

    def __call__(self, image_HWC: Image, rng: np.random.Generator) -> Image:
        """The changed image, of the same shape. Raises ConfigError with the line that fails, or for another shape or
        another type of numbers."""
        function = part_of(self.source, self.name, KEY)
        try:
            changed_HWC = function(image_HWC.copy(), rng)  # the cache's own pixels stay what they are
        except Exception as error:  # the user's code raises anything
            raise ConfigError(f"{self.where} fails: {failure_text(error, self.source)}") from error
        is_image = isinstance(changed_HWC, np.ndarray)
        if not is_image or changed_HWC.shape != image_HWC.shape or changed_HWC.dtype != np.uint8:
            found = f"{changed_HWC.shape} {changed_HWC.dtype}" if is_image else type(changed_HWC).__name__
            raise ConfigError(
                f"{self.where} makes {found} of an image {image_HWC.shape} uint8; allowed: the same shape, uint8"
                " (.clip(0, 255).astype(np.uint8))"
            )
        return np.ascontiguousarray(changed_HWC)


def check_own_augment(augment: OwnAugment, size: tuple[int, int], channels: int) -> None:
    """Raise ConfigError unless the same (seed, epoch, row) gives the same image, whatever came before."""
    if isclass(part_of(augment.source, augment.name, KEY)):
        raise ConfigError(f"{augment.where} is a class, allowed: a function of an image and a generator")
    image_HWC = generator(0, OWN_AUGMENT).integers(0, 256, (*size, channels), dtype=np.uint8)
    with _global_generators():
        first = [
            augment(image_HWC, generator(0, OWN_AUGMENT, epoch, row))
            for epoch in range(2)
            for row in range(4)
        ]
        # Of another order and with other numbers from the global generators.
        for draw in (random.random, np.random.random, lambda: torch.rand(1)):
            draw()
        places = [(epoch, row) for epoch in range(2) for row in range(4)]
        again = {place: augment(image_HWC, generator(0, OWN_AUGMENT, *place)) for place in reversed(places)}
    if not all(np.array_equal(image, again[place]) for image, place in zip(first, places, strict=True)):
        raise ConfigError(
            f"{augment.where} makes another image of the same image, epoch and row the second time; allowed: chance"
            " from `rng` alone (rng.random(), rng.integers(...), rng.normal(...)), not from random, np.random or torch,"
            " and nothing that is kept between two calls"
        )


@contextlib.contextmanager
def _global_generators() -> Iterator[None]:
    """The caller's global generators are as before after the block."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
