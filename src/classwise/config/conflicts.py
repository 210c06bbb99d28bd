"""Keys that contradict each other: refused where no sensible meaning is left, warned of otherwise.

A key that would be read and then have no effect is a mistake as well: `mix_share` without mixing, for example.
"""

from collections.abc import Iterator
from typing import Any

from classwise.config.base import section_name
from classwise.config.losses import LOSSES
from classwise.config.schema import Config
from classwise.errors import ConfigError

MARKED_TYPES = ("class", "ordinal", "multilabel")
"""Of targets that have probabilities, which decision.abstain compares."""


def check_conflicts(config: Config) -> list[str]:
    """Warnings, one line each. Raises ConfigError for the first contradiction."""
    checks = (
        _saturation,
        _mixing,
        _sampling,
        _target_keys,
        _prior,
        _adjustment,
        _ldam_scales,
        _class_weights,
        _target_weights,
        _frozen_backbone,
        _frozen_batch_norm,
        _plan,
        _no_validation,
        _ranking,
        _row_weights,
        _abstain_columns,
    )
    for check in checks:
        for problem in check(config):
            raise ConfigError(problem)
    return [*_corrected_twice(config), *_without_effect(config)]


def losses_of(config: Config, name: str) -> list[Any]:
    """The loss sections of a target: one, or the terms of a sum."""
    loss = config.loss_of(name)
    return list(loss.terms) if loss.name == "sum" else [loss]


def loss_key(config: Config, name: str) -> str:
    """The table of the file that holds the loss of a target."""
    return f"targets.{name}.loss" if config.targets[name].loss else "loss"


def _saturation(config: Config) -> Iterator[str]:
    saturation, channels = config.data.augment.saturation, config.model.channels
    if saturation and channels != 3:
        yield (
            f"data.augment.saturation: found {saturation}, but model.channels is {channels}, and only RGB has a"
            " saturation; allowed: 0, which presets have there"
        )


def _mixing(config: Config) -> Iterator[str]:
    data = config.data
    mixing = [key for key in ("mixup", "cutmix") if getattr(data, key) > 0]
    if not mixing:
        if data.mix_share != 1:
            yield (
                f"data.mix_share: found {data.mix_share}, but data.mixup and data.cutmix are 0, so nothing is mixed"
            )
        return

    key = mixing[0]
    if data.mix_share == 0:
        yield (
            f"data.mix_share: found {data.mix_share}, but data.{key} is {getattr(data, key)}, which then has no effect"
        )
    hard = [section_name(section) for section in LOSSES if not section.soft_targets]
    for name, target in config.targets.items():
        for loss in losses_of(config, name):
            if not loss.soft_targets:
                yield (
                    f"data.{key}: found {getattr(data, key)}, but {loss_key(config, name)}.name is {loss.name!r},"
                    f" which needs hard labels (target {name!r}, type {target.type}); allowed with mixing: every loss"
                    f" but {', '.join(hard)}"
                )
    if config.training.freeze_epochs >= config.training.epochs:
        yield (
            f"data.{key}: found {getattr(data, key)}, but training.freeze_epochs freezes the backbone in all epochs,"
            " and nothing is mixed while it is frozen"
        )


def _sampling(config: Config) -> Iterator[str]:
    sampling = config.data.sampling
    if sampling == "shuffle":
        return
    types = [target.type for target in config.targets.values()]
    if not any(target.class_like for target in config.targets.values()):
        yield (
            f"data.sampling: found {sampling!r}, but no target has classes to balance (types: {', '.join(types)});"
            " allowed: shuffle"
        )
    if "ranking" in types:
        yield (
            f"data.sampling: found {sampling!r}, but a ranking target keeps the rows of a query together; allowed:"
            " shuffle"
        )


