"""What does a table of a million rows take: `init`, `train` up to its first update, and memory of every process?

    python benchmarks/many_rows.py draw DIR [--rows 1000000]     # shards of drawn images, 8 x 8 pixels, no two alike
    python benchmarks/many_rows.py run DIR [--workers 0 2] [--runs 3]   # seconds and megabytes, each in a new process
    python benchmarks/many_rows.py epoch DIR [--workers 0]       # one whole epoch; its log is the run's log.txt

The images are PNG of about 130 bytes in Parquet shards as Hugging Face `datasets` writes them, so that all time and
memory belong to rows. `run` ends `train` with its first update. `init` and `train` are run with nothing remembered (of
`train`: but the index that `init` makes), and again with what the run before has remembered. Memory is the resident,
the proportional set size (a page that n processes share counts 1/n in each) and what is private to a process, from
/proc/PID/smaps_rollup: a worker that touches the reference counts of its parent's objects makes copies of their pages,
which then are private.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

ROWS_A_SHARD = 50_000
OPTIONS = ["--report.baselines", "false", "--training.precision", "fp32", "--training.threads", "1"]
# Stops before the first update is counted, and says what this process and its children hold.
FIRST_UPDATE = """
import json, os, resource, sys, time
from pathlib import Path
started = time.perf_counter()
def memory(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return [kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024, private / 1024]
def children(pid):
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for child in found for below in children(child)]
from classwise.training import state
def ended(*_):
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    workers = [memory(child) for child in children(os.getpid())]
    print(json.dumps({"seconds": seconds, "peak": peak, "main": memory(os.getpid()), "workers": workers}), flush=True)
    os.killpg(os.getpid(), 9)
state.Progress.end_update = ended
from classwise.cli import main
main(sys.argv[1:])
"""


def draw(folder: Path, rows: int) -> None:
    """Shards of drawn gray images: the first bytes of each tell its number, its brightness its class of two."""
    (folder / "shards").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for first in range(0, rows, ROWS_A_SHARD):
        count = min(ROWS_A_SHARD, rows - first)
        images_NHW = draw.integers(0, 128, (count, 8, 8), np.uint8)
        labels_N = draw.integers(0, 2, count)
        images_NHW += (100 * labels_N).astype(np.uint8)[:, None, None]
        images_NHW[:, 0, :4] = np.arange(first, first + count, dtype="<u4").view(np.uint8).reshape(-1, 4)
        encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images_NHW]
        frame = pl.DataFrame(
            {
                "image": [{"bytes": data, "path": f"{first + i:07d}.png"} for i, data in enumerate(encoded)],
                "label": pl.Series(np.array(["dark", "light"])[labels_N]),
            }
        )
        frame.write_parquet(folder / "shards" / f"train-{first // ROWS_A_SHARD:05d}.parquet")


BARE = """
import json, os, resource
from pathlib import Path
import cv2, polars, timm, torch
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 0.1)
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")))
"""


def bare() -> float:
    """Resident megabytes of a process that has imported what a run needs, and made an optimizer."""
    return float(
        subprocess.run([sys.executable, "-c", BARE], check=True, capture_output=True, text=True).stdout
    )


def forget(*patterns: str) -> None:
    """Remove what is remembered under these names in the user cache directory."""
    for pattern in patterns:
        for path in Path(os.environ["XDG_CACHE_HOME"], "classwise").glob(pattern):
            path.unlink()


def median_of(runs: int, before: Callable[[], None], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The run of the median time, with the times of all."""
    found = []
    for _ in range(runs):
        before()
        found.append(measure())
    found.sort(key=lambda one: float(one["seconds"]))
    return found[len(found) // 2] | {"all": [round(float(one["seconds"]), 1) for one in found]}


def init(folder: Path) -> dict[str, float]:
    """Seconds and the largest resident megabytes of `classwise init`."""
    (folder / "classwise.toml").unlink(missing_ok=True)
    command = [sys.executable, "-m", "classwise", "init", "shards"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"init: exit status {status}")
    return {"seconds": seconds, "peak": usage.ru_maxrss / 1024}


def first_update(folder: Path, workers: int, options: list[str]) -> dict[str, Any]:
    """Seconds to the first update of `classwise train`, and megabytes (resident, proportional, private) of its
    processes then."""
    command = [
        sys.executable,
        "-c",
        FIRST_UPDATE,
        "train",
        "classwise.toml",
        "--run",
        f"run-{time.time_ns()}",
    ]
    command += ["--data.workers", str(workers), *options]
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True, start_new_session=True)
    lines = [line for line in out.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(out.stderr[-2000:])
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["draw", "init", "run", "epoch"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--options", nargs="*", default=OPTIONS, help="further options of train")
    arguments = parser.parse_args()
    os.environ.setdefault("XDG_CACHE_HOME", str(arguments.folder.resolve() / "cache"))
    if arguments.what == "draw":
        draw(arguments.folder, arguments.rows)
    elif arguments.what == "epoch":
        command = [sys.executable, "-m", "classwise", "train", "classwise.toml", "--training.epochs", "1"]
        command += ["--data.workers", str(arguments.workers[0]), *arguments.options]
        subprocess.run(command, check=True, cwd=arguments.folder)
    else:
        folder, options, runs = arguments.folder, arguments.options, arguments.runs
        print(f"bare: {bare():.0f} MB resident")
        print("init, nothing remembered:", median_of(runs, lambda: forget("shards/*"), lambda: init(folder)))
        print("init, again:", median_of(runs, lambda: None, lambda: init(folder)))
        for workers in arguments.workers if arguments.what == "run" else []:
            one = functools.partial(first_update, folder, workers, options)
            fresh = median_of(runs, lambda: forget("pictures/*/*", "shards/*.checks"), one)
            print(f"train, {workers} workers, no check remembered:", fresh)
            print(f"train, {workers} workers, again:", median_of(runs, lambda: None, one))


if __name__ == "__main__":
    main()
