"""Labels of a table that the model has never seen."""

import torch

from classwise.decision.rules import TUNED, Rule
from classwise.infer.decided import DecidedHead
from classwise.metrics.collection import make_metric
from classwise.model.heads import MultilabelHead, label_cuts
from classwise.run.unseen import UnseenHead

RULE = Rule(TUNED, offsets=(1.0, -2.0))


def test_decided_thresholds_stay_beside_an_unseen_label() -> None:
    """The decoded logits from which on each label is predicted; 0 for the one that never is."""
    head = UnseenHead(DecidedHead(MultilabelHead(2), rule=RULE), unseen=1)
    assert label_cuts(head) == (-1.0, 2.0, 0.0)


def test_without_thresholds_an_unseen_label_adds_none() -> None:
    assert label_cuts(UnseenHead(MultilabelHead(2), unseen=1)) == ()


def test_rows_with_an_unseen_label_are_scored_at_the_thresholds() -> None:
    """The logits (-0.5, 1) are the first label alone."""
    head = UnseenHead(DecidedHead(MultilabelHead(2), rule=RULE), unseen=1)
    metric = make_metric(head, ("x", "y", "new"))
    metric.update(head.decode(torch.tensor([[-0.5, 1.0]])), torch.tensor([[1.0, 0.0, 0.0]]))
    assert metric.compute()["exact_match"] == 1
