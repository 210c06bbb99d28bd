"""The one number at the top of the page: the selected metric, its interval, and the baselines it has to beat."""

from dataclasses import dataclass

from classwise.metrics.text import PROBES, SIMPLEST
from classwise.report.names import higher_is_better, interval_text, metric_name, number_text
from classwise.report.read import Json, RunFiles, count, ends, joint_title, kind_of, mapping, number


@dataclass(frozen=True)
class Best:
    """The selected metric at its best epoch: `metric` as the config names it, `value` None if unknown."""

    metric: str
    value: float | None
    epoch: int | None

    @property
    def name(self) -> str:
        return metric_name(self.key)

    @property
    def key(self) -> str:
        return self.metric.rpartition(".")[2]

    @property
    def target(self) -> str:
        return self.metric.rpartition(".")[0]


@dataclass(frozen=True)
class Baseline:
    """What costs next to nothing to reach. `beaten` is None where the run's own value is another metric's."""

    name: str
    text: str
    beaten: bool | None


@dataclass(frozen=True)
class Headline:
    """`text` is empty where the run directory records no score; `subject` where there is one target only."""

    name: str
    text: str
    interval: str
    subject: str
    lower: bool
    samples: int  # rows that it is taken over; 0 where they are not recorded
    baselines_of: str  # their metric, where it is not the headline's own
    baselines: list[Baseline]

    @property
    def unbeaten(self) -> list[str]:
        return [baseline.name for baseline in self.baselines if baseline.beaten is False]


def best_of(run: RunFiles) -> Best:
    """From metrics.json, which belongs to the best checkpoint; before there is one, from status.json."""
    status = mapping(run.status.get("best"))
    configured = mapping(run.config.get("selection")).get("metric")
    metric = run.metrics.get("metric") or status.get("metric") or configured or "macro_f1"
    source = run.metrics if number(run.metrics.get("value")) is not None else status
    epoch = number(source.get("epoch"))
    return Best(str(metric), number(source.get("value")), None if epoch is None else int(epoch))


def headline(run: RunFiles, best: Best) -> Headline:
    """The best value as text, with what stands beside and beneath it."""
    kind = kind_of(run, target := target_of(run, best.metric))
    own = mapping(run.metrics.get("joint")) if target == "joint" else _scores(run, target)
    found = ends(mapping(own.get("intervals")).get(best.key))
    of, baselines = _baselines(run, best)
    return Headline(
        name=metric_name(best.key, kind),
        text=number_text(best.key, best.value) if best.value is not None else "",
        interval=interval_text(best.key, best.value, found) if best.value is not None and found else "",
        subject=subject(run, best),
        lower=not higher_is_better(best.key),
        samples=count(own.get("samples")) or count(run.metrics.get("samples")),
        baselines_of=of,
        baselines=baselines,
    )


def subject(run: RunFiles, best: Best) -> str:
    """What the selected metric is taken over: the joint class, or a target. Empty if there is one target only."""
    has_joint = bool(run.config.get("joint") or run.metrics.get("joint"))
    if best.target and best.target != "joint":
        return best.target
    return joint_title(run) if has_joint else ""


def target_of(run: RunFiles, metric: str) -> str:
    """The target that `metric` is taken over, which the config may leave out: the joint class, or the only one."""
    named = metric.rpartition(".")[0]
    if named or run.config.get("joint") or run.metrics.get("joint"):
        return named or "joint"
    targets = [*(mapping(run.metrics.get("targets")) or mapping(run.config.get("targets")))]
    return targets[0] if len(targets) == 1 else ""


def _scores(run: RunFiles, target: str) -> Json:
    return mapping(mapping(run.metrics.get("targets")).get(target))


def _baselines(run: RunFiles, best: Best) -> tuple[str, list[Baseline]]:
    """The baselines' metric where it needs saying, and those of the two that status.json has a value of."""
    recorded = mapping(run.status.get("baselines"))
    metric = str(recorded.get("metric") or best.metric)
    target, key = target_of(run, metric), metric.rpartition(".")[2]
    same = key == best.key and target == target_of(run, best.metric)
    kind = kind_of(run, target)
    probe = f"{PROBES.get(kind, 'linear probe')} on {recorded.get('probe_on') or 'features'}"
    names = {"most_frequent": SIMPLEST.get(kind, SIMPLEST["class"]), "linear_probe": probe}
    found = [(name, value) for at, name in names.items() if (value := number(recorded.get(at))) is not None]
    own = best.value if same else None
    whose = subject(run, Best(metric, None, None))
    of = "" if own is not None else f"{metric_name(key, kind)}{f' of {whose}' if whose else ''}"
    return of, [Baseline(name, number_text(key, value), _beats(own, value, key)) for name, value in found]


def _beats(own: float | None, baseline: float, key: str) -> bool | None:
    """Equal is not better."""
    if own is None:
        return None
    return own > baseline if higher_is_better(key) else own < baseline
