"""Figures of `classwise check`: does it find what is planted, does it stay silent where nothing is, and how long does
it take?

    python benchmarks/check.py copies quality|time|many|tables WORK ...
    python benchmarks/check.py labels WORK ...
    python benchmarks/check.py shortcuts WORK ...
    python benchmarks/check.py splits WORK ...
    python benchmarks/check.py cheap WORK ...

Each has a module in checking/, whose text says what is measured; `python benchmarks/check.py labels --help` lists its
options. Results are lines of --records (those of the page: docs/results/check.jsonl), and --write puts the tables into
docs/results/check.md."""

import sys

from checking import cheap, copies, labels, shortcuts, splits

QUESTIONS = {
    "copies": copies.main,
    "labels": labels.main,
    "shortcuts": shortcuts.main,
    "splits": splits.main,
    "cheap": cheap.main,
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in QUESTIONS:
        print(__doc__)
        return 0 if sys.argv[1:] == ["--help"] else 2
    return QUESTIONS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
