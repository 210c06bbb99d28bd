"""From the config of the folds to the config of each run: one for each fold and repeat."""

from dataclasses import dataclass

from classwise.compose.given_split import given_folds
from classwise.config.folds import Folds
from classwise.config.inference import Inference
from classwise.config.own_parts import own_references
from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.table import full_column
from classwise.errors import ConfigError

LARGEST_SEED = 2**63


@dataclass(frozen=True)
class FoldRun:
    """One run: which `fold` validates it and which seed it has (`repeat`), both from 0; its folder, and what it
    trains."""

    fold: int
    repeat: int
    name: str
    config: Config


def folds_config(config: Config) -> Config:
    """The config of all folds: with [folds], and without baselines, since each fold would have its own. Raises
    ConfigError for keys that are about one run's split."""
    folds = config.folds or Folds()
    if folds.fold is not None:
        raise ConfigError(
            f"folds.fold: found {folds.fold}, which trains one fold alone; allowed: with `classwise train`, or left out"
        )
    if isinstance(config.data.valid, str):
        raise ConfigError(
            f"data.valid: found {config.data.valid!r}, but folds take their validation rows from data.source; put these"
            " rows into data.source, or make them the test"
            " (data.test), and set data.valid to a share, which the folds replace"
        )
    if config.data.valid_fold is not None:
        raise ConfigError(
            f"data.valid_fold: found {config.data.valid_fold!r},"
            " but every fold of data.fold validates in turn; leave it out"
        )
    for key, reference in own_references(config).items():
        raise ConfigError(
            f"{key}: found {reference!r}, code of your own, which `classwise train` runs and folds do not yet; allowed:"
            " a part that classwise has"
        )
    seeds = config.seed + folds.repeats
    if seeds > LARGEST_SEED:
        raise ConfigError(f"seed: found {config.seed}, which leaves no room for {folds.repeats} seeds")
    report = config.report.model_copy(update={"baselines": False})
    return config.model_copy(update={"folds": folds, "report": report})


def with_given_count(config: Config, samples: Samples, is_new: bool) -> Config:
    """The config with as many folds as the column data.fold has, where it gives them. Raises ConfigError where
    folds.count says otherwise, if the config `is_new` and not one that was written back; DataError for a column that is
    missing."""
    folds = config.folds
    assert folds is not None
    if config.data.fold is None:
        return config
    found = given_folds(full_column(samples.frame, config.data.fold, samples.where, "data.fold"))
    if len(found) < 2:
        raise ConfigError(
            f"data.fold: all rows of {samples.where} are of fold {found[0]!r}; allowed: 2 or more"
        )
    if is_new and "count" in folds.model_fields_set and folds.count != len(found):
        listed = ", ".join(map(repr, found[:20]))
        raise ConfigError(
            f"folds.count: found {folds.count}, but the column {config.data.fold!r} (data.fold) has {len(found)} folds:"
            f" {listed}; leave folds.count out"
        )
    return config.model_copy(update={"folds": folds.model_copy(update={"count": len(found)})})


def fold_runs(config: Config) -> list[FoldRun]:
    """The runs in the order in which they are trained: every fold with the first seed, then with the next one."""
    folds = config.folds
    assert folds is not None
    return [
        FoldRun(fold, repeat, run_name(fold, repeat), _config_of(config, folds, fold, repeat))
        for repeat in range(folds.repeats)
        for fold in range(folds.count)
    ]


def run_name(fold: int, repeat: int) -> str:
    """`fold-0` for the first seed, then `fold-0-seed-2`, ..."""
    return f"fold-{fold}" + (f"-seed-{repeat + 1}" if repeat else "")


def _config_of(config: Config, folds: Folds, fold: int, repeat: int) -> Config:
    """What one run trains. Its data.valid is the share that the fold has of all rows; `classwise train` with this
    config gives the same run. [inference] and [decision] are for all folds together."""
    draw_seed = config.seed if folds.seed is None else folds.seed
    one = Folds(count=folds.count, fold=fold, seed=draw_seed)
    test = config.data.test if isinstance(config.data.test, float) else 0.0
    # All folds are checked at once.
    data = config.data.model_copy(update={"valid": (1 - test) / folds.count, "check": "exact"})
    own = {
        "folds": one,
        "data": data,
        "seed": config.seed + repeat,
        "inference": Inference(),
        "decision": None,
    }
    return config.model_copy(update=own)
