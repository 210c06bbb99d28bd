"""How a config names a part of the user's own: `my_losses.py:MyLoss`, a file and what it defines."""

import re
from pathlib import Path

FORM = "FILE.py:NAME"
"""What messages and descriptions call such a name."""

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[^:/\\]*)", re.DOTALL)


def is_own(text: object) -> bool:
    """Whether a name of the config stands for a part in a file."""
    return isinstance(text, str) and _REFERENCE.fullmatch(text) is not None


def split_reference(reference: str) -> tuple[str, str]:
    """The file and the name in it. Raises ValueError for any other text."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ValueError(f"found {reference!r}, allowed: {FORM}")
    return match["file"], match["name"]


def with_file(reference: str, file: str) -> str:
    """The same name in another file."""
    return f"{file}:{split_reference(reference)[1]}"


def short(name: str) -> str:
    """The file without its folder, for messages: `my_model.py:Net`; any other name as it is."""
    return with_file(name, Path(split_reference(name)[0]).name) if is_own(name) else name


def hint(text: str) -> str:
    """What to write in place of a bare file; empty for any other text."""
    return f"a part of your own is named {FORM}, such as {text}:MyPart" if text.endswith(".py") else ""
