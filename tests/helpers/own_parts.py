"""Files with parts of the user's own: written by a test, or as the guide has them."""

import re
from pathlib import Path

from classwise.own_parts.source import admit, read_source

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "own-parts.md"
FILE = re.compile(r"```python\n# (?P<name>my_\w+\.py)\n(?P<code>.*?)```", re.DOTALL)


def guide_files() -> dict[str, str]:
    """The examples of the guide, by the names of their files."""
    return {match["name"]: match["code"] for match in FILE.finditer(GUIDE.read_text(encoding="utf-8"))}


def own_part(folder: Path, code: str, name: str = "Part", file: str = "my_part.py") -> str:
    """A reference to a part in a new file, whose code may run."""
    path = folder / file
    path.write_text(code, encoding="utf-8")
    admit(read_source(str(path), "test"))
    return f"{path}:{name}"
