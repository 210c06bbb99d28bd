"""Is training as fast as at an earlier commit? The demo's training, old and new in turns, in pairs.

    python benchmarks/against_commit.py COMMIT [--pairs 7] [--epochs 4] [--overhead]

Checks COMMIT out beside the repository, and trains the demo's config with it and with the working tree alternately
(old new, new old, ...), one thread, fp32, no workers. Prints for each pair the ratio new / old of images a second in
training, and of the CPU time of its epochs, and their medians; and beside them the same for new against new, which
shows what the machine's noise alone makes of it.

With `--overhead` the pairs are the figures of each tree's own `benchmarks/overhead.py` for classwise: the extra
microseconds of an update over a loop by hand, and their difference, new less old.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Runs in a process of its own: CPU time is that of the loop alone, without imports, reports and baselines.
TRAIN = """
import json, sys, time
from pathlib import Path
try:
    from classwise.training import loop
    from classwise.run.api import train
except ImportError:  # a commit before the modules moved
    from classwise.train import loop
    from classwise.run import train
seconds = []
original = loop.train_one_epoch
def timed(*arguments, **options):
    started = time.process_time()
    original(*arguments, **options)
    seconds.append(time.process_time() - started)
loop.train_one_epoch = timed
overrides = [tuple(pair) for pair in json.loads(sys.argv[3])]
run = train(sys.argv[1], sys.argv[2], overrides, quiet=True)
speeds = [row["images_per_second"] for row in run.history[1:]]
print(json.dumps({"speed": sorted(speeds)[len(speeds) // 2], "cpu": min(seconds[1:])}))
"""


def measure(source: Path, data: Path, epochs: int) -> dict[str, float]:
    """The demo's training with the package in `source`."""
    overrides = {
        "training.epochs": epochs,
        "selection.first_epoch": epochs,
        "training.precision": "fp32",
        "training.threads": 1,
        "data.workers": 0,
    }
    pairs = json.dumps([[key, str(value)] for key, value in overrides.items()])
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-c", TRAIN, str(data / "classwise.toml"), str(Path(run) / "run"), pairs]
        environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=run)
    return dict(json.loads(out.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--overhead", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        old, data = Path(work) / "old", Path(work) / "data"
        subprocess.run(["git", "worktree", "add", "--detach", str(old), options.commit], cwd=ROOT, check=True)
        try:
            if options.overhead:
                report_overhead(old, ROOT, options)
            else:
                report(old / "src", ROOT / "src", prepare(data, old / "src"), options)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)


PREPARE = """
import sys
from pathlib import Path
from classwise import make_config
from classwise.demo.fashion import write_fashion
from classwise.demo.tour import CLOTHES
folder = Path(sys.argv[1])
folder.mkdir()
write_fashion(folder)
(folder / "classwise.toml").write_text(make_config(CLOTHES).to_toml())
"""


def prepare(data: Path, source: Path) -> Path:
    """The demo's data, and its config as the package in `source` writes it."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", PREPARE, str(data)], env=environment, check=True)
    return data


def overhead(tree: Path, file: Path) -> dict[str, float]:
    """Microseconds an update by hand, and how many more classwise takes, of the tree's own benchmark."""
    command = [
        sys.executable,
        str(tree / "benchmarks/overhead.py"),
        "--only",
        "classwise",
        "--json",
        str(file),
    ]
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found = json.loads(file.read_text())
    return {"bare": found["bare_us"], "extra": statistics.median(found["extra_us"]["classwise"])}


def report_overhead(old: Path, new: Path, options: argparse.Namespace) -> None:
    """Pairs of old and new, and their medians."""
    differences: list[float] = []
    extras: dict[str, list[float]] = {"old": [], "new": []}
    for pair in range(options.pairs):
        order = ("old", "new") if pair % 2 == 0 else ("new", "old")
        with tempfile.TemporaryDirectory() as work:
            trees = {"old": old, "new": new}
            found = {name: overhead(trees[name], Path(work) / f"{name}.json") for name in order}
        for name, values in extras.items():
            values.append(found[name]["extra"])
        differences.append(found["new"]["extra"] - found["old"]["extra"])
        bare = f"{found['old']['bare']:.0f} and {found['new']['bare']:.0f}"
        print(
            f"old {extras['old'][-1]:.0f} us more, new {extras['new'][-1]:.0f} (bare {bare}): {differences[-1]:+.0f}",
            flush=True,
        )
    old_us, new_us = (statistics.median(values) for values in extras.values())
    print(
        f"medians: old {old_us:.0f} us, new {new_us:.0f} us;"
        f" of the differences {statistics.median(differences):+.0f} us"
    )


def report(old: Path, new: Path, data: Path, options: argparse.Namespace) -> None:
    """Pairs of old and new, and of new and new."""
    for title, first, second in (("new / old", old, new), ("new / new", new, new)):
        ratios: dict[str, list[float]] = {"speed": [], "cpu": []}
        for pair in range(options.pairs):
            order = (first, second) if pair % 2 == 0 else (second, first)
            found = [measure(source, data, options.epochs) for source in order]
            a, b = found if pair % 2 == 0 else found[::-1]
            for key, values in ratios.items():
                values.append(b[key] / a[key])
            print(f"{title}: speed {ratios['speed'][-1]:.3f}, CPU {ratios['cpu'][-1]:.3f}", flush=True)
        speed, cpu = (statistics.median(values) for values in ratios.values())
        print(f"median {title}: images a second x {speed:.3f}, CPU time x {cpu:.3f}\n", flush=True)


if __name__ == "__main__":
    main()