def _target_keys(config: Config) -> Iterator[str]:
    for name, target in config.targets.items():
        if target.type == "regression" and target.labels and not target.edges:
            yield (
                f"targets.{name}.labels: found {list(target.labels)}, but a regression target has classes only with"
                f" targets.{name}.edges"
            )


def _prior(config: Config) -> Iterator[str]:
    prior = config.selection.prior
    types = [target.type for target in config.targets.values()]
    if prior is not None and "class" not in types:
        found = repr(prior) if isinstance(prior, str) else "a table of shares"
        yield (
            f"selection.prior: found {found}, but no target has classes with shares (types: {', '.join(types)});"
            " allowed: with a target of type 'class'"
        )


def _adjustment(config: Config) -> Iterator[str]:
    for name, target in config.targets.items():
        for loss in losses_of(config, name):
            if target.adjust and loss.balances_classes:
                yield (
                    f"targets.{name}.adjust: found {target.adjust}, but {loss_key(config, name)}.name is {loss.name!r},"
                    " which adjusts the logits already; allowed: one of them"
                )


def _ldam_scales(config: Config) -> Iterator[str]:
    for name in config.targets:
        scales = {loss.scale for loss in losses_of(config, name) if loss.name == "ldam"}
        if len(scales) > 1:
            yield (
                f"{loss_key(config, name)}.terms: found ldam with the scales {sorted(scales)}, but the target has one"
                " head, whose cosines have one scale; allowed: the same scale in all terms"
            )


def _class_weights(config: Config) -> Iterator[str]:
    epochs = config.training.epochs
    for name in config.targets:
        key = loss_key(config, name)
        for loss in losses_of(config, name):
            if not hasattr(loss, "class_weights"):
                continue
            if loss.beta != type(loss).model_fields["beta"].default and loss.class_weights != "effective":
                yield (
                    f'{key}.beta: found {loss.beta}, which only class_weights = "effective" uses; class_weights is'
                    f" {loss.class_weights!r}"
                )
            if loss.weights_from_epoch > 1 and loss.class_weights == "none":
                yield (
                    f"{key}.weights_from_epoch: found {loss.weights_from_epoch}, but class_weights is 'none', so there"
                    ' is nothing to defer; allowed: with class_weights = "effective", "inverse" or a list'
                )
            if loss.normalize_by == "weights" and loss.class_weights == "none":
                yield (
                    f"{key}.normalize_by: found 'weights', but class_weights is 'none', so there are no weights to"
                    ' divide by; allowed: with class_weights = "effective", "inverse" or a list'
                )
            if loss.weights_from_epoch > epochs:
                yield (
                    f"{key}.weights_from_epoch: found {loss.weights_from_epoch}, but training.epochs is {epochs}, so"
                    " the class weights would never apply"
                )


def _target_weights(config: Config) -> Iterator[str]:
    if config.training.target_weights == "uncertainty" and len(config.targets) < 2:
        yield (
            "training.target_weights: found 'uncertainty', but there is only one target, so there is nothing to weigh;"
            " allowed: fixed"
        )


def _frozen_backbone(config: Config) -> Iterator[str]:
    training, optimizer, schedule = config.training, config.optimizer, config.schedule
    if training.freeze_epochs >= training.epochs:
        always_frozen = "training.freeze_epochs freezes the backbone in all epochs"
        if schedule.name not in ("cosine", "constant"):
            yield (
                f"schedule.name: found {schedule.name!r}, but {always_frozen}, and the learning rate is constant while"
                " it is frozen; allowed: constant, or the default"
            )
        for key, default in {"warmup_epochs": 0.0, "T_max": None, "eta_min": 0.0}.items():
            value = getattr(schedule, key, default)
            if value != default:
                yield (
                    f"schedule.{key}: found {value}, but {always_frozen}, and the learning rate is constant while it is"
                    " frozen"
                )
        for key in ("layer_decay", "backbone_lr_factor"):
            if getattr(optimizer, key) != 1:
                yield f"optimizer.{key}: found {getattr(optimizer, key)}, but {always_frozen}"
    if optimizer.layer_decay != 1 and optimizer.backbone_lr_factor == 0:
        yield (
            f"optimizer.layer_decay: found {optimizer.layer_decay}, but optimizer.backbone_lr_factor is 0, so the"
            " backbone is not trained"
        )
    if optimizer.frozen_below > optimizer.layer_decay:
        yield (
            f"optimizer.frozen_below: found {optimizer.frozen_below}, which freezes every layer whose rate is lowered,"
            f" since optimizer.layer_decay = {optimizer.layer_decay} leaves no more than that; allowed: up to that"
        )


