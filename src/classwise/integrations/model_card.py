"""The model card of a run: what it was trained on, how good it is on which rows, and what it is not good at."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from classwise.own_parts.reference import is_own
from classwise.report.names import interval_text, metric_name, number_text

IMAGE_CLASSIFICATION = "image-classification"
SCORES = {
    "class": ("macro_f1", "accuracy", "balanced_accuracy"),
    "ordinal": ("macro_f1", "accuracy", "mae_levels"),
    "multilabel": ("macro_f1", "micro_f1", "exact_match"),
    "regression": ("mae", "r2"),
    "ranking": ("ndcg", "mrr"),
}
"""Which scores a card has, by type of target, the main one first."""
HUB_METRICS = {"macro_f1": ("f1", "macro"), "micro_f1": ("f1", "micro")}
"""What the hub calls a score, with its configuration; the others have the same name there."""
WORST = 5
"""So many classes are named as those that the model is worst at."""
MOST_CLASSES = 50
"""So many classes have a row of their own in the table."""


@dataclass(frozen=True)
class CardNotes:
    """What only the user can say: the license (as the hub names it), what the rows are, further tags, the language of
    the card, and a paragraph of their own."""

    license: str | None = None
    dataset: str | None = None
    tags: Sequence[str] = ()
    language: str | None = None
    description: str = ""


def model_card(
    repo: str,
    config: Mapping[str, Any],
    status: Mapping[str, Any],
    metrics: Mapping[str, Any],
    notes: CardNotes,
    code: Sequence[str] = (),
) -> str:
    """README.md for the repository `repo`, from config.toml (as a tree), status.json and metrics.json. `code`: names of
    files of the run's own code, if any."""
    backbone = str(config["model"]["backbone"])
    data = ModelCardData(
        license=notes.license,
        language=notes.language,
        library_name="classwise",
        pipeline_tag=_pipeline_tag(metrics),
        tags=["classwise", *([] if is_own(backbone) else [backbone.partition(".")[0]]), *notes.tags],
        model_name=repo.partition("/")[2],
        eval_results=list(_eval_results(metrics, notes.dataset)) or None,
    )
    sections = [
        f"# {_text(repo.partition('/')[2])}",
        _beginning(config, status),
        notes.description,
        "## How to use it\n\n" + _use(repo, code),
        "## What it was trained on\n\n" + _rows(status, notes.dataset),
        "## How good it is\n\n" + _scores(metrics),
        _worst(metrics),
        "## How images reach it\n\n" + _images(config),
    ]
    text = "\n\n".join(section.strip() for section in sections if section.strip())
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def _pipeline_tag(metrics: Mapping[str, Any]) -> str | None:
    types = {target["type"] for target in metrics["targets"].values()}
    return IMAGE_CLASSIFICATION if types & {"class", "ordinal", "multilabel"} else None


def _eval_results(metrics: Mapping[str, Any], dataset: str | None) -> Iterator[EvalResult]:
    """The entries of the model index: the card's scores, of the validation and of the test rows."""
    for split, scored in _splits(metrics):
        for name, target in scored["targets"].items():
            for key in SCORES[target["type"]]:
                value = target.get(key)
                if value is None:
                    continue
                metric, setting = HUB_METRICS.get(key, (key, None))
                yield EvalResult(
                    task_type=IMAGE_CLASSIFICATION,
                    task_name=f"{name}: {target['type']}",
                    dataset_type=re.sub(r"\W+", "-", dataset or "unnamed").strip("-").lower() or "unnamed",
                    dataset_name=dataset or "rows that are not published",
                    dataset_config=name,
                    dataset_split=split,
                    metric_type=metric,
                    metric_config=setting,
                    metric_name=f"{metric_name(key, target['type'])} of {name}",
                    metric_value=round(float(value), 6),
                )


