"""Which loss and which adjustment for which class shares: macro F1 as the classes come in training, and balanced.

    python benchmarks/prior.py WORK [--seeds 6] [--jobs 1] [--only NAME ...] [--package FOLDER] [--write]

Three losses are trained, as by a user of `classwise init`, on the data sets of benchmarks/defaults.py: cross entropy,
balanced softmax, and logit adjustment with tau = 0.5. Each model predicts a pool of images that it was neither trained
nor chosen on. Everything else is arithmetic on the probabilities of the pool: an adjustment adds multiples of the log
shares of the training rows, and the rows are weighted so that the classes have the wanted shares. `--write` puts the
tables into docs/results/defaults.md.

The pool of clothes is 1,000 of each class from the whole of Fashion-MNIST (Debian's package dataset-fashion-mnist,
whose files are in --package), without the bundled images; if it is not installed, the bundled test set, 100 of each.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import tomli_w

from classwise import Run
from classwise.compare import compare
from classwise.compare.variants import Variant
from classwise.demo.competition import write_competition
from classwise.demo.fashion import LABELS, SPLITS, read_bundle
from classwise.metrics.scores import confusion_marginals, label_scores
from classwise.suggest.competition import competition_table
from defaults import LITE, SMALL, clothes, common, digits, faces
from imbalance import interval_text, replace_between
from longtail import CLASSES, _write_split
from make_fashion import SOURCE, draw, read_idx
from over_seeds import difference, estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POOL_ROWS = 1000
"""Images of each class of clothes in the pool, if there are as many."""
POOL_PEOPLE = 300
"""Drawn people in the pool of faces."""

LOSSES: dict[str, dict[str, str]] = {
    "cross entropy": {"loss.name": "cross_entropy"},
    "balanced softmax": {"loss.name": "balanced_softmax"},
    "logit adjustment, tau 0.5": {"loss.name": "logit_adjustment", "loss.tau": "0.5"},
    "balanced softmax, prior = as_validation": {
        "loss.name": "balanced_softmax",
        "selection.prior": "as_validation",
    },
    "balanced softmax, prior = balanced": {"loss.name": "balanced_softmax", "selection.prior": "balanced"},
}
"""The last two are what `init` writes; here selection.prior also chooses the epoch."""
CANDIDATES: dict[str, tuple[str, float]] = {
    **{
        f"cross entropy{name}": ("cross entropy", multiple)
        for name, multiple in {
            "": 0.0, ", - 0.25 log share": -0.25, ", - 0.5 log share": -0.5, ", - 0.75 log share": -0.75,
            ", - log share": -1.0,
        }.items()
    },
    **{
        f"logit adjustment, tau 0.5{name}": ("logit adjustment, tau 0.5", multiple)
        for name, multiple in {"": 0.0, ", + 0.5 log share": 0.5, ", - 0.5 log share": -0.5}.items()
    },
    **{
        f"balanced softmax{name}": ("balanced softmax", multiple)
        for name, multiple in {
            "": 0.0, ", + 0.25 log share": 0.25, ", + 0.5 log share": 0.5, ", + 0.75 log share": 0.75,
            ", + log share": 1.0,
        }.items()
    },
    "balanced softmax, prior = as_validation": ("balanced softmax, prior = as_validation", 0.0),
    "balanced softmax, prior = balanced": ("balanced softmax, prior = balanced", 0.0),
}  # fmt: skip
"""By name: the loss, and how often the log shares of the training rows are added to its logits."""
TODAY = "balanced softmax"


@dataclass(frozen=True)
class DataSet:
    """`make` (folder): writes train data and pool, and returns the sections of the config that belong to them."""

    make: Callable[[Path, Path], dict[str, Any]]
    model: dict[str, str]
    size: str
    epochs: int
    losses: tuple[str, ...] = tuple(LOSSES)


def make_clothes(folder: Path, package: Path) -> dict[str, Any]:
    """The bundled training images, and a pool of others."""
    values = clothes(folder)
    if not (folder / "pool.csv").exists():
        if (package / "train-images-idx3-ubyte.gz").exists():
            _write_pool(folder, package)
        else:
            (folder / "pool.csv").write_bytes((folder / "test.csv").read_bytes())
    return values


def _write_pool(folder: Path, package: Path) -> None:
    """POOL_ROWS of each class that are not in the bundle, by their bytes."""
    taken = {image.tobytes() for split in SPLITS for image in read_bundle(split)[0]}
    images_NHW = read_idx(package / "train-images-idx3-ubyte.gz")
    labels_N = read_idx(package / "train-labels-idx1-ubyte.gz")
    rows = draw(images_NHW, labels_N, [POOL_ROWS] * CLASSES, np.random.default_rng(0), taken)
    _write_split(folder, "pool", images_NHW[rows], [LABELS[k] for k in labels_N[rows]])


def make_digits(folder: Path, package: Path) -> dict[str, Any]:
    """The digits; the pool is their test set, 40 of each."""
    values = digits(folder)
    (folder / "pool.csv").write_bytes((folder / "test.csv").read_bytes())
    return values


def make_faces(folder: Path, package: Path) -> dict[str, Any]:
    """150 people to learn from, and a pool of others."""
    values = faces(folder)
    pool = folder / "pool"
    if not (pool / "pool.csv").exists():
        write_competition(pool, POOL_PEOPLE, seed=1)
        competition = competition_table(pool)
        competition.table.write_csv(pool / "pool.csv")
    return values


DATA = {
    "clothes": DataSet(make_clothes, SMALL, "[28, 28]", epochs=30),
    "digits": DataSet(make_digits, SMALL, "[16, 16]", epochs=30),
    "faces": DataSet(make_faces, SMALL, "[64, 48]", epochs=30),
    "pretrained": DataSet(
        make_clothes,
        LITE | {"optimizer.backbone_lr_factor": "0.3"},
        "[48, 48]",
        epochs=8,
        losses=("cross entropy", "balanced softmax"),
    ),
}


@dataclass(frozen=True)
class Pool:
    """What one model says of the pool: for each target log probabilities (N, K) and the log shares (K,) of its training
    rows; `true_joint` (N,), the true joint classes, and `joint_share` (J,), their shares in training."""

    log_p: list[Floats]
    log_share: list[Floats]
    true_joint: Ints
    joint_share: Floats

    def macro_f1(self, multiple: float, balanced: bool) -> float:
        """With `multiple` times the log shares added to the logits, at the shares of training or at equal ones.

        Joint classes that training or the pool does not have are left out of the shares and of the mean.
        """
        number_N = np.zeros(len(self.true_joint), dtype=np.int64)
        for log_p_NK, log_share_K in zip(self.log_p, self.log_share, strict=True):
            number_N = number_N * len(log_share_K) + (log_p_NK + multiple * log_share_K).argmax(axis=1)
        size = len(self.joint_share)
        confusion = np.bincount(self.true_joint * size + number_N, minlength=size * size).reshape(size, size)
        support_J = confusion.sum(axis=1)
        present_J = (support_J > 0) & (self.joint_share > 0)
        wanted_J = np.where(present_J, 1.0 if balanced else self.joint_share, 0.0)
        weight_J = wanted_J / wanted_J.sum() / np.maximum(support_J, 1)
        scores = label_scores(*confusion_marginals(confusion * weight_J[:, None]))
        return float(scores["macro_f1"]) * size / int(present_J.sum())


def pool_of(run: Run, folder: Path) -> Pool:
    """What a run says of the pool. Its predictions are kept beside it, since they take longer than all the rest."""
    path = run.path / "pool.parquet"
    if not path.exists():
        tree = folder / "pool"
        in_tree = (tree / "pool.csv").exists()
        table = tree / "pool.csv" if in_tree else folder / "pool.csv"
        run.predict(table, images=tree / "train" / "images" if in_tree else folder).write_parquet(path)
    predictions = pl.read_parquet(path)

    # The rows that each class has in training are in status.json.
    data = run.status["data"]
    labels = {name: [row["label"] for row in rows] for name, rows in data["labels"].items()}
    counts = {name: np.array([row["train"] for row in rows]) for name, rows in data["labels"].items()}
    counts_J = np.array(data["joint"]["train"]) if data["joint"] else next(iter(counts.values()))

    true_joint = np.zeros(predictions.height, dtype=np.int64)
    log_p = []
    for name, names in labels.items():
        columns = [f"{name}_p_{label}" for label in names]
        log_p.append(np.log(np.maximum(predictions.select(columns).to_numpy().astype(np.float64), 1e-300)))
        label_N = np.array([names.index(label) for label in predictions[f"{name}_true"]])
        true_joint = true_joint * len(names) + label_N
    return Pool(
        log_p=log_p,
        log_share=[np.log(np.maximum(n_K, 1) / np.maximum(n_K, 1).sum()) for n_K in counts.values()],
        true_joint=true_joint,
        joint_share=counts_J / counts_J.sum(),
    )


def pools(name: str, options: argparse.Namespace) -> dict[str, dict[int, Pool]]:
    """By loss and seed: what the models say of the pool."""
    data = DATA[name]
    folder = options.work / name
    folder.mkdir(parents=True, exist_ok=True)
    values = common(data.epochs) | data.make(folder, options.package)
    values["selection"] = {"metric": "macro_f1", "first_epoch": 0.67}
    values["training"]["threads"] = 1
    path = folder / "prior.toml"
    path.write_text(tomli_w.dumps({"name": "prior"} | values), encoding="utf-8")
    found: dict[str, dict[int, Pool]] = {loss: {} for loss in data.losses}
    for losses, out, seeds in _comparisons(data.losses, options.work / f"compare-{name}", options.seeds):
        variants = [
            Variant(loss, tuple((data.model | {"model.image_size": data.size} | LOSSES[loss]).items()))
            for loss in losses
        ]
        for result in compare(path, variants, seeds, out, jobs=options.jobs).results:
            if result.done:
                found[result.variant][result.seed] = pool_of(Run.open(result.folder), folder)
    return found


def _comparisons(losses: Sequence[str], out: Path, seeds: int) -> Iterator[tuple[list[str], Path, int]]:
    """(losses, folder, seeds) of what is trained: those selected at other class shares are a comparison of their own,
    and the loss that is neither today's nor a candidate for it takes three seeds at most."""
    balanced = [loss for loss in losses if LOSSES[loss].get("selection.prior") == "balanced"]
    few = [loss for loss in losses if LOSSES[loss]["loss.name"] == "logit_adjustment"]
    yield [loss for loss in losses if loss not in balanced + few], out, seeds
    if balanced:
        yield balanced, out.with_name(f"{out.name}-balanced"), seeds
    if few:
        yield few, out, min(seeds, 3)