def _frozen_batch_norm(config: Config) -> Iterator[str]:
    training = config.training
    if training.batch_norm != "frozen":
        return
    if training.sync_batch_norm:
        yield (
            "training.sync_batch_norm: found true, but training.batch_norm is 'frozen', so there are no statistics to"
            " compute; allowed: one of them"
        )
    if training.freeze_epochs >= training.epochs:
        yield (
            "training.batch_norm: found 'frozen', but training.freeze_epochs freezes the whole backbone in all epochs;"
            ' allowed: "micro_batch", the default'
        )


def _plan(config: Config) -> Iterator[str]:
    training = config.training
    if training.plan not in ("probe", "probe_then_finetune"):
        return
    if training.freeze_epochs:
        yield (
            f"training.freeze_epochs: found {training.freeze_epochs}, but training.plan is {training.plan!r}, which has"
            " fitted the heads already; allowed: one of them"
        )
    if config.data.sampling != "shuffle":
        yield (
            f"data.sampling: found {config.data.sampling!r}, but training.plan is {training.plan!r}, and heads are"
            " fitted to each row once; allowed: shuffle, with a loss or class weights that balance the classes"
        )
    if config.has_cosines:
        yield (
            f"training.plan: found {training.plan!r}, but a loss is 'ldam', whose heads compute cosines and are not"
            " fitted; allowed: finetune"
        )


def _no_validation(config: Config) -> Iterator[str]:
    """What asks the validation rows, where there are none."""
    if config.data.has_valid:
        return
    if config.selection.patience is not None:
        yield (
            f"selection.patience: found {config.selection.patience}, but data.valid is 0, so nothing says when to stop;"
            " allowed: a fixed number of epochs"
        )
    if config.schedule.name == "plateau":
        yield (
            "schedule.name: found 'plateau', but data.valid is 0, so there is no score that could stop rising; allowed:"
            " any other schedule"
        )


def _ranking(config: Config) -> Iterator[str]:
    queries = {name: target.query for name, target in config.targets.items() if target.type == "ranking"}
    if len(set(queries.values())) > 1:
        keys = ", ".join(f"targets.{name}.query = {query!r}" for name, query in queries.items())
        yield f"{keys}: batches can keep the queries of only one column together; allowed: the same column in all"


def _row_weights(config: Config) -> Iterator[str]:
    if config.report.row_weights and config.data.weight is None:
        yield (
            "report.row_weights: found true, but no column has weights; allowed: with data.weight, the name of one"
        )


def _abstain_columns(config: Config) -> Iterator[str]:
    """A target that has the name of the column of another's marks."""
    if config.decision is None or not config.decision.abstain:
        return
    marked = [name for name, target in config.targets.items() if target.type in MARKED_TYPES]
    if config.joint is not None and set(config.joint.targets) & set(marked):
        marked.append("joint")
    for name in marked:
        if f"{name}_abstain" in config.targets:
            yield (
                f"targets.{name}_abstain: found beside decision.abstain = {config.decision.abstain}, which marks the"
                f" answers of {name!r} in a column of that name; allowed: another name, or decision.abstain = 0"
            )


