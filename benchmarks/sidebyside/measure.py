"""A process of its own for each trainer on each split: its answer, its times, and the peak memory of its process tree.

Memory is sampled every 0.5 s from /proc/PID/smaps_rollup of the process and all that descend from it. `memory` is the
sum of their proportional set sizes, in which a page that several processes share counts once, and `rss` the sum of
their resident set sizes, in which it counts for each of them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from sidebyside.job import Answer, Job, read_answer, write_job

INTERVAL_S = 0.5
BENCHMARKS = Path(__file__).parents[1]


@dataclass
class Peak:
    """The most that a process tree held, in bytes."""

    memory: int = 0
    rss: int = 0


@dataclass(frozen=True)
class Measured:
    """The answer of a trainer's process and the most memory it held; `seconds` from its start to its end, and the
    seconds of both cores that it and the processes it has waited for took."""

    answer: Answer
    seconds: float
    cpu: float
    peak: Peak


class FailedError(Exception):
    """A trainer's process ended with an error; the text is the end of what it said."""


def measure(job: Job, log: Path) -> Measured:
    """Run a job in a process of its own; what it says is in `log`. Raises FailedError if it ends with an error."""
    with tempfile.TemporaryDirectory(prefix="small-data-") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        job_path, answer_path = folder / "job.json", folder / "answer.json"
        command = [sys.executable, "-m", "sidebyside.trainers", str(job_path), str(answer_path)]
        started, cpu = time.time(), _cpu_of_children()
        write_job(replace(job, out=str(folder / "out"), started=started), job_path)
        peak = run_watched(command, log)
        seconds = time.time() - started
        return Measured(read_answer(answer_path), seconds, _cpu_of_children() - cpu, peak)


def run_watched(command: list[str], log: Path) -> Peak:
    """Run a command to its end, and return the peak of its memory; FailedError if it ends with an error."""
    # Absolute, since trainers work in folders of their own.
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    beside = [str(BENCHMARKS), *(str(Path(folder).resolve()) for folder in given)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(beside)}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        peak, done = Peak(), threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watch.start()
        try:
            code = process.wait()
        finally:
            done.set()
            watch.join()
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise FailedError(f"exit code {code}: {' | '.join(last)}")
    return peak


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _watch(pid: int, peak: Peak, done: threading.Event) -> None:
    while True:
        memory, rss = tree_memory(pid)
        peak.memory, peak.rss = max(peak.memory, memory), max(peak.rss, rss)
        if done.wait(INTERVAL_S):
            return


def tree_memory(pid: int) -> tuple[int, int]:
    """Proportional and resident set size of a process and all that descend from it, in bytes."""
    found = [_memory(one) for one in descendants(pid)]
    return sum(pss for pss, _ in found), sum(rss for _, rss in found)


def descendants(pid: int) -> list[int]:
    """`pid` and the processes that descend from it."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # ended meanwhile
    return found


def _memory(pid: int) -> tuple[int, int]:
    """(Pss, Rss) in bytes; zeros for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return sizes.get("Pss", 0), sizes.get("Rss", 0)
