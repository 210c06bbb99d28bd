"""The cases of test_every_key.py: for each key of the config some values, and where they show."""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from classwise.compose.dataset import prepare
from classwise.compose.loaders import build_data
from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.settings import device_of
from classwise.compose.state import build_model, build_state
from classwise.config.load import make_config
from classwise.config.losses import LOSSES_BY_TYPE
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import ConfigError
from classwise.kfold.api import folds as train_folds
from classwise.kfold.jobs import jobs_of
from classwise.kfold.plan import FoldRun, fold_runs, folds_config
from classwise.kfold.soup import check_soup
from classwise.run import checkpoint, live_report
from classwise.run.api import Run, train

Outcome = Run | str
"""A finished run, or what it was refused with."""


def weights(outcome: Outcome) -> Any:
    """The bytes of the last weights."""
    return finished(outcome, "checkpoints/last/model.safetensors")


def split(outcome: Outcome) -> Any:
    """Which rows stand on which side, under which id and in which group."""
    return finished(outcome, "split.csv")


def predictions(outcome: Outcome) -> Any:
    """Names and values of the predictions' columns."""
    return finished(outcome, "predictions.csv")


def tracked(outcome: Outcome) -> Any:
    """Which of the files of trackers there are."""
    assert isinstance(outcome, Run), outcome
    return [(outcome.path / name).exists() for name in ("metrics.csv", "tensorboard")]


def finished(outcome: Outcome, file: str) -> bytes:
    """A file of a run that has to have gone through."""
    assert isinstance(outcome, Run), outcome
    return (outcome.path / file).read_bytes()


def status(*path: str) -> Callable[[Outcome], Any]:
    """A part of status.json."""

    def look(outcome: Outcome) -> Any:
        found = json.loads(finished(outcome, "status.json"))
        for part in path:
            found = found[part]
        return found

    return look


def metrics(outcome: Outcome) -> Any:
    """All of metrics.json."""
    return finished(outcome, "metrics.json")


def heat_maps(outcome: Outcome) -> int:
    """How many heat maps the report has."""
    assert isinstance(outcome, Run), outcome
    return (
        (outcome.path / "report.html").read_text(encoding="utf-8").count("The same image with its heat map")
    )


def files(outcome: Outcome) -> list[str]:
    """What the run directory holds."""
    assert isinstance(outcome, Run), outcome
    return sorted(path.name for path in outcome.path.iterdir())


def folder(outcome: Outcome) -> str:
    """The name of the run's folder."""
    assert isinstance(outcome, Run), outcome
    return outcome.path.name


def refusal(outcome: Outcome) -> str:
    """Why it was refused, if it was."""
    return outcome if isinstance(outcome, str) else "finished"


LEFT_OUT = "(left out)"
"""In place of a value: the key is not given."""


