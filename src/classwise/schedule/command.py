"""`classwise schedule CONFIG...`: compute, draw, print."""

from collections.abc import Sequence
from pathlib import Path

from classwise.compose.checks import updates_per_epoch
from classwise.compose.dataset import prepare
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import ConfigError
from classwise.schedule.drawing import terminal_text, write_drawing
from classwise.schedule.rates import Rates, rates_of, recorded_scores


def schedule(
    configs: Sequence[str | Path],
    overrides: Sequence[tuple[str, str]] = (),
    updates: int | None = None,
    metric: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> list[Rates]:
    """The learning rate of every update of the runs that these configs would train; drawn into `out` (.svg or .png).

    `overrides` are keys for all of them. `updates`: the updates of an epoch, in place of counting them, for which data
    are read and split as `train` does it. `metric`: a run directory whose recorded results `plateau` looks at; without
    it they are assumed, and said to be. Raises ClasswiseError.
    """
    console = Console(quiet)
    names = _names(configs)
    rates: list[Rates] = []
    for path, name in zip(configs, names, strict=True):
        config = load_config(Path(path), overrides)
        if config.training.plan == "probe":
            raise ConfigError(
                f'{path}: training.plan: found "probe", which makes no updates; allowed: the others'
            )
        count = updates or updates_per_epoch(config, prepare(config, console))
        scores = None if metric is None else recorded_scores(Path(metric), config.selection.metric)
        rates += rates_of(config, name, count, scores)
        for line in _remarks(config, name, count):
            console.line(line)
    if out is not None:
        write_drawing(rates, Path(out), force)
    return rates


def text_of(rates: Sequence[Rates], columns: int, encoding: str | None) -> str:
    """What the command prints, for a terminal of so many columns; in ASCII where the encoding has no braille."""
    try:
        "⣿┌".encode(encoding or "utf-8")
        plain = False
    except (LookupError, UnicodeEncodeError):
        plain = True
    return terminal_text(rates, columns, plain)


def _names(configs: Sequence[str | Path]) -> list[str]:
    """The names of the files, or their paths if two have the same name."""
    paths = [Path(path) for path in configs]
    names = [path.stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _remarks(config: Config, name: str, updates: int) -> list[str]:
    """The size of the run, and what may make it another."""
    epochs = config.training.epochs
    lines = [f"{name}: {epochs} epochs of {updates} updates"]
    if config.training.minutes is not None:
        lines.append(
            f"{name}: training.minutes may lower the epochs once `train` has measured this machine; the schedule then"
            " ends with the last of them"
        )
    return lines
