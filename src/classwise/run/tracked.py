"""A run in its trackers (report.trackers): what they are told about it, from its config and its parts."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import CheckpointError
from classwise.run.assembly import Parts
from classwise.run.folder import RunFolder
from classwise.run.own_code import portable
from classwise.tracking.facts import RunFacts, flat_parameters
from classwise.tracking.trackers import NoTrackers, Trackers
from classwise.version import __version__


@contextlib.contextmanager
def tracked(
    folder: RunFolder, config: Config, parts: Parts, console: Console
) -> Iterator[Trackers | NoTrackers]:
    """The trackers of a run within the block, at whose end status.json says how the run ended; rank 0 alone has any.
    That their packages are installed was checked before (`check_trackers`)."""
    names = config.report.trackers
    if not (names and parts.settings.processes.is_main_process):
        yield NoTrackers()
        return
    trackers: Trackers | NoTrackers = NoTrackers()
    with contextlib.ExitStack() as stack:
        try:
            trackers = Trackers(names, _facts(folder, config, parts), parts.state.progress.history, console)
            stack.callback(_finish, trackers, folder, console)
        except Exception as error:  # no process could be started, for example
            console.line(
                f"warning: report.trackers: {type(error).__name__}: {error}; training goes on without them"
            )
        yield trackers


def _facts(folder: RunFolder, config: Config, parts: Parts) -> RunFacts:
    path = folder.path.resolve()
    group = _group(path, config)
    return RunFacts(
        folder=str(path),
        name=f"{group}/{path.name}" if group else path.name,
        group=group,
        parameters=flat_parameters(portable(config).to_dict()),
        files=[str(path / "config.toml")],
        tags={"classwise.version": __version__},
        metric=parts.settings.metric,
        step=parts.state.progress.update,
    )


def _group(path: Path, config: Config) -> str:
    """The name of the folds or of the comparison that the run belongs to; empty for a single run."""
    if config.is_of_folds:
        return path.parent.name
    comparison = path.parent.parent
    if (comparison / "compare.json").exists():
        return f"{comparison.name}/{path.parent.name}"
    return ""


def _finish(trackers: Trackers, folder: RunFolder, console: Console) -> None:
    """Tell the trackers how the run ended. Whatever goes wrong here must not change that."""
    try:
        state = folder.status()["state"]
        metrics: dict[str, Any] | None = None
        with contextlib.suppress(CheckpointError):
            metrics = folder.metrics()
        trackers.finish(state, metrics)
    except KeyboardInterrupt:
        console.line("report.trackers: no longer waited for")
    except Exception as error:
        console.line(f"warning: report.trackers: {type(error).__name__}: {error}")
