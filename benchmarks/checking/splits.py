"""What copies do to a score: the same data split at random, and split by the groups that `check --write-groups` finds.

    python benchmarks/check.py splits WORK --data ../shared/data [--seeds 5] [--records FILE] [--tables] [--write]

Of each split a quarter of the rows is held out (by scikit-learn's splitters, stratified), `classwise train` with the
plan `probe` and nothing else set is trained on the others, and its predictions of the rows held out are scored by
scikit-learn's macro F1. Both splits of a seed are trained one after the other; the interval is Student's t over the
seeds, paired. --write puts the table into docs/results/check.md."""

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from checking.options import make_parser, parse
from imbalance import replace_between
from over_seeds import difference, estimate
from sidebyside.commands import predictions_of
from sidebyside.measure import run_watched

PARTS = 4
Record = dict[str, Any]


def call(arguments: Sequence[object], log: Path) -> None:
    run_watched([*shlex.split(f"{shlex.quote(sys.executable)} -m classwise"), *map(str, arguments)], log)


def scored(frame: pl.DataFrame, held_out: np.ndarray, images: Path, seed: int, work: Path) -> float:
    """Macro F1 on the rows held out of a model of the others."""
    log = work / "log.txt"
    with tempfile.TemporaryDirectory(prefix="splits-") as name:
        folder = Path(name)
        is_test = pl.Series(np.isin(np.arange(frame.height), held_out))
        train, test = frame.filter(~is_test), frame.filter(is_test)
        columns = ["path", "label"]
        train.select(columns).write_csv(folder / "train.csv")
        test.select("path").write_csv(folder / "test.csv")
        (folder / "images").symlink_to((images / "images").resolve())
        call(
            ["train", folder / "train.csv", "--run", folder / "run", "--seed", seed, "--training.plan", "probe",
             "--data.follow_links", "true"],
            log,
        )  # fmt: skip
        out = folder / "predictions.csv"
        call(["predict", folder / "run", folder / "test.csv", "--images", folder, "--out", out], log)
        predicted = predictions_of(out, test["path"].to_list())
        labels = sorted(frame["label"].unique())
        return float(
            f1_score(test["label"].to_list(), predicted, labels=labels, average="macro", zero_division=0)
        )


def run_seed(groups: pl.DataFrame, images: Path, seed: int, work: Path) -> Record:
    """The scores of both splits."""
    rows = np.arange(groups.height)
    label = groups["label"].to_numpy()
    by_row = StratifiedKFold(PARTS, shuffle=True, random_state=seed).split(rows, label)
    by_group = StratifiedGroupKFold(PARTS, shuffle=True, random_state=seed).split(
        rows, label, groups["group"].to_numpy()
    )
    return {
        "kind": "splits",
        "set": "tiles",
        "seed": seed,
        "random": scored(groups, next(by_row)[1], images, seed, work),
        "grouped": scored(groups, next(by_group)[1], images, seed, work),
        "groups": groups["group"].n_unique(),
        "rows": groups.height,
    }


def table(records: Sequence[Record]) -> str:
    latest = {record["seed"]: record for record in records}
    random, grouped = ({seed: one[key] for seed, one in latest.items()} for key in ("random", "grouped"))
    gain = difference(random, grouped)
    means = [estimate(list(values.values())) for values in (random, grouped)]
    assert gain is not None
    interval = "" if gain.interval is None else f"{gain.interval[0]:+.3f} to {gain.interval[1]:+.3f}"
    one = next(iter(latest.values()))
    cells = (
        one["set"],
        one["rows"],
        one["groups"],
        len(latest),
        *(f"{mean.mean:.3f}" for mean in means if mean),
        f"{gain.mean:+.3f}",
        interval,
    )
    return (
        "| data | rows | groups of copies | seeds | macro F1, split at random | split by groups | too good by | 95 %"
        " |\n"
        f"|---|---|---|---|---|---|---|---|\n| {' | '.join(map(str, cells))} |"
    )


def main(arguments: Sequence[str]) -> int:
    parser = make_parser("splits", __doc__)
    parser.add_argument("--data", type=Path, help="the folder with tiles/")
    parser.add_argument("--seeds", type=int, default=5)
    options = parse(parser, arguments)
    if not options.tables:
        images = options.data / "tiles"
        out = options.work / "tiles-check"
        call(
            ["check", images / "table.csv", "--out", out, "--write-groups", "--force"],
            options.work / "log.txt",
        )
        groups = pl.read_csv(out / "groups.csv", infer_schema=False)
        for seed in range(options.seeds):
            record = run_seed(groups, images, seed, options.work)
            print(record, flush=True)
            with options.records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    lines = options.records.read_text(encoding="utf-8").splitlines()
    text = table([record for record in map(json.loads, lines) if record["kind"] == "splits"])
    print(text)
    if options.write:
        replace_between("check.md", "splits", text)
    return 0
