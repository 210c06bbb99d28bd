"""Where a config names parts in the user's own files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from classwise.own_parts.reference import is_own
from classwise.own_parts.source import admitted

if TYPE_CHECKING:  # whoever opens a run may have no need of its config
    from classwise.config.schema import Config

Change = Callable[[str, str], str]
"""From the key of a reference, and the reference, to what it becomes."""


def own_references(config: Config) -> dict[str, str]:
    """Every reference to a part of the user's own, by its key: `{"loss.name": "my_losses.py:MyLoss"}`."""
    found: dict[str, str] = {}

    def note(key: str, reference: str) -> str:
        found[key] = reference
        return reference

    with_references(config, note)
    return found


def digests_in(config: Config) -> dict[str, str]:
    """The SHA-256 of the code behind each part of the user's own, by its key in the config. Raises TrustError for code
    that may not run."""
    return {key: admitted(reference, key).digest for key, reference in own_references(config).items()}


def with_references(config: Config, change: Change) -> Config:
    """The config with other references to parts of the user's own; the same one where there are none."""
    changes: dict[str, Any] = {}
    if is_own(config.model.backbone):
        backbone = change("model.backbone", config.model.backbone)
        changes["model"] = config.model.model_copy(update={"backbone": backbone})
    if is_own(config.data.augment.preset):
        preset = change("data.augment", config.data.augment.preset)
        augment = config.data.augment.model_copy(update={"preset": preset})
        changes["data"] = config.data.model_copy(update={"augment": augment})
    if is_own(config.optimizer.name):
        name = change("optimizer.name", config.optimizer.name)
        changes["optimizer"] = config.optimizer.model_copy(update={"name": name})
    if (loss := _changed_loss(config.loss, "loss", change)) is not config.loss:
        changes["loss"] = loss

    # Only targets that have some are copied.
    targets = {
        name: _changed_target(target, f"targets.{name}", change) for name, target in config.targets.items()
    }
    if any(target is not config.targets[name] for name, target in targets.items()):
        changes["targets"] = targets
    return config.model_copy(update=changes) if changes else config


def _changed_target(target: Any, key: str, change: Change) -> Any:
    changes: dict[str, Any] = {}
    if (
        target.loss is not None
        and (loss := _changed_loss(target.loss, f"{key}.loss", change)) is not target.loss
    ):
        changes["loss"] = loss
    if target.metrics:
        changes["metrics"] = tuple(
            change(f"{key}.metrics[{number}]", reference) for number, reference in enumerate(target.metrics)
        )
    return target.model_copy(update=changes) if changes else target


def _changed_loss(loss: Any, key: str, change: Change) -> Any:
    """The section of a loss, or of a sum with terms of the user's own."""
    if is_own(loss.name):
        return loss.model_copy(update={"name": change(f"{key}.name", loss.name)})
    if loss.name != "sum" or not any(is_own(term.name) for term in loss.terms):
        return loss
    terms = [_changed_loss(term, f"{key}.terms[{number}]", change) for number, term in enumerate(loss.terms)]
    return loss.model_copy(update={"terms": tuple(terms)})
