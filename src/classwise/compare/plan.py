"""What a comparison consists of: its variants, its runs' folders, and compare.json, which says what was asked."""

import fcntl
import hashlib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classwise.config.conflicts import check_conflicts
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.errors import ConfigError, DataError, OutputError
from classwise.files import json_text, sha256, write_json

Overrides = tuple[tuple[str, str], ...]
Warned = tuple[str, str]  # a variant's name, and a warning about its config

FILE = "compare.json"
# None of these changes what a run learns; and the seed is the run's own.
READING = (
    *("data.workers", "data.start_method", "data.worker_timeout", "data.cache", "data.cache_gigabytes"),
)
WITHOUT_EFFECT = ("seed", "name", *READING, "report.baselines", "report.resamples")
TRAINING = ("precision", "threads", "memory_format", "compile")
AUTO = (*TRAINING, "workers", "fused")


@dataclass(frozen=True)
class Variant:
    """One column of the question: a name, and (dotted key, text) pairs laid over the config."""

    name: str
    overrides: Overrides


@dataclass(frozen=True)
class Planned:
    """One run of the comparison: `config` is what it is asked to train, `folder` where it lies."""

    variant: str
    seed: int
    folder: Path
    overrides: Overrides
    config: Config


def grid(vary: Sequence[str]) -> list[Variant]:
    """All combinations of `KEY=VALUE,VALUE,...`, the first key slowest; without any, the config as it stands.

    Commas inside `[...]`, `{...}` and quotes do not separate. Raises ConfigError for anything else.
    """
    axes = [_axis(text) for text in vary]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"--vary {twice}: stands twice; give all its values at once: {twice}=A,B")
    choices = itertools.product(*([(key, value) for value in values] for key, values in axes))
    return [Variant(",".join(f"{k}={v}" for k, v in pairs) or "config", tuple(pairs)) for pairs in choices]


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, rest = text.partition("=")
    key = key.strip().removeprefix("--")
    if not key or not equals:
        raise ConfigError(
            f"--vary: found {text!r}, must be KEY=VALUE,VALUE such as loss.name=cross_entropy,focal"
        )
    if key in ("seed", "name"):
        raise ConfigError(
            f"--vary {key}: every variant is trained with the same seeds; say how many: --seeds 5"
        )
    values = [part.strip() for part in _top_level(rest)]
    if not all(values):
        raise ConfigError(f'--vary {text!r}: a value is empty; write "" for an empty text')
    if len(set(values)) < len(values):
        raise ConfigError(f"--vary {text!r}: a value stands twice")
    return key, values


def _top_level(text: str) -> list[str]:
    """`text` cut at the commas that stand outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            # An apostrophe within a word is no quote: it's.
            quote = char if not parts[-1].strip() or depth else ""
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        if char == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += char
    if depth or quote:
        raise ConfigError(f"--vary: found {text!r}, where a bracket or quote is not closed")
    return parts


def planned_runs(
    path: Path, variants: Sequence[Variant], seeds: int, out: Path | None, overrides: Overrides
) -> tuple[Path, list[Planned], list[Warned]]:
    """The comparison's folder, its runs, one seed after the other so that an early stop leaves whole pairs, and
    what there is to say about the variants' configs.

    Every config is read and checked here, also for keys that contradict each other. Raises ConfigError, with the
    variant's name before it. No run scores the baselines, which the comparison has no column for, unless the config
    or the overrides say report.baselines themselves.
    """
    _check_names([variant.name for variant in variants])
    loaded = {variant.name: _load(path, overrides, variant) for variant in variants}
    configs = {name: config for name, (config, _) in loaded.items()}
    warned = [(name, warning) for name, (_, warnings) in loaded.items() for warning in warnings]
    metrics = {config.selection.metric for config in configs.values()}
    if len(metrics) > 1:
        raise ConfigError(
            f"selection.metric: the variants are judged by {', '.join(sorted(metrics))}; let them share one"
        )
    first = next(iter(configs.values()))
    folder = Path("compare") / first.name if out is None else out
    if first.seed + seeds > 2**63:
        raise ConfigError(f"seed: found {first.seed}, which leaves no room for {seeds} seeds")
    runs = [
        Planned(
            v.name,
            seed,
            folder / slug(v.name) / f"seed-{seed}",
            (*overrides, *v.overrides, ("seed", str(seed))),
            configs[v.name].model_copy(update={"seed": seed}),
        )
        for seed in range(first.seed, first.seed + seeds)
        for v in variants
    ]
    return folder, runs, warned


def _load(path: Path, overrides: Overrides, variant: Variant) -> tuple[Config, list[str]]:
    """The variant's config as its runs are trained, and warnings."""
    try:
        config = load_config(path, (*overrides, *variant.overrides))
        return _without_baselines(config), check_conflicts(config)
    except ConfigError as error:
        # Without overrides of its own, the mistake is the config's.
        raise ConfigError(f"variant {variant.name}: {error}" if variant.overrides else str(error)) from None


