"""The commands that look into a run: watch. `cli.py` puts them on the command line."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from classwise.cli_options import Debug


def watch(
    run: Path,
    /,
    *,
    once: Annotated[bool, Parameter(help="Show how it is now, and end.")] = False,
    debug: Debug = False,
) -> None:
    """Show a run while it trains: its progress, its scores so far, the time that is left, the last lines of its log.

    On a terminal one view is kept up to date, elsewhere a line says what is new. Only files of the run directory are
    read. It ends with the run: exit code 0 if that is done, 75 if it was interrupted, 1 if it failed or was killed.
    Ctrl-C ends the watching alone.

    Parameters
    ----------
    run
        The run directory, or a folds directory; it may not be there yet.
    """
    from classwise.watch.command import watch as watch_run

    try:
        watch_run(run, once)
    except KeyboardInterrupt:
        print(f"no longer watching {run}, which goes on", file=sys.stderr)
        sys.exit(130)
