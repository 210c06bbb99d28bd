"""The soup of folds (folds.soup): one model whose weights are the mean of those of all folds' models.

Models that were fine-tuned from the same weights lie in one basin, so that the mean of their weights is a model as well
(Wortsman et al. 2022, 'Model soups', section 2, the uniform soup), which takes a fifth of the time of five. Models from
random starts do not, and are refused. A batch norm's running statistics describe the outputs of the layers below, and
the mean of five models' is not that of the mean model, so they are computed anew (Izmailov et al. 2018, section 3.2).

The soup is a run like any other, beside those of the folds, and no part of their mean. Every labeled row has trained
all models of the folds but one, so no row out of fold can say how good it is; test rows can (`data.test`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.compose.dataset import ReadData, prepare
from classwise.compose.loaders import loader_of, split_images
from classwise.compose.losses import build_heads
from classwise.compose.paired_choice import paired_difference
from classwise.compose.selection import single_summary
from classwise.compose.settings import device_of
from classwise.compose.splits import DatasetSplits, Split, data_digest
from classwise.config.folds import Folds
from classwise.config.inference import Inference
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.loader import Loader
from classwise.data.sampling import batches_of
from classwise.errors import ConfigError, Interrupted
from classwise.files import make_folder, write_text
from classwise.infer.ensemble import as_decoded, decoded_outputs
from classwise.kfold.folder import SOUP, FoldsFolder
from classwise.kfold.members import Gathered, read_member
from classwise.kfold.plan import fold_runs
from classwise.metrics.formatting import score_text
from classwise.model.batch_norm import estimate_statistics
from classwise.model.classifier import Classifier
from classwise.model.heads import head_as_dict
from classwise.report.page import write_report
from classwise.run.checkpoint import Checkpoint, read_checkpoint, with_weights, write_checkpoint
from classwise.run.folder import RunFolder, split_table
from classwise.run.predictor import Predictor, unscored
from classwise.run.resume_config import fixed_toml
from classwise.run.stages import headline, scored
from classwise.run.status import data_summary, model_summary
from classwise.run.unattended import is_done

AVERAGED_TYPES = ("class", "ordinal", "multilabel", "ranking")
"""The raw outputs of numbers are in units of each fold's own rows."""


def wants_soup(config: Config) -> bool:
    """Whether the config of folds asks for the soup."""
    return config.folds is not None and config.folds.soup


def check_soup(config: Config) -> None:
    """Raise ConfigError where the models' weights have no mean, which should come out before the folds are trained."""
    if not wants_soup(config):
        return
    if config.model.weights == "none":
        raise ConfigError(
            "folds.soup: found true, but model.weights is 'none', and the mean of models from random starts is no"
            " model; allowed: pretrained weights, a file or a run that all folds start from"
        )
    for name, target in config.targets.items():
        if target.type not in AVERAGED_TYPES:
            raise ConfigError(
                f"folds.soup: found true, but {name!r} is a {target.type} target, whose outputs are in units of each"
                f" fold's own rows; allowed: targets of the types {', '.join(AVERAGED_TYPES)}"
            )


