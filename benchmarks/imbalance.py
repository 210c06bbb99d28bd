"""Which means against imbalance helps: Fashion-MNIST with imbalance 10 and 100, a small network from scratch.

    python benchmarks/imbalance.py WORK [--seeds 3] [--jobs 2] [--epochs 15] [--tables] [--write]

Trains every method below with the same seeds in WORK (resumable: what is done is not done again), on 800 images
of the most frequent class down to 80 or 8 of the rarest, and scores the last epoch on a balanced test of 1,000
images that nothing is chosen by; and at the shares of the training set, by weighting the test images of each class
so that they stand for its share. `--write` puts the tables and images into docs/results/.

The full set comes from Debian's package dataset-fashion-mnist; without it the bundled subset is used and said.
"""

import argparse
import csv
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from classwise.compare import compare
from classwise.compare.stats import Difference, Estimate
from classwise.compare.variants import Variant
from longtail import fashion_long_tail
from over_seeds import difference, estimate

METHODS: dict[str, dict[str, str]] = {
    "cross entropy": {},
    "weighted CE (inverse)": {"loss.class_weights": "inverse"},
    "weighted CE, by the batch's weights": {
        "loss.class_weights": "inverse",
        "loss.normalize_by": "weights",
    },
    "focal": {"loss.name": "focal"},
    "class-balanced CE, beta .999": {"loss.class_weights": "effective", "loss.beta": "0.999"},
    "class-balanced CE, beta .9999": {"loss.class_weights": "effective", "loss.beta": "0.9999"},
    "class-balanced CE, by the batch's weights": {
        "loss.class_weights": "effective",
        "loss.beta": "0.999",
        "loss.normalize_by": "weights",
    },
    "LDAM": {"loss.name": "ldam"},
    "LDAM-DRW, beta .999": {
        "loss.name": "ldam",
        "loss.class_weights": "effective",
        "loss.beta": "0.999",
        "loss.weights_from_epoch": "DRW",
    },
    "LDAM-DRW, beta .9999": {
        "loss.name": "ldam",
        "loss.class_weights": "effective",
        "loss.beta": "0.9999",
        "loss.weights_from_epoch": "DRW",
    },
    "balanced softmax": {"loss.name": "balanced_softmax"},
    "logit adjustment, loss, tau 1.5": {"loss.name": "logit_adjustment", "loss.tau": "1.5"},
    "logit adjustment, post-hoc": {"targets.label.adjust": "1.0"},
    "balanced sampling": {"data.sampling": "balanced"},
    "mixup": {"data.mixup": "0.2"},
    "balanced softmax + mixup": {"loss.name": "balanced_softmax", "data.mixup": "0.2"},
}


def config(epochs: int) -> dict[str, object]:
    """The demo's recipe, at its last epoch: choosing an epoch on the test rows would be cheating."""
    return {
        "name": "imbalance",
        "data": {
            "source": "train.csv",
            "valid": "test.csv",
            "workers": 0,
            "augment": {"preset": "none", "crop": 0.9, "ratio": 1.05, "rotate": 3.0, "erase": 0.25},
        },
        "targets": {"label": {"column": "label"}},
        "model": {"backbone": "small_cnn", "image_size": [28, 28]},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.1},
        "schedule": {"name": "onecycle", "pct_start": 0.2},
        # Nothing is measured at the start: the numbers do not depend on what else the machine is doing.
        "training": {
            "epochs": epochs,
            "batch_size": 32,
            "clip_norm": 1.0,
            "precision": "bf16",
            "memory_format": "channels_last",
            "threads": 1,
            "compile": False,
        },
        "selection": {"metric": "macro_f1", "first_epoch": epochs},
        "report": {"resamples": 0, "baselines": False},
    }


def variants(epochs: int) -> list[Variant]:
    """Deferred re-weighting begins in the last fifth, as in the papers."""
    begin = str(round(0.8 * epochs) + 1)
    return [
        Variant(name, tuple((key, begin if value == "DRW" else value) for key, value in keys.items()))
        for name, keys in METHODS.items()
    ]


def run(folder: Path, imbalance: int, options: argparse.Namespace) -> dict[str, Any]:
    """One imbalance: its scores, the number of training images, where they come from, and the folder of the runs."""
    data = folder / f"fashion-{imbalance}"
    if not (data / "train.csv").exists():
        data.mkdir(parents=True, exist_ok=True)
        made = fashion_long_tail(data, imbalance, options.largest, 1000, seed=0)
        (data / "origin.txt").write_text(made.source)
    (data / "classwise.toml").write_text(tomli_w.dumps(config(options.epochs)))
    out = folder / f"compare-{imbalance}"
    if not options.tables:
        compare(data / "classwise.toml", variants(options.epochs), options.seeds, out, jobs=options.jobs)

    with (data / "train.csv").open(newline="") as file:
        counts = Counter(row["label"] for row in csv.DictReader(file))
    origin = (data / "origin.txt").read_text()
    return {"scores": read_scores(out, counts), "count": counts.total(), "origin": origin, "out": out}


