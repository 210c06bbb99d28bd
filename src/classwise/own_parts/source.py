"""The user's own code: read once, admitted by whoever has decided that it may run, executed from the bytes that were
read.

Nothing runs that was not admitted. `train` admits the files that its config names: they are the user's own. What lies
in a run directory is admitted if its digests are named (see run_code.py). Worker processes get the bytes from their
parent, so they need no file.
"""

import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import Parameter, isclass, signature
from pathlib import Path
from types import ModuleType
from typing import Any

from classwise.errors import ConfigError, TrustError, nearest
from classwise.files import sha256
from classwise.own_parts.reference import split_reference


@dataclass(frozen=True)
class SourceFile:
    """A file of Python code: its absolute path, and the bytes that were read from it."""

    path: str
    content: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of its bytes, as `sha256sum` prints it."""
        return sha256(self.content)


_admitted: dict[str, SourceFile] = {}
"""The files whose code may run in this process, by their paths."""


def read_source(path: str, key: str) -> SourceFile:
    """The file at an absolute path, which `key` of the config names. Raises ConfigError."""
    try:
        return SourceFile(path, Path(path).read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{key}: there is no file {path}; paths are relative to the config file") from None
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None


def admit(source: SourceFile) -> None:
    """From now on the code of this file may run in this process."""
    _admitted[source.path] = source


def admitted(reference: str, key: str) -> SourceFile:
    """The file that a reference with an absolute path names. Raises TrustError unless it was admitted."""
    path, _ = split_reference(reference)
    if path not in _admitted:
        raise TrustError(f"{key}: {path} is code that was not trusted, so it does not run")
    return _admitted[path]


def load(reference: str, key: str) -> Callable[..., Any]:
    """The class or function that a reference with an absolute path names; `key` of the config holds it.

    Raises TrustError for a file that was not admitted, ConfigError for one that fails or lacks the name.
    """
    return part_of(admitted(reference, key), split_reference(reference)[1], key)


def part_of(source: SourceFile, name: str, key: str) -> Callable[..., Any]:
    """The class or function `name` of a file, whose code is executed if it was not before. Raises ConfigError."""
    module = _module_of(source, key)
    if name not in vars(module):
        defined = [
            item
            for item, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
        ]
        found = f"{name!r}" if name else "no name behind the colon"
        raise ConfigError(f"{key}: {source.path} defines no such part: {found}; {nearest(name, defined)}")
    part = getattr(module, name)
    if not callable(part):
        raise ConfigError(
            f"{key}: {name!r} of {source.path} is {_article(type(part).__name__)}, allowed: a class or a function"
        )
    return part  # type: ignore[no-any-return]


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _module_of(source: SourceFile, key: str) -> ModuleType:
    """The file as a module. A copy with the same bytes is the same module, so that its classes are the same ones."""
    name = f"own_{Path(source.path).stem}_{source.digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = source.path
    # Known before it is executed: dataclasses and pickle look a class up by the name of its module.
    sys.modules[name] = module
    try:
        exec(compile(source.content, source.path, "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(
            f"{key}: {source.path} cannot be imported: {failure_text(error, source)}"
        ) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def failure_text(error: BaseException, source: SourceFile) -> str:
    """What went wrong, and in which line of the file: `NameError: name 'x' is not defined (line 3: y = x + 1)`."""
    said = str(error).strip().partition("\n")[0]
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg}"
        number = error.lineno
    else:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).name == Path(source.path).name
        ]
        number = lines[-1] if lines else None
    if number is None:
        return text
    code = source.content.decode(errors="replace").splitlines()
    line = code[number - 1].strip() if 0 < number <= len(code) else ""
    return f"{text} (line {number}{f': {line}' if line else ''})"


def made_by(
    part: Callable[..., Any],
    keys: Mapping[str, Any],
    offered: Mapping[str, Any],
    source: SourceFile,
    table: str,
) -> Any:
    """What the config names, with its arguments: an object of a class, made with the keys of the table; a function,
    with the keys as arguments of every call. Of the `offered` arguments it gets those that it has parameters for and
    the keys do not give.

    `table`: where the keys stand in the config. Raises ConfigError for keys that it does not take, that it needs, or
    that it refuses.
    """
    parameters = signature(part).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    name = getattr(part, "__name__", "it")
    for key in keys:
        if key not in parameters and not takes_any:
            allowed = [item for item in parameters if item not in offered]
            raise ConfigError(
                f"{table}.{key}: {name} of {source.path} has no such argument;"
                f" {nearest(key, allowed) if allowed else 'it has none'}"
            )
    arguments = {key: value for key, value in offered.items() if key in parameters} | dict(keys)
    if not isclass(part):
        return partial(part, **arguments) if arguments else part
    for key, parameter in parameters.items():
        is_named = parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        if is_named and parameter.default is Parameter.empty and key not in arguments:
            raise ConfigError(f"{table}.{key}: missing; {name} of {source.path} needs it")
    try:
        return part(**arguments)
    except Exception as error:
        raise ConfigError(
            f"{table}: {name} of {source.path} cannot be made: {failure_text(error, source)}"
        ) from error
