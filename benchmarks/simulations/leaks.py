"""Copies of an image, and what the split promises: a score on validation rows must be one on images that the model has
not seen."""

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

import classwise
from classwise.compose.contents import split_groups
from classwise.data.sources import Samples
from classwise.data.split import Stratum, split_rows
from simulations.claim import Claim, at_most, within

LABELS = ("a", "b", "c")
IMAGES = 30  # different ones in a data set; each is in three rows
FRESH = 150  # other images, for the score that the model really has
EPOCHS = 8


def simulate(quick: bool) -> list[Claim]:
    """Runs on random labels with every image in three rows, splits of such tables, hard tables, and their order."""
    runs = 4 if quick else 120
    tables = 120 if quick else 3000
    return [
        *random_labels(runs, allowed=0.25 if quick else 0.05),
        copies_in_two_splits(tables),
        hard_tables(tables),
        other_orders(tables),
    ]


def random_labels(runs: int, allowed: float) -> list[Claim]:
    """Nothing can be learned but the training images themselves: the validation score has to be that of new images."""
    scores = np.array([scores_of_a_run(seed) for seed in range(runs)])
    valid, fresh, train = scores.mean(axis=0).tolist()
    setting = f"{len(LABELS)} random labels, every image in three rows: "
    return [
        within(f"{setting}macro F1 of training rows", train, 0.9, 1, runs),
        within(
            f"{setting}macro F1 of validation rows less that of new images",
            valid - fresh,
            -allowed,
            allowed,
            runs,
        ),
    ]


