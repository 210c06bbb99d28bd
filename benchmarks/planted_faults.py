"""Mutation test of the quick tests: thirty one-line faults, planted one at a time.

    python benchmarks/planted_faults.py [--only NAME ...] [--whole] [--json FILE]

Copies the tree into a temporary folder. For each fault, changes one line of the copy and runs the quick tests (those
that `pytest` runs without `-m full`) until the first failure: the test files listed with the fault and, with `--whole`,
the whole suite if none of these fails. Prints which test noticed each fault and after how many seconds, and how many
faults were noticed. At the end, the tests that noticed a fault run once more without one, so that a test that fails
anyway, or by chance, does not count.

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

ROOT = Path(__file__).parents[1]
TIME_LIMIT = 3600.0  # seconds for one run of pytest


@dataclass(frozen=True)
class Fault:
    """A change in `file` (below src/classwise): `old`, which occurs once there, becomes `new`. `what` says what that
    breaks; `tests` (below tests/) should notice it."""

    name: str
    file: str
    old: str
    new: str
    what: str
    tests: tuple[str, ...]


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


FAULTS = (
    # run, compose, config, and the modules at the top of the package.
    Fault(
        "moments-layout",
        "run/checkpoint.py",
        "_lay_out_as_parameters(state.optimizer)",
        "pass",
        "A resumed optimizer's moments stay in plain memory order beside channels_last weights, so a fused step pairs"
        " each weight with another one's moment.",
        ("run/test_checkpoint.py",),
    ),
    Fault(
        "shared-lock",
        "run/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "The lock of a run directory is a shared one, so two processes write into the same run.",
        ("faults/test_locks.py",),
    ),
    Fault(
        "clears-begun-run",
        "run/folder.py",
        "if not folder.has_begun:",
        "if True:",
        "A new run that ends by an error or a signal is deleted even if it has written a checkpoint.",
        ("faults/test_locks.py",),
    ),
    Fault(
        "statistics-merge",
        "distributed.py",
        "if momentum is None else rest**after)",
        "if momentum is None else rest**everyone)",
        "Batch norm's running statistics, merged over processes, weigh each process as if all micro-batches came after"
        " its own.",
        ("faults/test_distributed.py",),
    ),
    Fault(
        "absent-class-warning",
        "compose/split_checks.py",
        "*_absent_classes(splits),",
        "",
        "There is no warning of classes without a training or validation row.",
        ("compose/test_dataset.py",),
    ),
    Fault(
        "plateau-direction",
        "compose/state.py",
        "higher_is_better=higher_is_better(config.selection.metric),",
        "higher_is_better=True,",
        "The plateau schedule takes a falling error or loss for a worse result and lowers the learning rate.",
        ("compose/test_state.py", "end_to_end/test_every_key.py"),
    ),
    Fault(
        "best-after-kill",
        "run/api.py",
        "best=is_between_epochs and progress.best_epoch == progress.epoch",
        "best=False",
        "A run that was killed while it saved its best epoch keeps the older checkpoint as `best` when it is resumed.",
        ("run/test_checkpoint.py", "end_to_end/test_interrupt.py"),
    ),
    Fault(
        "override-order",
        "config/load.py",
        'key=lambda pair: (pair[0].count("."), not pair[0].endswith(".name"))',
        'key=lambda pair: pair[0].count(".")',
        "`--loss.gamma 1 --loss.name focal` loses the gamma: options are applied in the order given, rather than names"
        " first.",
        ("config/test_schema.py",),
    ),
    Fault(
        "mean-of-both-splits",
        "compose/losses.py",
        "values = splits.train.labels[name]",
        "values = np.concatenate([splits.train.labels[name], splits.valid.labels[name]])",
        "A regression is standardized by the mean and deviation of training and validation rows together.",
        ("compose/test_losses.py", "compose/test_dataset.py"),
    ),
    # data
    Fault(
        "value-on-an-edge",
        "data/cells.py",
        "np.digitize(values_N, edges)",
        "np.digitize(values_N, edges, right=True)",
        "A number on an edge (an age of 60 cut at 60) goes into the class below it.",
        ("data/test_targets.py",),
    ),
    Fault(
        "unlabeled-rows-count",
        "data/loader.py",
        "not bool((labels < 0).any())",
        "not bool((labels < 0).all())",
        "A data set with some unknown labels passes for one without, so rows without a label count in the normalizer"
        " of the loss.",
        ("data/test_loader.py", "training/test_loop.py"),
    ),
    Fault(
        "rotated-jpeg-size",
        "data/decode.py",
        "orientation < 5 else min_size[::-1]",
        "orientation < 9 else min_size[::-1]",
        "A JPEG that EXIF turns by 90 degrees is decoded at a resolution for which height and width are exchanged.",
        ("data/test_images.py",),
    ),
    Fault(
        "cutmix-share",
        "data/mixing.py",
        "lambda_N = 1 - (bottom_N - top_N) * (right_N - left_N) / (height * width)",
        "lambda_N = 1 - side_N**2",
        "CutMix mixes labels by the area that was drawn, not by what is left of it where the border cuts the rectangle"
        " off.",
        ("data/test_mixing.py",),
    ),
    Fault(
        "cache-checksum",
        "data/cache.py",
        ' and zlib.crc32(pixels) == int(record["sum"])',
        "",
        "Pixels of the image cache that have changed on the disk are used without a warning.",
        ("data/test_cache.py",),
    ),
    # model
    Fault(
        "average-statistics",
        "model/average.py",
        "return isinstance(tensor, nn.Parameter) or bool(tensor.isfinite().all())",
        "return isinstance(tensor, nn.Parameter)",
        "Averaged weights come with the running statistics of the last weights, not with their average.",
        ("model/test_average.py",),
    ),
    # losses
    Fault(
        "deferred-weights",
        "losses/class_weighted.py",
        "self.epoch + 1 >= self.weights_from_epoch",
        "self.epoch + 1 > self.weights_from_epoch",
        "Deferred class weights begin one epoch late.",
        ("losses/test_deferred_weights.py",),
    ),
    Fault(
        "uncertainty-share",
        "losses/criterion.py",
        "+ s / 2 * share)",
        "+ s / 2)",
        "With learned weights between targets, each micro-batch adds the whole regularizer, so accumulation changes the"
        " gradient.",
        ("losses/test_criterion.py", "properties/test_accumulation.py"),
    ),
    # optim
    Fault(
        "plateau-reset",
        "optim/schedules.py",
        "self.cooling = self.cooldown\n            self.bad_epochs = 0",
        "self.cooling = self.cooldown",
        "After the plateau schedule has lowered the learning rate, the bad epochs before it still count.",
        ("optim/test_schedules.py",),
    ),
    # metrics
    Fault(
        "ties-in-rankings",
        "metrics/ranking.py",
        "np.lexsort((relevance_N, -values_N, number_N))",
        "np.lexsort((-relevance_N, -values_N, number_N))",
        "Among rows of equal scores the relevant ones come first: a model that gives every row the same score looks"
        " perfect by mrr and map.",
        ("metrics/test_ranking.py",),
    ),
    Fault(
        "r2-of-a-resample",
        "metrics/regression.py",
        "spread = squared_deviation - ratio(deviation**2, count)",
        "spread = squared_deviation",
        "The interval of r2 takes the spread of each resample around the mean of all rows instead of its own.",
        ("metrics/test_regression.py", "metrics/test_bootstrap.py"),
    ),
    # training
    Fault(
        "equal-is-better",
        "training/state.py",
        "sign * value > sign * self.best",
        "sign * value >= sign * self.best",
        "An epoch that only equals the best one becomes the best, and early stopping starts to count again.",
        ("training/test_state.py", "training/test_loop.py"),
    ),
    Fault(
        "statistics-after-nan",
        "training/guard.py",
        "buffer.copy_(value)",
        "pass",
        "After an update that is not finite, batch norm's running statistics keep what its micro-batches did to them.",
        ("training/test_guard.py",),
    ),
    Fault(
        "same-dropout",
        "training/loop.py",
        "seed_dropout(settings, progress.update, micro_batch_idx, chunk_idx)",
        "seed_dropout(settings, progress.update, 0, chunk_idx)",
        "All micro-batches of an update draw the same dropout.",
        ("training/test_loop.py", "training/test_micro_batches.py"),
    ),
    # infer
    Fault(
        "half-known-labels",
        "infer/predict.py",
        "None if np.isnan(row).any() else text",
        "None if np.isnan(row).all() else text",
        "A row of which only some labels are known is written as a true answer, as if it were complete.",
        ("infer/test_predict.py",),
    ),
    Fault(
        "engine-nan",
        "infer/engines.py",
        "if not difference <= TOLERANCES[dtype]:",
        "if difference > TOLERANCES[dtype]:",
        "An inference engine that gives NaN passes the comparison with eager torch.",
        ("infer/test_engines.py",),
    ),
    # report
    Fault(
        "nearest-mistakes",
        "report/mistakes.py",
        "np.lexsort((-np.nan_to_num(probability_N, nan=-1.0), -distance_N))",
        "np.lexsort((-np.nan_to_num(probability_N, nan=-1.0), distance_N))",
        "The report shows the smallest mistakes of an ordinal target as the worst ones.",
        ("report/test_target_types.py",),
    ),
    Fault(
        "images-outside",
        "report/thumbnails.py",
        "return file if file.is_relative_to(root) else None",
        "return file",
        "The report shows files outside the image folder, wherever the paths in split.csv lead.",
        ("report/test_page.py", "faults/test_paths.py"),
    ),
    # compare, bench, demo
    Fault(
        "holm-order",
        "compare/stats.py",
        "largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))",
        "largest = min(1.0, (len(p_values) - rank) * p_values[index])",
        "A larger p-value may be adjusted to a smaller one than the one before it.",
        ("compare/test_stats.py",),
    ),
    Fault(
        "time-beside-readers",
        "bench/result.py",
        "return max(self.pace, self.computing) if self.workers else",
        "return min(self.pace, self.computing) if self.workers else",
        "With loader workers, the expected time is that of the faster side instead of the one that sets the pace.",
        ("bench/test_bench.py",),
    ),
    Fault(
        "age-of-sixty",
        "demo/competition.py",
        "(age >= 30) + (age >= 60)",
        "(age >= 30) + (age > 60)",
        "People of 60 get the class of those below 60 in the drawn competition's labels.",
        ("demo/test_faces.py",),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[fault.name for fault in FAULTS], metavar="NAME")
    parser.add_argument("--whole", action="store_true", help="then run the whole quick suite")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    with tempfile.TemporaryDirectory(prefix="planted-faults-") as name:
        tree = Path(name) / "tree"
        copy_tree(tree)
        refuse_unplantable(tree, faults)
        outcomes: list[Outcome] = []
        for fault in faults:
            outcomes.append(outcome_of(tree, fault, options.whole))
            print(line(outcomes[-1]), flush=True)
            write(outcomes, options.json)
        outcomes = without_false_alarms(tree, outcomes)
        write(outcomes, options.json)
    for outcome in outcomes:
        if outcome.problem:
            print(f"{outcome.name}: {outcome.problem}")
    count = sum(outcome.noticed_by is not None for outcome in outcomes)
    print(f"\n{count} of {len(outcomes)} planted faults noticed")
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


def write(outcomes: Sequence[Outcome], path: Path | None) -> None:
    """All outcomes so far, as JSON."""
    if path is not None:
        path.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
