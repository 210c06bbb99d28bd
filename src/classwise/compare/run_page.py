"""The page of a comparison of finished runs: one file, under the same security policy as a run's report."""

from functools import cache
from pathlib import Path

from jinja2 import Template

from classwise.compare import run_text
from classwise.compare.runs import RunComparison, short_names
from classwise.errors import OutputError
from classwise.files import refuse_existing, write_bytes
from classwise.report.environment import page_environment

MOST_CLASSES = 200
MOST_IDS = 200  # of the rows that changed sides, of each target


def check_page(path: Path, force: bool = False) -> None:
    """Raise OutputError unless the page can be written to `path`."""
    if path.suffix.lower() != ".html":
        raise OutputError(f"--out: found {str(path)!r}; allowed for runs: a name that ends in .html")
    refuse_existing(path, force)


def write_page(found: RunComparison, path: Path) -> None:
    """Write the comparison to `path`."""
    names = short_names(found.runs)
    rows = run_text.heading(found).split("\n")
    page = _template().render(
        names=names,
        title=" · ".join(names),
        what=rows[0],
        runs=rows[1:-2],
        reading=" ".join(rows[-2:]).replace(". better", ". Better"),
        warnings=found.warnings,
        scores=run_text.score_table(found, names),
        sides=run_text.side_table(found, names) if any(target.sides for target in found.targets) else [],
        targets=[
            {
                "title": run_text.target_title(target),
                "classes": run_text.class_table(target, names, MOST_CLASSES),
                "left": max(0, len({row.of for row in target.classes}) - MOST_CLASSES),
                "changed": [
                    {"run": name, "what": what, "ids": ids[:MOST_IDS], "left": max(0, len(ids) - MOST_IDS)}
                    for name, sides in zip(names[1:], target.sides, strict=False)
                    for what, ids in (("right → wrong", sides.lost), ("wrong → right", sides.gained))
                    if ids
                ],
            }
            for target in found.targets
            if target.classes or target.sides
        ],
    )
    write_bytes(path, page.encode("utf-8", errors="replace"))


@cache
def _template() -> Template:
    return page_environment(Path(__file__).parent).get_template("runs.html.j2")
