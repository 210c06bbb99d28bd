"""The figures of small_data.py, computed from its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from imbalance import gain_text, interval_text
from over_seeds import difference, estimate

PEERS = ("lightning", "hf", "fastai", "timm")
CORES = 2  # of the runs whose times count
TIMED = ("first", "whole", "memory")
RARE_SETS = ("tiles", "tiles-tenth", "tiles-rows", "tiles-rows-tenth")

Record = dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """Which records a table is about: a peer's with these epochs, at this size where one is given."""

    epochs: int
    size: int | None = None

    def has(self, record: Record) -> bool:
        if "error" in record:
            return False
        is_own = record["epochs"] is None or record["epochs"] == self.epochs
        return is_own and (self.size is None or record["size"] in (None, self.size))


class Results:
    """Records by data set, trainer and split; of two with the same, the later one."""

    def __init__(self, records: Sequence[Record], selection: Selection) -> None:
        self.found: dict[str, dict[str, dict[int, Record]]] = {}
        self.timed: dict[str, dict[str, dict[int, Record]]] = {}
        for record in filter(selection.has, records):
            for all_sets in (self.found, self.timed) if record["cores"] == CORES else (self.found,):
                of_set = all_sets.setdefault(record["set"], {})
                of_set.setdefault(record["trainer"], {})[record["split"]] = record

    def values(self, name: str, trainer: str, key: str) -> dict[int, float]:
        """By split; without splits whose value is unknown."""
        records = (self.timed if key in TIMED else self.found).get(name, {}).get(trainer, {})
        return {split: r[key] for split, r in records.items() if r[key] is not None}

    def trainers(self, name: str) -> list[str]:
        """classwise first, then the peers, then the script with scikit-learn."""
        order = {trainer: place for place, trainer in enumerate((*PEERS, "logistic"))}
        return sorted(self.found.get(name, {}), key=lambda trainer: (order.get(trainer, -1), trainer))

    def best_peer(self, name: str) -> str | None:
        """The peer with the highest mean macro F1."""
        means = {peer: mean(self.values(name, peer, "macro_f1")) for peer in PEERS}
        known = {peer: value for peer, value in means.items() if value is not None}
        return max(known, key=known.__getitem__) if known else None

    def ratio(self, name: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        """The median over splits of the ratio of two (trainer, key), or None where no split has both."""
        ours, theirs = self.values(name, *one), self.values(name, *other)
        both = [ours[split] / theirs[split] for split in ours.keys() & theirs.keys()]
        return median(both) if both else None


def mean(values: Mapping[int, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def set_table(results: Results, name: str) -> list[str]:
    """Markdown: every trainer on one data set; gains are paired by split, times and memory are medians."""
    rarest = next(
        record["rarest"] for by_split in results.found[name].values() for record in by_split.values()
    )
    lines = [
        f"| trainer | macro F1 | 95 % | splits | over the best peer | over logistic | F1 of {rarest} |"
        " first model, s | whole, s | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    best = results.best_peer(name)
    for trainer in results.trainers(name):
        scores = results.values(name, trainer, "macro_f1")
        own = estimate(list(scores.values()))
        assert own is not None
        cells = [
            f"{trainer} (best peer)" if trainer == best else trainer,
            f"{own.mean:.3f}",
            interval_text(own),
            ", ".join(f"{value:.3f}" for _, value in sorted(scores.items())),
            gain(results, name, trainer, best),
            gain(results, name, trainer, "logistic"),
            _text(mean(results.values(name, trainer, "rarest_f1")), "{:.3f}"),
            *(_median(results.values(name, trainer, key), 1) for key in ("first", "whole")),
            _median(results.values(name, trainer, "memory"), 1e-6),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def figures_table(results: Results, names: Sequence[str], ours: str) -> list[str]:
    """Markdown: what classwise is to reach, one line for each data set."""
    lines = [
        "| data | macro F1 | best peer | over it | over logistic | F1 of the rarest class over the best peer |"
        " first answer / logistic | whole / lightning | memory / lightning |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in names if results.values(name, ours, "macro_f1")):
        best = results.best_peer(name)
        rare = gain(results, name, ours, best, "rarest_f1") if name in RARE_SETS else ""
        cells = [
            name,
            _text(mean(results.values(name, ours, "macro_f1")), "{:.3f}"),
            best or "",
            gain(results, name, ours, best),
            gain(results, name, ours, "logistic"),
            rare,
            _text(results.ratio(name, (ours, "first"), ("logistic", "first")), "{:.2f}"),
            _text(results.ratio(name, (ours, "whole"), ("lightning", "whole")), "{:.2f}"),
            _text(results.ratio(name, (ours, "memory"), ("lightning", "memory")), "{:.2f}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def gain(results: Results, name: str, one: str, other: str | None, key: str = "macro_f1") -> str:
    """`+0.012 (-0.022 to 0.045)`: the mean difference over the splits of both, with Student's interval."""
    if other is None or one == other:
        return ""
    return gain_text(difference(results.values(name, one, key), results.values(name, other, key)))


def _median(values: Mapping[int, float], factor: float) -> str:
    return _text(median(values.values()) * factor if values else None, "{:.0f}" if factor < 1 else "{:.1f}")


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
