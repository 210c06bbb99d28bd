"""Ranking scores against ranx and scikit-learn."""

import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score
from torch import Tensor

from classwise.metrics.bootstrap import mean_intervals
from classwise.metrics.ranking import RankingMetric, query_scores
from classwise.metrics.scores import SCORES

NAN = float("nan")


def drawn(seed: int, masked: float = 0.0) -> tuple[Tensor, Tensor]:
    """Scores (N,), and relevance and query (N, 2) of rows in random order; some queries without a relevant
    row. No two scores are equal, since each reference breaks ties in its own way."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(5, 120))
    query = rng.integers(0, max(1, rows // 8), rows) * 7 + 3
    relevance = rng.integers(0, 4, rows) * (rng.random(rows) < rng.uniform(0.1, 0.8))
    scores = rng.permutation(rows) / rows + 0.3 * relevance
    relevance[rng.random(rows) < masked] = -1
    return torch.from_numpy(scores + 1e-9 * np.arange(rows)), torch.from_numpy(
        np.stack([relevance, query], axis=1)
    )


def counted(scores: Tensor, targets: Tensor, size: int = 10) -> RankingMetric:
    """A metric that was updated with the rows in batches."""
    metric = RankingMetric(keep_rows=True)
    for part, truth in zip(scores.split(size), targets.split(size), strict=True):
        metric.update(part, truth)
    return metric


def by_query(scores: Tensor, targets: Tensor) -> dict[int, list[tuple[float, int]]]:
    """Score and relevance of the labeled rows of each query that has a relevant one."""
    queries: dict[int, list[tuple[float, int]]] = {}
    for score, (relevance, query) in zip(scores.tolist(), targets.tolist(), strict=True):
        if relevance >= 0:
            queries.setdefault(query, []).append((score, relevance))
    return {query: rows for query, rows in queries.items() if any(relevance for _, relevance in rows)}


@pytest.mark.full
def test_equals_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 random cases: MRR, MAP, NDCG over all ranks, the first 5 and the first 10."""
    # As plain Python: compiling it takes a minute, and the cases are small.
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own text has escapes that Python warns of
        import ranx
    names = {"mrr": "mrr", "ndcg": "ndcg", "map": "map", "ndcg_at_5": "ndcg@5", "ndcg_at_10": "ndcg@10"}
    assert tuple(names) == SCORES["ranking"]
    for seed in range(200):
        scores, targets = drawn(seed, masked=0.1)
        queries = by_query(scores, targets)
        if not queries:
            continue
        ids = {q: [f"d{i}" for i in range(len(rows))] for q, rows in queries.items()}
        truth = {
            str(q): {d: r for d, (_, r) in zip(ids[q], rows, strict=True) if r} for q, rows in queries.items()
        }
        said = {str(q): {d: s for d, (s, _) in zip(ids[q], rows, strict=True)} for q, rows in queries.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numba's, when it compiles
            expected = ranx.evaluate(ranx.Qrels(truth), ranx.Run(said), list(names.values()))
        actual = counted(scores, targets).compute()
        assert actual["queries"] == len(queries)
        for name, theirs in names.items():
            assert actual[name] == pytest.approx(expected[theirs], abs=1e-12), (seed, name)


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 200), marks=pytest.mark.full)])
def test_equals_scikit_learn(seeds: range) -> None:
    """200 random cases: NDCG, average precision and reciprocal rank (a plain loop) of each query, averaged."""
    for seed in seeds:
        scores, targets = drawn(seed, masked=0.1)
        actual, queries = counted(scores, targets).compute(), by_query(scores, targets).values()
        for name, k in (("ndcg", None), ("ndcg_at_5", 5), ("ndcg_at_10", 10)):
            each = []
            for rows in queries:
                said, truth = [[value] for value in zip(*rows, strict=True)]
                # It refuses a query of one row, which is always in its best order.
                each.append(ndcg_score(truth, said, k=k) if len(rows) > 1 else 1.0)
            assert actual[name] == pytest.approx(np.mean(each) if each else 0.0, abs=1e-12), (seed, name)
        each = []
        for rows in queries:  # the reciprocal of the first relevant row's rank
            best_first = sorted(rows, key=lambda row: -row[0])
            each.append(1 / (1 + next(place for place, (_, r) in enumerate(best_first) if r > 0)))
        assert actual["mrr"] == pytest.approx(np.mean(each) if each else 0.0, abs=1e-12), seed
        each = [average_precision_score([r > 0 for _, r in rows], [s for s, _ in rows]) for rows in queries]
        assert actual["map"] == pytest.approx(np.mean(each) if each else 0.0, abs=1e-12), seed