def table(found: dict[str, dict[int, Pool]]) -> list[str]:
    """Markdown: of each candidate the macro F1 at both class shares, and its difference to TODAY's, paired by seed."""
    scores = {
        name: [
            {seed: pool.macro_f1(multiple, balanced) for seed, pool in found[loss].items()}
            for balanced in (False, True)
        ]
        for name, (loss, multiple) in CANDIDATES.items()
        if found.get(loss)
    }
    lines = [
        f"| loss and adjustment | seeds | as in training | against {TODAY}, paired | balanced |"
        f" against {TODAY}, paired |",
        "|---|---|---|---|---|---|",
    ]
    for name, both in scores.items():
        cells = [name, str(len(both[0]))]
        for by_seed, today in zip(both, scores[TODAY], strict=True):
            own, gain = estimate(list(by_seed.values())), difference(by_seed, today)
            cells.append("failed" if own is None else f"{own.mean:.3f}")
            known = gain is not None and name != TODAY
            interval = f" ({interval_text(gain)})" if gain and gain.interval else ""
            cells.append(f"{gain.mean:+.3f}{interval}" if known and gain else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=list(DATA), nargs="+", default=list(DATA))
    parser.add_argument("--package", type=Path, default=SOURCE)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for name in options.only:
        lines = table(pools(name, options))
        print(f"\n{name}\n" + "\n".join(lines), flush=True)
        if options.write:
            replace_between("defaults.md", f"prior {name}", "\n".join(lines))


if __name__ == "__main__":
    main()