def _without_baselines(config: Config) -> Config:
    if "baselines" in config.report.model_fields_set:
        return config
    return config.model_copy(update={"report": config.report.model_copy(update={"baselines": False})})


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("compare: there is no variant; name one or more")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"compare: two variants are named {name!r}")
        if not name.strip() or "\0" in name or name != name.encode("utf-8", "replace").decode():
            raise ConfigError(f"compare: found the variant name {name!r}, must be some readable text")


def slug(name: str) -> str:
    """A folder name for a variant, its own whatever the name holds: where letters are lost, and where a file
    system may not tell capitals apart, a piece of the name's hash follows."""
    plain = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", name).strip(".-")[:80]
    reserved = plain.startswith("compare.") or plain == "summary.csv"
    if plain == name and plain == plain.lower() and not reserved:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def request(config: Config) -> dict[str, Any]:
    """Everything that a run's outcome follows from beside its seed, by dotted key; tables by their bytes too."""
    flat = {k: v for k, v in _flat(config.model_dump(mode="json"), "").items() if k not in WITHOUT_EFFECT}
    for key in ("data.source", "data.valid", "model.weights"):
        file = Path(flat[key]) if isinstance(flat[key], str) else None
        if file is not None and file.is_absolute() and file.is_file():  # load_config made the paths absolute
            flat[f"{key} (content)"] = _digest(file)
    return flat


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _flat(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return found


@dataclass(frozen=True)
class PlanFile:
    """compare.json: `variants` by name (slug, overrides, sha256, config), `runs`, and `plans`, the measured ways
    to train (precision, threads, workers and so on) by what they were measured for."""

    path: Path
    variants: dict[str, Any]
    runs: list[dict[str, Any]]
    plans: dict[str, dict[str, Any]]

    def write(self) -> None:
        """Replace the file in one step."""
        write_json(self.path, {"variants": self.variants, "runs": self.runs, "plans": self.plans})

    def add(self, runs: Sequence[Planned]) -> None:
        """Take in what is asked now. Raises ConfigError where a folder holds runs of another config."""
        for run in {run.variant: run for run in runs}.values():
            folder, asked, known = run.folder.parent, request(run.config), self.variants.get(run.variant)
            if known and folder.exists():
                _refuse_changed(run.variant, known["config"], asked, folder)
            self.variants[run.variant] = {
                "slug": folder.name,
                "overrides": [list(pair) for pair in run.overrides[:-1]],
                "sha256": sha256(json_text(asked).encode()),
                "config": asked,
            }
        for run in runs:
            row = self._row(run)
            self.runs[:] = [old for old in self.runs if old["folder"] != row["folder"]] + [row]

    def _row(self, run: Planned) -> dict[str, Any]:
        hashed = sha256(f"{self.variants[run.variant]['sha256']} {run.seed}".encode())
        return {
            "variant": run.variant,
            "seed": run.seed,
            "folder": f"{run.folder.parent.name}/{run.folder.name}",
            "overrides": [list(pair) for pair in run.overrides],
            "sha256": hashed,
        }


def read_plan(folder: Path) -> PlanFile:
    """compare.json of `folder`, empty where there is nothing yet. Raises OutputError for another kind of folder."""
    path = folder / FILE
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} exists already and is no comparison; it is kept. Name another --out")
        return PlanFile(path, {}, [], {})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return PlanFile(path, dict(content["variants"]), list(content["runs"]), dict(content["plans"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path} is damaged ({error}); name another --out") from None


def _refuse_changed(variant: str, then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    missing = object()
    differ = [key for key in {**then, **now} if then.get(key, missing) != now.get(key, missing)]
    if differ:
        listed = "; ".join(f"{key}: {_told(then, key)} then, {_told(now, key)} now" for key in differ[:10])
        more = f"; and {len(differ) - 10} more" if len(differ) > 10 else ""
        raise ConfigError(
            f"{folder} was trained with another config of {variant}: {listed}{more}. Name another --out, or remove"
            " that folder to train it again"
        )


def _told(side: Mapping[str, Any], key: str) -> str:
    return repr(side[key]) if key in side else "(not there)"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two processes at work in one comparison would train into the same folders. Raises OutputError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however that ends
        except BlockingIOError:
            raise OutputError(f"{folder}: another `classwise compare` is at work here") from None
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Plans:
    """Fills in precision, threads, workers and so on where the config leaves them to be measured: measured by the first
    run of a kind (its config.toml says them) and the same for all others, or the variants would differ in more than
    was asked. With several processes each one has one thread and reads its own images."""

    file: PlanFile
    runs: Sequence[Planned]
    jobs: int
    scouts: dict[str, Path]

    def settle(self, run: Planned) -> Config | None:
        """The config to train, or None while the run that measures for it has not come that far."""
        config = run.config
        given = _given(config)
        if "auto" not in given.values():
            return config
        key = _kind(config)
        plan = self._known(key)
        if plan is None and self.jobs > 1 and given["precision"] != "auto":
            plan = self._keep(key, {**given, **self._one_process(given)})
        if plan is not None:
            return _filled(config, {name: plan[name] for name in AUTO if given[name] == "auto"})
        if self.scouts.setdefault(key, run.folder) != run.folder:
            return None
        return _filled(config, self._one_process(given)) if self.jobs > 1 else config

    def ended(self, run: Planned) -> None:
        """Keep what the run measured; where it has failed before that, the next one measures."""
        key = _kind(run.config)
        if self.scouts.get(key) == run.folder:
            self._known(key)
            del self.scouts[key]

    def _known(self, key: str) -> dict[str, Any] | None:
        if key not in self.file.plans:
            for run in self.runs:
                path = run.folder / "config.toml"
                if _kind(run.config) == key and path.exists():
                    values = tomllib.loads(path.read_text(encoding="utf-8"))
                    found = {**values["training"], **values["data"]}
                    found["fused"] = values["optimizer"].get("options", {}).get("fused")
                    return self._keep(key, {name: found[name] for name in AUTO})
        return self.file.plans.get(key)

    def _keep(self, key: str, plan: dict[str, Any]) -> dict[str, Any]:
        self.file.plans[key] = plan
        self.file.write()
        return plan

    def _one_process(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: n for name, n in (("threads", 1), ("workers", 0)) if given[name] == "auto"}


def _given(config: Config) -> dict[str, Any]:
    """What the config says of what can be measured. Without a precision to measure nothing else is, but threads and
    workers are whatever the machine has."""
    t, options = config.training, config.optimizer.options or {}
    given = {name: getattr(t, name) for name in TRAINING} | {"workers": config.data.workers}
    if t.precision == "auto":
        fused = options.get("fused", options.get("foreach", "auto"))
        return given | {"fused": fused}
    fixed = {"memory_format": "channels_last", "compile": False}
    return given | {name: value for name, value in fixed.items() if given[name] == "auto"} | {"fused": None}


def _kind(config: Config) -> str:
    """What a measurement holds for."""
    height, width = config.model.image_size
    asked = ", ".join(f"{name} {value}" for name, value in _given(config).items())
    return f"{config.model.backbone} {height}x{width}, {config.optimizer.name}, {config.training.device}: {asked}"


def _filled(config: Config, plan: Mapping[str, Any]) -> Config:
    training = {name: plan[name] for name in TRAINING if name in plan}
    data = {"workers": plan["workers"]} if "workers" in plan else {}
    options = config.optimizer.options
    if plan.get("fused") is not None:
        options = {**(options or {}), "fused": plan["fused"]}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "data": config.data.model_copy(update=data),
            "optimizer": config.optimizer.model_copy(update={"options": options}),
        }
    )
