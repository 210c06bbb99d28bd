"""`python -m tests.faults [NAME ...] [--write]`: count every promise of reliability in full.

Prints what was tried and what held, keeps the figures in docs/results/reliability.json, and with --write renders
them into docs/results/reliability.md. Run from the repository's root, with the package and its tests installed.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

# As in the tests: tensors are small here, and a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "docs/results/reliability.json"


def main() -> int:
    """1 if anything did not hold."""
    from tests.faults.counting import Figure, timed

    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="figures or row numbers to count; all if none is given")
    parser.add_argument("--list", action="store_true", help="say which figures there are")
    parser.add_argument("--write", action="store_true", help="render docs/results/reliability.md")
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    for path in sorted(HERE.glob("*.py")):
        if path.stem.startswith(("test_", "__")) or path.stem in ("counting", "page"):
            continue
        for figure in getattr(importlib.import_module(f"tests.faults.{path.stem}"), "FIGURES", ()):
            figures[figure.name] = figure
    figures = dict(sorted(figures.items(), key=lambda item: (item[1].row, item[0])))
    wanted = [
        name
        for name, figure in figures.items()
        if not arguments.names or name in arguments.names or str(figure.row) in arguments.names
    ]
    failed = 0
    for name in [] if arguments.write and not arguments.names else wanted:
        print(f"{figures[name].row:>2}  {name}: {figures[name].what}", flush=True)
        if arguments.list:
            continue
        found = timed(figures[name])
        failed += found["held"] < found["tried"]
        print(
            f"    {found['held']} of {found['tried']} held in {found['seconds']} s  {found['by']}", flush=True
        )
        for failure in found["failures"]:
            print(f"    FAILED {failure}", flush=True)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(known | {name: found}, indent=1, ensure_ascii=False) + "\n")
    if arguments.write:
        from tests.faults.page import write_page

        write_page(json.loads(RESULTS.read_text()), list(figures.values()), RESULTS.with_suffix(".md"))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
