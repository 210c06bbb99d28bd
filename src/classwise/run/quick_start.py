"""`train FOLDER`: the config that `init` would write is written beside the run, and trained with.

    runs/photos.toml   the config
    runs/photos.csv    the table, if the source is a folder
    runs/photos/       the run

What belongs together has the same number: photos-2.toml is the config of photos-2.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.shard_source import is_sharded
from classwise.data.table import SUFFIXES
from classwise.distributed import Processes
from classwise.errors import ConfigError, DataError
from classwise.files import make_folder, numbered
from classwise.run.folder import RunFolder, has_checkpoint


@contextlib.contextmanager
def config_to_train(
    config: Config | str | Path,
    run: str | Path | None,
    overrides: Sequence[tuple[str, str]],
    processes: Processes,
    console: Console,
    suffix: str = "",
    has_begun: Callable[[RunFolder], bool] = has_checkpoint,
) -> Iterator[tuple[Config | str | Path, str | Path | None]]:
    """The config, or the path of its file, and the run directory: as given; or, if `config` is a folder or a table of
    images, those that rank 0 has made for it. `suffix`: of the directory's name, where it is not given.

    If the block raises before the run `has_begun` (by default, before the first checkpoint is written), the files that
    were made are removed again. Raises ConfigError, DataError and OutputError.
    """
    if isinstance(config, Config) or not processes.from_rank_zero(lambda: _is_source(Path(config))):
        yield config, run
        return
    with contextlib.ExitStack() as stack:
        made = processes.from_rank_zero(
            lambda: stack.enter_context(
                _made_for_source(Path(config), run, overrides, console, suffix, has_begun)
            )
        )
        yield made[0], made[1] or None


def _is_source(path: Path) -> bool:
    """Whether this is a folder, a table or shards rather than a config."""
    return path.is_dir() or path.suffix.lower() in SUFFIXES or is_sharded(path)


@contextlib.contextmanager
def _made_for_source(
    source: Path,
    run: str | Path | None,
    overrides: Sequence[tuple[str, str]],
    console: Console,
    suffix: str,
    has_begun: Callable[[RunFolder], bool],
) -> Iterator[list[str]]:
    """The paths of the config for a source and of the run directory, which is empty if it has yet to be chosen. A
    config that is in the folder is used."""
    if (source / "status.json").is_file() and (source / "config.toml").is_file():
        raise ConfigError(
            f"{source} is a run; go on with it: classwise resume {source}; or train as it was trained: classwise train"
            f" {source / 'config.toml'}"
        )
    own_config = source / "classwise.toml"
    if own_config.is_file():
        console.line(f"config: {own_config}, which is in the folder")
        yield [str(own_config), "" if run is None else str(run)]
        return

    from classwise.suggest.config import look_at, write_suggestion  # not for a config that is there already

    # Wrong options are an error before anything is written; one of them may be the name of the run.
    suggestion = look_at(source, hub=True)
    name = make_config(suggestion.config.to_dict(), overrides, where=str(source)).name
    run_path, config_path, table_path = _free_paths(name + suffix, run)
    is_new_folder = not config_path.parent.exists()
    make_folder(config_path.parent)
    is_older_run = has_begun(RunFolder(run_path))  # it will be refused
    try:
        written = write_suggestion(suggestion, config_path, table_path)
        for line in [*written, f"{config_path}: the config", *suggestion.summary]:
            console.paragraph(line)
        yield [str(config_path), str(run_path)]
    except BaseException as error:
        if is_older_run or not has_begun(RunFolder(run_path)):
            config_path.unlink(missing_ok=True)
            table_path.unlink(missing_ok=True)
            if is_new_folder:
                with contextlib.suppress(OSError):  # there are other files in it by now
                    config_path.parent.rmdir()
            if type(error) is DataError:
                raise DataError(_in_terms_of(source, str(error), table_path)) from None
        raise


def _in_terms_of(source: Path, message: str, table_path: Path) -> str:
    """A message on files that are gone by now: it names what the user has given, and options in place of keys."""
    for path in (table_path.resolve(), table_path):
        message = message.replace(str(path), str(source))
    return re.sub(r'\b(data\.\w+) = "?(\w+)"?', r"--\1 \2", message)


def _free_paths(name: str, run: str | Path | None) -> tuple[Path, Path, Path]:
    """The first run directory of this name, config and table beside it that do not exist; of a given `run`, only config
    and table are numbered."""
    wanted = None if run is None else Path(run)
    if wanted is not None and not wanted.name:  # the current folder
        wanted = wanted.resolve()
    for path in numbered(wanted or Path("runs") / name):
        config_path, table_path = (path.with_name(path.name + suffix) for suffix in (".toml", ".csv"))
        taken = [path, config_path, table_path] if wanted is None else [config_path, table_path]
        if not any(file.exists() for file in taken):
            return wanted or path, config_path, table_path
    raise AssertionError  # there is no last number
