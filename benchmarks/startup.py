"""How long `classwise --help` takes: `python benchmarks/startup.py [RUNS]`. Prints the median and the slowest."""

import statistics
import subprocess
import sys
import time


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "classwise", "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    print(
        f"classwise --help: median {statistics.median(seconds):.3f} s, slowest {max(seconds):.3f} s of {runs} runs"
    )


if __name__ == "__main__":
    main()
