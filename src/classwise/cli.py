"""The command line: parse, call `run.py`, print. Results go to stdout, messages to stderr.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Group, Parameter

import classwise
from classwise.errors import ClasswiseError, ConfigError, Interrupted
from classwise.signals import ignore_signals

app = App(
    name="classwise",
    help="Train and run image classifiers where every class counts.",
    version=classwise.__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,  # `run_command` says what has become of the work
)

ONE_PROCESS = ("demo", "init", "bench", "compare", "evaluate", "predict", "submit", "export", "report")

Force = Annotated[bool, Parameter(name="--force", help="Replace files that exist.")]
Quiet = Annotated[bool, Parameter(name="--quiet", help="No messages but errors.")]
Engine = Annotated[
    str,
    Parameter(
        help="torch computes as evaluate does; compile and onnx are checked against it; auto: the fastest here."
    ),
]
Debug = Annotated[
    bool, Parameter(name="--debug", help="Show the traceback of an error.", group=Group("Help", sort_key=9))
]


@app.command
def demo(
    folder: Path | None = None,
    /,
    *,
    masks: Annotated[
        bool, Parameter(help="Drawn faces in the face-mask competition's tree instead.")
    ] = False,
    shapes: Annotated[
        bool, Parameter(help="Drawn shapes with a target of every type, in one model, instead.")
    ] = False,
    people: Annotated[int | None, Parameter(help="With --masks: people to draw for training [300].")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write real images and a config, then train, evaluate, submit and report, naming each command.

    Parameters
    ----------
    folder
        An empty or new folder [default: classwise-demo, classwise-masks or classwise-shapes].
    """
    from classwise.demo import tour

    if people is not None and not masks:
        raise ConfigError("--people goes with --masks; the clothes have no people")
    if masks and shapes:
        raise ConfigError("--masks and --shapes are two demos; give one of them")
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
def init(source: Path, /, *, out: Path | None = None, force: Force = False, debug: Debug = False) -> None:
    """Look at a folder, a table or a competition tree, and write a commented classwise.toml that trains.

    Parameters
    ----------
    source
        A folder with one sub-folder per class, a table (.csv .tsv .parquet), or a competition tree.
    out
        Folder for classwise.toml and, where the source is not a table already, samples.csv [default: here].
    """
    from classwise.init.suggest import write_config

    written = write_config(source, out or Path(), force, lambda text: print(text, file=sys.stderr))
    print(written)
    print(f"next: classwise train {written}", file=sys.stderr)


