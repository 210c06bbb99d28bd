"""The outputs of all validation rows, from all processes, meet the labels of their own rows."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.data.epochs import ValidationData
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.losses.criterion import Criterion
from classwise.losses.ranking import ListNet
from classwise.metrics.collection import MetricCollection
from classwise.model.heads import RankingHead
from classwise.training.validation import ValidationResults

CPU = torch.device("cpu")
ROWS = 18
QUERIES = np.arange(ROWS) % 3
"""Three queries that alternate from row to row: batches that hold whole queries come in another order than the rows."""


class Labels:
    """A loader without images: its batches hold the rows' labels."""

    def __init__(self) -> None:
        relevance_N = torch.from_numpy(np.random.default_rng(0).integers(0, 4, ROWS))
        self.targets = {"match": torch.stack([relevance_N, torch.from_numpy(QUERIES)], dim=1)}
        self.dataset = range(ROWS)
        self.batch_size = 6

    def batches(self, parts: Sequence[np.ndarray], epoch: int = 0) -> Any:
        for part in parts:
            labels = {name: values[part] for name, values in self.targets.items()}
            yield Batch(torch.zeros(len(part), 3, 1, 1), labels, part)


def raw_scores(rows: np.ndarray) -> dict[str, Tensor]:
    """What the model says of these rows: one number each, whatever batch they are in."""
    scores_N = torch.from_numpy(np.random.default_rng(1).normal(size=ROWS)).float()
    return {"match": scores_N[rows][:, None]}


def scored(processes: Processes, rank: int, world_size: int) -> dict[str, float]:
    """The scores of one pass over the rows."""
    loader = cast(Any, Labels())
    valid = ValidationData(loader, queries=QUERIES, rank=rank, world_size=world_size)
    criterion = Criterion({"match": ListNet()}, {"match": 1.0}, False)
    metrics = MetricCollection({"match": RankingHead()}, {})
    results = ValidationResults(criterion, valid, metrics, CPU, processes)
    for batch, rows_by_rank in valid.rounds(0):
        results.update(batch, raw_scores(batch.rows), rows_by_rank)
    return results.compute()


@pytest.mark.parametrize("rank", [0, 1])
def test_outputs_of_all_processes_meet_their_own_labels(rank: int) -> None:
    """Where queries alternate, the scores and the loss of two processes are those of one, which are those of the rows
    in their own order."""
    rows_by_round = [rows for _, rows in ValidationData(cast(Any, Labels()), QUERIES, world_size=2).rounds(0)]
    assert any((np.diff(rows.numpy()) != 1).any() for rows in rows_by_round[0])
    rounds = iter(rows_by_round)

    def gather_outputs(outputs: dict[str, Tensor], sizes: list[int]) -> list[dict[str, Tensor]]:
        found = [raw_scores(rows.numpy()) for rows in next(rounds)]
        assert [len(part["match"]) for part in found] == sizes
        return found

    two = cast(Processes, SimpleNamespace(world_size=2, gather_outputs=gather_outputs))
    both = scored(two, rank, 2)
    alone = scored(SINGLE_PROCESS, 0, 1)
    assert both == pytest.approx(alone, rel=1e-6)

    in_order = MetricCollection({"match": RankingHead()}, {})
    in_order.update(raw_scores(np.arange(ROWS)), Labels().targets)
    expected = in_order.compute()["targets"]["match"]
    assert {name: alone[name] for name in ("mrr", "ndcg", "map")} == pytest.approx(
        {name: expected[name] for name in ("mrr", "ndcg", "map")}
    )
