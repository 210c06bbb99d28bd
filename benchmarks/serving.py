"""Figures of models in use: the service, exported files, trackers.

    python benchmarks/serving.py service [--rounds 5] [--seconds 8] ...
    python benchmarks/serving.py export RUN [--images DIR ...] [--python PYTHON] ...
    python benchmarks/serving.py trackers [--pairs 40] [--updates 2000] ...

Each has a module in serving/, whose text says what is measured; `python benchmarks/serving.py service --help` lists its
options. What they found: docs/results/serving.md."""

import sys

from serving import export, service, trackers

QUESTIONS = {"service": service.main, "export": export.main, "trackers": trackers.main}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in QUESTIONS:
        print(__doc__)
        return 0 if sys.argv[1:] == ["--help"] else 2
    outcome = QUESTIONS[sys.argv[1]](sys.argv[2:])
    return outcome if isinstance(outcome, int) else 0


if __name__ == "__main__":
    sys.exit(main())