@app.command
def train(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    run: Annotated[Path | None, Parameter(help="Train into this folder itself.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train into runs/NAME (numbered if it exists). Every key of the config is also an option.

    For example: --training.epochs 5 --loss.name focal --targets.age.loss.gamma 1. `classwise keys` lists them.

    Parameters
    ----------
    config
        A classwise.toml; `classwise init` writes one.
    """
    from classwise.run.api import train as train_run

    _print_path(train_run(config, run, parse_overrides(overrides), quiet).path)


@app.command
def bench(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    as_json: Annotated[bool, Parameter(name="--json", help="Everything, for programs.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time each stage of a run (reading, decoding, augmenting, forward, backward, ...) and say what would help.

    Nothing is trained for good, and no run folder is written. Every key of the config is also an option.

    Parameters
    ----------
    config
        A classwise.toml; `classwise init` writes one.
    """
    from classwise.bench import bench as time_stages
    from classwise.bench import print_bench

    found = time_stages(config, parse_overrides(overrides), quiet)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        print_bench(found)


@app.command
def resume(
    run: Path,
    /,
    *,
    workers: Annotated[
        int | None, Parameter(help="In place of data.workers; the numbers stay the same.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on from the last good checkpoint; a finished run says so.

    Parameters
    ----------
    run
        The run's folder, such as runs/masks.
    """
    from classwise.run.api import resume as resume_run

    _print_path(resume_run(run, quiet, workers).path)


@app.command
def compare(
    config: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    vary: Annotated[
        list[str] | None, Parameter(help="KEY=VALUE,VALUE; several give all combinations.")
    ] = None,
    seeds: Annotated[
        int, Parameter(help="Runs of each variant: config.seed, +1, ... Pairs are by seed.")
    ] = 5,
    out: Annotated[Path | None, Parameter(help="Folder of the comparison [default: compare/NAME].")] = None,
    jobs: Annotated[int, Parameter(help="Processes that train at the same time.")] = 1,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train variants with the same seeds: means, intervals, and paired differences to the first variant.

    For example: --vary loss.name=cross_entropy,focal --vary optimizer.lr=1e-3,3e-3 --seeds 5 --training.epochs 5.
    Runs that are done are not run again; the same command goes on after a stop, and takes more seeds or variants.

    Parameters
    ----------
    config
        A classwise.toml; `classwise init` writes one.
    """
    from classwise.compare import compare as compare_variants
    from classwise.compare import grid, print_table

    found = compare_variants(config, grid(vary or []), seeds, out, parse_overrides(overrides), jobs, quiet)
    print_table(found)
    print(found.path / "compare.html")
    if found.failed:
        raise ClasswiseError(
            f"{len(found.failed)} of {len(found.results)} runs failed; the table leaves them out"
        )


@app.command
def evaluate(
    run: Path,
    table: Path | None = None,
    /,
    *,
    images: Annotated[Path | None, Parameter(help="Folder that the table's paths are relative to.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Everything, as in metrics.json.")] = False,
    debug: Debug = False,
) -> None:
    """Metrics on the run's validation rows, or on another labelled table or class folder.

    Parameters
    ----------
    run
        The run's folder.
    table
        A labelled table or a folder with one sub-folder per class [default: the validation rows].
    """
    from classwise.metrics.text import metrics_text
    from classwise.run.api import Run

    metrics = Run.open(run).evaluate(table, images, quiet=False)
    print(json.dumps(metrics, indent=1, ensure_ascii=False) if as_json else metrics_text(metrics))


@app.command
def predict(
    run: Path,
    source: Path,
    /,
    *,
    out: Annotated[Path, Parameter(help="A new .csv, .tsv or .parquet file.")],
    images: Annotated[Path | None, Parameter(help="Folder that the table's paths are relative to.")] = None,
    engine: Engine = "torch",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Predictions for a folder of images or a table: labels and every class's probability.

    Parameters
    ----------
    run
        The run's folder.
    source
        A folder of images, or a table with the config's path column.
    """
    from classwise.data.table import SUFFIXES, write_table
    from classwise.errors import OutputError
    from classwise.files import refuse_existing
    from classwise.run.api import Run

    if out.suffix.lower() not in SUFFIXES:
        raise OutputError(f"--out {out}: found {out.suffix or 'no'} suffix, allowed: {', '.join(SUFFIXES)}")
    refuse_existing(out, force)
    predictions = Run.open(run).predict(source, images, quiet=False, engine=engine)
    write_table(predictions, out, escape_formulas=True)
    print(out)


@app.command
def submit(
    run: Path,
    template: Path,
    /,
    *,
    images: Annotated[Path, Parameter(help="Folder with the images that the template's ids name.")],
    out: Annotated[Path, Parameter(help="The submission file to write.")],
    id: Annotated[str | None, Parameter(help="The template's id column [default: its first].")] = None,
    engine: Engine = "torch",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Fill a competition's template with answers; checked against the template, or not written at all.

    Parameters
    ----------
    run
        The run's folder.
    template
        The competition's table of ids with an empty answer column.
    """
    from classwise.errors import OutputError
    from classwise.run.api import Run

    if out.suffix.lower() != template.suffix.lower():
        raise OutputError(f"--out {out}: the template is a {template.suffix} file, and so is its submission")
    print(Run.open(run).submit(template, images, out, id, force, quiet=False, engine=engine))


@app.command
def export(
    run: Path,
    /,
    *,
    out: Annotated[Path, Parameter(help="The .onnx file to write.")],
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Write the model as an ONNX file: any size of batch, preprocessing facts and labels in its metadata.

    Parameters
    ----------
    run
        The run's folder.
    """
    from classwise.run.api import Run

    print(Run.open(run).export(out, force))


@app.command
def report(run: Path, /, *, debug: Debug = False) -> None:
    """Write report.html again from what the run directory holds.

    Parameters
    ----------
    run
        The run's folder.
    """
    from classwise.run.api import Run

    print(Run.open(run).report())


@app.command
def keys() -> None:
    """List every key of the config with its default and its meaning."""
    from classwise.config.describe import key_table

    print(key_table())


def _print_path(path: Path) -> None:
    """Once, however many processes have trained."""
    if os.environ.get("RANK", "0") == "0":
        print(path)


def parse_overrides(tokens: tuple[str, ...]) -> list[tuple[str, str]]:
    """`--a.b 1 --c=2` as (key, text) pairs. Raises ConfigError for anything else."""
    found: list[tuple[str, str]] = []
    left = list(tokens)
    while left:
        token = left.pop(0)
        if not token.startswith("--"):
            raise ConfigError(f"found {token!r}, where an option such as --training.epochs was expected")
        key, equals, text = token[2:].partition("=")
        if not equals:
            if not left:
                raise ConfigError(f"--{key}: a value is missing")
            text = left.pop(0)
        found.append((key, text))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the command and end the process with its exit code: 0 done, 1 a mistake, 2 usage, 75 stopped."""
    code = run_command(sys.argv[1:] if arguments is None else arguments)
    if code == Interrupted.exit_code:  # torchrun sends SIGTERM to what is left once a first process has ended
        ignore_signals()
    sys.exit(code)


def _refuse_several(arguments: list[str]) -> None:
    """`torchrun` is for training; several processes would write the same files."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size != "1" and arguments and arguments[0] in ONE_PROCESS:
        error = ConfigError(
            f"classwise {arguments[0]} runs in one process; torchrun has started {world_size}"
        )
        error.reported_by_rank_zero = os.environ.get("RANK", "0") != "0"
        raise error


def run_command(arguments: list[str]) -> int:
    """The exit code of one command."""
    try:
        _refuse_several(arguments)
        app(arguments or ["--help"], exit_on_error=False, result_action="return_value")
    except ClasswiseError as error:
        if "--debug" in arguments:
            raise
        if error.reported_by_rank_zero:
            return error.exit_code
        prefix = "" if error.exit_code == 75 else "error: "
        print(f"{prefix}{error}", file=sys.stderr)
        return error.exit_code
    except CycloptsError:
        return 2  # cyclopts has printed what is wrong
    except KeyboardInterrupt as stop:  # outside of training, which keeps a checkpoint and raises Interrupted
        print("stopped; nothing is half written", file=sys.stderr)
        return 128 + (int(stop.args[0]) if stop.args else 2)
    except BrokenPipeError:
        return 0  # the reader of our output had enough
    except OSError as error:  # no permission, a full disk, a file where a folder should be
        if "--debug" in arguments:
            raise
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0
