"""Which means against imbalance helps: Fashion-MNIST with imbalance 10 and 100, a small network from scratch.

    python benchmarks/imbalance.py WORK [--seeds 3] [--jobs 2] [--epochs 15] [--only 100] [--tables] [--write]

Trains every method below with the same seeds in WORK (resumable: what is done is not done again), on 800 images
of the most frequent class down to 80 or 8 of the rarest, and scores the last epoch on a balanced test of 1,000
images that nothing is chosen by; and at the shares of the training set, by weighting the test images of each class
so that they stand for its share. `--write` puts the tables and images into docs/results/.

The full set comes from Debian's package dataset-fashion-mnist; without it the bundled subset is used and said.
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomli_w

from classwise.compare import compare
from classwise.compare.chart import chart_file, panels
from classwise.compare.stats import Design, Difference, Estimate, Runs, summarize
from classwise.compare.text import p_text
from classwise.compare.variants import Variant
from longtail import fashion_long_tail

Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
SCORES = ("macro_f1", "accuracy", "at_shares")
TEST_ROWS = 1000
RESAMPLES = 1000
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
    """One imbalance: its runs, the number of training images, and where they come from."""
    data = folder / f"fashion-{imbalance}"
    if not (data / "train.csv").exists():
        data.mkdir(parents=True, exist_ok=True)
        made = fashion_long_tail(data, imbalance, options.largest, TEST_ROWS, seed=0)
        (data / "origin.txt").write_text(made.source)
    (data / "classwise.toml").write_text(tomli_w.dumps(config(options.epochs)))
    out = folder / f"compare-{imbalance}"
    if not options.tables:
        compare(data / "classwise.toml", variants(options.epochs), options.seeds, out, jobs=options.jobs)

    with (data / "train.csv").open(newline="") as file:
        counts = Counter(row["label"] for row in csv.DictReader(file))
    origin = (data / "origin.txt").read_text()
    return {"runs": read_runs(out, counts), "count": counts.total(), "origin": origin}


def read_runs(out: Path, counts: Mapping[str, int]) -> dict[str, dict[str, Runs]]:
    """runs[score][method] of all runs that are done: each score by seed, on the test rows and on resamples of them."""
    slugs = {
        name: entry["slug"]
        for name, entry in json.loads((out / "compare.json").read_text())["variants"].items()
    }
    found: dict[str, dict[str, Runs]] = {score: {name: Runs({}, {}) for name in METHODS} for score in SCORES}
    for name in METHODS:
        scores: dict[str, dict[int, float]] = {score: {} for score in SCORES}
        resampled: dict[str, dict[int, Values]] = {score: {} for score in SCORES}
        for path in sorted((out / slugs[name]).glob("seed-*/metrics.json")):
            seed = int(path.parent.name.removeprefix("seed-"))
            metrics = json.loads(path.read_text())["targets"]["label"]
            share_K = np.array([counts[label] for label in metrics["labels"]]) / sum(counts.values())
            true_N, predicted_N = read_predictions(path.parent / "predictions.csv", metrics["labels"])
            of_rows = scores_of(
                confusions(true_N, predicted_N, len(share_K), np.arange(len(true_N))[None]), share_K
            )
            of_resamples = scores_of(
                confusions(true_N, predicted_N, len(share_K), draws(len(true_N))), share_K
            )
            if not np.isclose(of_rows["macro_f1"][0], metrics["macro_f1"], rtol=1e-9):
                raise SystemExit(f"{path}: its macro F1 is not that of its predictions")
            for score in SCORES:
                scores[score][seed] = float(of_rows[score][0])
                resampled[score][seed] = of_resamples[score]
        for score in SCORES:
            found[score][name] = Runs(scores[score], resampled[score])
    return found


def read_predictions(path: Path, labels: list[str]) -> tuple[Numbers, Numbers]:
    """The true and the predicted classes (N,) of the test rows."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    number = {label: k for k, label in enumerate(labels)}
    true_N = np.array([number[row["label_true"]] for row in rows])
    return true_N, np.array([number[row["label"]] for row in rows])


def draws(rows: int) -> Numbers:
    """Bootstrap samples of the test rows (R, N), the same for all runs."""
    return np.random.default_rng(0).integers(0, rows, (RESAMPLES, rows))


def confusions(true_N: Numbers, predicted_N: Numbers, classes: int, rows_RN: Numbers) -> Values:
    """The confusion matrix (R, K, K) of each sample of the rows: true, predicted."""
    cell_N = true_N * classes + predicted_N
    cells = classes * classes
    offset_R1 = np.arange(len(rows_RN))[:, np.newaxis] * cells
    counts = np.bincount((cell_N[rows_RN] + offset_R1).ravel(), minlength=len(rows_RN) * cells)
    return counts.reshape(-1, classes, classes).astype(np.float64)


