"""The arguments of check.py labels, shortcuts, splits and cheap: the folder, the records, and where the tables go."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def make_parser(part: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"check.py {part}", description=description.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--records", type=Path, help="the file of all results [default: WORK/check.jsonl]")
    parser.add_argument("--tables", action="store_true", help="run nothing: the tables of the records")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/results/check.md")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options, once the working folder is made."""
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    options.records = options.records or options.work / "check.jsonl"
    return options
