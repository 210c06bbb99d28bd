"""The command line: parse the arguments, call the library, print. Results go to stdout, messages to stderr.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

import io
import itertools
import json
import os
import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

import classwise
from classwise import cli_data, cli_explain, cli_inspect, cli_models, cli_serving, cli_training
from classwise.cli_checks import check_config
from classwise.cli_options import Debug, Force, Quiet, parse_overrides, say_at_once
from classwise.console import on_terminal, wrapped
from classwise.errors import ClasswiseError, ConfigError, Interrupted, SkippedImages
from classwise.signals import ignore_signals

app = App(
    name="classwise",
    help="Train and run image classifiers where every class counts.",
    version=classwise.__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,  # `run_command` handles it, with a message and an exit code
)

SINGLE_PROCESS_COMMANDS = (
    "demo",
    "init",
    "bench",
    "check",
    "compare",
    "folds",
    "pack",
    "evaluate",
    "predict",
    "submit",
    "explain",
    "export",
    "convert",
    "report",
    "schedule",
    "serve",
    "step",
    "watch",
)
"""Commands that torchrun cannot start: their processes would write the same files."""

for _command in (
    cli_training.train,
    cli_training.resume,
    cli_training.folds,
    cli_training.compare,
    cli_data.check,
    cli_data.pack,
    cli_models.evaluate,
    cli_models.predict,
    cli_models.submit,
    cli_explain.explain,
    cli_models.export,
    cli_models.convert,
    cli_models.report,
    cli_inspect.watch,
    cli_serving.serve,
):
    # Of further arguments, cyclopts does not show the name.
    _more = " RUN SOURCE [MORE...]" if _command in (cli_models.predict, cli_explain.explain) else None
    app.command(_command, usage=f"Usage: classwise {_command.__name__} [OPTIONS]{_more}" if _more else None)


@app.command
def demo(
    folder: Path | None = None,
    /,
    *,
    masks: Annotated[
        bool, Parameter(help="Use drawn faces, in the folders of the face-mask competition.")
    ] = False,
    shapes: Annotated[
        bool, Parameter(help="Use drawn shapes, with one model for targets of all types.")
    ] = False,
    people: Annotated[
        int | None, Parameter(help="With --masks: number of people in the training set [300].")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show every command on a small data set: write images and a config, then train, evaluate, submit and report.

    Parameters
    ----------
    folder
        A new or empty folder [default: classwise-demo, classwise-masks or classwise-shapes].
    """
    from classwise.demo import tour

    if people is not None and not masks:
        raise ConfigError("--people: found without --masks; only that demo has people")
    if masks and shapes:
        raise ConfigError("--shapes: found with --masks; allowed: one of them")
    if masks:
        people = 300 if people is None else people
        code = tour.faces(folder or Path("classwise-masks"), people, run_command, quiet)
    elif shapes:
        code = tour.shapes(folder or Path("classwise-shapes"), run_command, quiet)
    else:
        code = tour.clothes(folder or Path("classwise-demo"), run_command, quiet)
    if code:
        sys.exit(code)