@dataclass(frozen=True)
class Case:
    """Values of one key that must all give something else to `see`; `section` are the keys beside it, `base` those
    of other sections."""

    values: tuple[Any, ...]
    see: Callable[[Any], Any] = weights
    section: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    play: Callable[[Config], Any] | None = None


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees as one, with tables laid over each other."""
    found = copy.deepcopy(dict(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else copy.deepcopy(value)
    return found


# The runs: 24 small images, one update or a few. `@` stands for the folder with the data.
BASE: dict[str, Any] = {
    "data": {
        **{"source": "@samples.csv", "images": "@", "workers": 0, "valid": 0.25},
        "augment": {"preset": "none"},
    },
    "targets": {"it": {"column": "kind"}},
    "model": {"image_size": [8, 8]},
    "optimizer": {"name": "sgd", "lr": 0.05},
    "schedule": {"name": "constant"},
    "training": {"epochs": 1, "batch_size": 9, "precision": "fp32", "threads": 1, "device": "cpu"},
    "report": {"baselines": False, "resamples": 0},
}
TWO = {"targets": {"other": {"column": "other"}}, "selection": {"metric": "it.macro_f1"}}
RANKING = {"targets": {"it": {"column": "relevance", "type": "ranking", "query": "query"}}}
OF_TYPE: dict[str, dict[str, Any]] = {
    "class": {},
    "ordinal": {"targets": {"it": {"column": "level", "type": "ordinal"}}},
    "multilabel": {"targets": {"it": {"column": "tags", "type": "multilabel"}}},
    "regression": {
        "targets": {"it": {"column": "amount", "type": "regression"}},
        "selection": {"metric": "mae"},
        "optimizer": {"lr": 0.001},  # squares are steep: at the base's rate they run away
    },
    "ranking": {**RANKING, "selection": {"metric": "ndcg"}},
}
MANY = {"training": {"epochs": 3}}
# Frozen from first to last and hardly moved: no epoch is better than another.
STILL = {"training": {"epochs": 3, "freeze_epochs": 3}, "optimizer": {"lr": 1e-9}}
WORSENING = {"patience": 0, "threshold": 10.0}  # no result is ten times better than the best so far
# A target in levels of 0 to 2, beside another that selects, so that its type may change.
BESIDE = {
    "targets": {"it": {"column": "level"}, "other": {"column": "other"}},
    "selection": {"metric": "other.macro_f1"},
}
BY_LOG_LOSS = {"selection": {"metric": "log_loss"}, "training": {"epochs": 4}}


def composed(config: Config) -> Any:
    """The loader of the training images, with how many workers, how they are started and watched: in a run itself
    they make no difference, which is their promise."""
    splits = prepare(config, Console(quiet=True))
    model = build_model(config, build_heads(config, splits))
    return build_data(config, splits, model, device_of("cpu"))[0].loader._loader


def built(config: Config) -> Any:
    """The state that training begins with: how it is laid out and compiled may change no digit of a small model."""
    splits = prepare(config, Console(quiet=True))
    model = build_model(config, build_heads(config, splits))
    data, _ = build_data(config, splits, model, device_of("cpu"))
    return build_state(config, model, build_criterion(config, splits), data, device_of("cpu"))


def kept(config: Config) -> Any:
    """Where decoded images are kept, and how many were not: they are the same images either way."""
    cache = prepare(config, Console(quiet=True)).cache
    return None if cache is None else (cache.folder.parent, cache.left_out)


def saves(config: Config) -> int:
    """How many checkpoints a run writes: when they are written changes nothing else."""
    write = checkpoint.write_checkpoint
    with (
        tempfile.TemporaryDirectory() as here,
        mock.patch.object(checkpoint, "write_checkpoint", wraps=write) as written,
    ):
        train(config, Path(here) / "run", quiet=True)
    return int(written.call_count)


def live_pages(config: Config) -> int:
    """How many pages a run writes before it ends: the last one is the same either way."""
    write = live_report.write_report
    with (
        tempfile.TemporaryDirectory() as here,
        mock.patch.object(live_report, "write_report", wraps=write) as written,
    ):
        train(config, Path(here) / "run", quiet=True)
    return int(written.call_count)


def runs_of_folds(config: Config) -> list[FoldRun]:
    """What `classwise folds` would train."""
    return fold_runs(folds_config(config))


def folders_of_folds(config: Config) -> list[str]:
    """The runs that `classwise folds` leaves behind."""
    with tempfile.TemporaryDirectory() as here:
        path = train_folds(config, Path(here) / "folds", quiet=True).path
        return sorted(status.parent.name for status in path.glob("*/status.json"))


def refused_soup(config: Config) -> str:
    """Why there is no mean of the weights: of models from random starts there is none (tests/kfold/test_soup.py has the
    others)."""
    try:
        check_soup(folds_config(config))
    except ConfigError as error:
        return str(error)
    return ""


def predicted_by_folds(config: Config) -> list[tuple[object, ...]]:
    """What folds predict for the rows that they were trained on: a single run has nothing to average."""
    with tempfile.TemporaryDirectory() as here:
        return train_folds(config, Path(here) / "folds", quiet=True).predict(config.data.source).rows()


def decided(config: Config) -> str:
    """decision.json of two folds."""
    two = make_config({**config.to_dict(), "folds": {"count": 2}})
    with tempfile.TemporaryDirectory() as here:
        folds = train_folds(two, Path(here) / "F", quiet=True)
        return folds.folder.decision_json.read_text(encoding="utf-8")


COSTS = {"it": [[0, 1, 1], [1, 0, 1], [5, 5, 0]]}

CASES: dict[str, Case] = {
    "seed": Case((1, 2)),
    "name": Case(("one", "two"), folder),
    "data.source": Case(("@samples.csv", "@more.csv")),
    "data.images": Case(("@", "@mirror")),
    "data.follow_links": Case((False, True), refusal, section={"source": "@linked.csv"}),
    "data.path": Case(("path", "twin")),
    "data.id": Case((LEFT_OUT, "name"), split),
    "data.group": Case((LEFT_OUT, "person"), split),
    "data.weight": Case((LEFT_OUT, "amount")),
    "data.valid": Case((0.25, 0.5, "@more.csv"), split),
    "data.test": Case((LEFT_OUT, 0.25, "@more.csv"), split),
    "data.split": Case((LEFT_OUT, "part"), split),
    "data.split_values": Case(
        (
            LEFT_OUT,
            {"train": "train", "val": "test", "test": "valid"},
            {"train": "train", "val": "valid", "test": "skip"},
        ),
        split,
        section={"split": "part"},
    ),
    "data.fold": Case((LEFT_OUT, "level"), split),
    "data.valid_fold": Case((LEFT_OUT, "1", "2"), split, section={"fold": "level"}),
    "data.augment.preset": Case(("none", "light", "standard", "strong")),
    "data.augment.flip": Case((LEFT_OUT, 1.0)),
    "data.augment.flip_vertical": Case((LEFT_OUT, 1.0)),
    "data.augment.quarter_turns": Case((LEFT_OUT, 1.0)),
    "data.augment.crop": Case((LEFT_OUT, 0.3)),
    "data.augment.ratio": Case((LEFT_OUT, 3.0)),
    "data.augment.rotate": Case((LEFT_OUT, 40.0)),
    "data.augment.translate": Case((LEFT_OUT, 0.3)),
    "data.augment.brightness": Case((LEFT_OUT, 0.5)),
    "data.augment.contrast": Case((LEFT_OUT, 0.5)),
    "data.augment.saturation": Case((LEFT_OUT, 0.5)),
    "data.augment.erase": Case((LEFT_OUT, 1.0)),
    "data.sampling": Case(("shuffle", "balanced", "sqrt")),
    "data.mixup": Case((0.0, 0.5, 5.0)),
    "data.cutmix": Case((0.0, 1.0, 5.0)),
    "data.mix_share": Case((1.0, 0.01), section={"mixup": 1.0}),
    "data.workers": Case((0, 1), lambda loader: loader.num_workers, play=composed),
    "data.start_method": Case(
        ("fork", "spawn", "forkserver"),
        lambda loader: loader.multiprocessing_context.get_start_method(),
        section={"workers": 1},
        play=composed,
    ),
    "data.worker_timeout": Case(
        (120.0, 5.0, 0.0), lambda loader: loader.watchdog_timeout, section={"workers": 1}, play=composed
    ),
    "data.bad_images": Case(("error", "skip"), refusal, section={"source": "@bad.csv"}),
    "data.check": Case(("exact", "all"), files),
    "data.unlabeled": Case(("error", "skip"), refusal, section={"source": "@gaps.csv"}),
    "data.unify_labels": Case((False, True), predictions, section={"source": "@spelled.csv"}),
    "data.cache": Case(("auto", "off", "@kept"), lambda found: found, play=kept),
    "data.cache_gigabytes": Case((1e-8, 1.0), lambda found: found, section={"cache": "@small"}, play=kept),
    "data.value_range": Case((LEFT_OUT, [0, 4095], [100, 3000]), section={"source": "@deep.csv"}),
    "data.max_pixels": Case((100_000_000, 100), refusal),
    "targets.NAME.column": Case(("kind", "other")),
    "targets.NAME.columns": Case(
        (["has_x", "has_y"], ["has_y", "has_x"], ["has_x", "has_z"]),
        predictions,
        section={"type": "multilabel", "column": LEFT_OUT},
    ),
    "targets.NAME.type": Case(("class", "ordinal", "multilabel", "regression"), predictions, base=BESIDE),
    "targets.NAME.labels": Case((["a", "b", "c"], ["c", "b", "a"]), predictions),
    "targets.NAME.edges": Case(([20_000.0], [60_000.0], [20_000.0, 60_000.0]), section={"column": "amount"}),
    "targets.NAME.separator": Case(("|", ","), predictions, section={"column": "tags", "type": "multilabel"}),
    "targets.NAME.missing": Case((LEFT_OUT, ["c"]), predictions, base={"data": {"unlabeled": "skip"}}),
    "targets.NAME.none": Case(
        (LEFT_OUT, ["y"]), predictions, section={"column": "tags", "type": "multilabel", "separator": "|"}
    ),
    "targets.NAME.flags": Case(
        (LEFT_OUT, ["1", "0"]),
        predictions,
        section={"type": "multilabel", "column": LEFT_OUT, "columns": ["has_x", "has_y"]},
    ),
    "targets.NAME.query": Case(("query", "person"), base=OF_TYPE["ranking"]),
    "targets.NAME.weight": Case((1.0, 3.0)),
    "targets.NAME.adjust": Case((LEFT_OUT, 1.0, 2.0), predictions),
    "targets.NAME.metrics": Case((LEFT_OUT, ["@own.py:confidence"]), metrics),
    "targets.NAME.loss": Case((LEFT_OUT, {"name": "focal"}, {"label_smoothing": 0.2})),
    "folds.count": Case((3, 4), split, section={"fold": 0}),
    "folds.fold": Case((LEFT_OUT, 0, 1), split),
    "folds.seed": Case((LEFT_OUT, 7), split, section={"fold": 0}),
    "folds.last": Case(
        (False, True), lambda found: found, base={"data": {"test": 0.25}}, play=folders_of_folds
    ),
    "folds.soup": Case((False, True), lambda found: found, play=refused_soup),
    "folds.repeats": Case((1, 2), len, play=runs_of_folds),
    "folds.jobs": Case(("auto", 2), lambda found: found, play=jobs_of),
    "decision.temperature": Case(("auto", "none", 2.0), play=decided, see=str),
    "decision.offsets": Case(("auto", "none", "half_prior", "tuned"), play=decided, see=str),
    "decision.abstain": Case((0.0, 0.4), play=decided, see=str),
    "decision.costs": Case((LEFT_OUT, COSTS), play=decided, see=str, section={"offsets": "tuned"}),
    "joint.targets": Case(
        (["it", "other"], ["other", "it"]), predictions, base={**TWO, "selection": {"metric": "macro_f1"}}
    ),
    "model.backbone": Case(("small_cnn", "test_vit"), base={"model": {"image_size": [32, 32]}}),
    "model.weights": Case(("none", "@weights.safetensors")),
    "model.image_size": Case(([8, 8], [12, 8], [8, 12])),
    "model.channels": Case((1, 3)),
    "model.mean": Case((LEFT_OUT, [0.2, 0.3, 0.4])),
    "model.std": Case((LEFT_OUT, [0.2, 0.3, 0.4])),
    "model.fit": Case(("squash", "crop", "pad")),
    "model.dropout": Case((0.0, 0.5)),
    "model.pooling": Case(("last", "layers"), section={"backbone": "test_resnet", "image_size": [32, 32]}),
    "optimizer.name": Case(("sgd", "adamw")),
    "optimizer.lr": Case((0.05, 0.01)),
    "optimizer.weight_decay": Case((0.01, 0.5)),
    "optimizer.backbone_lr_factor": Case((1.0, 0.1, 0.0)),
    "optimizer.layer_decay": Case((1.0, 0.5)),
    "optimizer.frozen_below": Case((0.0, 0.2, 0.4), section={"layer_decay": 0.5}),
    "optimizer.momentum": Case((LEFT_OUT, 0.0, 0.5)),
    "optimizer.nesterov": Case((LEFT_OUT, True)),
    "optimizer.betas": Case((LEFT_OUT, [0.5, 0.9]), section={"name": "adamw"}),
    "optimizer.eps": Case((LEFT_OUT, 0.1), section={"name": "adamw"}),
    "optimizer.options": Case((LEFT_OUT, {"dampening": 0.5})),
    "schedule[constant].name": Case(("constant", "cosine")),
    "schedule[step].name": Case(("step", "cosine")),
    "schedule[step].step_size": Case((1, 2), base=MANY),
    "schedule[step].gamma": Case((0.1, 0.5), section={"step_size": 1}, base=MANY),
    "schedule[cosine].name": Case(("cosine", "constant")),
    "schedule[cosine].T_max": Case((LEFT_OUT, 2.0), base=MANY),
    "schedule[cosine].eta_min": Case((0.0, 0.02)),
    "schedule[restarts].name": Case(("restarts", "constant")),
    "schedule[restarts].T_0": Case((1, 2), base=MANY),
    "schedule[restarts].T_mult": Case((1, 2), section={"T_0": 1}, base=MANY),
    "schedule[restarts].eta_min": Case((0.0, 0.02)),
    "schedule[polynomial].name": Case(("polynomial", "constant")),
    "schedule[polynomial].power": Case((1.0, 2.0)),
    "schedule[polynomial].total_epochs": Case((LEFT_OUT, 2.0)),
    "schedule[plateau].name": Case(("plateau", "cosine")),
    "schedule[plateau].factor": Case((0.1, 0.5), section=WORSENING, base=BY_LOG_LOSS),
    "schedule[plateau].patience": Case((0, 1), section=WORSENING, base=BY_LOG_LOSS),
    "schedule[plateau].threshold": Case((0.0, 10.0), section={"patience": 0}, base=BY_LOG_LOSS),
    # The amounts are some ten thousands: better by 0.9 is nearly always, better by 90 % never.
    "schedule[plateau].threshold_mode": Case(
        ("rel", "abs"),
        section={"patience": 0, "threshold": 0.9},
        base={**OF_TYPE["regression"], "training": {"epochs": 4}},
    ),
    "schedule[plateau].cooldown": Case((0, 2), section=WORSENING, base=BY_LOG_LOSS),
    "schedule[plateau].min_lr": Case((0.0, 0.04), section=WORSENING, base=BY_LOG_LOSS),
    "schedule[onecycle].name": Case(("onecycle", "constant")),
    "schedule[onecycle].max_lr": Case((LEFT_OUT, 0.2)),
    "schedule[onecycle].pct_start": Case((0.3, 0.7), base=MANY),
    "schedule[onecycle].anneal_strategy": Case(("cos", "linear"), base=MANY),
    "schedule[onecycle].div_factor": Case((25.0, 2.0), base=MANY),
    "schedule[onecycle].final_div_factor": Case((1e4, 2.0), base=MANY),
    **{
        f"schedule[{name}].warmup_epochs": Case((0.0, 1.0), base={"training": {"epochs": 2}})
        for name in ("constant", "step", "cosine", "restarts", "polynomial", "plateau", "onecycle")
    },
    # The warm-up begins again, with whatever schedule.
    **{
        f"schedule[{name}].restart_after": Case(
            (LEFT_OUT, [2]), section={"warmup_epochs": 1.0}, base={"training": {"epochs": 4}}
        )
        for name in ("constant", "step", "cosine", "restarts", "polynomial", "plateau", "onecycle")
    },
    "training.plan": Case(("finetune", "probe", "probe_then_finetune")),
    "training.epochs": Case((1, 2)),
    "training.minutes": Case((LEFT_OUT, 1e-9), section={"epochs": 3}),
    "training.batch_size": Case((9, 6)),
    "training.accumulate": Case((1, 2)),
    "training.clip_norm": Case((LEFT_OUT, 0.01)),
    "training.freeze_epochs": Case((0, 1, 2), section={"epochs": 2}),
    "training.ema": Case((LEFT_OUT, 0.5, 0.1)),
    "training.target_weights": Case(("fixed", "uncertainty"), base=TWO),
    "training.checkpoint_minutes": Case((0.0, 1e-6), lambda count: count, play=saves),
    "training.checkpoint_updates": Case((LEFT_OUT, 1), lambda count: count, play=saves),
    "training.batch_norm": Case(("micro_batch", "frozen")),
    "training.sync_batch_norm": Case((False, True), refusal),  # needs GPUs
    "training.precision": Case(("fp32", "bf16")),
    "training.micro_batch": Case(("auto", 2)),
    "training.memory_format": Case(
        ("channels_last", "contiguous"), lambda state: str(state.model.memory_format), play=built
    ),
    "training.compile": Case((False, True), lambda state: state.compute is None, play=built),
    "training.threads": Case((1, 2), status("environment", "threads")),
    "training.device": Case(("cpu", "cuda:99"), refusal),  # no machine has a hundred GPUs
    "selection.metric": Case(("macro_f1", "accuracy", "log_loss"), status("best", "metric")),
    "selection.prior": Case((LEFT_OUT, "balanced", {"a": 1, "b": 1, "c": 8}), predictions),
    "selection.first_epoch": Case((1, 2), status("best", "epoch"), base=STILL),
    "selection.patience": Case((LEFT_OUT, 1), status("state"), base=STILL),
    "inference.tta": Case(
        ("none", "flip", "flip+scale"), predictions, base={"data": {"augment": {"preset": "light"}}}
    ),
    "inference.ensemble": Case(
        ("probabilities", "logits"),
        lambda rows: rows,
        base={"folds": {"count": 2}},
        play=predicted_by_folds,
    ),
    "report.baselines": Case((True, False), status("baselines")),
    # Twelve validation rows: fewer than ten have no interval.
    "report.live": Case((False, True), lambda count: bool(count), play=live_pages),
    "report.resamples": Case((0, 20, 200), metrics, base={"data": {"valid": 0.5}}),
    "report.row_weights": Case((False, True), metrics, base={"data": {"weight": "amount"}}),
    "report.explanations": Case((0, 1, 3), heat_maps, base={"data": {"valid": 0.5}}),
    "report.trackers": Case(([], ["csv"], ["csv", "tensorboard"]), tracked),
}
# The losses' keys: what is beside them in their section, and their values.
WEIGHTED: dict[str, Case] = {
    "class_weights": Case(("none", "inverse", "effective", [1.0, 2.0, 3.0])),
    "beta": Case((0.999, 0.5), section={"class_weights": "effective"}),
    "weights_from_epoch": Case(
        (1, 2), section={"class_weights": "inverse"}, base={"training": {"epochs": 2}}
    ),
    "normalize_by": Case(("rows", "weights"), section={"class_weights": "inverse"}),
}
LOSSES: dict[str, dict[str, Case]] = {
    "cross_entropy": {**WEIGHTED, "label_smoothing": Case((0.0, 0.2))},
    "focal": {**WEIGHTED, "gamma": Case((2.0, 0.0))},
    "balanced_softmax": {},
    "logit_adjustment": {"tau": Case((1.0, 0.5))},
    "ldam": {**WEIGHTED, "max_margin": Case((0.5, 0.1)), "scale": Case((30.0, 5.0))},
    "gce": {"q": Case((0.7, 0.2))},
    "soft_f1": {},
    "bce": {"pos_weight": Case(("none", "balanced"))},
    "multilabel_focal": {"gamma": Case((2.0, 0.0)), "alpha": Case((LEFT_OUT, 0.25))},
    "asymmetric": {
        "gamma_neg": Case((4.0, 2.0)),
        "gamma_pos": Case((1.0, 0.0)),
        "clip": Case((0.05, 0.4)),
        "focusing_gradient": Case((True, False)),
    },
    "smooth_l1": {"beta": Case((1.0, 0.1))},
    "huber": {"delta": Case((1.0, 0.1))},
}


def loss_cases() -> Iterator[tuple[str, Case]]:
    """Every key of every loss, in [loss] and in a sum's terms. With one term, `weight` is a factor of the loss."""
    for type, names in LOSSES_BY_TYPE.items():
        for name in names:
            other = names[1] if name == names[0] and len(names) > 1 else names[0]
            # Levels have one loss only: any other name is refused.
            naming = Case((name, other)) if other != name else Case((name, "focal"), refusal)
            own = {"name": naming, **LOSSES.get(name, {})}
            for where, inner in (("loss", own), ("loss[sum].terms", {**own, "weight": Case((1.0, 3.0))})):
                for key, case in inner.items():
                    base = merged(OF_TYPE[type], case.base)
                    yield f"{where}[{name}].{key}", Case(case.values, case.see, case.section, base)


ONE_TERM = {"terms": [{"name": "cross_entropy"}]}
CASES |= dict(loss_cases())
CASES["loss[own].name"] = Case(("@own.py:linear", "@own.py:quadratic"))
CASES["loss[sum].terms[own].name"] = CASES["loss[own].name"]
CASES["loss[sum].terms[own].weight"] = Case((1.0, 3.0), section={"name": "@own.py:linear"})
CASES["loss[sum].name"] = Case(("sum", "cross_entropy"), refusal, section=ONE_TERM)