def mean_weights(weights: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several models' weights by name, summed in float64, each in its own precision. Integers, such as the
    number of batches that a norm has seen, are the first model's. One model is held at a time beside the sums. Raises
    ValueError without a model, and where names or shapes differ."""
    sums: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    count = 0
    for one in weights:
        shapes = {name: tensor.shape for name, tensor in one.items()}
        if not first:
            first = dict(one)
            sums = {
                name: torch.zeros_like(tensor, dtype=torch.float64)
                for name, tensor in one.items()
                if tensor.is_floating_point()
            }
        elif shapes != {name: tensor.shape for name, tensor in first.items()}:
            raise ValueError("the models do not have the same weights")
        for name, total in sums.items():
            total += one[name]
        count += 1
    if not count:
        raise ValueError("there is no model")
    return {
        name: (sums[name] / count).to(first[name].dtype) if name in sums else first[name] for name in first
    }


def make_soup(
    folder: FoldsFolder,
    config: Config,
    read: ReadData,
    gathered: Gathered,
    console: Console,
    should_stop: Callable[[], bool],
) -> None:
    """Average the models of the folds, which are done, into `soup`. `gathered`: what all models say together of the
    test rows, which the soup is compared with. Raises CheckpointError for a fold that is damaged, Interrupted."""
    path = folder.path / SOUP
    if not wants_soup(config) or is_done(path):
        return
    check_soup(config)  # also where folds that are done get it later
    runs = fold_runs(config)
    one = soup_config(config, gathered.predictor.tta)
    splits = prepare(one, console, read=read)
    console.line(f"averaging the weights of {len(runs)} models: {path}")
    started = datetime.now(UTC)

    # Statistics that all models have in common, as those of a frozen backbone, are those of the mean as well.
    first = read_member(folder, runs[0])
    model = Predictor.of(first).model
    model.load_state_dict(mean_weights(read_member(folder, run).model for run in runs))
    if not _share_statistics(model, first):
        _estimate_statistics(model, splits, one, console, should_stop)

    # Written as a run's files are, the status last.
    out = RunFolder(path)
    make_folder(path, exist_ok=True)
    write_text(out.config, one.to_toml())
    out.write_split(split_table(splits))
    metadata = first.metadata | {
        "heads": {name: head_as_dict(head) for name, head in build_heads(one, splits).items()},
        "config": fixed_toml(one),
        "data": data_digest(splits),
    }
    write_checkpoint(out.checkpoints, "best", with_weights(first, model.state_dict(), metadata))
    metrics = _scores(out, one, splits, gathered, console, should_stop)
    out.write_metrics(headline(metrics) | metrics)
    status = {
        "state": "finished",
        "reason": f"the mean of the weights of {len(runs)} models",
        "epoch": 0,
        "update": 0,
        "best": {key: metrics[key] for key in ("metric", "value", "epoch")},
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        "data": data_summary(splits),
        "model": model_summary(one, model),
        "environment": first.fingerprint,
    }
    write_report(path, status)
    out.write_status(status)


def soup_config(config: Config, tta: str = "none") -> Config:
    """What the config.toml of the soup holds: the keys of the folds, on all rows but the test's, and the test-time
    augmentation that the folds predict with."""
    assert config.folds is not None
    seed = config.seed if config.folds.seed is None else config.folds.seed
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"valid": 0.0, "fold": None}),
            "folds": Folds(count=config.folds.count, seed=seed, soup=True),
            "inference": Inference.model_validate({"tta": tta}),
            "decision": None,
        }
    )


def _estimate_statistics(
    model: Classifier,
    splits: DatasetSplits,
    config: Config,
    console: Console,
    should_stop: Callable[[], bool],
) -> None:
    """Compute the running statistics of the model's batch norms anew, over the training images as inference sees them:
    the mean over batches of training.batch_size. The weights stay as they are. Raises ImageError, Interrupted."""
    device = device_of(config.training.device)
    loader = loader_of(split_images(splits.train, config, model.metadata), {}, config, device)
    with contextlib.closing(loader):
        batches = (images.to(device) for images in _whole_batches(loader, console, should_stop))
        estimate_statistics(model.to(device), batches)
    model.cpu()


def _whole_batches(loader: Loader, console: Console, should_stop: Callable[[], bool]) -> Iterator[Tensor]:
    """The images by batch. A last batch that is smaller would count as much as the others, so it is left out."""
    order = batches_of(np.arange(len(loader.dataset)), loader.batch_size)
    whole = [batch for batch in order if len(batch) == loader.batch_size] or order
    for batch in console.bar(loader.batches(whole), "statistics for the mean model", total=len(whole)):
        if should_stop():
            raise Interrupted("stopped while the statistics of the mean model were computed")
        yield batch.images


def _share_statistics(model: Classifier, first: Checkpoint) -> bool:
    """Whether the mean model has the running statistics of the first model, as all then have."""
    return all(
        torch.equal(tensor.cpu(), first.model[name])
        for name, tensor in model.state_dict().items()
        if name.endswith(("running_mean", "running_var"))
    )


def _scores(
    out: RunFolder,
    config: Config,
    splits: DatasetSplits,
    gathered: Gathered,
    console: Console,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """What metrics.json of the soup holds: scores on the test rows, if there are any, and there the difference from all
    models together."""
    metrics = unscored(config) | {"epoch": 0}
    metrics["selection"] = single_summary(config, metrics)
    if splits.test is None or gathered.test is None:
        console.line(
            "the soup has no score: every labeled row has trained most of its models; data.test keeps rows for one"
        )
        return metrics
    test = splits.test
    predictor = Predictor.of(read_checkpoint(out.checkpoints / "best")).with_tta(config.inference.tta)
    outputs = predictor.outputs(test.samples, config, should_stop=should_stop, cached=test.cached)
    out.write_predictions(predictor.table(test.samples, outputs, test.labels), "test")
    metrics["test"] = scored(predictor, outputs, test, splits, config)

    # Both on the same rows, the models of the folds without a decision, which the soup has none of.
    as_valid = Split(test.samples, test.labels)
    found = paired_difference(
        config,
        dataclasses.replace(splits, valid=as_valid),
        as_decoded(predictor.heads),
        gathered.test,
        decoded_outputs(outputs, predictor.heads),
        optimism=0.0,
    )
    metrics["test"]["against_folds"] = {"difference": found.difference, "interval": found.interval}
    console.line(
        f"the soup on the test rows: {score_text(str(metrics['metric']), metrics['test']['value'], None)}; against the"
        f" mean of all models {found.difference:+.4f} [{found.interval[0]:+.4f}, {found.interval[1]:+.4f}]"
    )
    return metrics
