"""The runs that a comparison consists of: every variant with every seed, checked before anything trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classwise.compare.given_rows import given_rows
from classwise.compare.scoring import Scoring, scoring_of
from classwise.compare.variants import Overrides, Variant, check_names, slug
from classwise.compose.tta import tta_of_run
from classwise.config.conflicts import check_conflicts
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.errors import ConfigError
from classwise.run.own_code import admit_config

LARGEST_SEED = 2**63


@dataclass(frozen=True)
class PlannedRun:
    """One run of the comparison: `config` is what it is to train, `folder` its run directory."""

    variant: str
    seed: int
    folder: Path
    overrides: Overrides
    config: Config


@dataclass(frozen=True)
class Plan:
    """The comparison's folder, its runs and what they are scored on; `warnings` are pairs (variant's name, warning
    about its config)."""

    folder: Path
    runs: list[PlannedRun]
    scoring: Scoring
    warnings: list[tuple[str, str]]


def plan_runs(
    config_path: Path, variants: Sequence[Variant], seeds: int, out: Path | None, overrides: Overrides
) -> Plan:
    """Read and check every variant's config, also for keys that contradict each other. Where the validation rows would
    choose and be scored, the configs are nested: see `scoring_of`.

    The runs are ordered by seed, so that a comparison that is stopped early has complete pairs. Baselines, for which
    the comparison has no column, are computed only where the config or the overrides set report.baselines.
    Raises ConfigError; where a variant's overrides are at fault, its name comes first.
    """
    check_names([variant.name for variant in variants])
    loaded = {variant.name: _load(config_path, overrides, variant) for variant in variants}
    variants_alone = {name: config for name, (config, _) in loaded.items()}
    given = {name: given_rows(config) for name, config in variants_alone.items()}
    scoring = scoring_of(variants_alone, given)
    configs = scoring.variants
    warnings = [(name, warning) for name, (_, texts) in loaded.items() for warning in texts]

    # Scores of different metrics cannot be compared.
    metrics = {config.selection.metric for config in configs.values()}
    if len(metrics) > 1:
        raise ConfigError(
            f"selection.metric: the variants are judged by {', '.join(sorted(metrics))}; use one metric for all"
        )
    # So cannot scores at different class shares; rows count as they are without a prior and with as_validation.
    priors = {str(config.selection.prior or "as_validation") for config in configs.values()}
    if len(priors) > 1:
        raise ConfigError(
            f"selection.prior: the variants are judged at {' and '.join(sorted(priors))}; use one prior for all"
        )

    # All variants share the baseline's seeds: seed, seed + 1, ...
    baseline = configs[variants[0].name]
    if baseline.seed + seeds > LARGEST_SEED:
        raise ConfigError(f"seed: found {baseline.seed}, which leaves no room for {seeds} seeds")
    folder = Path("compare") / baseline.name if out is None else out
    runs = [
        PlannedRun(
            variant=variant.name,
            seed=seed,
            folder=folder / slug(variant.name) / f"seed-{seed}",
            overrides=(*overrides, *variant.overrides, ("seed", str(seed))),
            config=configs[variant.name].model_copy(update={"seed": seed}),
        )
        for seed in range(baseline.seed, baseline.seed + seeds)
        for variant in variants
    ]
    return Plan(folder, runs, scoring, warnings)


def _load(path: Path, overrides: Overrides, variant: Variant) -> tuple[Config, list[str]]:
    """The variant's config, and warnings about it."""
    try:
        config = load_config(path, (*overrides, *variant.overrides))
        admit_config(config)
        tta_of_run(config)
        return _with_fixed_length(_without_baselines(config)), check_conflicts(config)
    except ConfigError as error:
        # Without overrides of its own, the mistake is the config's.
        raise ConfigError(f"variant {variant.name}: {error}" if variant.overrides else str(error)) from None


def _with_fixed_length(config: Config) -> Config:
    """Without training.minutes: how many epochs fit would depend on what else the machine does, and differ by run."""
    return config.model_copy(update={"training": config.training.model_copy(update={"minutes": None})})


def _without_baselines(config: Config) -> Config:
    if "baselines" in config.report.model_fields_set:
        return config
    return config.model_copy(update={"report": config.report.model_copy(update={"baselines": False})})
