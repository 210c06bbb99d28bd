"""Whether two finished runs ended in the same bytes."""

import json
from pathlib import Path
from typing import Any


def assert_same_end(one: Path, other: Path) -> None:
    """Weights, optimizer, predictions and scores are the same bytes; state and history differ in durations only."""
    assert differences(one, other) == ""


def differences(whole: Path, other: Path) -> str:
    """What of a finished run differs from the uninterrupted one; empty if nothing does."""
    checkpoints = sorted(path.name for path in (whole / "checkpoints").iterdir())
    if sorted(path.name for path in (other / "checkpoints").iterdir()) != checkpoints:
        return "other names in checkpoints/"
    found = [
        f"checkpoints/{name}/state.json"
        for name in checkpoints
        if _state_of(whole, name) != _state_of(other, name)
    ]
    files = [
        f"checkpoints/{name}/{part}.safetensors" for name in checkpoints for part in ("model", "training")
    ]
    files += ["predictions.csv", "metrics.json", "split.csv"]
    found += [
        file
        for file in files
        if not (other / file).exists() or (whole / file).read_bytes() != (other / file).read_bytes()
    ]
    if timeless_history(whole) != timeless_history(other):
        found.append("history.jsonl")
    ends = [json.loads((path / "status.json").read_text()) for path in (whole, other)]
    keys = ("state", "reason", "epoch", "update", "best", "data", "model", "baselines")
    found += [f"status.json: {key}" for key in keys if ends[0][key] != ends[1][key]]
    if not {"best", "last"} <= set(checkpoints) <= {"best", "finetuned", "first", "last"}:
        found.append("something else in checkpoints/")
    return ", ".join(found)


def timeless_history(run: Path) -> list[dict[str, Any]]:
    """history.jsonl without what a clock said."""
    return _timeless([json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()])


def _state_of(run: Path, name: str) -> Any:
    """A checkpoint's state.json without what a clock said."""
    state = json.loads((run / "checkpoints" / name / "state.json").read_text())
    state["progress"]["history"] = _timeless(state["progress"]["history"])
    return state


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]