def scores_of_a_run(seed: int) -> tuple[float, float, float]:
    """The macro F1 of the last epoch on validation rows, on new images, and on the rows that were trained on."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = []
        for number in range(IMAGES):
            label = LABELS[rng.integers(len(LABELS))]
            image = draw(folder / f"{number}.png", rng)
            cv2.imwrite(str(folder / f"{number}.bmp"), image)
            # One file under two spellings of its path, and its pixels in another file.
            rows += [(f"{number}.png", label), (f"./{number}.png", label), (f"{number}.bmp", label)]
        table(folder / "samples.csv", rows)
        new = [(f"new-{number}.png", LABELS[rng.integers(len(LABELS))]) for number in range(FRESH)]
        for path, _ in new:
            draw(folder / path, rng)
        table(folder / "new.csv", new)

        run = classwise.train(classwise.make_config(config_of(folder, seed)), run=folder / "run", quiet=True)
        split = pl.read_csv(folder / "run" / "split.csv")
        trained = set(split.filter(pl.col("split") == "train")["id"].to_list())
        table(folder / "trained.csv", [row for row in rows if row[0] in trained])
        return (
            run.metrics["value"],
            run.evaluate(folder / "new.csv")["value"],
            run.evaluate(folder / "trained.csv")["value"],
        )


def config_of(folder: Path, seed: int) -> dict[str, Any]:
    """A small network that learns its training images by heart; the last epoch counts, so nothing is selected."""
    return {
        "seed": seed,
        "data": {
            "source": str(folder / "samples.csv"),
            "images": str(folder),
            "valid": 0.3,
            "augment": "none",
            "workers": 0,
            "cache": "off",
        },
        "targets": {"label": {"column": "label", "labels": list(LABELS)}},
        "model": {"backbone": "small_cnn", "image_size": [16, 16]},
        "optimizer": {"name": "adamw", "lr": 5e-3, "weight_decay": 0.0},
        "training": {"epochs": EPOCHS, "batch_size": 16, "precision": "fp32", "threads": 1, "device": "cpu"},
        "selection": {"first_epoch": EPOCHS},
        "report": {"baselines": False, "resamples": 0},
    }


def draw(path: Path, rng: np.random.Generator) -> np.ndarray:
    """Write an image of coarse noise, (16, 16, 3)."""
    image = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    cv2.imwrite(str(path), image)
    return image


def table(path: Path, rows: list[tuple[str, str]]) -> None:
    """A table of paths and labels."""
    pl.DataFrame(rows, schema=["path", "label"], orient="row").write_csv(path)


def copies_in_two_splits(tables: int) -> Claim:
    """Random tables with groups, in which images are in several rows of several groups."""
    torn = 0
    for number in range(tables):
        samples, strata, rng = random_table(number)
        groups = split_groups(samples, {}, [])
        valid_N = split_rows(strata, groups, share=float(rng.uniform(0.1, 0.5)), seed=number, ids=samples.ids)
        for values in (samples.contents, samples.groups):
            torn += any(
                len(set(valid_N[np.array(values) == value].tolist())) > 1 for value in set(values or ())
            )
    return at_most("images or groups on both sides of a split", torn, 0, tables)


def other_orders(tables: int) -> Claim:
    """The same tables in another order of their rows."""
    changed = 0
    for number in range(tables):
        samples, strata, rng = random_table(number)
        order = rng.permutation(len(samples))
        shuffled = samples.take(order.tolist())
        strata_shuffled = [
            Stratum(stratum.name, stratum.numbers[order], stratum.labels, stratum.required)
            for stratum in strata
        ]
        first_N = split_rows(strata, split_groups(samples, {}, []), share=0.3, seed=number, ids=samples.ids)
        second_N = split_rows(
            strata_shuffled, split_groups(shuffled, {}, []), share=0.3, seed=number, ids=shuffled.ids
        )
        changed += bool((first_N[order] != second_N).any())
    return at_most("splits that another order of the rows changes", changed, 0, tables)


def random_table(number: int) -> tuple[Samples, list[Stratum], np.random.Generator]:
    """Sixty rows of about thirty images, in about thirty groups, with labels of three classes."""
    rng = np.random.default_rng(number)
    rows = 60
    ids = tuple(f"r{row}" for row in rng.permutation(rows))
    contents = [f"c{row}" for row in range(rows)]
    for row in rng.choice(rows, 12, replace=False):
        contents[row] = contents[int(rng.integers(rows))]
    samples = Samples(
        where="drawn",
        root=Path(),
        ids=ids,
        names=ids,
        groups=tuple(f"g{group}" for group in rng.integers(0, 40, rows)),
        frame=pl.DataFrame({"id": ids}),
        contents=tuple(contents),
    )
    labels_N = rng.permutation(np.arange(rows) % len(LABELS))
    return samples, [Stratum("label", labels_N, LABELS, required=True)], rng


def hard_tables(tables: int) -> Claim:
    """Up to 14 groups with labels that two or three of them hold, against all splits of the groups."""
    possible = missed = 0
    for number in range(tables):
        strata, groups, holds = hard_table(number)
        if can_be_split(holds):
            possible += 1
            valid_N = split_rows(strata, groups.tolist(), share=0.25, seed=number)
            missed += any(len(set(valid_N[stratum.numbers == 0].tolist())) < 2 for stratum in strata)
    return at_most("splits with a label on one side, although there is one without", missed, 0, possible)


def hard_table(number: int) -> tuple[list[Stratum], np.ndarray, np.ndarray]:
    """(strata, groups, holds): up to 14 groups of one to three rows; every label is held by two or three groups, so
    that labels are in each other's way. `holds` (labels, groups): which group holds which label."""
    rng = np.random.default_rng(number)
    count = int(rng.integers(3, 15))
    targets = int(rng.integers(1, 5))
    labels = sum(int(rng.integers(2, max(3, count))) for _ in range(targets))
    holds = np.zeros((labels, count), dtype=bool)
    for holds_G in holds:
        holders = 2 if rng.random() < 0.75 else 3
        holds_G[rng.choice(count, min(holders, count), replace=False)] = True
    groups = np.repeat(np.arange(count), rng.integers(1, 4, count))
    strata = []
    for label, holds_G in enumerate(holds):
        numbers = np.full(len(groups), -1)
        for group in np.flatnonzero(holds_G):
            rows = np.flatnonzero(groups == group)
            numbers[rng.choice(rows, int(rng.integers(1, len(rows) + 1)), replace=False)] = 0
        strata.append(Stratum("tags", numbers, [str(label)], required=True))
    return strata, groups, holds


def can_be_split(holds: np.ndarray) -> bool:
    """Whether any of the splits of all groups has every label on both sides."""
    count = holds.shape[1]
    splits = np.arange(2 ** (count - 1))[:, None] >> np.arange(count) & 1
    on_valid = splits @ holds.T
    return bool(((on_valid > 0) & (on_valid < holds.sum(axis=1))).all(axis=1).any())
