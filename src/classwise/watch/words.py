"""Numbers, durations and small charts of a watched run, as text."""

from collections.abc import Sequence

from classwise.watch.snapshot import Snapshot

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
STATE_WORDS = {
    "waiting": "waiting for it to begin",
    "preparing": "preparing",
    "running": "running",
    "finished": "finished",
    "early_stopped": "stopped early",
    "interrupted": "interrupted",
    "failed": "failed",
    "killed": "killed",
    "silent": "no sign of life",
}


def duration(seconds: float) -> str:
    """`41 s`, `12 min 5 s`, `3 h 20 min`, `2 days 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def about(seconds: float) -> str:
    """A duration in its largest unit, for what is only estimated: `41 s`, `12 min`, `3.3 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(number: float) -> str:
    """Bytes as `812 MB` or `3.4 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def sparkline(values: Sequence[float], width: int, plain: bool = False) -> str:
    """The values from left to right, the lowest as the lowest bar; few values have wider bars. More values than `width`
    are thinned out: the last one is always there."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    values = [value for value in values for _ in range(min(3, width // len(values)))]
    bars = ASCII_BARS if plain else BARS
    low, high = min(values), max(values)
    span = high - low
    return "".join(bars[int((value - low) / span * (len(bars) - 1) + 0.5) if span else 0] for value in values)


def doing(snapshot: Snapshot) -> str:
    """`epoch 3 of 12, 40 of 120 updates`, or what the run does otherwise."""
    progress = snapshot.progress
    epoch = min(snapshot.epochs_done + 1, snapshot.epochs or snapshot.epochs_done + 1)
    of = f" of {snapshot.epochs}" if snapshot.epochs else ""
    if not progress:
        return f"epoch {epoch}{of}"
    what = str(progress.get("doing", ""))
    if what == "training":
        done, total = progress.get("update_in_epoch", 0), progress.get("updates_per_epoch", 0)
        return f"epoch {progress.get('epoch', epoch)}{of}, {done} of {total} updates"
    return f"epoch {progress.get('epoch', epoch)}{of}, {what}" if what == "validating" else what


def facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Learning rate, loss of the epoch so far, images a second and memory, as far as they are known."""
    last = snapshot.history[-1] if snapshot.history else {}
    progress = snapshot.progress
    found = []
    if (rate := progress.get("lr", last.get("lr"))) is not None:
        found.append(("lr", f"{rate:.2e}"))
    if progress.get("loss") is not None:
        found.append(("loss in this epoch", f"{progress['loss']:.4f}"))
    if speed := progress.get("images_per_second") or last.get("images_per_second"):
        found.append(("images/s", f"{speed:,.0f}"))
    memory = progress.get("memory")
    for name, number in (memory if isinstance(memory, dict) else {}).items():
        found.append(("GPU memory" if name == "gpu" else "memory", size(number)))
    return found


def number(value: float) -> str:
    """A score in four decimals, a large or tiny one in four digits."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"
