"""Tells the stages of an update apart, from outside: the loop that is timed is the one that trains."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from classwise.data.batch import Batch
from classwise.data.mixing import Mixing
from classwise.distributed import Processes
from classwise.run.assembly import Parts


class StageClock:
    """Seconds spent in each stage. One stage runs at a time: to enter the next one ends it, once the device has done
    what it was given."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = {}
        self._stage: str | None = None
        self._entered = 0.0

    def enter(self, stage: str | None) -> None:
        """From here on it is this stage; None: what is not timed."""
        wait_for(self.device)
        now = time.perf_counter()
        if self._stage is not None:
            self.spent[self._stage] = self.spent.get(self._stage, 0.0) + now - self._entered
        self._stage = stage
        self._entered = now

    def around(self, function: Callable[..., Any], stage: str, then: str) -> Callable[..., Any]:
        """The function, which is `stage` while it runs; afterwards it is the stage `then`."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self.enter(stage)
            result = function(*arguments, **options)
            self.enter(then)
            return result

        return timed

    def updates(self, updates: Iterable[list[Batch]]) -> Iterator[list[Batch]]:
        """The updates, with the transfer to the device as the first stage of each; reading them is not timed."""
        for micro_batches in updates:
            self.enter("transfer")
            yield micro_batches
            self.enter(None)


class _ClockedProcesses(Processes):
    """A process alone, whose sum of the update's loss is where the backward passes are over."""

    def __init__(self, clock: StageClock) -> None:
        super().__init__()
        self._clock = clock

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as it is."""
        self._clock.enter("update")
        return tensor


@contextlib.contextmanager
def clocked(parts: Parts, clock: StageClock) -> Iterator[Parts]:
    """The parts of a run whose calls tell the clock where `train_one_epoch` is. They compute what they computed."""
    state, criterion = parts.state, parts.state.criterion
    mixing: Any = parts.data.mixing
    if isinstance(mixing, Mixing) and mixing.is_on:
        mixing = clock.around(mixing, "mixing", then="update")
    else:
        mixing = clock.around(mixing, "update", then="update")
    data = dataclasses.replace(parts.data, mixing=mixing)
    settings = dataclasses.replace(parts.settings, processes=_ClockedProcesses(clock))

    # Attributes of these very objects, which hide the methods of their classes until they are deleted.
    state.forward = clock.around(state.forward, "forward", then="loss")  # type: ignore[method-assign]
    criterion.forward = clock.around(criterion.forward, "loss", then="backward")  # type: ignore[method-assign]
    criterion.normalizer = clock.around(criterion.normalizer, "loss", then="update")  # type: ignore[method-assign]
    try:
        yield dataclasses.replace(parts, data=data, settings=settings)
    finally:
        del state.forward, criterion.forward, criterion.normalizer


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
