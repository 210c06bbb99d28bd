"""The user's own code in a run: what may run, the copies in the run directory, and the names that lead to them."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from classwise.config.own_parts import digests_in, own_references, with_references
from classwise.distributed import Processes
from classwise.errors import ConfigError
from classwise.own_parts.reference import is_own, split_reference, with_file
from classwise.own_parts.run_code import (
    FOLDER,
    copies_in,
    lies_in_a_run,
    read_code,
    require_trust,
    write_code,
)
from classwise.own_parts.source import SourceFile, admit, admitted, read_source

if TYPE_CHECKING:  # `report` needs no config
    from classwise.config.schema import Config

Trust = str | Sequence[str]
"""The digests of code that is trusted: of each file at least the first eight characters, as text with commas or as a
list."""


def admit_config(config: Config, trust: Trust = ()) -> None:
    """Let the code run that a config with absolute paths names: the user's own, unless it lies in a run directory.
    Raises ConfigError, and TrustError for files of a run that are not in `trust`."""
    sources: dict[str, SourceFile] = {}
    for key, reference in own_references(config).items():
        path, _ = split_reference(reference)
        if path not in sources:
            sources[path] = read_source(path, key)
            _refuse_files_beside(sources[path], key)
    foreign = [source for source in sources.values() if lies_in_a_run(source.path)]
    if foreign or trust:
        require_trust("the config", foreign, trust)
    for source in sources.values():
        admit(source)


def admit_run(run: Path, trust: Trust) -> list[SourceFile]:
    """Let the code of a run run, if all of it is in `trust`. Raises TrustError and, for files that are not what they
    were, CheckpointError."""
    sources = read_code(run)
    if sources or trust:
        require_trust(str(run), sources, trust)
    for source in sources:
        admit(source)
    return sources


def admit_run_on_all_ranks(run: Path, trust: Trust, processes: Processes) -> None:
    """`admit_run`, where only rank 0 needs to see the folder."""
    _admit_from_rank_zero(lambda: admit_run(run, trust), processes)


def agree_on_code(config: Config, processes: Processes) -> None:
    """All processes have read the same code, and that of rank 0 may run under its paths too, since all train with the
    config of rank 0. Raises ClasswiseError."""
    processes.require_same(json.dumps(digests_in(config)), "your own code")
    _admit_from_rank_zero(lambda: admitted_in(config), processes)


def _admit_from_rank_zero(read: Callable[[], list[SourceFile]], processes: Processes) -> None:
    """What rank 0 reads may run in all processes."""

    def as_texts() -> list[list[str]]:
        return [[source.path, source.content.hex()] for source in read()]

    for path, content in processes.from_rank_zero(as_texts):
        admit(SourceFile(path, bytes.fromhex(content)))


def with_copies(config: Config, run: Path, processes: Processes) -> Config:
    """The config with the names of copies in a run directory, which rank 0 writes; their code may run. The same config
    where it names no code."""
    folder = Path(processes.from_rank_zero(lambda: str(run.resolve())))
    copies = copies_in(folder, admitted_in(config))
    processes.from_rank_zero(lambda: write_code(folder, list(copies.values())))
    for copy in copies.values():
        admit(copy)
    return with_references(
        config, lambda _, reference: with_file(reference, copies[split_reference(reference)[0]].path)
    )


def admitted_in(config: Config) -> list[SourceFile]:
    """The files of the user's own that a config names, each once. Raises TrustError for code that may not run."""
    sources = [admitted(reference, key) for key, reference in own_references(config).items()]
    return list({source.path: source for source in sources}.values())


def portable(config: Config) -> Config:
    """The config as a run directory holds it: names of copies are relative to it, so that it can be moved."""
    return with_references(config, lambda _, reference: portable_name(reference))


def portable_name(name: str) -> str:
    """`code/my_model.py:Net` for a copy in a run directory; any other name as it is."""
    if not is_own(name):
        return name
    path = Path(split_reference(name)[0])
    return with_file(name, f"{FOLDER}/{path.name}") if path.parent.name == FOLDER else name


def located_name(name: str, run: Path) -> str:
    """The inverse of `portable_name`, for the run directory `run`."""
    return with_file(name, str(run.resolve() / split_reference(name)[0])) if is_own(name) else name


def _refuse_files_beside(source: SourceFile, key: str) -> None:
    """Only the file itself is copied into the run, so it cannot import those beside it. Raises ConfigError."""
    try:
        tree = ast.parse(source.content)
    except (SyntaxError, ValueError):
        return  # the import says where
    for node in ast.walk(tree):
        for name in _imported(node):
            beside = [
                Path(source.path).with_name(f"{name}.py"),
                Path(source.path).with_name(name) / "__init__.py",
            ]
            if name and not any(path.is_file() for path in beside):
                continue
            spec = importlib.util.find_spec(name) if name else None
            if spec is None or spec.origin in [str(path) for path in beside]:
                what = f"{name}, which is a file beside it" if name else "files beside it"
                raise ConfigError(
                    f"{key}: {source.path} (line {getattr(node, 'lineno', 0)}) imports {what}; a part of your own is"
                    " one file, which is copied into the run: move what it needs into it"
                )


def _imported(node: ast.AST) -> list[str]:
    """The top-level modules that a statement imports; empty text for a relative import."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["" if node.level else (node.module or "").partition(".")[0]]
    return []
