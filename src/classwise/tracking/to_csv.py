"""One flat table, RUN/metrics.csv: a row a point, a column a number. Spreadsheets and notebooks read it."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from classwise.tracking.facts import Ending, Point, RunFacts

FILE = "metrics.csv"


class CsvTable:
    """metrics.csv. The columns are `step`, `epoch`, and then the numbers in the order in which they first came."""

    def __init__(self, path: Path, keep: int) -> None:
        self.where = str(path)
        self._path = path
        self._columns = ["step", "epoch"]
        self._write([row for row in self._read() if int(row["step"]) <= keep])

    def log(self, points: Sequence[Point]) -> None:
        """Append a row a point; the file is written again where a point brings new columns."""
        new = [name for point in points for name in point.values if name not in self._columns]
        rows: list[dict[str, Any]] = [{"step": point.step} | point.values for point in points]
        if new:
            kept = self._read()
            self._columns += dict.fromkeys(new)
            self._write([*kept, *rows])
            return
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerows(rows)

    def finish(self, ending: Ending) -> None:
        """Nothing: what the run ended with is in its directory, beside the table."""

    def _read(self) -> list[dict[str, Any]]:
        """The rows of the file, and its columns; a row that was cut off is left out."""
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            self._columns = list(reader.fieldnames or self._columns)
            return [row for row in reader if None not in row.values() and None not in row]

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        new = self._path.with_name(f".{FILE}.new")
        with new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        new.replace(self._path)


def open_csv(facts: RunFacts, memory: dict[str, Any], keep: int, remember: Callable[..., None]) -> CsvTable:
    """The table, without the rows after the step `keep`."""
    return CsvTable(Path(facts.folder) / FILE, keep)
