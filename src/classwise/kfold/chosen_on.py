"""Whether the rows of a fold have trained, stopped or chosen the model that predicts them.

Nothing may be tuned on such rows. A fold is validated on its own rows, so whatever a run chooses by its validation rows
it has chosen on the very rows that its out-of-fold predictions are of.
"""

from classwise.config.decision import Decision
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import ConfigError
from classwise.kfold.decided_target import DECIDED_TYPES

LAST = 0.9999
"""selection.first_epoch for the last epoch of however many training.minutes leaves time for."""
ROWS_TO_FINETUNE = 2000
"""With fewer labeled rows, fine-tuning was kept in none of seven runs (docs/results/defaults.md)."""


def reason_against_tuning(config: Config) -> str:
    """The key by which rows of the folds have trained, stopped or chosen a model, what it is, and what is allowed;
    empty if nothing does."""
    if config.model.starts_from_run:
        return (
            f"model.weights: found {config.model.weights!r}, a run that may have been trained on rows of the folds;"
            " allowed: none, pretrained, or a file"
        )
    return reason_own_rows_choose(config)


def reason_own_rows_choose(config: Config) -> str:
    """The key by which a fold's own rows choose its model, as `reason_against_tuning`."""
    selection, epochs = config.selection, config.training.epochs
    if config.plan == "probe":
        return ""
    if config.plan == "probe_then_finetune":
        return (
            f"training.plan: found {config.training.plan!r}, with which each fold's own rows choose between the first"
            " answer and the fine-tuned model; allowed: probe, finetune"
        )
    if selection.patience is not None:
        return (
            f"selection.patience: found {selection.patience}, with which each fold's own rows stop its training;"
            " allowed: left out"
        )
    if config.schedule.name == "plateau":
        return (
            "schedule.name: found 'plateau', with which"
            " each fold's own rows lower its learning rate; allowed: any other schedule"
        )
    if config.first_epoch < epochs:
        return (
            f"selection.first_epoch: found {selection.first_epoch}, with which each fold's own rows choose among epochs"
            f" {config.first_epoch} to {epochs}; allowed: {epochs}, the last epoch"
        )
    return ""


def with_plan(config: Config, rows: int, console: Console) -> Config:
    """The config of new folds. `auto` does not let a fold's own rows choose between two models where decisions are
    asked for by name, nor where there are fewer `rows` than ROWS_TO_FINETUNE: fine-tuned models are not kept there."""
    decision = config.decision or Decision()
    if (
        config.training.plan != "auto"
        or config.plan != "probe_then_finetune"
        or not _is_fitted(config, decision)
    ):
        return config
    if not _is_asked(decision) and rows >= ROWS_TO_FINETUNE:
        return config
    console.paragraph(
        "heads are fitted to the frozen backbone, and nothing is fine-tuned, so that no row chooses a model and"
        ' decisions can be fitted out of fold; training.plan = "probe_then_finetune" fine-tunes, without decisions'
    )
    return config.model_copy(update={"training": config.training.model_copy(update={"plan": "probe"})})


def _is_asked(decision: Decision) -> bool:
    """Whether the config asks by name for rules that are fitted."""
    return decision.offsets in ("half_prior", "tuned") or bool(decision.costs)


def _is_fitted(config: Config, decision: Decision) -> bool:
    """Whether any number of a decision follows from the rows out of fold; one that only abstains has none."""
    has_types = any(target.type in DECIDED_TYPES for target in config.targets.values())
    return has_types and (decision.offsets != "none" or decision.temperature == "auto")


def with_fixed_epoch(config: Config, console: Console) -> Config:
    """The config of folds with a [decision] that is fitted: where it does not say from which epoch on the best one is
    taken, it is the last one, so that no row chooses. Raises ConfigError where offsets are asked for by name and a
    fold's own rows choose its model."""
    decision = config.decision
    if decision is None or not _is_fitted(config, decision):
        return config
    if _is_asked(decision):
        config = with_plan(config, 0, console)
    selection, training = config.selection, config.training
    is_open = "first_epoch" not in selection.model_fields_set and selection.patience is None
    if is_open and config.first_epoch < training.epochs and config.plan == "finetune":
        last = training.epochs if training.minutes is None else LAST
        config = config.model_copy(update={"selection": selection.model_copy(update={"first_epoch": last})})
        console.line(
            "every fold keeps its last epoch, since [decision] is fitted on rows that must not choose it"
        )
    reason = reason_against_tuning(config)
    if reason and _is_asked(decision):
        key = f"decision.offsets = {decision.offsets!r}" if not decision.costs else "decision.costs"
        raise ConfigError(f"{reason}; or without {key}, which is fitted on those rows")
    return config
