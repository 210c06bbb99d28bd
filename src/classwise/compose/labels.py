"""The label columns of a table as numbers, and the rows that have a label."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.table import rows_text
from classwise.data.targets import Target, make_target
from classwise.errors import DataError

Labels = dict[str, npt.NDArray[Any]]


def target_of(name: str, config: Config, samples: Samples) -> Target:
    t = config.targets[name]
    return make_target(
        *(name, t.type, t.column, t.columns, t.labels, t.edges, t.separator, t.query),
        *(samples.frame, samples.where),
    )


def labeled_rows(targets: Sequence[Target], samples: Samples, config: Config) -> tuple[Samples, Labels]:
    """The rows with an answer for some target; data.unanswered says whether others are an error or are left out."""
    if config.data.unanswered == "skip":
        labels = {target.name: target.encode(samples.frame, samples.where) for target in targets}
        known_N = np.any([target.known(labels[target.name]) for target in targets], axis=0)
        left = int((~known_N).sum())
        if left and known_N.any():
            samples = samples.take(np.flatnonzero(known_N).tolist())
            note = f"{left} rows without any answer left out (data.unanswered = skip)"
            samples = dataclasses.replace(samples, notes=(*samples.notes, note))
    return samples, encode(targets, samples)


def encode(targets: Sequence[Target], samples: Samples) -> Labels:
    """Answers by target. Raises DataError for a missing column, an unknown label, a row without any answer."""
    labels = {target.name: target.encode(samples.frame, samples.where) for target in targets}
    known_N = np.any([target.known(labels[target.name]) for target in targets], axis=0)
    if not known_N.all():
        rows = [int(i) + 1 for i in np.flatnonzero(~known_N)]
        columns = ", ".join(repr(column) for target in targets for column in target.columns)
        raise DataError(
            f"{samples.where}: no answer in {rows_text(rows)}: empty in column{'s' * (', ' in columns)} {columns}"
            ' (data.unanswered = "skip" leaves such rows out)'
        )
    return labels
