"""Features of the frozen backbone for the rows that are checked: what outliers and shift are looked for in."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from classwise.compose.splits import Split
from classwise.config.schema import Config
from classwise.console import Console
from classwise.datacheck.rows import Part, Rows
from classwise.errors import DataError
from classwise.files import sha256
from classwise.own_parts.reference import is_own
from classwise.randomness import CHECK, generator

MOST_ROWS = 5_000
"""Of a part, whose features take a minute or so; of more rows a drawn share is compared."""


@dataclasses.dataclass(frozen=True)
class Features:
    """features_MF of M rows, whose numbers are `rows` (M,)."""

    rows: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]


def reason_without_features(config: Config | None) -> str:
    """Why there are no features that mean something; empty if there are."""
    if config is None:
        return "no labels were recognized, and so no config with a backbone"
    if config.model.weights == "none":
        return "the backbone has no pretrained weights (model.weights), so its features mean nothing yet"
    if config.model.starts_from_run:
        return f"model.weights is the run {config.model.weights}, whose weights may know the rows"
    if is_own(config.model.backbone):
        return "model.backbone is code of your own, which a check does not run"
    return ""


def row_features(
    rows: Rows, usable: npt.NDArray[np.bool_], contents: Sequence[bytes], console: Console
) -> Features:
    """Features of the usable rows, of at most MOST_ROWS of a part; kept on disk beside decoded images. `contents`: a
    hash of each row's file. Raises ImageError, and MemoryError or torch's own error where memory runs out."""
    # Imported here: without pretrained weights the data is checked without torch, whose import takes seconds.
    from classwise.compose.features import Computing, split_features
    from classwise.compose.settings import build_settings, device_of
    from classwise.compose.state import build_model
    from classwise.training.loop import never

    config = rows.config
    assert config is not None
    training = config.training.model_copy(update={"precision": "fp32"})
    config = config.model_copy(update={"training": training})
    device = device_of(config.training.device)
    model = build_model(config, {})  # heads are of no use here
    computing = Computing(model, device, build_settings(config, device).autocast, True, console, never)
    chosen, found = [], []
    start = 0
    for part in rows.parts:
        numbers = np.flatnonzero(usable[start : start + len(part.samples)])
        if len(numbers) > MOST_ROWS:
            numbers = np.sort(generator(config.seed, CHECK).choice(numbers, MOST_ROWS, replace=False))
        if len(numbers):
            split = _split(part, numbers, [contents[start + number] for number in numbers.tolist()])
            (features_NF,) = split_features(split, config, computing, mirror=False, what=part.name)
            chosen.append(start + numbers)
            found.append(features_NF.numpy())
        start += len(part.samples)
    if not found:
        raise DataError("not one of the images can be read")
    return Features(np.concatenate(chosen), np.concatenate(found))


def _split(part: Part, numbers: npt.NDArray[np.int64], contents: Sequence[bytes]) -> Split:
    """Some rows of a part, to compute features of."""
    samples = part.samples.take(numbers.tolist())
    return Split(samples, labels={}, images_digest=sha256(b"".join(contents)))
