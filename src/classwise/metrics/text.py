"""Scores as text for a terminal."""

import unicodedata
from typing import Any


def metrics_text(metrics: dict[str, Any]) -> str:
    """The headline, and each target's scores class by class. `metrics` is as in metrics.json."""
    lines = [f"{metrics['metric']} {metrics['value']:.4f} on {metrics['samples']} rows"]
    parts = dict(metrics["targets"]) | ({"joint": metrics["joint"]} if "joint" in metrics else {})
    for name, scores in parts.items():
        lines += ["", f"{name}: macro F1 {scores['macro_f1']:.4f}, accuracy {scores['accuracy']:.4f}"]
        width = max(display_width(row["label"]) for row in scores["per_class"])
        lines.append(f"  {'':<{width}}  precision  recall      f1  rows")
        for row in scores["per_class"]:
            label = row["label"] + " " * (width - display_width(row["label"]))
            lines.append(
                f"  {label}  {row['precision']:>9.4f}  {row['recall']:.4f}  {row['f1']:.4f} {row['support']:>5}"
            )
    return "\n".join(lines)


def display_width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
