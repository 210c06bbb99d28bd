"""How long `classwise step` takes to its page, beside `classwise train` to the end of its first update.

    python benchmarks/step_time.py CONFIG... [--runs 3]

Each run is a process of its own, from its start on, on one thread and without other readers: the CPU seconds of the
process, which a busy machine changes less than the time that passes. The image cache is filled by a run before the
first that counts.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = ["--data.workers", "0", "--training.threads", "1", "--training.precision", "fp32"]


def until_first_update(config: str, folder: Path) -> None:
    """Train until the first update is counted, print the seconds, and end the process."""
    from classwise.cli import main
    from classwise.training.state import Progress

    end_update = Progress.end_update

    def timed(self: Progress, loss: float, samples: int) -> None:
        end_update(self, loss, samples)
        print(time.process_time(), flush=True)
        os._exit(0)

    Progress.end_update = timed  # type: ignore[method-assign]
    main(["train", config, "--run", str(folder / "run"), *OPTIONS])


def until_page(config: str, folder: Path) -> None:
    """Look at the first update, print the seconds once the page is written, and end the process."""
    from classwise.cli import main
    from classwise.lens import command

    write_page = command.write_page

    def timed(view: command.View, path: Path) -> None:
        write_page(view, path)
        print(time.process_time(), path.stat().st_size, flush=True)
        os._exit(0)

    command.write_page = timed
    main(["step", config, "--out", str(folder / "step.html"), "--quiet", *OPTIONS])


def seconds(kind: str, config: str) -> list[float]:
    """What a process of this kind printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, config, "--child", kind, "--folder", folder]
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in result.stdout.split()]


def main() -> None:
    """Both, in turn, for each config; the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", choices=["train", "step"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.child:
        child = until_first_update if given.child == "train" else until_page
        child(given.configs[0], given.folder)
        return
    for config in given.configs:
        seconds("train", config)
        pairs = [(seconds("train", config), seconds("step", config)) for _ in range(given.runs)]
        train = statistics.median(train[0] for train, _ in pairs)
        step = statistics.median(step[0] for _, step in pairs)
        size = pairs[0][1][1]
        print(
            f"{config}: train {train:.1f} s, step {step:.1f} s, {step / train:.2f} times; {size / 1e3:,.0f} kB"
        )


if __name__ == "__main__":
    main()
