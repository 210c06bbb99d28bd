"""`classwise step CONFIG`: prepare, record one update, look at it, write the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classwise.console import Console
from classwise.errors import ConfigError
from classwise.files import refuse_existing
from classwise.lens.assembly import new_run
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
        rates: dict[int, float] = {}
        recording = record_update(
            parts,
            update,
            replaced=(lambda epoch: batches_of_rows(numbers, data, epoch)) if numbers else None,
            weight=wanted,
            rates=rates,
        )
        view = view_of(run, recording, rates, is_chosen=bool(numbers))
    write_page(view, Path(out))
    return Step(view, Path(out))
