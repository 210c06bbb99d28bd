"""The pages of the site, made from docs/: `python docs/site_pages.py`, then `zensical build --strict`.
`nox -s site` does both.

Writes build/pages: the Markdown files, the lessons with their code cells as blocks, and a page for each file of the
repository that a page links to, such as an example. Links are changed accordingly. Raises FileNotFoundError for a link
to a file that does not exist; what is left are links between pages, which Zensical checks.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = ROOT / "build" / "pages"
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)(?=[)#])")
_LANGUAGES = {".py": "python", ".toml": "toml"}


def main() -> None:
    """Write all pages anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(DOCS, PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in DOCS.rglob("*.md"):
        write_page(page, page.read_text(encoding="utf-8"), PAGES / page.relative_to(DOCS))
    for lesson in sorted(DOCS.glob("lessons/*.py")):
        write_page(lesson, lesson_text(lesson), PAGES / "lessons" / f"{lesson.stem}.md")


def write_page(source: Path, text: str, page: Path) -> None:
    """Write the text of `source` to `page`, its links changed to those of the site."""

    def link(match: re.Match[str]) -> str:
        target = (source.parent / match["path"]).resolve()
        return os.path.relpath(page_of(target, source), page.parent)

    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_LINK.sub(link, text), encoding="utf-8")


def page_of(target: Path, source: Path) -> Path:
    """Where a file that `source` links to is on the site. Files outside docs/ get a page with their text."""
    if not target.is_file():
        raise FileNotFoundError(f"{source.relative_to(ROOT)} links to {target}, which is no file")
    if not target.is_relative_to(DOCS):
        page = PAGES / "files" / f"{target.relative_to(ROOT)}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        fence = f"```{_LANGUAGES.get(target.suffix, 'text')}"
        text = target.read_text(encoding="utf-8")
        page.write_text(f"# {target.relative_to(ROOT)}\n\n{fence}\n{text}```\n", encoding="utf-8")
        return page
    if target.suffix == ".py":
        return PAGES / target.relative_to(DOCS).with_suffix(".md")
    return PAGES / target.relative_to(DOCS)


def lesson_text(lesson: Path) -> str:
    """A lesson as Markdown: its texts, and its code as blocks."""

    def cells() -> Iterator[str]:
        for cell in jupytext.read(lesson).cells:
            yield cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"

    return "\n\n".join(cells()) + "\n"


if __name__ == "__main__":
    main()
