"""A run's network in 8 bits, what that costs on its validation rows, and whether it is worth it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from classwise.compose.dataset import prepare
from classwise.compose.loaders import evaluation_images, loader_of
from classwise.compose.row_weights import score_weights
from classwise.compose.splits import DatasetSplits, Split, taken
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.sampling import batches_of
from classwise.errors import CheckpointError, DataError, ModelError
from classwise.infer.engines import Engine, Outputs, median_seconds, session_engine
from classwise.infer.ensemble import undecoded
from classwise.infer.export_int8 import Images, int8_bytes
from classwise.infer.predict import predict_outputs
from classwise.metrics.names import higher_is_better
from classwise.model.heads import Head, chosen_labels
from classwise.run.folder import RunFolder
from classwise.run.predictor import Predictor
from classwise.run.resume_checks import refuse_changed_data

CALIBRATION_IMAGES = 256
CALIBRATION_BATCH = 16
TIMED_BATCH = 16
CPU = torch.device("cpu")


def quantizer(
    folder: RunFolder, predictor: Predictor, config: Config, max_loss: float, console: Console
) -> Callable[[bytes], bytes]:
    """A function from a network as an ONNX file to that in 8 bits, which says what that costs. It raises ModelError
    where the selection metric loses more than `max_loss` on the validation rows (the test rows of a run without any).
    Raises DataError and CheckpointError where the run's images are not there or not the same."""
    predictor = dataclasses.replace(predictor, heads=undecoded(predictor.heads), tta="none")
    splits = _splits(folder, predictor, config, console)
    scored = splits.valid if len(splits.valid.samples) else splits.test
    if scored is None or not len(scored.samples):
        raise DataError(
            f"{folder.path}: --int8: the run has no validation or test rows, on which the cost of 8 bits could be"
            " measured; allowed: a run with data.valid"
        )
    rows = "validation rows" if scored is splits.valid else "test rows"

    def quantize(network: bytes) -> bytes:
        small = int8_bytes(network, _calibration(splits.train, predictor, config))
        engines = {
            name: session_engine(data, list(predictor.heads), torch.get_num_threads())
            for name, data in (("float32", network), ("int8", small))
        }
        lost = _cost(engines, scored, predictor, config, rows, console)
        if not lost <= max_loss:
            raise ModelError(
                f"--int8: 8 bits lose {lost:.4f} of the selection metric on the {rows}; allowed: --max-loss"
                f" {max_loss:g}. Nothing is written"
            )
        _say_size_and_speed(engines, len(network), len(small), predictor, console)
        return small

    return quantize


def _splits(folder: RunFolder, predictor: Predictor, config: Config, console: Console) -> DatasetSplits:
    """The rows of the run, each image checked, in the splits that it was trained with."""
    try:
        splits = prepare(config, console, use_cache=False, sides=folder.sides())
        refuse_changed_data(folder, splits, predictor.metadata)
    except (DataError, CheckpointError) as error:
        raise type(error)(
            f"--int8 needs the images that the run was trained and validated on, to calibrate and to measure: {error}"
        ) from error
    return splits


def _calibration(train: Split, predictor: Predictor, config: Config) -> Iterator[Images]:
    """Batches of drawn training images, as validation would see them."""
    count = len(train.samples)
    drawn = np.random.default_rng(config.seed).permutation(count)[:CALIBRATION_IMAGES]
    samples = taken(train, np.sort(drawn)).samples
    dataset = evaluation_images(samples, predictor.model.metadata, config.data.max_pixels)
    with contextlib.closing(loader_of(dataset, {}, config, CPU)) as loader:
        for batch in loader.batches(batches_of(np.arange(len(samples)), CALIBRATION_BATCH)):
            yield batch.images.numpy()


def _cost(
    engines: Mapping[str, Engine],
    split: Split,
    predictor: Predictor,
    config: Config,
    rows: str,
    console: Console,
) -> float:
    """How much of the selection metric 8 bits lose; says it, and how many answers agree."""
    outputs = {}
    for name, engine in engines.items():
        dataset = evaluation_images(split.samples, predictor.model.metadata, config.data.max_pixels)
        with contextlib.closing(loader_of(dataset, {}, config, CPU)) as loader:
            outputs[name] = predict_outputs(engine, loader)
    # Nobody has asked for intervals.
    config = config.model_copy(update={"report": config.report.model_copy(update={"resamples": 0})})
    weights_N = score_weights(config, split.samples)
    scores = {
        name: predictor.score(found, split.labels, groups=None, config=config, row_weights=weights_N)
        for name, found in outputs.items()
    }
    metric, before, after = scores["int8"]["metric"], scores["float32"]["value"], scores["int8"]["value"]
    agreement = _agreement(outputs["float32"], outputs["int8"], predictor.heads)
    console.line(
        f"int8: {metric} {before:.4f} to {after:.4f} on {len(split.samples)} {rows}; the answers agree {agreement}"
    )
    return float(before - after) if higher_is_better(metric) else float(after - before)


def _agreement(before: Outputs, after: Outputs, heads: Mapping[str, Head]) -> str:
    """In how many rows the labels of each target are the same; of numbers how far they differ on average."""
    parts = []
    for name, head in heads.items():
        decoded = [head.decode(outputs[name]) for outputs in (before, after)]
        if head.type == "multilabel":
            chosen = [chosen_labels(head, values) for values in decoded]
            share = float((chosen[0] == chosen[1]).all(dim=1).double().mean())
        elif head.classes and head.type != "regression":
            share = float((head.predicted(decoded[0]) == head.predicted(decoded[1])).double().mean())
        else:
            difference = float((decoded[0] - decoded[1]).abs().mean())
            parts.append(f"in {name!r} to within {difference:.4g} on average")
            continue
        parts.append(f"in {100 * share:.1f} % of {name!r}")
    return ", ".join(parts)


def _say_size_and_speed(
    engines: Mapping[str, Engine], before: int, after: int, predictor: Predictor, console: Console
) -> None:
    """How large the network is in both, and how fast."""
    metadata = predictor.model.metadata
    shape = (TIMED_BATCH, metadata.channels, *metadata.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seconds = median_seconds(engines, images)
    console.line(
        f"int8: {before / 1e6:.1f} MB to {after / 1e6:.1f} MB; {seconds['float32'] / seconds['int8']:.2f} times the"
        f" images a second, {TIMED_BATCH} at a time, on this machine"
    )