def _splits(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The scores by the hub's names of the splits, those that have a labeled row."""
    found = [("validation", metrics), ("test", metrics.get("test") or {"targets": {}})]
    return [(split, scored) for split, scored in found if any(map(_samples, scored["targets"].values()))]


def _samples(target: Mapping[str, Any]) -> int:
    return int(target.get("samples") or 0)


def _beginning(config: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    model = status["model"]
    height, width = model["image_size"]
    started = {"none": "from random weights", "pretrained": "from pretrained weights"}
    weights = model["weights"]
    origin = started.get(
        weights,
        "from the weights " + _code(weights) if weights.startswith("package:") else "from other weights",
    )
    kinds = [f"{_code(name)} ({target['type']})" for name, target in config["targets"].items()]
    return (
        f"{_code(model['backbone'])} for images of {height} x {width} px with {model['parameters']:,} parameters,"
        f" trained with classwise {_text(status['environment']['classwise'])} {origin}. It predicts"
        f" {', '.join(kinds)}."
    )


def _use(repo: str, code: Sequence[str]) -> str:
    lines = [
        "```python",
        "import classwise",
        "",
        f'run = classwise.from_hub("{repo}")',
        'run.predict("folder of images")        # a table: id, labels, probabilities',
        f'model = classwise.load("hf://{repo}")  # a plain torch.nn.Module with its transform',
        "```",
        "",
        "The weights are safetensors; nothing is unpickled, and the files' SHA-256 are checked when they are opened.",
    ]
    if code:
        lines += [
            "",
            f"It has code of its own ({', '.join(map(_code, code))}): read it, then name it in `trust`.",
        ]
    return "\n".join(lines)


def _rows(status: Mapping[str, Any], dataset: str | None) -> str:
    """The number of rows of each split and of each label."""
    data = status["data"]
    counts = {split: data.get(split) or 0 for split in ("train", "valid", "test")}
    said = [f"{counts['train']:,} rows to train on, {counts['valid']:,} that chose the epoch"]
    said += [f"{counts['test']:,} that chose nothing"] if counts["test"] else []
    parts = [f"{_text(dataset)}: {', '.join(said)}." if dataset else f"{', '.join(said)}."]
    splits = [split for split, count in counts.items() if count]
    for name, labels in (data.get("labels") or {}).items():
        rows = [[_text(row["label"]), *(f"{row.get(split, 0):,}" for split in splits)] for row in labels]
        parts.append(_table([_text(name), *splits], rows[:MOST_CLASSES]))
        if len(rows) > MOST_CLASSES:
            parts.append(f"and {len(rows) - MOST_CLASSES} labels more (labels.json).")
    return "\n\n".join(parts)


def _scores(metrics: Mapping[str, Any]) -> str:
    """A table of the scores, with 95% intervals where there are any, and which rows they are of."""
    rows = []
    for split, scored in _splits(metrics):
        for name, target in scored["targets"].items():
            for key in SCORES[target["type"]]:
                if target.get(key) is None:
                    continue
                ends = (target.get("intervals") or {}).get(key)
                rows.append(
                    [
                        _text(name),
                        metric_name(key, target["type"]),
                        number_text(key, target[key]),
                        interval_text(key, target[key], ends) if ends else "—",
                        f"{_samples(target):,} {split}",
                    ]
                )
    if not rows:
        return "All rows were trained on, so there is no score."
    text = _table(["target", "score", "value", "95% interval", "rows"], rows)
    text += "\n\nThe validation rows also chose the epoch that was kept, which favors their scores"
    corrected = (metrics.get("selection") or {}).get("corrected")
    if corrected is not None:
        name = metric_name(str(metrics["metric"]))
        text += f": {name} corrected for that choice is {number_text(str(metrics['metric']), corrected)}"
    return text + "."


def _worst(metrics: Mapping[str, Any]) -> str:
    """The classes with the lowest F1, by target, of the test rows where there are some."""
    scored = _splits(metrics)
    if not scored:
        return ""
    split, last = scored[-1]
    parts = []
    for name, target in last["targets"].items():
        classes = [row for row in target.get("per_class") or () if row.get("support")]
        worst = sorted(classes, key=lambda row: row["f1"])[:WORST]
        rows = [
            [
                _text(row["label"]),
                *(number_text("f1", row[key]) for key in ("f1", "precision", "recall")),
                f"{row['support']:,}",
            ]
            for row in worst
            if row["f1"] < 1
        ]
        if rows:
            parts.append(_table([_text(name), "F1", "precision", "recall", f"{split} rows"], rows))
    return "## What it is not good at\n\n" + "\n\n".join(parts) if parts else ""


def _images(config: Mapping[str, Any]) -> str:
    model = config["model"]
    height, width = model["image_size"]
    ways = {
        "squash": "squashed to that size",
        "crop": "the largest middle part of that shape",
        "pad": "padded with gray to that shape",
    }
    return (
        f"Upright as EXIF says, transparent parts over white, {model['channels']} channels of 8 bits, {height} x"
        f" {width} px: {ways[model['fit']]}. `run.predict` and `model.transform` do this; another program's resizing"
        " gives other answers."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: object) -> str:
    """Text that cannot be markup or leave its cell: labels are what users' tables hold."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]#|!~])", r"\\\1", html.escape(line, quote=False))


def _code(value: object) -> str:
    return "`" + " ".join(str(value).replace("`", "'").replace("|", "/").split()) + "`"
