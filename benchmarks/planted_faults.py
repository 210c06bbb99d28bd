"""Mutation test of the quick tests: one-line faults (planted/), planted one at a time.

    python benchmarks/planted_faults.py [--only NAME ...] [--whole] [--json FILE]

Copies the tree into a temporary folder. For each fault, changes one line of the copy and runs the quick tests (those
that `pytest` runs without `-m full`) until the first failure: the test files listed with the fault and, with `--whole`,
the whole suite if none of these fails. Prints which test noticed each fault and after how many seconds, and how many
faults were noticed. At the end, the tests that noticed a fault run once more without one, so that a test that fails
anyway, or by chance, does not count. With `--json`, several runs of some faults each add up to one file, and the table
by folder is that of all faults in it.

Every fault changes what users get: no syntax errors, and no changes without an effect. It is an error if a line is no
longer there, or occurs more than once; `what` says what the fault breaks, so that its new place can be found.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planted import FAULTS
from planted.fault import Fault

ROOT = Path(__file__).parents[1]
TIME_LIMIT = 3600.0  # seconds for one run of pytest


@dataclass(frozen=True)
class Outcome:
    """The result for one fault: `noticed_by` is the first test that failed, None if none did; `problem` says why the
    tests could not run or do not count."""

    name: str
    file: str
    what: str
    tests: tuple[str, ...]
    noticed_by: str | None
    seconds: float
    problem: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[fault.name for fault in FAULTS], metavar="NAME")
    parser.add_argument("--whole", action="store_true", help="then run the whole quick suite")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the outcomes; those of other faults in it stay"
    )
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    with tempfile.TemporaryDirectory(prefix="planted-faults-") as name:
        tree = Path(name) / "tree"
        copy_tree(tree)
        refuse_unplantable(tree, faults)
        others = other_outcomes(options.json, faults)
        outcomes: list[Outcome] = []
        for fault in faults:
            outcomes.append(outcome_of(tree, fault, options.whole))
            print(line(outcomes[-1]), flush=True)
            write([*others, *outcomes], options.json)
        outcomes = without_false_alarms(tree, outcomes)
        write([*others, *outcomes], options.json)
    for outcome in outcomes:
        if outcome.problem:
            print(f"{outcome.name}: {outcome.problem}")
    print(f"\n{by_folder([*others, *outcomes])}")
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def copy_tree(tree: Path) -> None:
    """All files that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # neither deleted nor a linked folder
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def refuse_unplantable(tree: Path, faults: Sequence[Fault]) -> None:
    """SystemExit unless every line occurs once, its tests exist, and the tests import the copy."""
    problems = []
    for fault in faults:
        path = tree / "src/classwise" / fault.file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count(fault.old) != 1:
            problems.append(f"{fault.name}: {fault.file} holds {fault.old!r} {text.count(fault.old)} times")
        problems += [
            f"{fault.name}: there is no tests/{test}"
            for test in fault.tests
            if not (tree / "tests" / test).exists()
        ]
    if problems:
        raise SystemExit("\n".join(["cannot be planted:", *problems]))
    code = "import classwise; print(classwise.__file__)"
    command = [sys.executable, "-c", code]
    imported = subprocess.run(
        command, env=environment(tree), check=True, capture_output=True, text=True, cwd=tree
    ).stdout.strip()
    if not Path(imported).is_relative_to(tree):
        raise SystemExit(f"the tests would import {imported}")


def outcome_of(tree: Path, fault: Fault, whole: bool) -> Outcome:
    """Plant the fault, run its tests, and put the line back."""
    path = tree / "src/classwise" / fault.file
    before = path.read_bytes()
    times = path.stat()
    path.write_bytes(before.replace(fault.old.encode(), fault.new.encode()))
    # Bytecode is recognized by the time and size of its source; within a second both could still be the same.
    os.utime(path, (times.st_atime, times.st_mtime + 10))
    started = time.perf_counter()
    try:
        noticed_by, problem = first_failure(tree, [f"tests/{test}" for test in fault.tests])
        if whole and not noticed_by and not problem:
            noticed_by, problem = first_failure(tree, [])
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    seconds = round(time.perf_counter() - started, 1)
    return Outcome(
        name=fault.name,
        file=fault.file,
        what=fault.what,
        tests=fault.tests,
        noticed_by=noticed_by,
        seconds=seconds,
        problem=problem,
    )


