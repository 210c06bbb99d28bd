"""Protections taken out from outside, in the process that trains: what each promise would be without them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def checkpoints_in_place() -> None:
    """Written over the one from before, file by file."""
    from classwise.run import checkpoint

    def write(folder: Path, name: str, files: dict[str, bytes]) -> None:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        for file, data in files.items():
            checkpoint._write_flushed(folder / name / file, data)

    checkpoint.write_checkpoint = write  # type: ignore[assignment]


def dropout_from_the_global_generator() -> None:
    """Not seeded anew in each update."""
    from classwise.training import loop

    loop.seed_dropout = lambda *arguments: None  # type: ignore[assignment]


def augmentation_from_one_generator() -> None:
    """One that goes on and on, as most programs have it."""
    import numpy as np

    from classwise.data import dataset

    going_on = np.random.default_rng(0)
    dataset.generator = lambda *arguments: going_on  # type: ignore[assignment]


def order_from_one_generator() -> None:
    """The rows' order of an epoch, drawn once more at a resume."""
    import numpy as np

    from classwise.data import sampling

    going_on = np.random.default_rng(0)
    sampling.generator = lambda *arguments: going_on  # type: ignore[assignment]


def average_forgotten() -> None:
    """The average of the weights begins anew."""
    from classwise.model.average import WeightAverage

    WeightAverage.load_state_dict = lambda self, state: None  # type: ignore[method-assign]


def moments_forgotten() -> None:
    """The optimizer begins anew."""
    from torch.optim import Optimizer

    def load(self: Any, state: Any) -> None:
        return None

    Optimizer.load_state_dict = load  # type: ignore[method-assign]


BY_NAME: dict[str, Callable[[], None]] = {
    "checkpoints in place": checkpoints_in_place,
    "dropout": dropout_from_the_global_generator,
    "augmentation": augmentation_from_one_generator,
    "order": order_from_one_generator,
    "average": average_forgotten,
    "moments": moments_forgotten,
}
