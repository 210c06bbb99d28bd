"""How pages are made from templates: escaped, and with an error for a name that a template misspells; and how a page
names its one script."""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

REPORT = Path(__file__).parent
_SEPARATOR = re.compile(r"(?<=\w)(?:[/_=]|(?<!\d)\.|\.(?!\d)|-(?!\d))(?=\w)")
"""What stands between the parts of a name; the signs within a number, as in 0.25 and 1e-05, do not."""


@dataclass(frozen=True)
class InlineScript:
    """A script as it stands between its tags, and the SHA-256 by which the page's Content-Security-Policy names it, so
    that no other script runs."""

    text: Markup
    digest: str


def inline_script(path: Path) -> InlineScript:
    """The script in a file, with line feeds on any system."""
    text = "\n" + path.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return InlineScript(Markup(text), digest)


def page_environment(folder: Path = REPORT) -> Environment:
    """The environment of the templates in `folder` and, where it has none of a name, of the report's, whose macros and
    style other pages share."""
    environment = Environment(
        loader=FileSystemLoader([folder, REPORT]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A long name as HTML that may be wrapped behind its separators, such as tf_efficientnet_lite0.in1k: else a browser
    breaks it within a word."""
    ends = [match.end() for match in _SEPARATOR.finditer(name)]
    parts = [name[start:end] for start, end in zip([0, *ends], [*ends, len(name)], strict=True)]
    return Markup("<wbr>").join(map(escape, parts))
