"""The commands that train: train, resume, folds, compare. `cli.py` puts them on the command line."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from classwise.cli_checks import check_config, check_new_run, check_run
from classwise.cli_options import Debug, Force, Quiet, Trust, parse_overrides, say_at_once
from classwise.errors import ClasswiseError, ConfigError


def train(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    run: Annotated[Path | None, Parameter(help="The run directory, instead of runs/NAME.")] = None,
    trust: Trust = "",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model into runs/NAME (or NAME-2, ... if it exists). Every key of the config is also an option.

    For example: --training.epochs 5 --loss.name focal --targets.age.loss.gamma 1. `classwise keys` lists all keys.

    Parameters
    ----------
    config
        A classwise.toml; or a folder of images or a table: what `classwise init` writes for it is then written beside
        the run, as runs/NAME.toml, and trained with.
    """
    given = parse_overrides(overrides)
    check_config(config, given)
    check_new_run(run)
    if config.exists():  # else the error about it is the first line
        is_config = config.is_file() and config.suffix.lower() == ".toml"
        say_at_once(
            f"training as {config} says" if is_config else f"training with the images of {config}", quiet
        )
    from classwise.run.api import train as train_run

    _print_path(train_run(config, run, given, quiet, trust).path)


def resume(
    run: Path,
    /,
    *,
    workers: Annotated[
        int | None, Parameter(help="Replaces data.workers; results do not depend on it.")
    ] = None,
    epochs: Annotated[
        int | None,
        Parameter(help="Replaces training.epochs for good, also of a finished run: it trains up to so many."),
    ] = None,
    schedule: Annotated[
        str,
        Parameter(
            help="With --epochs: planned (the schedule of a run planned so) or restart (it begins again over the"
            " new epochs)."
        ),
    ] = "planned",
    trust: Trust = "",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Continue a run from its last good checkpoint. A finished run stays as it is, unless --epochs gives it more.

    Parameters
    ----------
    run
        The run directory, such as runs/masks, or a folds directory.
    """
    check_run(run)
    if run.is_dir():
        say_at_once(f"resuming {run}", quiet)
    from classwise.kfold.api import resume as resume_run

    _print_path(resume_run(run, quiet, workers, epochs, schedule, trust).path)


def folds(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    folds: Annotated[
        int | None, Parameter(name="--folds", help="Number of folds, in place of folds.count [5].")
    ] = None,
    repeats: Annotated[
        int | None, Parameter(help="Models for each fold, with other seeds, in place of folds.repeats [1].")
    ] = None,
    jobs: Annotated[
        int | None, Parameter(help="Number of folds to train at the same time, in place of folds.jobs.")
    ] = None,
    run: Annotated[Path | None, Parameter(help="The folds directory, instead of runs/NAME-folds.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model for each of several folds, into runs/NAME-folds. Every key of the config is also an option.

    Every labeled row is predicted by a model that was trained without it, and scored: oof.parquet, metrics.json. All
    commands for a run take the directory too: resume goes on after a stop, predict and submit average all models.

    Parameters
    ----------
    config
        A classwise.toml; or a folder of images or a table, as for train.
    """
    counts = {"folds.count": folds, "folds.repeats": repeats, "folds.jobs": jobs}
    given = [(key, str(value)) for key, value in counts.items() if value is not None]
    given = [*parse_overrides(overrides), *given]
    check_config(config, given)
    check_new_run(run)
    if config.exists():
        say_at_once(f"training the folds of {config}", quiet)
    from classwise.kfold.api import folds as train_folds

    print(train_folds(config, run, given, quiet).path)


def compare(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    vary: Annotated[
        list[str] | None, Parameter(help="KEY=VALUE,VALUE,...; if repeated, all combinations are run.")
    ] = None,
    seeds: Annotated[
        int | None, Parameter(help="Runs per variant, with the seeds seed, seed + 1, ... [default: 5].")
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for the comparison [default: compare/NAME]; of runs, a page NAME.html."),
    ] = None,
    jobs: Annotated[
        int | None, Parameter(help="Number of runs to train at the same time [default: 1].")
    ] = None,
    margin: Annotated[
        float | None,
        Parameter(
            help="Smaller differences do not matter: variants that certainly differ by less are equivalent [0.01; none"
            " for MAE, MSE and RMSE]."
        ),
    ] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Of runs: print all as JSON.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train variants of a config over several seeds, and compare each with the first one by paired differences; or
    compare finished runs row by row: compare RUN RUN ...

    Scored are rows that chose nothing: data.test; without it, where every variant has a fixed epoch, the validation
    rows; else the rows of data.valid, and each run selects its epoch on a share of its training rows.

    For example: --vary loss.name=cross_entropy,focal --vary optimizer.lr=1e-3,3e-3 --seeds 5 --training.epochs 5.
    Finished runs are not repeated: the same command continues after a stop, and can be given more seeds or variants.

    Parameters
    ----------
    config
        A classwise.toml; `classwise init` writes one. Or the directories of two or more runs or folds, which are then
        compared with the first, on the rows that all of them predict and none was trained on.
    """
    if config.is_dir():
        unused = {"--vary": vary, "--seeds": seeds, "--jobs": jobs, "--margin": margin}
        _compare_runs(config, overrides, out, unused, as_json=as_json, force=force, quiet=quiet)
        return
    for option, is_given in (("--json", as_json), ("--force", force)):
        if is_given:
            raise ConfigError(
                f"{option}: found with a config; allowed: with the directories of finished runs"
            )
    given = parse_overrides(overrides)
    check_config(config, given)
    from classwise.compare import compare as compare_variants
    from classwise.compare import grid, print_table

    comparison = compare_variants(
        config_path=config,
        variants=grid(vary or []),
        seeds=5 if seeds is None else seeds,
        out=out,
        overrides=given,
        jobs=1 if jobs is None else jobs,
        margin=margin,
        quiet=quiet,
    )
    print_table(comparison)
    print(comparison.path / "compare.html")
    if comparison.failed:
        raise ClasswiseError(
            f"{len(comparison.failed)} of {len(comparison.results)} runs failed; the table does not include them"
        )


def _compare_runs(
    first: Path,
    others: tuple[str, ...],
    out: Path | None,
    unused: Mapping[str, object],
    as_json: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Compare finished runs. Raises ConfigError for the options that are for configs."""
    for option, value in unused.items():
        if value is not None:
            raise ConfigError(
                f"{option}: found with the run {first}; allowed: with a config, which is trained"
            )
    if keys := [token for token in others if token.startswith("--")]:
        raise ConfigError(f"{keys[0]}: found with the run {first}; allowed: --out, --json, --force, --quiet")
    say_at_once(f"comparing {len(others) + 1} runs", quiet)
    from classwise.compare.run_page import check_page, write_page
    from classwise.compare.run_text import text_of
    from classwise.compare.runs import compare_runs

    if out is not None:
        check_page(out, force)
    found = compare_runs([first, *others])
    if not quiet:
        for warning in found.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    print(found.as_json() if as_json else text_of(found))
    if out is not None:
        write_page(found, out)
        print(out)


def _print_path(path: Path) -> None:
    """Print it once, however many processes have trained."""
    if os.environ.get("RANK", "0") == "0":
        print(path)