@app.command
def init(
    source: Path,
    /,
    *,
    out: Path | None = None,
    no_hub: Annotated[
        bool,
        Parameter(
            name="--no-hub",
            help="Do not look for pretrained weights on the Hugging Face hub or in its cache.",
        ),
    ] = False,
    scratch: Annotated[
        bool, Parameter(help="No pretrained weights: the recipe for the built-in network, from scratch.")
    ] = False,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Write a commented classwise.toml, ready to train, for a folder of images, a table or a competition's folder.

    Parameters
    ----------
    source
        A folder with one sub-folder per class, or with such folders in train, val and test; a table (.csv .tsv
        .parquet), or a folder with one; or the face-mask competition's folder.
    out
        Folder for classwise.toml, and for samples.csv if the source is not a table [default: the current folder].
    """
    from classwise.suggest.config import init as write_config

    written = write_config(source, out or Path(), force=force, hub=not no_hub, scratch=scratch)
    print(written)
    print(f"next: classwise train {written}", file=sys.stderr)


@app.command
def bench(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    as_json: Annotated[bool, Parameter(name="--json", help="Print all results as JSON.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time each stage of training (reading, decoding, augmenting, forward, backward, ...) and say what limits it.

    Nothing is saved: there is no run directory. Every key of the config is also an option.

    Parameters
    ----------
    config
        A classwise.toml; `classwise init` writes one.
    """
    given = parse_overrides(overrides)
    check_config(config, given)
    from classwise.bench import bench as time_stages
    from classwise.bench import print_bench

    timings = time_stages(config, given, quiet)
    if as_json:
        print(json.dumps(timings.as_dict(), indent=1, ensure_ascii=False))
    else:
        print_bench(timings)


@app.command
def schedule(
    *configs: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    out: Annotated[Path | None, Parameter(help="Draw all of them into a file, .svg or .png.")] = None,
    updates: Annotated[
        int | None, Parameter(help="Updates of an epoch, in place of counting them in the data.")
    ] = None,
    metric: Annotated[
        Path | None, Parameter(help="For plateau: the run directory whose results it is to look at.")
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the learning rate over the run of one config or several: schedule CONFIG... [--schedule.name step ...]

    Every key of the config is also an option, for all of them. Without --metric the results that plateau looks at are
    assumed: better in the first half of the epochs, not after.
    """
    paths = list(itertools.takewhile(lambda token: not token.startswith("--"), configs))
    overrides = parse_overrides(configs[len(paths) :])
    if not paths:
        raise ConfigError("schedule: found no config; allowed: one or several, before the options")
    if updates is not None and updates < 1:
        raise ConfigError(f"--updates: found {updates}, allowed: 1 or more")
    for path in paths:
        check_config(Path(path), overrides)
    say_at_once(f"drawing the schedule of {', '.join(paths)}", quiet)
    from classwise.schedule.command import schedule as rates_of_configs
    from classwise.schedule.command import text_of

    rates = rates_of_configs(
        paths, overrides, updates=updates, metric=metric, out=out, force=force, quiet=quiet
    )
    print(text_of(rates, get_terminal_size().columns, sys.stdout.encoding))
    if out is not None:
        print(out)


@app.command
def step(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    rows: Annotated[
        str | None,
        Parameter(help="Ids of training rows, separated by commas, in place of the rows of that update."),
    ] = None,
    update: Annotated[
        int, Parameter(help="Which update of the run, from 1; those before it are trained as always.")
    ] = 1,
    weight: Annotated[
        str | None,
        Parameter(
            help="The weight whose step is worked out, as heads.0.weight[3,17] [default: a layer's largest gradient]."
        ),
    ] = None,
    out: Annotated[Path, Parameter(help="The page.")] = Path("step.html"),
    force: Force = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show one real update on one page: images, outputs, loss, grad_fn, gradients, the optimizer's step, and after it.

    There is no run directory. Every key of the config is also an option.

    Parameters
    ----------
    config
        A classwise.toml; `classwise init` writes one.
    """
    given = parse_overrides(overrides)
    check_config(config, given)
    say_at_once(f"looking at an update of {config}", quiet)
    from classwise.lens.command import step as look_at_step
    from classwise.lens.text import can_encode, text_of

    found = look_at_step(
        config,
        given,
        rows=rows,
        update=update,
        weight=weight,
        out=out,
        force=force,
        quiet=quiet,
    )
    print(text_of(found.view, get_terminal_size().columns, plain=not can_encode(sys.stdout.encoding)))
    print(found.path)


@app.command(usage="Usage: classwise keys [NAME...]")
def keys(*names: str) -> None:
    """List the keys of the config with their meanings and defaults, all of them or those that are asked for.

    Parameters
    ----------
    names
        Only keys and tables with these names, such as training, lr or optimizer.lr [default: all].
    """
    from classwise.config.describe import key_table
    from classwise.config.keys import keys_like, keys_named

    wanted: list[str] = []
    for name in names:
        named = keys_named(name)
        if not named:
            named = keys_like(name)
            if not named:
                raise ConfigError(
                    f"keys: found {name!r}, which no key is named as; `classwise keys` lists all"
                )
            print(f"no key is named {name!r}; shown are the nearest", file=sys.stderr)
        wanted += named
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    print(key_table(width, wanted if names else None))


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code: 0 done, 1 error, 2 wrong usage, 3 done, but without some images or with
    severe findings, 75 stopped with a checkpoint."""
    # A label or a path may hold what the terminal's encoding lacks: it is printed as \\u732b, and is no error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run_command(sys.argv[1:] if arguments is None else arguments)
    if (
        code == Interrupted.exit_code
    ):  # torchrun sends SIGTERM to the other processes as soon as one has ended
        ignore_signals()
    sys.exit(code)


def _refuse_torchrun(arguments: list[str]) -> None:
    """Raise ConfigError for several processes of a command that only one can run; rank 0 alone reports it."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1" and arguments and arguments[0] in SINGLE_PROCESS_COMMANDS:
        error = ConfigError(
            f"classwise {arguments[0]} runs in one process, but torchrun has started {world_size}"
        )
        error.reported_by_rank_zero = os.environ.get("RANK", "0") != "0"
        raise error


PREFIXES = {Interrupted.exit_code: "", SkippedImages.exit_code: "warning: "}
"""What stands before a message that is no error, by the exit code."""


def run_command(arguments: list[str]) -> int:
    """Run one command, print its error, if any, and return its exit code."""
    try:
        _refuse_torchrun(arguments)
        app(arguments or ["--help"], exit_on_error=False, result_action="return_value")
    except ClasswiseError as error:
        if "--debug" in arguments:
            raise
        if error.reported_by_rank_zero:
            return error.exit_code
        prefix = PREFIXES.get(error.exit_code, "error: ")
        message = f"{prefix}{error}"
        print(wrapped(message) if on_terminal() else message, file=sys.stderr)
        return error.exit_code
    except CycloptsError:
        return 2  # cyclopts has printed the error
    except KeyboardInterrupt as stop:  # outside of training, which saves a checkpoint and raises Interrupted
        print("stopped; no partial files were left", file=sys.stderr)
        return 128 + (int(stop.args[0]) if stop.args else 2)
    except BrokenPipeError:
        return 0  # the program that reads our output has closed it, as `head` does
    except OSError as error:  # no permission, a full disk, a file where a folder should be
        if "--debug" in arguments:
            raise
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0