def scores_of(confusion_RKK: Values, share_K: Values) -> dict[str, Values]:
    """Macro F1, accuracy, and macro F1 if the test rows came in the proportions of `share_K`: every row of the
    confusion matrix is scaled to the share of its class. The errors within a class are those that were measured."""
    at_shares_RKK = confusion_RKK * (share_K / confusion_RKK.sum(axis=2))[:, :, np.newaxis]
    hits_RK = np.diagonal(confusion_RKK, axis1=1, axis2=2)
    return {
        "macro_f1": macro_f1(confusion_RKK),
        "accuracy": hits_RK.sum(axis=1) / confusion_RKK.sum(axis=(1, 2)),
        "at_shares": macro_f1(at_shares_RKK),
    }


def macro_f1(confusion_RKK: Values) -> Values:
    """Macro F1 (R,) of counts or weights."""
    hits_RK = np.diagonal(confusion_RKK, axis1=1, axis2=2)
    f1_RK = 2 * hits_RK / (confusion_RKK.sum(axis=1) + confusion_RKK.sum(axis=2))
    return f1_RK.mean(axis=1)


def table(runs: dict[str, dict[str, Runs]], count: int) -> list[str]:
    """Markdown: macro F1 and accuracy with their 95 % intervals, and the gain over cross entropy, paired by seed, with
    its p-value as it is and adjusted for the number of methods; then macro F1 at the shares of training, and its gain.
    `count`: training images."""
    lines = [
        "| method | macro F1 | 95 % | accuracy | 95 % | macro F1 over cross entropy, paired | p | Holm |"
        " macro F1 at the training shares | over cross entropy, paired |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    summaries = {score: summarize(runs[score], design_of(count)) for score in SCORES}
    for f1, accuracy, shifted in zip(*(summaries[score] for score in SCORES), strict=True):
        more = (
            ["", ""]
            if accuracy.score is None
            else [f"{accuracy.score.mean:.3f}", interval_text(accuracy.score)]
        )
        line = table_line(f1.variant, f1.score, f1.difference, more)
        adjusted = f1.difference and f1.difference.p_holm
        cells = [
            "" if adjusted is None else p_text(adjusted),
            "" if shifted.score is None else f"{shifted.score.mean:.3f}",
            gain_text(shifted.difference),
        ]
        lines.append(f"{line} {' | '.join(cells)} |")
    return lines


def chart(runs: dict[str, Runs], count: int, title: str) -> str:
    """The macro F1 of all methods as an SVG file, as `classwise compare` draws it."""
    values = {name: dict(of_method.scores) for name, of_method in runs.items()}
    drawn = panels(summarize(runs, design_of(count), margin=0.01), values, metric="macro_f1", higher=True)
    return chart_file(drawn, title)


def design_of(count: int) -> Design:
    """All runs are scored on the same test rows, which take part in no training on the `count` images."""
    return Design(scored=TEST_ROWS, trained=count, rows=count, units=TEST_ROWS, redrawn=False)


def table_line(name: str, own: Estimate | None, gain: Difference | None, more: list[str]) -> str:
    """One line of a result: the mean and its interval, `more`, and the paired difference with its p-value."""
    cells = [name, *(["failed", ""] if own is None else [f"{own.mean:.3f}", interval_text(own)]), *more]
    cells += [gain_text(gain), "" if gain is None or gain.p is None else p_text(gain.p)]
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
    parser.add_argument(
        "--only", type=int, nargs="+", choices=(100, 10), default=(100, 10), help="imbalances"
    )
    parser.add_argument("--tables", action="store_true", help="train nothing: the tables of the runs in WORK")
    options = parser.parse_args()
    found = {imbalance: run(options.work, imbalance, options) for imbalance in options.only}
    for imbalance, result in found.items():
        print(f"\nimbalance {imbalance}: {result['count']} training images, from {result['origin']}")
        print("\n".join(table(result["runs"], result["count"])))
    if options.write:
        write(found)


def write(found: dict[int, dict[str, Any]]) -> None:
    """The tables into docs/results/imbalance.md, and the images beside it."""
    for imbalance, result in found.items():
        origin = f"{result['count']:,} training images, from {str(result['origin']).split(' (')[0]}."
        replace_between(
            "imbalance.md",
            f"table {imbalance}",
            "\n".join([origin, "", *table(result["runs"], result["count"])]),
        )
        image = Path(__file__).parents[1] / "docs" / "results" / f"imbalance-{imbalance}.svg"
        drawn = chart(result["runs"]["macro_f1"], result["count"], title=f"imbalance {imbalance}: macro_f1")
        image.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
