"""Settings that are measured rather than given (precision, threads, workers and so on): once for all runs."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classwise.compare.plan import PlannedRun
from classwise.compare.plan_file import PlanFile
from classwise.config.schema import Config

TRAINING_KEYS = ("precision", "threads", "memory_format", "compile")
MEASURED_KEYS = (*TRAINING_KEYS, "workers", "fused")


@dataclass(frozen=True)
class SharedTuning:
    """Replaces `auto` in the runs' configs.

    The first run of a kind (same model, size and settings) measures, and its config.toml records the result; all
    others take it over, since otherwise the variants would differ in more than what is compared. With `jobs` > 1
    every process has one thread and reads its own images.
    """

    file: PlanFile
    runs: Sequence[PlannedRun]
    jobs: int
    measuring: dict[str, Path] = field(default_factory=dict)  # the run that measures, by kind

    def resolve_auto(self, run: PlannedRun) -> Config | None:
        """The config to train; None while the run that measures for this one has no result yet."""
        config = run.config
        settings = _settings(config)
        if "auto" not in settings.values():
            return config

        # Known already, or nothing to measure: with a fixed precision only threads and workers are open.
        kind = _kind(config)
        result = self._result(kind)
        if result is None and self.jobs > 1 and settings["precision"] != "auto":
            result = self._record(kind, {**settings, **_one_process(settings)})
        if result is not None:
            open_keys = [name for name in MEASURED_KEYS if settings[name] == "auto"]
            return _with_settings(config, {name: result[name] for name in open_keys})

        # The first run of its kind measures, by being trained with `auto`; the others wait for it.
        if self.measuring.setdefault(kind, run.folder) != run.folder:
            return None
        return _with_settings(config, _one_process(settings)) if self.jobs > 1 else config

    def run_ended(self, run: PlannedRun) -> None:
        """Record what `run` measured. If it failed before that, the next run of its kind measures."""
        kind = _kind(run.config)
        if self.measuring.get(kind) == run.folder:
            self._result(kind)
            del self.measuring[kind]

    def _result(self, kind: str) -> dict[str, Any] | None:
        """What was measured for `kind`: from compare.json, or from the config.toml of a run of that kind."""
        if kind not in self.file.plans:
            for run in self.runs:
                path = run.folder / "config.toml"
                if _kind(run.config) == kind and path.exists():
                    return self._record(kind, _measured_settings(path))
        return self.file.plans.get(kind)

    def _record(self, kind: str, result: dict[str, Any]) -> dict[str, Any]:
        self.file.plans[kind] = result
        self.file.write()
        return result


def _measured_settings(path: Path) -> dict[str, Any]:
    """The settings that a run's config.toml records."""
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    settings = {**config["training"], **config["data"]}
    settings["fused"] = config["optimizer"].get("options", {}).get("fused")
    return {name: settings[name] for name in MEASURED_KEYS}


def _one_process(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One thread and no reading processes, where these are `auto`."""
    fixed = {"threads": 1, "workers": 0}
    return {name: value for name, value in fixed.items() if settings[name] == "auto"}


def _settings(config: Config) -> dict[str, Any]:
    """The config's values of MEASURED_KEYS.

    With a fixed precision nothing is measured: memory format, compilation and fusing have defaults, and threads and
    workers follow from the machine.
    """
    settings = {name: getattr(config.training, name) for name in TRAINING_KEYS}
    settings["workers"] = config.data.workers
    if config.training.precision == "auto":
        options = config.optimizer.options or {}
        return settings | {"fused": options.get("fused", options.get("foreach", "auto"))}
    defaults = {"memory_format": "channels_last", "compile": False}
    settings |= {name: value for name, value in defaults.items() if settings[name] == "auto"}
    return settings | {"fused": None}


def _kind(config: Config) -> str:
    """What a measurement depends on, as text."""
    height, width = config.model.image_size
    settings = ", ".join(f"{name} {value}" for name, value in _settings(config).items())
    return f"{config.model.backbone} {height}x{width}, {config.optimizer.name}, {config.training.device}: {settings}"


def _with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    training = {name: settings[name] for name in TRAINING_KEYS if name in settings}
    data = {"workers": settings["workers"]} if "workers" in settings else {}
    options = config.optimizer.options
    if settings.get("fused") is not None:
        options = {**(options or {}), "fused": settings["fused"]}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "data": config.data.model_copy(update=data),
            "optimizer": config.optimizer.model_copy(update={"options": options}),
        }
    )
