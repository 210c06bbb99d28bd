"""The masses of ranking losses count without comparing all rows with all others."""

import itertools

import torch

from classwise.losses.ranking import ListNet, PairwiseLogistic


def test_masses_are_the_counts_of_a_plain_loop() -> None:
    """200 random cases: pairs of one query of which one is more relevant, and queries of two known rows or more."""
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        rows = int(torch.randint(0, 40, (1,), generator=draw))
        relevance = torch.randint(-1, 4, (rows,), generator=draw)
        targets = torch.stack([relevance, 7 * torch.randint(0, 6, (rows,), generator=draw)], dim=1)
        queries: dict[int, list[int]] = {}
        for relevance_, query in targets.tolist():
            if relevance_ >= 0:
                queries.setdefault(query, []).append(relevance_)
        pairs = sum(a != b for known in queries.values() for a, b in itertools.combinations(known, 2))
        assert PairwiseLogistic().mass(targets).tolist() == [pairs]
        assert ListNet().mass(targets).tolist() == [sum(len(known) > 1 for known in queries.values())]


def test_a_whole_validation_set_is_counted() -> None:
    """200,000 rows: a table of all rows by all rows would not fit into any memory."""
    rows = torch.arange(200_000)
    targets = torch.stack([rows % 4, rows // 8], dim=1)
    assert ListNet().mass(targets).item() == 25_000
    assert PairwiseLogistic().mass(targets).item() == 25_000 * 24
