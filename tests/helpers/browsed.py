"""The page as a browser would find it."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a browser would find: elements, attributes, text, and each table by its caption as rows of cells."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.table_names: list[str] = []
        self._cell: str | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
            self.table_names.append(dict(attrs).get("aria-label") or "")
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.tables[-1][-1].append((self._cell or "").strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell += data

    def confusion(self, title: str) -> list[list[int]]:
        rows = self.tables[self.table_names.index(f"Confusion matrix of {title}")]
        return [[int(cell or 0) for cell in row[1:-1]] for row in rows[1:-1]]

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]

    def table(self, name: str) -> list[list[str]]:
        """The table of that name, white space in its cells made one space."""
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[self.table_names.index(name)]]
