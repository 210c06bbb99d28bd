"""The number at the top of the page: the selected metric on the test rows or, without these, on the validation rows;
its confidence interval, and the baselines to beat."""

from dataclasses import dataclass

from classwise.metrics.names import class_score, is_combined, split_metric
from classwise.metrics.scores import AT_PRIOR
from classwise.metrics.selection_text import inference_text, plan_text, selection_text
from classwise.metrics.text import PROBES, SIMPLEST
from classwise.report.names import higher_is_better, interval_text, metric_name, number_text
from classwise.report.read import Json, RunFiles, count, ends, joint_title, kind_of, listing, mapping, number


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
        return split_metric(self.metric)[1]

    @property
    def target(self) -> str:
        return split_metric(self.metric)[0]


@dataclass(frozen=True)
class Baseline:
    """A score that a trivial model reaches. `beaten` is None where the run has no value of the same metric."""

    name: str
    text: str
    beaten: bool | None


@dataclass(frozen=True)
class Headline:
    """`text` is empty where the run directory records no score; `subject` where there is only one target."""

    name: str
    text: str
    interval: str
    no_interval: str  # why there is none
    subject: str
    prior: str  # the class shares of the score, where they are not those of the rows
    lower: bool
    parts: list[tuple[str, str]]  # what each target enters a mean with, as `macro F1 of colour` and its value
    samples: int  # rows behind the score; 0 where they are not recorded
    is_test: bool  # else of the validation rows
    validation: str  # the value on the validation rows
    inference: str  # how the predictions were made, where it is not plainly
    plan: str  # which of the first answer and the fine-tuned model was kept; empty where there was no choice
    selection: str  # what the choice of the epoch does to that value; empty if no epoch was chosen
    baselines_of: str  # the metric of the baselines, where it is not the headline's own
    baselines: list[Baseline]
    is_final: bool  # False while the run goes on: what it does not beat yet it may beat in the end

    @property
    def unbeaten(self) -> list[str]:
        """The baselines that the run does not beat; none while it goes on."""
        return [baseline.name for baseline in self.baselines if self.is_final and baseline.beaten is False]


def best_of(run: RunFiles) -> Best:
    """From metrics.json, which belongs to the best checkpoint; before there is one, from status.json."""
    status = mapping(run.status.get("best"))
    configured = mapping(run.config.get("selection")).get("metric")
    metric = run.metrics.get("metric") or status.get("metric") or configured or "macro_f1"
    source = run.metrics if number(run.metrics.get("value")) is not None else status
    epoch = number(source.get("epoch"))
    return Best(str(metric), number(source.get("value")), None if epoch is None else int(epoch))


def headline(run: RunFiles, best: Best) -> Headline:
    """The value as text, with everything that is shown beside and below it."""
    target = target_of(run, best.metric)
    test = mapping(run.metrics.get("test"))
    is_test = number(test.get("value")) is not None
    metrics = test if is_test else run.metrics
    value = number(test.get("value")) if is_test else best.value
    scores = mapping(metrics.get("joint")) if target == "joint" else _scores(metrics, target)
    text = interval = no_interval = ""
    if value is not None:
        text = number_text(best.key, value)
        scored, key = _scored_part(scores, best.key)
        limits = ends(mapping(scored.get("intervals")).get(key))
        interval = interval_text(best.key, value, limits) if limits else ""
        no_interval = str(mapping(scored.get("no_interval")).get(key, ""))
        if is_combined(best.key):
            no_interval = str(mapping(metrics.get("no_interval")).get(best.key, ""))
    baselines_of, baselines = _baselines(run, best)
    return Headline(
        name=metric_name(best.key, kind_of(run, target)),
        text=text,
        interval=interval,
        no_interval=no_interval,
        subject=subject(run, best),
        prior=_prior(run) if best.key.endswith(AT_PRIOR) else "",
        lower=not higher_is_better(best.key),
        parts=_parts(run, metrics) if is_combined(best.key) else [],
        samples=count(scores.get("samples")) or count(metrics.get("samples")),
        is_test=is_test,
        validation="" if best.value is None else number_text(best.key, best.value),
        inference=_inference(run),
        plan=_plan(run, best),
        selection=_selection(run, best),
        baselines_of=baselines_of,
        baselines=baselines,
        is_final=run.status.get("state") not in ("running", "silent"),
    )


def _scored_part(scores: Json, key: str) -> tuple[Json, str]:
    """Where the interval of a score stands, and under which name: at the class shares of selection.prior, or with the
    class that it is of."""
    if key.endswith(AT_PRIOR):
        return mapping(scores.get("at_prior")), key.removesuffix(AT_PRIOR)
    of_class = class_score(key)
    if of_class is None:
        return scores, key
    rows = map(mapping, listing(scores.get("per_class")))
    return next((row for row in rows if row.get("label") == of_class[1]), {}), of_class[0]


