"""What several commands share: options, keys of the config as options, and the first line of those that need torch."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from classwise.errors import ConfigError

Force = Annotated[bool, Parameter(name="--force", help="Overwrite existing files.")]
Quiet = Annotated[bool, Parameter(name="--quiet", help="Print errors only.")]
Engine = Annotated[
    str,
    Parameter(
        help="torch (as in evaluate), compile or onnx (both checked against torch), or auto (the fastest here)."
    ),
]
Tta = Annotated[
    str | None,
    Parameter(
        help="Average over views of each image: none, flip, flip+scale, or auto (folds only) [default: inference.tta of"
        " the run's config]."
    ),
]
Ensemble = Annotated[
    str | None,
    Parameter(
        help="Of folds, average probabilities or logits [default: inference.ensemble of their config]."
    ),
]
Debug = Annotated[
    bool, Parameter(name="--debug", help="Show the traceback of errors.", group=Group("Help", sort_key=9))
]
Trust = Annotated[
    str,
    Parameter(
        help="For a run with code of its own (code/): the first eight characters of the SHA-256 of each file, separated"
        " by commas. You have read it, and trust it.",
    ),
]


def parse_overrides(tokens: tuple[str, ...]) -> list[tuple[str, str]]:
    """`--a.b 1 --c=2` as (key, text) pairs. Raises ConfigError for anything else."""
    overrides: list[tuple[str, str]] = []
    remaining = list(tokens)
    while remaining:
        token = remaining.pop(0)
        if not token.startswith("--"):
            raise ConfigError(f"found {token!r}, where an option such as --training.epochs was expected")
        key, equals, text = token[2:].partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ConfigError(f"--{key}: a value is missing")
            text = remaining.pop(0)
        overrides.append((key, text))
    return overrides


Images = Annotated[Path | None, Parameter(help="Folder that the table's image paths are relative to.")]


def say_at_once(what: str, quiet: bool) -> None:
    """Print what a command is about to do, where torch is still to be imported, which takes seconds."""
    if not quiet and "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        print(f"{what}; loading torch ...", file=sys.stderr, flush=True)
