"""Adds targets of the other types to a made-up run: `wear` (ordinal), `tags` (multilabel), `years` (regression) and
`taste` (ranking), some rows of each unknown. Scores are scikit-learn's, intervals a made-up margin around them.

`python fabricated_kinds.py DIR` writes such a run."""

import csv
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import tomli_w
from sklearn import metrics as reference

from tests.helpers.fabricated import fabricate_run, score
from tests.helpers.tables import read_csv

LEVELS = ["new", "good", "worn", "broken"]
TAGS = ["outdoor", "안경", "hat", "scarf", "beard", "earring", "tattoo"]
SHARES = [0.5, 0.3, 0.22, 0.15, 0.1, 0.05, 0.02]


def fabricate_kinds(folder: Path, *, metric: str = "wear.quadratic_kappa", **options: object) -> Path:
    """A run as `fabricate_run` writes it, with one target of every type more; `metric` is what it is ranked by."""
    run = fabricate_run(folder, **options)
    rng = np.random.default_rng(11)
    table = read_csv(run / "predictions.csv")
    drawn = {"wear": _wear, "tags": _tags, "years": _years, "taste": _taste}
    scores = read(run, "metrics.json")
    for scored in [scores["joint"], *scores["targets"].values()]:
        _add_class_scores(scored)
    for name, draw in drawn.items():
        columns, scores["targets"][name] = draw(rng, len(table))
        for row, cells in zip(table, columns, strict=True):
            row |= cells
    for scored in [scores["joint"], *scores["targets"].values()]:
        scored["intervals"] = {
            key: [value - 0.05 * abs(value), value + 0.5 * (1 - value) if 0 < value < 1 else 1.04 * value]
            for key, value in scored.items()
            if isinstance(value, float)
        }
    target, _, key = metric.rpartition(".")
    value = (scores["targets"] | {"joint": scores["joint"]})[target][key]
    write(run, "metrics.json", scores | {"metric": metric, "value": value})
    with (run / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    _add_to_config(run, metric)
    _add_to_status(run, rng, scores)
    _add_to_history(run, metric, value)
    return run


def read(run: Path, name: str) -> dict:
    return json.loads((run / name).read_text(encoding="utf-8"))


def write(run: Path, name: str, value: dict) -> None:
    (run / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _add_class_scores(scores: dict) -> None:
    """The scores of a class target that `fabricated.score` leaves out, from its confusion matrix."""
    truth, predicted = [], []
    for t, row in enumerate(scores["confusion"]):
        for p, n in enumerate(row):
            truth += [t] * n
            predicted += [p] * n
    scores["samples"] = len(truth)
    scores["micro_f1"] = scores["accuracy"]
    scores["mcc"] = float(reference.matthews_corrcoef(truth, predicted))
    scores["kappa"] = float(reference.cohen_kappa_score(truth, predicted))
    for average in ("precision", "recall"):
        of = getattr(reference, f"{average}_score")
        scores[f"weighted_{average}"] = float(of(truth, predicted, average="weighted", zero_division=0))
    scores |= {"log_loss": 0.4321, "calibration_error": 0.0456}
    if len(scores["labels"]) > 3:
        scores["top3_accuracy"] = 0.991


def _wear(rng: np.random.Generator, rows: int) -> tuple[list[dict], dict]:
    """One row in nine is unknown; a few are off by more than one level."""
    truth = rng.choice(4, size=rows, p=[0.2, 0.45, 0.25, 0.1])
    off = rng.choice([-2, -1, 0, 0, 0, 0, 0, 0, 1, 3], size=rows)
    predicted = np.clip(truth + off, 0, 3)
    known = np.arange(rows) % 9 != 4
    cells = []
    for t, p, there in zip(truth.tolist(), predicted.tolist(), known.tolist(), strict=True):
        probability = rng.dirichlet(np.ones(4)) * 0.6
        probability[p] += 0.4
        one = {"wear": LEVELS[p], "wear_true": LEVELS[t] if there else ""}
        cells.append(
            one | {f"wear_p_{label}": f"{v:.6f}" for label, v in zip(LEVELS, probability, strict=True)}
        )
    truth, predicted = truth[known], predicted[known]
    scores = score(truth.tolist(), predicted.tolist(), LEVELS) | {"type": "ordinal"}
    _add_class_scores(scores)
    scores["mae_levels"] = float(np.abs(truth - predicted).mean())
    scores["quadratic_kappa"] = float(reference.cohen_kappa_score(truth, predicted, weights="quadratic"))
    return cells, scores


def _tags(rng: np.random.Generator, rows: int) -> tuple[list[dict], dict]:
    """Every eleventh row is unknown; some rows have no label at all."""
    truth = rng.random((rows, len(TAGS))) < SHARES
    p = np.clip(np.where(truth, 0.75, 0.2) + rng.normal(0, 0.22, truth.shape), 0.001, 0.999)
    predicted = p >= 0.5
    known = np.arange(rows) % 11 != 5
    cells = []
    for k in range(rows):
        one = {"tags": _joined(predicted[k]), "tags_true": _joined(truth[k]) if known[k] else ""}
        cells.append(one | {f"tags_p_{label}": f"{p[k, i]:.6f}" for i, label in enumerate(TAGS)})
    truth, predicted, p = truth[known], predicted[known], p[known]
    each = reference.precision_recall_fscore_support(truth, predicted, zero_division=0)
    aps = [
        float(reference.average_precision_score(truth[:, i], p[:, i])) if truth[:, i].any() else 0.0
        for i in range(len(TAGS))
    ]
    per_class = [
        {
            "label": label,
            "precision": float(a),
            "recall": float(b),
            "f1": float(c),
            "ap": ap,
            "support": int(d),
        }
        for label, a, b, c, d, ap in zip(TAGS, *each, aps, strict=True)
    ]
    scores = {"type": "multilabel", "labels": TAGS, "samples": int(known.sum())}
    for name, average in (("micro", "micro"), ("macro", "macro"), ("sample", "samples")):
        found = reference.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        scores |= {f"{name}_f1": float(found[2])}
        if name != "sample":
            scores |= {f"{name}_precision": float(found[0]), f"{name}_recall": float(found[1])}
    exact = float((truth == predicted).all(axis=1).mean())
    return cells, scores | {"exact_match": exact, "map": float(np.mean(aps)), "per_class": per_class}


def _joined(row: np.ndarray) -> str:
    return "|".join(label for label, there in zip(TAGS, row, strict=True) if there) or "|"


def _years(rng: np.random.Generator, rows: int) -> tuple[list[dict], dict]:
    truth = rng.uniform(16, 70, rows).round()
    predicted = truth + rng.normal(0, 5, rows) + (43 - truth) * 0.15
    known = np.arange(rows) % 7 != 3
    cells = [
        {"years": repr(p), "years_true": repr(t) if there else ""}
        for t, p, there in zip(truth.tolist(), predicted.tolist(), known.tolist(), strict=True)
    ]
    truth, predicted = truth[known], predicted[known]
    mse = float(reference.mean_squared_error(truth, predicted))
    mae, r2 = reference.mean_absolute_error(truth, predicted), reference.r2_score(truth, predicted)
    scores = {"mae": float(mae), "mse": mse, "rmse": mse**0.5, "r2": float(r2)}
    return cells, {"type": "regression", **scores, "samples": int(known.sum())}


def _taste(rng: np.random.Generator, rows: int) -> tuple[list[dict], dict]:
    """Queries of six rows."""
    truth = rng.choice(4, size=rows, p=[0.5, 0.25, 0.15, 0.1])
    predicted = truth + rng.normal(0, 1.2, rows)
    cells = [
        {"taste": repr(p), "taste_true": t} for t, p in zip(truth.tolist(), predicted.tolist(), strict=True)
    ]
    queries = [slice(k, k + 6) for k in range(0, rows - 5, 6) if truth[k : k + 6].any()]
    ndcg, at5 = (
        float(np.mean([reference.ndcg_score([truth[q]], [predicted[q]], k=k) for q in queries]))
        for k in (None, 5)
    )
    ap = [reference.average_precision_score(truth[q] > 0, predicted[q]) for q in queries]
    first = [next(k for k, i in enumerate(np.argsort(-predicted[q]), 1) if truth[q][i]) for q in queries]
    scores = {"mrr": float(np.mean(1 / np.array(first))), "ndcg": ndcg, "map": float(np.mean(ap))}
    scores |= {"ndcg_at_5": at5, "ndcg_at_10": ndcg, "queries": len(queries), "samples": rows}
    return cells, {"type": "ranking", **scores, "queries_without_relevant": rows // 6 - len(queries)}


def _add_to_config(run: Path, metric: str) -> None:
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    config["targets"] |= {
        "wear": {"column": "wear", "type": "ordinal", "labels": LEVELS},
        "tags": {"column": "tags", "type": "multilabel", "labels": TAGS, "separator": "|"},
        "years": {"column": "years", "type": "regression"},
        "taste": {"column": "taste", "type": "ranking", "query": "person"},
    }
    config["selection"]["metric"] = metric
    (run / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")


def _add_to_status(run: Path, rng: np.random.Generator, scores: dict) -> None:
    status = read(run, "status.json")
    data, valid = status["data"], status["data"]["valid"]
    for name, labels in (("wear", LEVELS), ("tags", TAGS)):
        support = {row["label"]: row["support"] for row in scores["targets"][name]["per_class"]}
        data["labels"][name] = [
            {"label": label, "train": 4 * support[label] + int(rng.integers(0, 9)), "valid": support[label]}
            for label in labels
        ]
    side = {"min": 16.0, "mean": 42.716, "max": 70.0, "known": 1008}
    data["values"] = {"years": {"train": side, "valid": side | {"mean": 43.125, "known": valid - valid // 7}}}
    data["queries"] = {"taste": {"train": 196, "valid": 49}}
    data["masked"] = {
        "wear": {"train": 131, "valid": valid - scores["targets"]["wear"]["samples"]},
        "tags": {"train": 104, "valid": valid - scores["targets"]["tags"]["samples"]},
        "years": {"train": 168, "valid": valid - scores["targets"]["years"]["samples"]},
        "taste": {"train": 0, "valid": 0},
    }
    write(run, "status.json", status)


def _add_to_history(run: Path, metric: str, value: float) -> None:
    """The selected metric comes nearer to its best value from the side that is worse; two epochs are frozen."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    best = read(run, "metrics.json")["epoch"]
    worse = 1.0 if metric.rpartition(".")[2] in ("mae", "rmse", "mse", "mae_levels") else -0.5
    for line in lines:
        distance = 0.0 if line["epoch"] == best else 0.02 + np.exp(-line["epoch"] / 5)
        line["valid"][metric] = value * (1 + worse * distance)
        line["target_weights"] = {
            name: float(np.exp(-(k - 2) * 0.02 * line["epoch"]))
            for k, name in enumerate(("mask", "wear", "tags", "years", "taste"))
        }
        if line["epoch"] <= 2:
            line["frozen"] = True
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "history.jsonl").write_text(text, encoding="utf-8")


def set_baselines(
    run: Path, metric: str, most_frequent: float, linear_probe: float | None, on: str = "pixels"
) -> None:
    found = {"metric": metric, "most_frequent": most_frequent, "linear_probe": linear_probe, "probe_on": on}
    write(run, "status.json", read(run, "status.json") | {"baselines": found})


if __name__ == "__main__":
    made = fabricate_kinds(
        Path(sys.argv[1]), metric=sys.argv[2] if len(sys.argv) > 2 else "wear.quadratic_kappa"
    )
    set_baselines(
        made, *(("years.mae", 13.4, 5.1) if len(sys.argv) > 2 else ("wear.quadratic_kappa", 0.0, 0.41))
    )
    print(made)