def _parts(run: RunFiles, metrics: Json) -> list[tuple[str, str]]:
    """The name and the value of each part of a mean."""
    parts = []
    for name, value in mapping(metrics.get("parts")).items():
        target, key = split_metric(name)
        if number(value) is not None:
            parts.append((_part_name(run, target, key), number_text(key, float(value))))
    return parts


def _part_name(run: RunFiles, target: str, key: str) -> str:
    """`macro F1 of colour`; without the target where there is only one."""
    name = metric_name(key, kind_of(run, target) if target else "class")
    return f"{name} of {target}" if target else name


def _prior(run: RunFiles) -> str:
    """The class shares of selection.prior in words."""
    prior = mapping(run.config.get("selection")).get("prior")
    return "all classes equally frequent" if prior == "balanced" else "at the class shares of selection.prior"


def subject(run: RunFiles, best: Best) -> str:
    """The target of the selected metric, or the joint class. Empty if there is only one target, or all are meant."""
    if is_combined(best.metric):
        return ""
    has_joint = bool(run.config.get("joint") or run.metrics.get("joint"))
    if best.target and best.target != "joint":
        return best.target
    return joint_title(run) if has_joint else ""


def target_of(run: RunFiles, metric: str) -> str:
    """The target of `metric`, which the config may leave out: then the joint class, or the only target. Empty for the
    mean of all targets."""
    if is_combined(metric):
        return ""
    named = split_metric(metric)[0]
    if named or run.config.get("joint") or run.metrics.get("joint"):
        return named or "joint"
    targets = [*(mapping(run.metrics.get("targets")) or mapping(run.config.get("targets")))]
    return targets[0] if len(targets) == 1 else ""


def _selection(run: RunFiles, best: Best) -> str:
    """What the choice of the epoch does to the score; values of the wrong kind count as not recorded."""
    selection = mapping(run.metrics.get("selection"))
    optimism, corrected = number(selection.get("optimism")), number(selection.get("corrected"))
    checked = {
        "epochs": count(selection.get("epochs")),
        "optimism": None if corrected is None else optimism,
        "corrected": corrected,
        "reason": str(selection.get("reason") or "not recorded"),
    }
    return selection_text(best.key, checked, number_text)


def _inference(run: RunFiles) -> str:
    """Empty also where the file does not hold what is expected."""
    try:
        return inference_text(mapping(run.metrics.get("inference")))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return ""


def _plan(run: RunFiles, best: Best) -> str:
    """What was kept; empty where the file does not hold all of it."""
    plan = mapping(run.metrics.get("plan"))
    values = {key: number(mapping(plan.get(key)).get("value")) for key in ("finetuned", "first_answer")}
    interval = ends(plan.get("interval"))
    numbers = {key: number(plan.get(key)) for key in ("difference", "share", "needed")}
    if interval is None or None in (*values.values(), *numbers.values()):
        return ""
    checked = {
        "kept": plan.get("kept"),
        "interval": interval,
        "optimism": number(plan.get("optimism")),  # None where it is not estimated
        **numbers,
        **{key: {"value": value} for key, value in values.items()},
    }
    return plan_text(best.key, checked, number_text)


def _scores(metrics: Json, target: str) -> Json:
    return mapping(mapping(metrics.get("targets")).get(target))


def _baselines(run: RunFiles, best: Best) -> tuple[str, list[Baseline]]:
    """The baselines' metric where it is not the headline's own, and the baselines that status.json records."""
    recorded = mapping(run.status.get("baselines"))
    metric = str(recorded.get("metric") or best.metric)
    target = target_of(run, metric)
    key = split_metric(metric)[1]
    kind = "mean" if is_combined(key) else kind_of(run, target)

    # The run's value can be compared only with baselines of the same metric and target.
    same_metric = key == best.key and target == target_of(run, best.metric)
    value = best.value if same_metric else None
    described = ""
    if value is None:
        target_name = subject(run, Best(metric, value=None, epoch=None))
        described = metric_name(key, kind) + (f" of {target_name}" if target_name else "")

    probe = f"{PROBES.get(kind, 'linear probe')} on {recorded.get('probe_on') or 'features'}"
    names = {"most_frequent": SIMPLEST.get(kind, SIMPLEST["class"]), "linear_probe": probe}
    baselines = []
    for name_key, name in names.items():
        score = number(recorded.get(name_key))
        if score is not None:
            baselines.append(Baseline(name, text=number_text(key, score), beaten=_beats(value, score, key)))
    return described, baselines


def _beats(value: float | None, baseline: float, key: str) -> bool | None:
    """Equal is not better."""
    if value is None:
        return None
    return value > baseline if higher_is_better(key) else value < baseline
