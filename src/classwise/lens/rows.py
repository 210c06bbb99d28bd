"""The rows of the update where the user chooses them."""

from collections.abc import Sequence

import numpy as np

from classwise.compose.splits import DatasetSplits
from classwise.data.batch import Batch
from classwise.data.epochs import TrainingData
from classwise.data.loader import Loader
from classwise.data.sampling import batches_of
from classwise.errors import ConfigError, nearest


def parse_rows(text: str | None) -> tuple[str, ...]:
    """The ids in a list with commas; empty for None. Raises ConfigError for an empty list, and for an id twice."""
    if text is None:
        return ()
    ids = tuple(part.strip() for part in text.split(",") if part.strip())
    if not ids:
        raise ConfigError("--rows: found no id; allowed: ids of training rows, separated by commas")
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice is not None:
        raise ConfigError(f"--rows: found {twice!r} twice; allowed: every row once")
    return ids


def row_numbers(ids: Sequence[str], splits: DatasetSplits, most: int) -> list[int]:
    """The numbers of the training rows with these ids. Raises ConfigError for others, and for more than `most`."""
    if len(ids) > most:
        raise ConfigError(
            f"--rows: found {len(ids)} rows; allowed: up to {most}, as many as an update has (training.batch_size *"
            " training.accumulate)"
        )
    number_of = {id: number for number, id in enumerate(splits.train.samples.ids)}
    for id in ids:
        if id in number_of:
            continue
        split = next((name for name, split in splits.by_name.items() if id in split.samples.ids), None)
        if split is not None:
            raise ConfigError(
                f"--rows: {id!r} is a {'validation' if split == 'valid' else split} row, which is never trained on;"
                " allowed: training rows"
            )
        raise ConfigError(f"--rows: there is no row {id!r}; {nearest(id, number_of)}")
    return [number_of[id] for id in ids]


def batches_of_rows(rows: Sequence[int], data: TrainingData, epoch: int) -> list[Batch]:
    """These training rows as the micro-batches of an update, read and augmented as in that epoch."""
    order = np.array(rows, dtype=np.int64)
    if data.queries is not None:  # the rows of a query stay together
        order = order[np.argsort(data.queries[order], kind="stable")]
    parts = batches_of(order, data.loader.batch_size, data.queries)
    if data.features is not None and epoch < data.frozen_epochs:
        return list(data.features.batches(parts, epoch))

    # Not the run's own loader, whose workers are in the midst of the epoch.
    targets = {name: labels.numpy() for name, labels in data.loader.targets.items()}
    loader = Loader(data.loader.dataset, targets, data.loader.batch_size, workers=0)
    return list(loader.batches(parts, epoch))
