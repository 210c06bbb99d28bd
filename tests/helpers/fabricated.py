"""A made-up run directory in the layout of a real one: three targets, an 18-class joint, Korean labels.

The predictions are drawn first; the metrics and counts are then counted from them with plain loops, so that the
page can be held against numbers that the report's code had no part in. `python fabricated.py DIR` writes one.
"""

import csv
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tomli_w
from PIL import Image, ImageDraw

LABELS = {
    "mask": ["착용", "잘못 착용", "미착용"],
    "gender": ["남성", "여성"],
    "age": ["<30", "30 to <60", ">=60"],
}
# Per person five images with a mask, one worn wrongly, one without; few people of 60.
SHARES = {"mask": [5 / 7, 1 / 7, 1 / 7], "gender": [0.39, 0.61], "age": [0.47, 0.46, 0.07]}
ACCURACY = {"mask": 0.97, "gender": 0.9, "age": 0.8}


@dataclass(frozen=True)
class Row:
    id: str
    group: str
    split: str
    path: str
    truth: dict[str, int]
    predicted: dict[str, int] = field(default_factory=dict)
    probabilities: dict[str, list[float]] = field(default_factory=dict)


def fabricate_run(
    folder: Path,
    *,
    people: int = 210,
    epochs: int = 30,
    labels: dict[str, list[str]] | None = None,
    state: str = "finished",
    images: bool = True,
    metrics: bool = True,
    name: str = "마스크 분류",
) -> Path:
    """Writes a run directory into `folder`/run, its images into `folder`/images, and returns the former."""
    labels = labels or LABELS
    run = folder / "run"
    run.mkdir(parents=True)
    rng = np.random.default_rng(7)
    rows = _rows(rng, people, labels)
    valid = [row for row in rows if row.split == "valid"]
    joint = _joint(labels, list(labels))
    scores = _metrics(valid, labels, joint, best_epoch := max(1, round(epochs * 0.8)))
    write_config(run, folder / "images", labels, name, epochs, joint=len(labels) > 1)
    with (run / "split.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "group", "split", "path"])
        table.writerows([row.id, row.group, row.split, row.path] for row in rows)
    history = _history(rng, epochs, scores, best_epoch)
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")
    status = _status(rows, labels, joint, state, epochs, scores)
    (run / "status.json").write_text(json.dumps(status, ensure_ascii=False, indent=2), encoding="utf-8")
    (run / "log.txt").write_text(_log(history), encoding="utf-8")
    if metrics:
        (run / "metrics.json").write_text(json.dumps(scores, ensure_ascii=False), encoding="utf-8")
        _write_predictions(run / "predictions.csv", valid, labels, joint)
    if images:
        for row in valid:
            draw_face(folder / "images" / row.path, row.truth, rng)
    return run


def write_config(
    run: Path, images: Path, labels: dict[str, list[str]], name: str, epochs: int, joint: bool
) -> None:
    config = {
        "seed": 42,
        "name": name,
        "data": {
            "source": str(images.parent / "samples.csv"),
            "images": str(images),
            "path": "path",
            "id": "id",
            "group": "person",
            "valid": 0.2,
            "augment": "light",
            "sampling": "shuffle",
            "bad_images": "skip",
        },
        "targets": {t: {"column": t, "type": "class", "labels": names} for t, names in labels.items()},
        "model": {"backbone": "resnet18", "weights": "pretrained", "image_size": [128, 96]},
        "loss": {"name": "focal", "gamma": 2.0, "label_smoothing": 0.1},
        "optimizer": {"name": "adamp", "lr": 1e-3, "weight_decay": 1e-2},
        "schedule": {"name": "cosine", "warmup_epochs": 2},
        "training": {"epochs": 30, "batch_size": 32, "accumulate": 2, "clip_norm": 1.0, "precision": "fp32"},
        "selection": {"metric": "macro_f1", "patience": 10},
    }
    if joint:
        config["joint"] = {"targets": list(labels)}
    (run / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")


def _rows(rng: np.random.Generator, people: int, labels: dict[str, list[str]]) -> list[Row]:
    """Seven images a person, every fifth person in validation. With three classes in the first target,
    five images are of the first of them and one of each other, as in the face-mask competition."""
    rows = []
    for person in range(people):
        fixed = {t: int(rng.choice(len(names), p=_shares(t, len(names)))) for t, names in labels.items()}
        for image in range(7):
            truth = dict(fixed)
            first = next(iter(labels))
            if len(labels[first]) == 3:
                truth[first] = max(0, image - 4)
            split = "valid" if person % 5 == 2 else "train"
            group = f"{person:06d}-1"
            path = f"{group}/{'mask' if image < 5 else 'normal'}{image}.jpg"
            probabilities = {t: _probabilities(rng, t, truth[t], len(names)) for t, names in labels.items()}
            predicted = {t: int(np.argmax(p)) for t, p in probabilities.items()}
            rows.append(Row(f"{group}_{image}", group, split, path, truth, predicted, probabilities))
    return rows


def _shares(target: str, classes: int) -> list[float]:
    shares = SHARES.get(target, [])
    if len(shares) == classes:
        return shares
    tail = [0.6**k for k in range(classes)]
    return [share / sum(tail) for share in tail]


def _probabilities(rng: np.random.Generator, target: str, truth: int, classes: int) -> list[float]:
    """The right class, or a neighbor of it, gets the largest part; rare (late) classes are harder."""
    right = ACCURACY.get(target, 0.85) - 0.25 * (truth == classes - 1 and target == "age")
    wrong_turn = truth + (1 if truth + 1 < classes and rng.random() < 0.7 else -1)
    top = truth if rng.random() < right else max(0, wrong_turn)
    values = rng.dirichlet(np.ones(classes)) * rng.uniform(0.05, 0.9)
    values[top] += 1.0
    return [round(float(value), 6) for value in values / values.sum()]


def _joint(labels: dict[str, list[str]], targets: list[str]) -> list[str]:
    names = [""]
    for target in targets:
        names = [f"{name} / {label}".removeprefix(" / ") for name in names for label in labels[target]]
    return names


def joint_number(answers: dict[str, int], labels: dict[str, list[str]]) -> int:
    number = 0
    for target, names in labels.items():
        number = number * len(names) + answers[target]
    return number


def score(truth: list[int], predicted: list[int], names: list[str]) -> dict[str, object]:
    """The contract's metrics of a class target, by plain counting."""
    size = len(names)
    confusion = [[0] * size for _ in names]
    for t, p in zip(truth, predicted, strict=True):
        confusion[t][p] += 1
    per_class = []
    for k, label in enumerate(names):
        hit, support = confusion[k][k], sum(confusion[k])
        taken = sum(row[k] for row in confusion)
        precision, recall = hit / taken if taken else 0.0, hit / support if support else 0.0
        f1 = 2 * hit / (taken + support) if taken + support else 0.0
        per_class.append(
            {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": support}
        )
    total = max(1, len(truth))

    def mean(key: str) -> float:
        return sum(row[key] for row in per_class) / size

    return {
        "type": "class",
        "labels": names,
        "accuracy": sum(confusion[k][k] for k in range(size)) / total,
        "balanced_accuracy": mean("recall"),
        "macro_f1": mean("f1"),
        "macro_precision": mean("precision"),
        "macro_recall": mean("recall"),
        "weighted_f1": sum(row["f1"] * row["support"] for row in per_class) / total,
        "per_class": per_class,
        "confusion": confusion,
    }


def _metrics(
    valid: list[Row], labels: dict[str, list[str]], joint: list[str], epoch: int
) -> dict[str, object]:
    targets = {
        t: score([row.truth[t] for row in valid], [row.predicted[t] for row in valid], names)
        for t, names in labels.items()
    }
    found: dict[str, object] = {
        "metric": "macro_f1",
        "epoch": epoch,
        "samples": len(valid),
        "targets": targets,
    }
    best = next(iter(targets.values()))
    if len(labels) > 1:
        truth = [joint_number(row.truth, labels) for row in valid]
        best = score(truth, [joint_number(row.predicted, labels) for row in valid], joint)
        found["joint"] = best
    return found | {"value": best["macro_f1"]}


def _history(rng: np.random.Generator, epochs: int, scores: dict, best_epoch: int) -> list[dict[str, object]]:
    """Curves that rise and level off, with the stored best value exactly at the best epoch."""
    lines = []
    for epoch in range(1, epochs + 1):
        grown = (1 - np.exp(-epoch / 6)) / (1 - np.exp(-best_epoch / 6))
        factor = 1.0 if epoch == best_epoch else min(grown, 1.0) * rng.uniform(0.93, 0.995)
        valid = {"macro_f1": scores["value"] * factor, "loss": 0.5 + 1.1 * np.exp(-epoch / 5) + 0.004 * epoch}
        for target, found in (scores["targets"] | {"joint": scores.get("joint", {})}).items():
            for key in ("macro_f1", "accuracy"):
                if key in found:
                    valid[f"{target}.{key}"] = found[key] * factor
        lr = 1e-3 * epoch / 2 if epoch <= 2 else 5e-4 * (1 + np.cos(np.pi * (epoch - 2) / max(1, epochs - 2)))
        lines.append(
            {
                "epoch": epoch,
                "update": epoch * 18,
                "lr": lr,
                "train_loss": 0.3 + 1.4 * np.exp(-epoch / 6) + rng.uniform(0, 0.03),
                "valid": valid,
                "seconds": 3.1 + rng.uniform(0, 0.2),
                "images_per_second": 380 + rng.uniform(0, 20),
            }
        )
    return lines


def _status(
    rows: list[Row], labels: dict[str, list[str]], joint: list[str], state: str, epochs: int, scores: dict
) -> dict[str, object]:
    sides = {side: [row for row in rows if row.split == side] for side in ("train", "valid")}
    counts = {
        side: {t: Counter(row.truth[t] for row in part) for t in labels} for side, part in sides.items()
    }
    joint_counts = {
        side: Counter(joint_number(row.truth, labels) for row in part) for side, part in sides.items()
    }
    reasons = {
        "early_stopped": "macro F1 has not risen for 10 epochs",
        "interrupted": "stopped by SIGINT",
        "failed": "the loss is not a finite number",
    }
    data = {
        "rows": len(rows),
        "train": len(sides["train"]),
        "valid": len(sides["valid"]),
        "bad_images": [
            {"path": "000017-1/mask3.jpg", "reason": "cut short: 812 bytes of a JPEG that declares more"},
            {
                "path": "사진 ‘새 폴더’/normal.png",
                "reason": "100000 x 100000 pixels; at most 100000000 are read",
            },
        ],
        "labels": {
            t: [
                {"label": label, "train": counts["train"][t][k], "valid": counts["valid"][t][k]}
                for k, label in enumerate(names)
            ]
            for t, names in labels.items()
        },
        "joint": {
            "labels": joint,
            "train": [joint_counts["train"][k] for k in range(len(joint))],
            "valid": [joint_counts["valid"][k] for k in range(len(joint))],
        }
        if len(labels) > 1
        else None,
        "groups": {side: len({row.group for row in part}) for side, part in sides.items()},
        "warnings": ["age: the class '>=60' has fewer than 100 training rows"],
    }
    return {
        "state": state,
        "reason": reasons.get(state, ""),
        "epoch": epochs,
        "update": epochs * 18,
        "best": {"metric": "macro_f1", "value": scores["value"], "epoch": scores["epoch"]},
        "started": "2026-03-02T09:41:07+09:00",
        "seconds": 3.3 * epochs,
        "data": data,
        "environment": {
            "python": "3.11.9",
            "torch": "2.15.0",
            "classwise": "0.1.0",
            "platform": "Linux-6.8.0-x86_64-with-glibc2.39",
            "device": "cpu",
            "threads": 2,
            "precision": "fp32",
        },
        "model": {"backbone": "resnet18", "parameters": 11180616, "image_size": [128, 96]},
    }


def _write_predictions(path: Path, valid: list[Row], labels: dict[str, list[str]], joint: list[str]) -> None:
    header = ["id"]
    for target, names in labels.items():
        header += [target, f"{target}_true", *(f"{target}_p_{label}" for label in names)]
    header += ["joint", "joint_true", "joint_p"] if len(labels) > 1 else []
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in valid:
            cells: list[object] = [row.id]
            for target, names in labels.items():
                cells += [names[row.predicted[target]], names[row.truth[target]], *row.probabilities[target]]
            if len(labels) > 1:
                share = np.prod([row.probabilities[t][row.predicted[t]] for t in labels])
                cells += [
                    joint_number(row.predicted, labels),
                    joint_number(row.truth, labels),
                    round(share, 6),
                ]
            table.writerow(cells)


def _log(history: list[dict]) -> str:
    return "".join(f"epoch {line['epoch']:>3}  loss {line['train_loss']:.4f}\n" for line in history)


def draw_face(path: Path, truth: dict[str, int], rng: np.random.Generator) -> None:
    """A simple drawn face of 192 x 256 pixels; what it shows does not matter to the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tint = tuple(int(v) for v in rng.integers(150, 230, 3))
    skin = (int(rng.integers(190, 245)), int(rng.integers(150, 200)), int(rng.integers(120, 170)))
    image = Image.new("RGB", (192, 256), tint)
    draw = ImageDraw.Draw(image)
    draw.ellipse((36, 40, 156, 216), fill=skin)
    for x in (72, 120):
        draw.ellipse((x - 9, 104, x + 9, 116), fill="white")
        draw.ellipse((x - 4, 105, x + 4, 115), fill=(40, 30, 30))
    draw.arc((74, 150, 118, 186), 20, 160, fill=(150, 60, 60), width=4)
    answer = next(iter(truth.values()))
    if answer < 2:
        top = 132 if answer == 0 else 172
        draw.rounded_rectangle((54, top, 138, top + 64), 18, fill=(225, 236, 245))
    image.save(path, quality=85)


if __name__ == "__main__":
    print(fabricate_run(Path(sys.argv[1])))
