"""Keys that contradict or undo each other: refused where nothing sensible could be meant, else said by name.

A key that would be read and then do nothing is a mistake as well: `mix_share` without mixing, say, is refused.
"""

from collections.abc import Iterator
from typing import Any

from classwise.config.base import section_name
from classwise.config.losses import LOSSES
from classwise.config.schema import Config
from classwise.errors import ConfigError


def check_conflicts(config: Config) -> list[str]:
    """Warnings, one line each. Raises ConfigError for what is refused."""
    for check in (_mixing, _sampling, _target_keys, _adjustment, _loss_keys, _training, _ranking):
        for problem in check(config):
            raise ConfigError(problem)
    return [*_corrected_twice(config), *_without_effect(config)]


def losses_of(config: Config, name: str) -> list[Any]:
    """The loss sections of a target: one, or the terms of a sum."""
    loss = config.loss_of(name)
    return list(loss.terms) if loss.name == "sum" else [loss]


def loss_key(config: Config, name: str) -> str:
    """Where the loss of a target stands in the file."""
    return f"targets.{name}.loss" if config.targets[name].loss else "loss"


def _mixing(config: Config) -> Iterator[str]:
    data = config.data
    keys = [key for key in ("mixup", "cutmix") if getattr(data, key) > 0]
    if not keys and data.mix_share != 1:
        yield f"data.mix_share: found {data.mix_share}, but data.mixup and data.cutmix are 0: nothing is mixed"
    if keys and data.mix_share == 0:
        yield f"data.mix_share: found {data.mix_share}, which leaves data.{keys[0]} without effect"
    for name, target in config.targets.items() if keys else ():
        for loss in losses_of(config, name):
            if not loss.soft_targets:
                hard = [section_name(other) for other in LOSSES if not other.soft_targets]
                yield (
                    f"data.{keys[0]}: found {getattr(data, keys[0])}, but {loss_key(config, name)}.name is"
                    f" {loss.name!r}, which needs hard labels (target {name!r}, type {target.type});"
                    f" allowed with mixing: every loss but {', '.join(hard)}"
                )
    if keys and config.training.freeze_epochs >= config.training.epochs:
        yield f"data.{keys[0]}: nothing is mixed while the backbone is frozen, which it is in all epochs"


def _sampling(config: Config) -> Iterator[str]:
    sampling = config.data.sampling
    if sampling == "shuffle":
        return
    if not any(target.class_like for target in config.targets.values()):
        yield (
            f"data.sampling: found {sampling!r}, but no target has classes to balance (types:"
            f" {', '.join(t.type for t in config.targets.values())}); allowed: shuffle"
        )
    if any(target.type == "ranking" for target in config.targets.values()):
        yield (
            f"data.sampling: found {sampling!r}, but a ranking target keeps queries whole; allowed: shuffle"
        )


def _target_keys(config: Config) -> Iterator[str]:
    for name, target in config.targets.items():
        if target.type == "regression" and target.labels and not target.edges:
            yield (
                f"targets.{name}.labels: found {list(target.labels)}, but a regression has classes only where"
                f" targets.{name}.edges cuts it"
            )


def _adjustment(config: Config) -> Iterator[str]:
    for name, target in config.targets.items():
        for loss in losses_of(config, name):
            if target.adjust and loss.balances_classes:
                yield (
                    f"targets.{name}.adjust: found {target.adjust}, but {loss_key(config, name)}.name is {loss.name!r},"
                    " which adjusts the logits already; use one of them"
                )


def _loss_keys(config: Config) -> Iterator[str]:
    epochs = config.training.epochs
    for name in config.targets:
        scales = {loss.scale for loss in losses_of(config, name) if loss.name == "ldam"}
        if len(scales) > 1:
            yield (
                f"{loss_key(config, name)}.terms: found ldam with the scales {sorted(scales)}, but a target has one"
                " head, whose cosines have one scale; give all the same"
            )
        for loss in losses_of(config, name):
            if not hasattr(loss, "class_weights"):
                continue
            key = loss_key(config, name)
            if loss.beta != type(loss).model_fields["beta"].default and loss.class_weights != "effective":
                yield f'{key}.beta: found {loss.beta}, which only class_weights = "effective" has a use for'
            if loss.weights_from_epoch > 1 and loss.class_weights == "none":
                yield (
                    f"{key}.weights_from_epoch: found {loss.weights_from_epoch}, but class_weights is none:"
                    ' nothing to defer; "effective" or "inverse" would be'
                )
            if loss.weights_from_epoch > epochs:
                yield (
                    f"{key}.weights_from_epoch: found {loss.weights_from_epoch}, but training.epochs is {epochs}:"
                    " the class weights would never apply"
                )


