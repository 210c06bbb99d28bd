"""Cells that a spreadsheet would run: neutralized in tables for people, and everything comes back as it was."""

import itertools
import re
import shutil
from typing import Any

import polars as pl

from tests.faults import trials
from tests.faults.counting import Count, Figure

RISKY = re.compile(r"^[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"^[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?%?$")
TAILS = (
    "1+1",
    "cmd|'/C calc'!A0",
    'HYPERLINK("http://x","y")',
    "SUM(A1:A9)",
    "2",
    "0.5",
    "a,b",
    'q"q',
    "x.png",
    "",
)
CELLS = [
    f"{quotes}{first}{tail}"
    for quotes, first, tail in itertools.product(
        ("", "'", "''", " "), ("=", "+", "-", "@", "\t", "＝"), TAILS
    )
]


def tables(step: int = 1) -> Count:
    """Every cell in a table for people, as CSV and TSV, and as Parquet; read as a spreadsheet would, and back."""
    from classwise.data.table import plain, write_table

    count, folder = Count(), trials.scratch_folder()
    for suffix in (".csv", ".tsv", ".parquet"):
        for cell in CELLS[::step]:
            frame = pl.DataFrame({"id": [cell, "a"], "label": ["b", cell]})
            path = folder / f"t{suffix}"
            write_table(frame, path, escape_formulas=True)
            if suffix == ".parquet":
                count.add(pl.read_parquet(path).equals(frame), suffix, repr(cell))
                continue
            found = pl.read_csv(
                path,
                infer_schema=False,
                separator="\t" if suffix == ".tsv" else ",",
            )
            run = [c for c in [*found["id"], *found["label"]] if RISKY.match(c) and not NUMBER.match(c)]
            back = plain(found).equals(frame)
            count.add(not run and back, suffix, f"{cell!r}: runs {run}, comes back {back}")
    shutil.rmtree(folder, ignore_errors=True)
    return count


def commands(step: int = 1) -> dict[str, Any]:
    """Names of files and labels through init, train, predict and submit: what people open is neutral, what programs
    read is unchanged, the submission's ids are the template's bytes."""
    from classwise.data.table import plain
    from tests.helpers.scenes import command, draw, write_config, write_csv

    count, folder = Count(), trials.scratch_folder()
    names = [
        c for c in dict.fromkeys(f"{cell}.png" for cell in CELLS[::step]) if "/" not in c and "\t" not in c
    ]
    for number, name in enumerate(names):
        draw(folder / "images" / name, number % 2, number)
    labels = ("=1+1", "@x")
    write_csv(
        folder / "samples.csv", ("path", "label"), [[name, labels[i % 2]] for i, name in enumerate(names)]
    )
    config = write_config(
        folder, data__images="images", training__epochs=1, report={"baselines": False, "resamples": 0}
    )
    command("train", config, "--run", folder / "run").ok()
    command("predict", folder / "run", folder / "images", "--out", folder / "p.csv").ok()
    template = write_csv(folder / "template.csv", ("id", "label"), [[name, ""] for name in names])
    command("submit", folder / "run", template, "--images", folder / "images", "--out", folder / "s.csv").ok()
    read = lambda path: pl.read_csv(path, infer_schema=False)  # noqa: E731
    split, submission = read(folder / "run/split.csv"), read(folder / "s.csv")
    people = [read(folder / "p.csv"), read(folder / "run/predictions.csv")]
    for name in names:
        count.add(name in set(split["id"]), "split.csv", f"{name!r} is not there as it is")
        count.add(name in set(submission["id"]), "submission", f"{name!r} is not there as it is")
        count.add(name in set(plain(people[0])["id"]), "predictions", f"{name!r} does not come back")
    for frame in people:
        for column in frame.columns:
            for cell in frame[column].drop_nulls():
                bad = RISKY.match(cell) and not NUMBER.match(cell)
                count.add(not bad, "cells that people open", f"{column}: {cell!r}")
    count.add(submission["id"].to_list() == names, "submission", "another order")
    page = (folder / "run/report.html").read_text()
    # Of the label: a file may have an apostrophe of its own.
    count.add("&#39;=1+1</bdi>" not in page and ">=1+1</bdi>" in page, "report", "shows the apostrophe")
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def formulas() -> Count:
    """Both together."""
    from tests.faults.kills import count_of

    found = tables()
    more = count_of(trials.in_a_fresh_process("formulas", "commands", 3))
    found.tried += more.tried
    found.held += more.held
    found.failures += more.failures
    found.by.update(more.by)
    return found


FIGURES = [
    Figure(
        16,
        "formulas",
        "cells that a spreadsheet would run, in names of files and labels: neutral for people, back as they were,"
        " unchanged for programs and in submissions",
        formulas,
    )
]