def read_scores(out: Path, counts: Mapping[str, int]) -> dict[str, dict[str, dict[int, float]]]:
    """scores[score][method][seed] of all runs that are done: as measured, and macro F1 at the shares of training."""
    slugs = {
        name: entry["slug"]
        for name, entry in json.loads((out / "compare.json").read_text())["variants"].items()
    }
    scores: dict[str, dict[str, dict[int, float]]] = {
        score: {name: {} for name in METHODS} for score in ("macro_f1", "accuracy", "at_shares")
    }
    for name in METHODS:
        for path in sorted((out / slugs[name]).glob("seed-*/metrics.json")):
            seed = int(path.parent.name.removeprefix("seed-"))
            metrics = json.loads(path.read_text())["targets"]["label"]
            found = {**metrics, "at_shares": f1_at_shares(metrics, counts)}
            for score, by_method in scores.items():
                by_method[name][seed] = found[score]
    return scores


def f1_at_shares(metrics: dict[str, Any], counts: Mapping[str, int]) -> float:
    """Macro F1 if the test rows came in the proportions of `counts`: every row of the confusion matrix is scaled to the
    share of its class. The errors within a class are those that were measured."""
    confusion_KK = np.asarray(metrics["confusion"], dtype=np.float64)
    share_K = np.array([counts[label] for label in metrics["labels"]]) / sum(counts.values())
    confusion_KK *= (share_K / confusion_KK.sum(axis=1))[:, np.newaxis]
    hits_K = np.diag(confusion_KK)
    return float((2 * hits_K / (confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1))).mean())


def table(scores: dict[str, dict[str, dict[int, float]]]) -> list[str]:
    """Markdown: macro F1 and accuracy with their 95 % intervals, and the gain over cross entropy, paired by seed; then
    macro F1 at the shares of training, and its gain."""
    lines = [
        "| method | macro F1 | 95 % | accuracy | 95 % | macro F1 over cross entropy, paired | p |"
        " macro F1 at the training shares | over cross entropy, paired |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    f1, accuracy, at_shares = (scores[score] for score in ("macro_f1", "accuracy", "at_shares"))
    for name in METHODS:
        other = estimate(list(accuracy[name].values()))
        is_baseline = name == "cross entropy"
        gain = None if is_baseline else difference(f1[name], f1["cross entropy"])
        more = ["", ""] if other is None else [f"{other.mean:.3f}", interval_text(other)]
        line = table_line(name, estimate(list(f1[name].values())), gain, more)
        shifted = estimate(list(at_shares[name].values()))
        shifted_gain = None if is_baseline else difference(at_shares[name], at_shares["cross entropy"])
        cells = ["" if shifted is None else f"{shifted.mean:.3f}", gain_text(shifted_gain)]
        lines.append(f"{line} {cells[0]} | {cells[1]} |")
    return lines


def table_line(name: str, own: Estimate | None, gain: Difference | None, more: list[str]) -> str:
    """One line of a result: the mean and its interval, `more`, and the paired difference with its p-value."""
    cells = [name, *(["failed", ""] if own is None else [f"{own.mean:.3f}", interval_text(own)]), *more]
    cells += [gain_text(gain), "" if gain is None or gain.p is None else f"{gain.p:.3f}"]
    return "| " + " | ".join(cells) + " |"


def gain_text(gain: Difference | None) -> str:
    """`+0.012 (-0.022 to 0.045)`, or nothing for the method that the others are compared with."""
    if gain is None:
        return ""
    interval = f" ({interval_text(gain)})" if gain.interval else ""
    return f"{gain.mean:+.3f}{interval}"


def interval_text(own: Estimate | Difference) -> str:
    """`0.712 to 0.741`, or nothing where one number shows no spread."""
    return "" if own.interval is None else "{:.3f} to {:.3f}".format(*own.interval)


def replace_between(page: str, marker: str, text: str) -> None:
    """Put `text` between `<!-- marker -->` and `<!-- end marker -->` of a page in docs/results/."""
    path = Path(__file__).parents[1] / "docs" / "results" / page
    head, rest = path.read_text(encoding="utf-8").split(f"<!-- {marker} -->")
    _, tail = rest.split(f"<!-- end {marker} -->")
    path.write_text(f"{head}<!-- {marker} -->\n{text}\n<!-- end {marker} -->{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--largest", type=int, default=800)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tables", action="store_true", help="train nothing: the tables of the runs in WORK")
    options = parser.parse_args()
    found = {imbalance: run(options.work, imbalance, options) for imbalance in (100, 10)}
    for imbalance, result in found.items():
        print(f"\nimbalance {imbalance}: {result['count']} training images, from {result['origin']}")
        print("\n".join(table(result["scores"])))
    if options.write:
        write(found)


def write(found: dict[int, dict[str, Any]]) -> None:
    """The tables into docs/results/imbalance.md, and the images beside it."""
    for imbalance, result in found.items():
        origin = f"{result['count']:,} training images, from {str(result['origin']).split(' (')[0]}."
        replace_between(
            "imbalance.md", f"table {imbalance}", "\n".join([origin, "", *table(result["scores"])])
        )
        image = Path(__file__).parents[1] / "docs" / "results" / f"imbalance-{imbalance}.svg"
        shutil.copy(Path(str(result["out"])) / "compare.svg", image)


if __name__ == "__main__":
    main()