def _training(config: Config) -> Iterator[str]:
    t, o = config.training, config.optimizer
    if t.target_weights == "uncertainty" and len(config.targets) < 2:
        yield "training.target_weights: found 'uncertainty' with one target: there is nothing to weigh; use fixed"
    if t.freeze_epochs >= t.epochs:
        if config.schedule.name != "cosine" and config.schedule.name != "constant":
            yield (
                f"schedule.name: found {config.schedule.name!r}, but the learning rate is constant while the backbone"
                " is frozen, which it is in all epochs; allowed: constant, or the default"
            )
        for key, default in {"warmup_epochs": 0.0, "T_max": None, "eta_min": 0.0}.items():
            found = getattr(config.schedule, key, default)
            if found != default:
                yield (
                    f"schedule.{key}: found {found}, but the learning rate is constant while the backbone is frozen,"
                    " which it is in all epochs"
                )
        for key in ("layer_decay", "backbone_lr_factor"):
            if getattr(o, key) != 1:
                yield (
                    f"optimizer.{key}: found {getattr(o, key)}, but training.freeze_epochs freezes the backbone"
                    " in all epochs"
                )
    if o.layer_decay != 1 and o.backbone_lr_factor == 0:
        yield f"optimizer.layer_decay: found {o.layer_decay}, but optimizer.backbone_lr_factor is 0"


def _ranking(config: Config) -> Iterator[str]:
    queries = {name: t.query for name, t in config.targets.items() if t.type == "ranking"}
    if len(set(queries.values())) > 1:
        listed = ", ".join(f"targets.{name}.query = {query!r}" for name, query in queries.items())
        yield f"{listed}: batches can keep the queries of one column whole; give all the same"


def _corrected_twice(config: Config) -> Iterator[str]:
    """Two means against imbalance at once: rare classes then count twice."""
    sampling = config.data.sampling
    for name, target in config.targets.items():
        if target.type != "class":
            continue
        means = [f"data.sampling = {sampling!r}"] if sampling != "shuffle" else []
        for loss in losses_of(config, name):
            key = loss_key(config, name)
            if loss.balances_classes:
                means.append(f"{key}.name = {loss.name!r}")
            elif getattr(loss, "class_weights", "none") in ("inverse", "effective"):
                means.append(f"{key}.class_weights = {loss.class_weights!r}")
        if target.adjust:
            means.append(f"targets.{name}.adjust = {target.adjust}")
        means = list(dict.fromkeys(means))
        if len(means) > 1:
            yield (
                f"{name}: {' and '.join(means)} each correct for the class frequencies; together rare classes are"
                " overweighted. One of them is usually enough"
            )


def _without_effect(config: Config) -> Iterator[str]:
    if "loss" in config.model_fields_set and all(target.loss for target in config.targets.values()):
        yield "[loss]: every target has a loss of its own, so this one only gives the keys that they leave out"
    if config.optimizer.name == "rprop" and config.schedule.name != "constant":
        yield (
            f"schedule.name = {config.schedule.name!r}: rprop sets its own step sizes after the first update, so a"
            " schedule has no effect on it"
        )
    if config.data.workers == 0 and config.data.start_method != "auto":
        yield f"data.start_method = {config.data.start_method!r}: data.workers is 0, so no process is started"
    t = config.training
    if (config.selection.patience or 0) >= t.epochs:
        yield f"selection.patience = {config.selection.patience}: never waited for in {t.epochs} epochs"
    if t.freeze_epochs and config.model.weights == "none":
        yield (
            f"training.freeze_epochs = {t.freeze_epochs}: the backbone has no pretrained weights, so the heads learn"
            " on random features"
        )
    if t.freeze_epochs >= t.epochs and config.data.augment.preset != "none":
        yield f"data.augment = {config.data.augment.preset!r}: images of a frozen backbone are not augmented"
