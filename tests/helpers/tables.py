"""Tables as Python's own csv module reads them."""

import csv
from pathlib import Path


def read_csv(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows, by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