def _corrected_twice(config: Config) -> Iterator[str]:
    """Class frequencies that are corrected for in two places, so that rare classes count too much."""
    sampling = config.data.sampling
    for name, target in config.targets.items():
        if target.type != "class":
            continue
        # With selection.prior, what all of them have changed together is taken into account after training.
        if config.selection.prior is not None and target.adjust is None:
            continue
        corrections = [f"data.sampling = {sampling!r}"] if sampling != "shuffle" else []
        for loss in losses_of(config, name):
            key = loss_key(config, name)
            if loss.balances_classes:
                corrections.append(f"{key}.name = {loss.name!r}")
            elif getattr(loss, "class_weights", "none") in ("inverse", "effective"):
                corrections.append(f"{key}.class_weights = {loss.class_weights!r}")
        if target.adjust:
            corrections.append(f"targets.{name}.adjust = {target.adjust}")
        corrections = list(dict.fromkeys(corrections))
        if len(corrections) > 1:
            yield (
                f"{name}: {' and '.join(corrections)} each correct for the class frequencies; together they overweight"
                " rare classes. One of them is usually enough"
            )


def _without_effect(config: Config) -> Iterator[str]:
    training, data, schedule = config.training, config.data, config.schedule
    if "loss" in config.model_fields_set and all(target.loss for target in config.targets.values()):
        yield "[loss]: every target has a loss of its own, so this table only gives the keys that they leave out"
    if config.optimizer.name == "rprop" and schedule.name != "constant":
        yield (
            f"schedule.name = {schedule.name!r}: has no effect on rprop, which sets its own step sizes after the first"
            " update"
        )
    if config.optimizer.frozen_below and config.optimizer.layer_decay == 1:
        yield (
            f"optimizer.frozen_below = {config.optimizer.frozen_below}: has no effect, since optimizer.layer_decay is 1"
            " and all layers have the same rate"
        )
    if data.workers == 0 and data.start_method != "auto":
        yield (
            f"data.start_method = {data.start_method!r}: has no effect, since data.workers is 0 and no process is"
            " started"
        )
    if not data.has_valid and "first_epoch" in config.selection.model_fields_set:
        yield (
            f"selection.first_epoch = {config.selection.first_epoch}: has no effect, since data.valid is 0 and the last"
            " epoch is kept"
        )
    if (config.selection.patience or 0) >= training.epochs:
        yield (
            f"selection.patience = {config.selection.patience}: has no effect, since training.epochs is"
            f" {training.epochs}"
        )
    if training.freeze_epochs and config.model.weights == "none":
        yield (
            f"training.freeze_epochs = {training.freeze_epochs}: the backbone has no pretrained weights, so the heads"
            " are trained on random features"
        )
    if config.plan == "probe":
        ignored = [
            f"training.{key}"
            for key in ("epochs", "minutes", "ema", "accumulate")
            if key in training.model_fields_set and getattr(training, key) is not None
        ]
        ignored += [f"data.{key}" for key in ("mixup", "cutmix") if getattr(data, key)]
        ignored += ["selection.patience"] if config.selection.patience else []
        ignored += [key for key in ("optimizer", "schedule") if key in config.model_fields_set]
        if ignored:
            yield f"training.plan = 'probe': trains no epoch, so these have no effect: {', '.join(ignored)}"
    if training.plan in ("probe", "probe_then_finetune") and config.model.weights == "none":
        yield (
            f"training.plan = {training.plan!r}: the backbone has no pretrained weights, so the heads are fitted to"
            " random features"
        )
    if training.batch_norm == "frozen" and config.model.weights == "none":
        yield (
            "training.batch_norm = 'frozen': the backbone has no pretrained weights, so the running statistics are"
            " those of the start (mean 0, variance 1), and batch norm normalizes nothing"
        )
    if training.freeze_epochs >= training.epochs and data.augment.preset != "none":
        yield (
            f"data.augment = {data.augment.preset!r}: has no effect, since training.freeze_epochs freezes the backbone"
            " in all epochs, and images of a frozen backbone are not augmented"
        )
