"""How pages are made from templates: escaped, and with an error for a name that a template misspells."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

REPORT = Path(__file__).parent


def page_environment(folder: Path = REPORT) -> Environment:
    """The environment of the templates in `folder` and, where it has none of a name, of the report's, whose macros and
    style other pages share."""
    return Environment(
        loader=FileSystemLoader([folder, REPORT]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
