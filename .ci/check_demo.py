"""Whether a demo's numbers are what they have to be, and its files are all there."""

import argparse
import json
import re
import sys
from pathlib import Path

# From the goals of the demos: at least this much better than the baseline, and this joint macro F1.
MARGIN, JOINT = 0.03, 0.60
FOLDS = (
    "config.toml",
    "folds.csv",
    "status.json",
    "metrics.json",
    "oof.parquet",
    "oof.csv",
    "report.html",
    "log.txt",
)
FILES = (
    "config.toml",
    "split.csv",
    "status.json",
    "history.jsonl",
    "metrics.json",
    "predictions.csv",
    "report.html",
    "log.txt",
    "checkpoints/best/model.safetensors",
    "checkpoints/best/manifest.json",
    "checkpoints/last/state.json",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--joint", action="store_true")
    arguments = parser.parse_args()
    run = arguments.folder / ("folds" if arguments.joint else "run")
    missing = [name for name in (FOLDS if arguments.joint else FILES) if not (run / name).is_file()]
    assert not missing, f"{run} lacks {missing}"
    text = arguments.output.read_text()
    if arguments.joint:
        value = json.loads((run / "metrics.json").read_text())["value"]
        ranked = float(re.search(r"training set: ([\d.]+)", text).group(1))
        assert min(value, ranked) >= JOINT, f"joint macro F1 {value:.4f} and {ranked:.4f}, wanted {JOINT}"
    else:
        ours, theirs = map(float, re.search(r"classwise ([\d.]+), .* ([\d.]+) \(", text).groups())
        assert ours >= theirs + MARGIN, f"{ours} is not {MARGIN} above {theirs}"
    seconds = re.search(r"in (\d+) s", text).group(1)
    print(f"{arguments.folder.name}: good, in {seconds} s", file=sys.stderr)


if __name__ == "__main__":
    main()
