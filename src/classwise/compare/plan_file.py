"""compare.json: what each run of a comparison was asked to train, and the lock on the comparison's folder."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classwise.compare.plan import PlannedRun
from classwise.compare.scoring import Scoring
from classwise.config.load import RENAMED
from classwise.config.own_parts import digests_in
from classwise.config.schema import Config
from classwise.errors import ConfigError, DataError, OutputError
from classwise.files import json_text, sha256, write_json
from classwise.run.lock import locked

try:
    import fcntl

    HAS_FCNTL = True
except ImportError:  # Windows
    HAS_FCNTL = False

FILE = "compare.json"
MOST_KEYS = 10  # named in a message
# Of a comparison that an earlier version began, which had no test rows.
_SCORED_OTHERWISE = (
    "These runs were scored on the rows that chose their epochs; runs are now scored on rows that chose nothing, so the"
    " two cannot be compared. "
)
# Keys that do not change what a run learns (the seed does, but every run has its own).
WITHOUT_EFFECT = (
    "seed",
    "name",
    "data.workers",
    "data.start_method",
    "data.worker_timeout",
    "data.cache",
    "data.cache_gigabytes",
    "report.baselines",
    "report.live",
    "report.resamples",
    "report.trackers",
)


@dataclass(frozen=True)
class PlanFile:
    """The contents of compare.json: `variants` by name (slug, overrides, sha256, config), `runs`, `plans`, the measured
    settings (precision, threads, workers and so on) by what they were measured for, and `scored`: the split that the
    runs are scored on, and why (`split`, `kind`, `text`)."""

    path: Path
    variants: dict[str, Any]
    runs: list[dict[str, Any]]
    plans: dict[str, dict[str, Any]]
    scored: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Replace the file in one step."""
        content = {
            "scored": self.scored,
            "variants": self.variants,
            "runs": self.runs,
            "plans": self.plans,
        }
        write_json(self.path, content)

    def add(self, runs: Sequence[PlannedRun], scoring: Scoring) -> None:
        """Add these runs, or replace them. Raises ConfigError where a folder holds runs of another config."""
        self.scored.update(kind=scoring.kind, split=scoring.split, text=scoring.text)
        for run in {run.variant: run for run in runs}.values():
            folder = run.folder.parent
            config = outcome_config(run.config)
            earlier = self.variants.get(run.variant)
            if earlier and folder.exists():
                before = {RENAMED.get(key, key): value for key, value in earlier["config"].items()}
                advice = _SCORED_OTHERWISE if scoring.kind == "nested" and "data.test" not in before else ""
                _refuse_changed(run.variant, before=before, now=config, folder=folder, advice=advice)
            self.variants[run.variant] = {
                "slug": folder.name,
                "overrides": [list(pair) for pair in run.overrides[:-1]],  # without the seed
                "sha256": sha256(json_text(config).encode()),
                "config": config,
            }
        for run in runs:
            row = self._row(run)
            others = [other for other in self.runs if other["folder"] != row["folder"]]
            self.runs[:] = [*others, row]

    def _row(self, run: PlannedRun) -> dict[str, Any]:
        variant = self.variants[run.variant]
        return {
            "variant": run.variant,
            "seed": run.seed,
            "folder": f"{run.folder.parent.name}/{run.folder.name}",
            "overrides": [list(pair) for pair in run.overrides],
            "sha256": sha256(f"{variant['sha256']} {run.seed}".encode()),
        }


def read_plan_file(folder: Path) -> PlanFile:
    """compare.json of `folder`, empty where there is nothing yet.

    Raises OutputError where the file is damaged or `folder` holds something other than a comparison."""
    path = folder / FILE
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(
                f"{folder} exists and is not a comparison; it is left as it is. Name another --out"
            )
        return PlanFile(path, variants={}, runs=[], plans={})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return PlanFile(
            path,
            variants=dict(content["variants"]),
            runs=list(content["runs"]),
            plans=dict(content["plans"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path} is damaged ({error}); name another --out") from None


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the comparison, which would train into the same folders. Raises OutputError."""
    if not HAS_FCNTL:
        with locked(folder):
            yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the process, however that ends
        except BlockingIOError:
            raise OutputError(f"{folder}: another `classwise compare` is running here") from None
        yield
    finally:
        os.close(handle)


def outcome_config(config: Config) -> dict[str, Any]:
    """Everything beside the seed that determines a run's result, by dotted key; of a table, a weights file or code of
    the user's own also a digest of its content."""
    flat = _flatten(config.model_dump(mode="json"), "")
    keys = {key: value for key, value in flat.items() if key not in WITHOUT_EFFECT}
    for key in ("data.source", "data.valid", "data.test", "model.weights"):
        file = Path(keys[key]) if isinstance(keys[key], str) else None
        if file is not None and file.is_absolute() and key == "model.weights" and file.is_dir():  # of a run
            file = file / "checkpoints" / "best" / "model.safetensors"
        if file is not None and file.is_absolute() and file.is_file():  # load_config made the paths absolute
            keys[f"{key} (content)"] = _digest(file)
    return keys | {f"{key} (content)": digest[:16] for key, digest in digests_in(config).items()}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _refuse_changed(
    variant: str, before: Mapping[str, Any], now: Mapping[str, Any], folder: Path, advice: str
) -> None:
    # A key without a value counts like one that did not exist yet.
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(
            f"{key}: {_value_text(before, key)} before, {_value_text(now, key)} now"
            for key in changed[:MOST_KEYS]
        )
        more = f"; and {len(changed) - MOST_KEYS} more" if len(changed) > MOST_KEYS else ""
        raise ConfigError(
            f"{folder} was trained with another config of {variant}: {listed}{more}. {advice}Name another --out, or"
            " remove that folder to train it again"
        )


def _value_text(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if config.get(key) is not None else "(not set)"