def first_failure(tree: Path, paths: Sequence[str]) -> tuple[str | None, str]:
    """The first test that fails, and why the tests could not run; without `paths`, of the whole suite."""
    code, text = run_pytest(tree, ["-x", *paths])
    failures = failed(text)
    if code == 0:
        return None, ""
    if code == 1 and failures:
        return failures[0], ""
    return None, f"pytest ended with {code}: {' '.join(text.splitlines()[-1:])}"


def without_false_alarms(tree: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, in which a test that fails without a fault too has noticed nothing."""
    # Without their parameters, whose ids may hold any text.
    tests = sorted({outcome.noticed_by.partition("[")[0] for outcome in outcomes if outcome.noticed_by})
    code, text = run_pytest(tree, tests) if tests else (0, "")
    if code not in (0, 1):
        raise SystemExit(f"without a fault, pytest ended with {code}:\n{text[-2000:]}")
    unreliable = {test.partition("[")[0] for test in failed(text)}
    return [
        dataclasses.replace(
            outcome, noticed_by=None, problem=f"{outcome.noticed_by} fails without the fault too"
        )
        if outcome.noticed_by and outcome.noticed_by.partition("[")[0] in unreliable
        else outcome
        for outcome in outcomes
    ]


def run_pytest(tree: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code and all output; processes that the tests have started are killed."""
    # In one process, so that the first failure is the same one every time.
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # To a file: a process that outlives the tests would keep a pipe open, and this one would wait for it.
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=environment(tree),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read()


def environment(tree: Path) -> dict[str, str]:
    """The copy's package, one thread, and hypothesis as on CI, where it draws the same examples every time."""
    variables = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "CI": "true"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def failed(text: str) -> list[str]:
    """The tests that pytest's summary names as failed, in order."""
    lines = [line.partition(" ") for line in text.splitlines()]
    return [
        rest.partition(" - ")[0] for word, _, rest in lines if word in ("FAILED", "ERROR") and "::" in rest
    ]


def line(outcome: Outcome) -> str:
    """A row of the table."""
    result = outcome.noticed_by or outcome.problem or f"not noticed by {', '.join(outcome.tests)}"
    return f"{outcome.name:<22} {outcome.file:<24} {outcome.seconds:>6.0f} s  {result}"


def by_folder(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table of how many faults were planted in each folder, and how many of them were noticed."""
    folders: dict[str, list[bool]] = {}
    for outcome in outcomes:
        folder = outcome.file.rpartition("/")[0] or "(top)"
        folders.setdefault(folder, []).append(outcome.noticed_by is not None)
    folders = dict(sorted(folders.items())) | {
        "all": [outcome.noticed_by is not None for outcome in outcomes]
    }
    rows = [f"| {folder} | {len(noticed)} | {sum(noticed)} |" for folder, noticed in folders.items()]
    return "\n".join(["| folder | planted | noticed |", "|---|---:|---:|", *rows])


def other_outcomes(path: Path | None, faults: Sequence[Fault]) -> list[Outcome]:
    """The outcomes in the JSON file of earlier runs, but for those of `faults`."""
    if path is None or not path.exists():
        return []
    outcomes = [Outcome(**values) for values in json.loads(path.read_text())]
    names = {fault.name for fault in faults}
    return [outcome for outcome in outcomes if outcome.name not in names]


def write(outcomes: Sequence[Outcome], path: Path | None) -> None:
    """All outcomes so far, as JSON."""
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
