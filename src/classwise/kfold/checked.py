"""A check of data by the out-of-fold predictions of folds."""

from collections.abc import Sequence
from pathlib import Path

from classwise.datacheck.api import Check, OutOfFold, check_source
from classwise.errors import CheckpointError
from classwise.kfold.folder import FoldsFolder, is_folds


def check(
    source: str | Path,
    against: Sequence[str | Path] = (),
    run: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    write_groups: bool = False,
    fix: bool = False,
    force: bool = False,
    quiet: bool = True,
) -> Check:
    """Look for what is wrong with the data of a classwise.toml, a table or a folder, before a score is trusted.

    Writes check.html, check.csv and check.json to `out` (default: runs/NAME-check); the source is never changed.
    `against`: tables or folders that should share no image with the data, such as a test. `run`: a folds directory of
    the same data, by whose out-of-fold predictions labels are ranked. `overrides`: keys of the config, as options.
    `write_groups`: also a table with a column that holds copies together; `fix`: also proposals for you to accept,
    which `force` replaces.

    Raises DataError for a source that cannot be read, and for folds of other data; CheckpointError where `run` is no
    folds directory; OutputError. Images that cannot be read are findings.
    """
    return check_source(
        source,
        against=against,
        out_of_fold=None if run is None else _out_of_fold(Path(run)),
        out=out,
        overrides=overrides,
        write_groups=write_groups,
        fix=fix,
        force=force,
        quiet=quiet,
    )


def _out_of_fold(path: Path) -> OutOfFold:
    if not is_folds(path):
        raise CheckpointError(
            f"{path} is no folds directory; allowed: one that `classwise folds` has made of the"
            " same data, since a single run has trained on most rows"
        )
    return OutOfFold(path, FoldsFolder(path).out_of_fold())
