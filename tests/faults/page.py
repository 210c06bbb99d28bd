"""docs/results/reliability.md out of the counted figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.counting import Figure

START, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def write_page(found: dict[str, Any], figures: Sequence[Figure], path: Path) -> None:
    """Put the table between the page's two marks; a figure that was never counted says so."""
    lines = [
        "| # | what was tried | held | of which | command |",
        "|---|---|---|---|---|",
    ]
    for figure in figures:
        name = figure.name
        command = f"`python -m tests.faults {name}`"
        if name not in found:
            lines.append(f"| {figure.row} | {figure.what} | not counted | | {command} |")
            continue
        one = found[name]
        parts = ", ".join(f"{kind} {count:,}" for kind, count in one["by"].items())
        notes = "; ".join(f"{key}: {value}" for key, value in one["notes"].items())
        said = "; ".join(part for part in (parts, notes) if part)
        held = f"{one['held']:,} of {one['tried']:,}"
        lines.append(f"| {figure.row} | {figure.what} | {held} | {said} | {command} |")
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{START}\n" + "\n".join(lines) + f"\n{END}{tail}", encoding="utf-8")
