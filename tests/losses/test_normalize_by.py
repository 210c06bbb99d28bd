"""What a loss with class weights is divided by: the row count, or torch's summed weights."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.weighted_sum import WeightedSum

WEIGHT_K = torch.tensor([0.25, 1.0, 24.0], dtype=torch.float64)
COUNTS_K = torch.tensor([384, 96, 4])
Make = Callable[..., nn.Module]
LOSSES: dict[str, Make] = {
    "cross entropy": lambda **keys: CrossEntropy(WEIGHT_K, **keys),
    "focal": lambda **keys: Focal(2.0, WEIGHT_K, **keys),
    "gce": lambda **keys: GeneralizedCrossEntropy(0.7, WEIGHT_K, **keys),
    "ldam": lambda **keys: LDAM(COUNTS_K.new_full((3,), 7), 0.5, 3.0, WEIGHT_K, **keys),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def own_gradients(loss: nn.Module, labels_B: Tensor) -> Tensor:
    """How much each row of equal logits raises the logit of its own class (B,)."""
    logits_BK = torch.zeros(len(labels_B), 3, dtype=torch.float64, requires_grad=True)
    loss(logits_BK, labels_B).backward()
    return -logits_BK.grad.gather(1, labels_B.clamp(min=0).unsqueeze(1)).squeeze(1)


def ratio_in_training(loss: nn.Module, batch_size: int) -> float:
    """The rarest class to the commonest, on average over all batches of shuffled epochs of 484 rows; a short last
    batch is left out, so that all batches have the same number of rows."""
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.repeat_interleave(torch.arange(3), COUNTS_K)
    added_K, drawn_K = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(20):
        for labels_B in labels_N[torch.randperm(484, generator=generator)].split(batch_size):
            if len(labels_B) == batch_size:
                added_K.index_add_(0, labels_B, own_gradients(loss, labels_B))
                drawn_K += torch.bincount(labels_B, minlength=3)
    per_row_K = added_K / drawn_K
    return float(per_row_K[2] / per_row_K[0])


@every_loss
@pytest.mark.parametrize("batch_size", [8, 32, 128])
def test_by_rows_the_classes_count_as_their_weights_say(make: Make, batch_size: int) -> None:
    """With weights of 96:1 a row of the rarest class adds 96 times as much, at every batch size."""
    assert ratio_in_training(make(normalize_by="rows"), batch_size) == pytest.approx(96, rel=1e-12)


@every_loss
def test_by_weights_little_of_the_ratio_is_left_in_small_batches(make: Make) -> None:
    """The rare row raises the sum that its batch is divided by; the larger the batch, the less that matters."""
    ratios = [ratio_in_training(make(normalize_by="weights"), batch_size) for batch_size in (8, 32, 128)]
    assert ratios[0] < 20
    assert ratios[0] < ratios[1] < ratios[2] < 90


@every_loss
def test_by_weights_is_the_default_of_the_modules(make: Make) -> None:
    """As torch.nn.CrossEntropyLoss(weight), which users of the modules expect."""
    labels_B = torch.tensor([0, 2, 1, -1, 0])
    assert torch.equal(own_gradients(make(), labels_B), own_gradients(make(normalize_by="weights"), labels_B))
    assert make().normalizer(labels_B).tolist() == [0.25 + 24 + 1 + 0.25]


def test_by_rows_is_torchs_sum_over_the_row_count() -> None:
    """`F.cross_entropy(reduction="sum")` over the number of labeled rows, with label smoothing as well."""
    logits_BK = torch.randn(5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels_B = torch.tensor([0, 2, 1, -1, 0])
    loss = CrossEntropy(WEIGHT_K, 0.1, normalize_by="rows")
    keys = {"weight": WEIGHT_K, "ignore_index": -1, "reduction": "sum", "label_smoothing": 0.1}
    torch.testing.assert_close(loss(logits_BK, labels_B), F.cross_entropy(logits_BK, labels_B, **keys) / 4)


@every_loss
def test_soft_labels_count_by_their_known_share(make: Make) -> None:
    """The normalizer stays linear: a row half of which is unknown counts half."""
    loss = make(normalize_by="rows")
    if loss.soft_targets:
        shares_BK = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.0, 0.8], [0.0, 1.0, 0.0]])
        assert loss.normalizer(shares_BK).tolist() == pytest.approx([2.5])


@every_loss
def test_a_fully_labeled_batch_is_not_counted(make: Make) -> None:
    """`complete` gives the row count, and the loss is the same as with a count."""
    labels_B = torch.tensor([0, 2, 1, 0])
    loss = make(normalize_by="rows")
    logits_BK = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    normalizer = loss.normalizer(labels_B, complete=True)
    assert normalizer.tolist() == [4]
    torch.testing.assert_close(loss(logits_BK, labels_B, normalizer), loss(logits_BK, labels_B))
    assert loss(logits_BK, labels_B).item() != pytest.approx(make()(logits_BK, labels_B).item())


@every_loss
def test_deferred_weights_keep_the_normalizer(make: Make) -> None:
    """Before and after the epoch of the weights it is the row count."""
    loss = make(normalize_by="rows", weights_from_epoch=2)
    labels_B = torch.tensor([0, 2, 1, -1, 0])
    for epoch in (0, 1):
        loss.set_epoch(epoch)
        assert loss.normalizer(labels_B).tolist() == [4]


@every_loss
def test_evaluation_gives_the_weighted_mean(make: Make) -> None:
    """In evaluation mode the loss is a mean of its rows' losses, whatever the class frequencies of the set: also
    inside a sum and a criterion, whose mode reaches the loss."""
    labels_B = torch.tensor([0, 2, 2, 2])
    logits_BK = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    by_rows = make(normalize_by="rows")
    criterion = Criterion({"a": WeightedSum([by_rows], [1.0])}, {"a": 1.0})
    in_training = criterion({"a": logits_BK}, {"a": labels_B}).item()
    criterion.eval()
    in_evaluation = criterion({"a": logits_BK}, {"a": labels_B}).item()
    assert in_evaluation == pytest.approx(make()(logits_BK, labels_B).item(), rel=1e-12)
    assert in_training == pytest.approx(in_evaluation * 72.25 / 4, rel=1e-12)


@every_loss
def test_a_remembered_row_count_is_not_that_of_evaluation(make: Make) -> None:
    """A criterion remembers row counts of fully labeled batches, for training alone."""
    criterion = Criterion({"a": make(normalize_by="rows")}, {"a": 1.0})
    targets = {"a": torch.tensor([0, 2, 1, 0])}
    for _ in range(2):
        assert criterion.train().normalizer(targets, complete=True).tolist() == [4]
        assert criterion.eval().normalizer(targets, complete=True).tolist() == [25.5]


@every_loss
def test_an_unknown_normalizer_is_refused(make: Make) -> None:
    """The error names the key, what was found and what is allowed."""
    with pytest.raises(ConfigError, match=r"^normalize_by: found 'row', allowed: rows, weights$"):
        make(normalize_by="row")
