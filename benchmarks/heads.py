"""One head or three for a joint class, and age as a class, as levels or as a number: the drawn faces.

    python benchmarks/heads.py WORK [--people 200] [--seeds 3] [--jobs 2] [--epochs 20] [--write]

Draws people in the face-mask competition's tree, shrinks the images to a third of the side, keeps every fourth person
of each kind for validation, and trains the same network with: one head of 18 classes; three heads (mask, gender, age);
three with age as ordered levels; three with age as a number, cut at 30 and 60 afterwards. Scored by macro F1 over the
18 joint classes, at the last epoch.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tomli_w

from classwise.compare import compare
from classwise.compare.variants import Variant
from classwise.demo.competition import write_competition
from classwise.suggest.competition import competition_table
from imbalance import replace_between, table_line
from over_seeds import difference, estimate

MASKS = ["wear", "incorrect", "normal"]
HEADS = {
    "mask": {"column": "mask", "labels": MASKS},
    "gender": {"column": "gender", "labels": ["male", "female"]},
}
JOINT = {"targets": ["mask", "gender", "age"]}
AGES: dict[str, dict[str, Any]] = {
    "three heads": {"column": "age", "edges": [30, 60]},
    "three heads, age ordinal (CORN)": {"column": "age", "edges": [30, 60], "type": "ordinal"},
    "three heads, age a number (smooth L1)": {
        "column": "age", "edges": [30, 60], "type": "regression", "loss": {"name": "smooth_l1"},
    },
}  # fmt: skip
ONE = "one head of 18 classes"


def configs(epochs: int) -> dict[str, dict[str, Any]]:
    """A config by what it shows; the same recipe in all of them."""
    base: dict[str, Any] = {
        "name": "heads",
        "data": {
            "source": "train.csv",
            "valid": "valid.csv",
            "images": "train/images",
            "group": "person",
            "augment": "light",
        },
        "model": {"backbone": "small_cnn", "image_size": [96, 72]},
        "loss": {"name": "balanced_softmax"},
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": epochs, "batch_size": 32, "clip_norm": 1.0},
        "selection": {"metric": "macro_f1", "first_epoch": epochs},
        "report": {"resamples": 0, "baselines": False},
    }
    one = {"number": {"column": "number", "labels": [str(k) for k in range(18)]}}
    found = {ONE: base | {"targets": one}}
    for name, age in AGES.items():
        found[name] = base | {"targets": HEADS | {"age": age}, "joint": JOINT}
    return found


def draw(folder: Path, people: int) -> None:
    """The tree, train.csv and valid.csv: path, person, mask, gender, age, number."""
    if (folder / "valid.csv").exists():
        return
    write_competition(folder, people)
    _shrink(folder / "train" / "images")
    rows = competition_table(folder).table.to_dicts()
    kinds: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        age = int(row["age"])
        group = (age >= 30) + (age >= 60)
        row["number"] = MASKS.index(row["mask"]) * 6 + (row["gender"] == "female") * 3 + group
        people_of = kinds.setdefault((row["gender"], group), [])
        if row["person"] not in people_of:
            people_of.append(row["person"])
    held_out = {person for listed in kinds.values() for person in listed[1::4]}
    for name, chosen in (("train", False), ("valid", True)):
        part = [row for row in rows if (row["person"] in held_out) == chosen]
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(part)


def _shrink(images: Path) -> None:
    """A third of the side, once: reading 384 x 512 pixels would take longer than learning from 96 x 72."""
    for path in images.rglob("*.*"):
        if not path.name.startswith("._"):
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            small = cv2.resize(image, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
            _, data = cv2.imencode(path.suffix, small)
            path.write_bytes(data.tobytes())


def scores(folder: Path, options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Macro F1 over the 18 classes by config and seed."""
    found: dict[str, dict[int, float]] = {}
    for number, (name, values) in enumerate(configs(options.epochs).items()):
        path = folder / f"config-{number}.toml"
        path.write_text(tomli_w.dumps(values), encoding="utf-8")
        out = folder / f"compare-{number}"
        compare(path, [Variant(name, ())], options.seeds, out, jobs=options.jobs)
        with (out / "compare.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found[name] = {int(row["seed"]): float(row["value"]) for row in rows if row["value"]}
    return found


def table(found: dict[str, dict[int, float]]) -> list[str]:
    """Markdown: mean and 95 % interval, and the difference to one head, paired by seed."""
    lines = [
        "| heads | joint macro F1 | 95 % | seeds | against one head, paired | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_seed in found.items():
        own = estimate(list(by_seed.values()))
        gain = difference(by_seed, found[ONE]) if name != ONE else None
        listed = ", ".join(f"{value:.3f}" for value in by_seed.values())
        lines.append(table_line(name, own, gain, [listed]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    draw(options.work, options.people)
    lines = table(scores(options.work, options))
    print("\n".join(lines))
    if options.write:
        replace_between("heads.md", "table", "\n".join(lines))


if __name__ == "__main__":
    main()
