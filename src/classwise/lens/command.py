"""`classwise step CONFIG`: prepare, record one update, look at it, write the page."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from classwise.compose.checks import single_image_batch_error
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.errors import ConfigError
from classwise.files import refuse_existing
from classwise.lens.assembly import NewRun, new_run
from classwise.lens.page import write_page
from classwise.lens.recorder import Recording, named_parameters, record_update
from classwise.lens.rows import batches_of_rows, parse_rows, row_numbers
from classwise.lens.view import View, view_of
from classwise.lens.weight import check_weight, parse_weight


@dataclass(frozen=True)
class Step:
    """What the command has found, and the page."""

    view: View
    path: Path

    @property
    def recording(self) -> Recording:
        """The update as it was recorded."""
        return self.view.recording


def step(
    config: str | Path,
    overrides: Sequence[tuple[str, str]] = (),
    rows: str | None = None,
    update: int = 1,
    weight: str | None = None,
    out: str | Path = "step.html",
    force: bool = False,
    quiet: bool = False,
) -> Step:
    """Train up to update number `update`, counted from 1, and show that one in the page `out`.

    `rows`: ids of training rows, separated by commas, that this update is made of in place of its own; `weight`: the
    weight whose step is worked out, such as `heads.0.weight[3,17]` (default: the weight of a layer with the largest
    gradient). Raises ClasswiseError.
    """
    console = Console(quiet)
    refuse_existing(Path(out), force)
    ids = parse_rows(rows)
    wanted = parse_weight(weight)
    if update < 1:
        raise ConfigError(f"--update: found {update}, allowed: 1 or more")
    with new_run(Path(config), overrides, console) as run:
        parts, data = run.parts, run.parts.data
        updates = parts.settings.epochs * data.updates_per_epoch
        if update > updates:
            raise ConfigError(
                f"--update: found {update}, but the run has {updates} updates; allowed: 1 to {updates}"
            )
        numbers = row_numbers(ids, run.splits, data.loader.batch_size * data.micro_batches_per_update)
        check_weight(wanted, named_parameters(parts.state))
        replaced = partial(batches_of_rows, numbers, data) if numbers else None
        with _clear_errors(run, len(numbers)):
            recording = record_update(parts, update, replaced, wanted, partial(_bar, run, console))
        view = view_of(run, recording, is_chosen=bool(numbers))
    write_page(view, Path(out))
    return Step(view, Path(out))


def _bar(
    run: NewRun, console: Console, updates: Iterable[list[Batch]], epoch: int, done: int
) -> Iterable[list[Batch]]:
    """The updates of an epoch, with a progress bar."""
    total = run.parts.data.updates_per_epoch
    return console.bar(updates, f"epoch {epoch + 1}/{run.parts.settings.epochs}", total, done)


@contextlib.contextmanager
def _clear_errors(run: NewRun, chosen: int) -> Iterator[None]:
    """Torch's error of batch norm that gets a single image, in words of the options. `chosen`: rows of --rows."""
    try:
        yield
    except ValueError as error:
        clearer = single_image_batch_error(error, run.config)
        if clearer is None:
            raise
        if chosen:
            clearer = ConfigError(
                f"--rows: found {chosen} row{'s' if chosen > 1 else ''}, which leaves a batch of a single image, and"
                " batch norm cannot normalize a single image at this image_size; allowed: one row more"
            )
        raise clearer from error