def test_the_order_of_the_table_does_not_break_ties() -> None:
    """A model with the same score for all rows is not perfect on a table sorted by relevance: NDCG shares the ranks as
    scikit-learn does, and for MRR and MAP the relevant rows come last."""
    best_first = torch.tensor([[3, 5], [2, 5], [0, 5], [0, 5]])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        actual = counted(torch.zeros(4), best_first[order], 2).compute()
        assert actual["ndcg"] == pytest.approx(ndcg_score([[3, 2, 0, 0]], [[0, 0, 0, 0]]), abs=1e-12)
        assert (actual["mrr"], actual["map"]) == (pytest.approx(1 / 3), pytest.approx((1 / 3 + 2 / 4) / 2))
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows = int(rng.integers(2, 12))
        relevance, scores = rng.integers(0, 4, rows), rng.integers(0, 3, rows).astype(float)
        if relevance.max():
            truth = torch.from_numpy(np.stack([relevance, np.zeros(rows, dtype=np.int64)], axis=1))
            actual = counted(torch.from_numpy(scores), truth).compute()
            for name, k in (("ndcg", None), ("ndcg_at_5", 5), ("ndcg_at_10", 10)):
                assert actual[name] == pytest.approx(ndcg_score([relevance], [scores], k=k), abs=1e-12)


def test_queries_without_a_relevant_row_are_left_out() -> None:
    """They are counted separately; a query whose rows are all unlabeled is not counted at all."""
    scores = torch.tensor([1.0, 0.5, 0.3, 0.2, 0.1])
    targets = torch.tensor([[1, 0], [0, 0], [0, 1], [0, 1], [-1, 2]])
    actual = counted(scores, targets).compute()
    assert (actual["queries"], actual["queries_without_relevant"], actual["samples"]) == (1, 1, 4)
    assert actual["mrr"] == actual["ndcg"] == actual["map"] == 1.0


def two_rows_each(queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and targets of queries with one relevant row, which ranks first in about half of them."""
    scores = torch.rand(2 * queries, generator=torch.Generator().manual_seed(0))
    return scores, torch.stack([torch.arange(2 * queries) % 2, torch.arange(2 * queries) // 2], dim=1)


def test_intervals_are_over_queries() -> None:
    """Those of means over queries; copies of a query in one group are worth one query."""
    scores, targets = two_rows_each(40)
    once = counted(scores, targets).intervals(seed=6, resamples=200)
    assert list(once.scores) == [*SCORES["ranking"]]
    values_QS = query_scores(scores.numpy(), *targets.numpy().T)[0]
    means = mean_intervals({"mrr": values_QS[:, 0]}, np.ones(40), 40, None, seed=6, resamples=200)
    assert once.scores["mrr"] == pytest.approx(means["mrr"])
    copied = torch.cat([targets, targets + torch.tensor([0, 40])])
    metric = counted(scores.repeat(2), copied)
    by_group = metric.intervals((copied[:, 1] % 40).numpy(), seed=6, resamples=200)
    assert by_group.scores["mrr"] == pytest.approx(once.scores["mrr"])
    assert np.diff(by_group.scores["mrr"]) > 1.2 * np.diff(metric.intervals(resamples=200).scores["mrr"])


def test_groups_that_share_a_query_are_drawn_together() -> None:
    """Groups with rows of one query form one unit; another number of groups than rows is refused."""
    metric = counted(*two_rows_each(30))
    assert metric.intervals(np.arange(60) // 2).scores
    crossing = (np.arange(60) + 1) // 2  # each query in two groups, so that all of them are linked
    assert metric.intervals(crossing).withheld["mrr"].startswith("1 group;")
    with pytest.raises(ValueError, match="found 2 groups for 60 rows"):
        metric.intervals(["a", "b"])
    with pytest.raises(ValueError, match="keep_rows=True"):
        RankingMetric().intervals()


def test_invalid_outputs_and_targets() -> None:
    """A labeled row without a finite score is invalid; a relevance below -1 is refused."""
    metric = RankingMetric()
    metric.update(torch.tensor([NAN, NAN, 1.0]), torch.tensor([[1, 0], [-1, 0], [2, 0]]))
    assert (metric.invalid, metric.compute()["samples"]) == (1, 1)
    metric.update(torch.tensor([0.0]), torch.tensor([[-2, 0]]))
    with pytest.raises(ValueError, match="1 rows have a relevance below 0"):
        metric.compute()
    metric.reset()
    assert metric.compute()["samples"] == metric.invalid == 0


def test_the_keys_of_metrics_json() -> None:
    """Plain values in the order of the scores, zeros without rows; shapes that do not fit are refused."""
    empty = RankingMetric(keep_rows=True).compute()
    keys = ["type", *SCORES["ranking"], "queries", "queries_without_relevant", "samples"]
    assert list(empty) == keys
    assert {empty[name] for name in SCORES["ranking"]} == {0.0}
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    assert RankingMetric(keep_rows=True).intervals().scores == {}
    with pytest.raises(ValueError, match=r"allowed: \(B,\) and \(B, 2\)"):
        RankingMetric().update(torch.zeros(3), torch.zeros(3))
