"""The site leads to every page. Its links are checked where it is built (`zensical build --strict`)."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages_of(entry: object) -> list[str]:
    """The pages of an entry of the navigation, at any depth."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in pages_of(part)]


def test_the_navigation_has_every_page() -> None:
    """Each Markdown file and lesson under docs/ stands there once; decisions have a list of their own."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    decisions = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("decisions/0*.md")}
    all_pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    all_pages |= {f"lessons/{path.stem}.md" for path in DOCS.glob("lessons/*.py")}
    assert sorted(pages_of(project["nav"])) == sorted(all_pages - decisions)


def test_the_list_of_decisions_has_every_title() -> None:
    """In the order of their numbers."""
    titles = []
    for path in sorted(DOCS.glob("decisions/0*.md")):
        title = re.sub(r"^# \d+[.:] ", "", path.read_text(encoding="utf-8").splitlines()[0])
        titles.append(f"{int(path.name[:4])}. [{title[0].upper()}{title[1:]}]({path.name})")
    listed = (DOCS / "decisions/index.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in listed if re.match(r"\d+\. ", line)] == titles
