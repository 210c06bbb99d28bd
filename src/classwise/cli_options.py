"""Options that several commands share."""

from typing import Annotated

from cyclopts import Group, Parameter

Force = Annotated[bool, Parameter(name="--force", help="Overwrite existing files.")]
Quiet = Annotated[bool, Parameter(name="--quiet", help="Print errors only.")]
Engine = Annotated[
    str,
    Parameter(
        help="torch (as in evaluate), compile or onnx (both checked against torch), or auto (the fastest here)."
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
