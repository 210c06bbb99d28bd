"""Draw docs/images/schedule-NAME.svg for every config in the guide's section on schedules, by `classwise schedule`:

python docs/draw_schedules.py
"""

import re
import tempfile
import tomllib
from pathlib import Path

from classwise.schedule.command import schedule

DOCS = Path(__file__).parent
PAGE = DOCS / "guide" / "training.md"
UPDATES = 20  # an epoch
EPOCHS = 30  # the default


def configs() -> dict[str, str]:
    """The text of the first config of each schedule in the section, by the name of the schedule."""
    page = PAGE.read_text(encoding="utf-8")
    section = page[page.index("\n## Schedules") :].split("\n## ")[1]
    blocks = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    return {tomllib.loads(block)["schedule"]["name"]: block for block in reversed(blocks)}


def draw(folder: Path) -> list[Path]:
    """Draw all of them into a folder; returns the files."""
    drawn = []
    with tempfile.TemporaryDirectory() as name:
        for schedule_name, text in sorted(configs().items()):
            config = Path(name) / f"{schedule_name}.toml"
            config.write_text(text, encoding="utf-8")
            out = folder / f"schedule-{schedule_name}.svg"
            epochs = (
                [] if "epochs =" in text.partition("[training]")[2] else [("training.epochs", str(EPOCHS))]
            )
            schedule([config], epochs, updates=UPDATES, out=out, force=True, quiet=True)
            drawn.append(out)
    return drawn


if __name__ == "__main__":
    for path in draw(DOCS / "images"):
        print(path)
