"""What holds for every loss of multilabel, ordinal, regression and ranking targets."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss
from classwise.losses.corn import Corn
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.normalizer import Normalizer
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import AbsoluteError, Huber, SmoothL1, SquaredError, Standardized
from classwise.losses.weighted_sum import WeightedSum

WEIGHT_L = torch.tensor([0.2, 3.0, 1.0, 0.7], dtype=torch.float64)
LOSSES: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "bce": ("multilabel", lambda: BinaryCrossEntropy(WEIGHT_L)),
    "multilabel focal": ("multilabel", lambda: MultilabelFocal(0.5, 0.25)),
    "asymmetric": ("multilabel", Asymmetric),
    "asymmetric, no clip": ("multilabel", lambda: Asymmetric(0.5, 0.5, 0.0)),
    "corn": ("ordinal", lambda: Corn(5)),
    "squared error": ("regression", SquaredError),
    "absolute error": ("regression", AbsoluteError),
    "smooth L1": ("regression", lambda: SmoothL1(0.3)),
    "huber": ("regression", lambda: Huber(0.3)),
    "standardized": ("regression", lambda: Standardized(SquaredError(), 40.0, 12.0)),
    "standardized sum": (
        "regression",
        lambda: Standardized(WeightedSum([AbsoluteError(), SquaredError()], [1.0, 0.5]), 40.0, 12.0),
    ),
    "pairwise logistic": ("ranking", PairwiseLogistic),
    "listnet": ("ranking", ListNet),
}
every_loss = pytest.mark.parametrize(("kind", "make"), LOSSES.values(), ids=LOSSES.keys())
Make = Callable[[], nn.Module]


def batch(kind: str, rows: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, targets with every third row unlabeled, and which rows (B,) are labeled."""
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(rows, 4 if kind in ("multilabel", "ordinal") else 1, generator=draw).double()
    labeled_B = torch.arange(rows) % 3 != 0
    whole_B5 = torch.randint(0, 5, (rows, 5), generator=draw)
    targets = {
        "multilabel": (whole_B5[:, :4] % 2).float(),
        "ordinal": whole_B5[:, 0],
        "regression": 30 * torch.randn(rows, generator=draw).double(),
        # Two queries, whose rows alternate.
        "ranking": torch.stack([whole_B5[:, 0], torch.arange(rows) % 2], dim=1),
    }[kind]
    return outputs, unknown_at(kind, targets, ~labeled_B), labeled_B


def unknown_at(kind: str, targets: Tensor, where_B: Tensor) -> Tensor:
    """The targets with some rows unlabeled."""
    targets = targets.clone()
    if kind == "ranking":
        targets[where_B, 0] = -1
    else:
        targets[where_B] = -1 if kind == "ordinal" else math.nan
    return targets


@every_loss
def test_follows_the_protocol(kind: str, make: Make) -> None:
    """Every loss has the attributes of `Loss`, one float64 number per term, and the scale of its kind of target."""
    loss = make()
    assert isinstance(loss, Loss)
    assert loss.additive
    assert loss.soft_targets == (kind != "ranking")
    assert loss.likelihood_scale == (0.5 if kind == "regression" else 1.0)
    normalizer = loss.normalizer(batch(kind)[1])
    assert len(normalizer.tolist()) == loss.terms
    assert all(isinstance(number, float) for number in normalizer.tolist())


@every_loss
def test_unlabeled_rows_have_no_influence(kind: str, make: Make) -> None:
    """Value and normalizer are those of the labeled rows alone, and unlabeled rows get a gradient of 0, never NaN."""
    loss = make()
    outputs, targets, labeled_B = batch(kind)
    outputs.requires_grad_()
    value = loss(outputs, targets)
    value.backward()
    torch.testing.assert_close(value, loss(outputs[labeled_B], targets[labeled_B]), rtol=1e-13, atol=0)
    assert loss.normalizer(targets).tolist() == loss.normalizer(targets[labeled_B]).tolist()
    assert torch.equal(outputs.grad[~labeled_B], torch.zeros_like(outputs.grad[~labeled_B]))
    assert outputs.grad[labeled_B].isfinite().all()
    assert outputs.grad[labeled_B].any()


def test_single_unlabeled_cells_have_no_influence() -> None:
    """An unlabeled cell of a multilabel row counts in neither sum nor normalizer, and gets no gradient."""
    logits_BL = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    targets_BL = torch.tensor([[1, math.nan, 0, 1], [math.nan, 1, 1, 0]])
    for make in (lambda: BinaryCrossEntropy(), MultilabelFocal, lambda: Asymmetric(clip=0.0)):
        loss = make()
        (gradient_BL,) = torch.autograd.grad(loss(logits_BL, targets_BL), logits_BL)
        assert loss.normalizer(targets_BL).tolist() == [6]
        assert torch.equal(gradient_BL == 0, targets_BL.isnan())


@every_loss
@pytest.mark.parametrize("rows", [0, 5])
def test_loss_without_labeled_rows_is_zero(kind: str, make: Make, rows: int) -> None:
    """All rows unlabeled, or no row at all: 0 with a gradient of 0, never NaN."""
    loss = make()
    outputs, targets, _ = batch(kind, rows)
    targets = unknown_at(kind, targets, torch.ones(rows, dtype=torch.bool))
    value = loss(outputs.requires_grad_(), targets)
    value.backward()
    assert value.item() == 0
    assert torch.equal(outputs.grad, torch.zeros_like(outputs))
    assert not any(loss.normalizer(targets).tolist())


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(kind: str, make: Make, dtype: torch.dtype) -> None:
    """Half-precision outputs give exactly what the same numbers give in float32, and a finite gradient."""
    loss = make()
    outputs, targets, _ = batch(kind, rows=120)
    outputs = outputs.to(dtype).requires_grad_()
    value = loss(outputs, targets)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(outputs.float(), targets))
    assert outputs.grad.dtype == dtype
    assert outputs.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_outputs_stay_finite(kind: str, make: Make, size: float) -> None:
    """Certainty, right or wrong, gives finite values and gradients in float32."""
    outputs, targets, _ = batch(kind, rows=24)
    outputs = (size * outputs.float().sign()).requires_grad_()
    value = make()(outputs, targets)
    value.backward()
    assert value.isfinite()
    assert outputs.grad.isfinite().all()


@every_loss
def test_a_given_normalizer_divides_the_sum(kind: str, make: Make) -> None:
    """A given normalizer replaces that of the batch; another shape is refused."""
    loss = make()
    outputs, targets, _ = batch(kind)
    quarter = loss(outputs, targets, sum([loss.normalizer(targets)] * 4))
    torch.testing.assert_close(quarter, loss(outputs, targets) / 4)
    with pytest.raises(ValueError, match="found a normalizer of"):
        loss(outputs, targets, Normalizer([1.0] * (loss.terms + 1)))


@every_loss
def test_wrong_shapes_are_refused(kind: str, make: Make) -> None:
    """Outputs or targets that would broadcast to something else, and targets of another dtype, are refused."""
    loss = make()
    outputs, targets, _ = batch(kind)
    other_dtype = targets.long() if targets.is_floating_point() else targets.double()
    for bad in (
        (outputs[:1], targets),
        (outputs[:, 0], targets),
        (torch.cat([outputs, outputs], dim=1), targets),
        (outputs, targets[:-1]),
        (outputs, targets.unsqueeze(-1)),
        (outputs, other_dtype),
    ):
        with pytest.raises(ValueError, match=r"^found .*; allowed"):
            loss(*bad)


def test_pos_weight_for_another_number_of_labels_is_refused() -> None:
    """Weights of 4 labels do not fit logits of 6."""
    with pytest.raises(ValueError, match="6 labels; this loss was made for 4"):
        BinaryCrossEntropy(WEIGHT_L)(torch.zeros(2, 6), torch.zeros(2, 6))


@pytest.mark.parametrize("level", [5, -2])
def test_levels_outside_the_scale_are_refused(level: int) -> None:
    """On the CPU a level that is neither on the scale nor -1 raises, as it does in torch."""
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        Corn(5)(torch.zeros(2, 4), torch.tensor([0, level]))


def test_normalizers() -> None:
    """What each loss is divided by: cells, tasks, rows, pairs, queries with at least two labeled rows."""
    assert Asymmetric().normalizer(torch.tensor([[1, 0.4], [math.nan, 0]])).tolist() == [3]
    # Levels 0, 1, 2 and 3 of four have 1, 2, 3 and 3 tasks.
    assert Corn(4).normalizer(torch.tensor([0, 1, 2, 3, -1])).tolist() == [9]
    assert Huber().normalizer(torch.tensor([1.0, math.nan, 3.0])).tolist() == [2]
    # Query 7: relevance 2, 0, 0 and one unlabeled; query 3: a single row, and one unlabeled; query 5: two equal.
    ranking_B2 = torch.tensor([[2, 7], [1, 3], [0, 7], [-1, 7], [1, 5], [0, 7], [-1, 3], [1, 5]])
    assert PairwiseLogistic().normalizer(ranking_B2).tolist() == [2]
    assert ListNet().normalizer(ranking_B2).tolist() == [2]


def counted(targets_B2: Tensor) -> tuple[int, int]:
    """The number of pairs of one query with different relevance, and of queries with two labeled rows, by loops."""
    rows = [(query, relevance) for relevance, query in targets_B2.tolist() if relevance != -1]
    pairs = sum(q == p and r > s for q, r in rows for p, s in rows)
    queries = [query for query, _ in rows]
    return pairs, sum(queries.count(query) > 1 for query in set(queries))


def test_ranking_normalizers_are_exact_counts() -> None:
    """200 random tables: the numbers of pairs and queries equal those of a loop over all rows."""
    draw = torch.Generator().manual_seed(0)
    for case in range(200):
        rows, queries, levels = case % 40, 1 + case % 7, 1 + case % 5
        relevance_B = torch.randint(-1, levels, (rows,), generator=draw)
        targets_B2 = torch.stack([relevance_B, torch.randint(0, queries, (rows,), generator=draw)], dim=1)
        for loss, expected in zip((PairwiseLogistic(), ListNet()), counted(targets_B2), strict=True):
            normalizer = loss.normalizer(targets_B2)
            assert normalizer.tolist() == [float(expected)]


def test_the_normalizer_of_a_large_ranking_takes_little_memory() -> None:
    """Validation asks for that of all rows at once: comparing 200,000 of them pairwise would take 40 GB."""
    rows = torch.arange(200_000)
    # Each of 20,000 queries has the relevances 0 to 4 twice, except for the last row, which is unlabeled.
    targets_B2 = torch.stack([rows // 20_000 % 5, rows % 20_000], dim=1)
    targets_B2[-1, 0] = -1
    assert PairwiseLogistic().normalizer(targets_B2).tolist() == [20_000 * 40 - 8]
    assert ListNet().normalizer(targets_B2).tolist() == [20_000]
    of_one_query = PairwiseLogistic().normalizer(targets_B2 * torch.tensor([1, 0]))
    assert of_one_query.tolist() == [(199_999**2 - 4 * 40_000**2 - 39_999**2) // 2]


def test_large_numbers_keep_their_digits() -> None:
    """Years around 2000, standardized in float64: no digit of the difference is lost with float32 outputs."""
    years_B = torch.tensor([2020.001, 2020.003, math.nan], dtype=torch.float64)
    actual = Standardized(AbsoluteError(), 2020.0, 0.001)(torch.zeros(3, 1), years_B)
    assert actual.item() == pytest.approx(2.0, rel=1e-6)


def test_only_the_order_within_a_query_counts_in_a_ranking() -> None:
    """Adding a number to all scores of a query changes nothing; two queries are never compared."""
    scores_B1, targets_B2, _ = batch("ranking")
    moved_B1 = scores_B1 + 10.0 * targets_B2[:, 1:]
    for loss in (PairwiseLogistic(), ListNet()):
        torch.testing.assert_close(loss(scores_B1, targets_B2), loss(moved_B1, targets_B2))


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (MultilabelFocal, {"gamma": -1.0}, "gamma: found -1.0, allowed: a finite number >= 0"),
        (MultilabelFocal, {"alpha": 1.5}, "alpha: found 1.5, allowed: a finite number >= 0 and <= 1"),
        (Asymmetric, {"gamma_neg": math.inf}, "gamma_neg: found inf"),
        (Asymmetric, {"gamma_pos": math.nan}, "gamma_pos: found nan"),
        (Asymmetric, {"clip": 1.0}, "clip: found 1.0"),
        (BinaryCrossEntropy, {"pos_weight": torch.tensor([-1.0])}, "pos_weight: found"),
        (Corn, {"levels": 1}, "levels: found 1, allowed: 2 or more"),
        (SmoothL1, {"beta": 0.0}, "beta: found 0.0, allowed: a finite number > 0"),
        (Huber, {"delta": -0.5}, "delta: found -0.5"),
        (Standardized, {"loss": Huber(), "mean": math.nan, "std": 1.0}, "mean of the target: found nan"),
        (
            Standardized,
            {"loss": Huber(), "mean": 0.0, "std": 0.0},
            "standard deviation of the target: found 0",
        ),
        (GeneralizedCrossEntropy, {"q": 0.0}, "q: found 0.0, allowed: a finite number > 0 and <= 1"),
        (GeneralizedCrossEntropy, {"q": 1.1}, "q: found 1.1"),
        (LogitAdjustment, {"counts": torch.ones(3), "tau": -1.0}, "tau: found -1.0"),
        (LogitAdjustment, {"counts": torch.zeros(3)}, "counts: found"),
        (LDAM, {"counts": torch.zeros(3)}, "counts: found"),
        (LDAM, {"counts": torch.ones(3), "max_margin": 0.0}, "max_margin: found 0.0"),
        (LDAM, {"counts": torch.ones(3), "scale": -1.0}, "scale: found -1.0"),
        (LDAM, {"counts": torch.ones(3), "weight": torch.ones(2)}, "2 numbers for 3 classes"),
    ],
)
def test_invalid_settings_are_refused(
    make: Callable[..., nn.Module], settings: dict[str, Any], message: str
) -> None:
    """The error names the key, what was found and the range."""
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_special_cases() -> None:
    """tau 0 and q near 0 give cross entropy; LDAM's rarest class, and one without rows, have the largest margin."""
    logits_BK, labels_B = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 2, 1, -1])
    plain = CrossEntropy()(logits_BK, labels_B)
    torch.testing.assert_close(LogitAdjustment(torch.tensor([5, 1, 9, 2]), 0.0)(logits_BK, labels_B), plain)
    torch.testing.assert_close(
        GeneralizedCrossEntropy(1e-9)(logits_BK, labels_B), plain, rtol=1e-7, atol=1e-7
    )
    assert LDAM(torch.tensor([16, 1, 0, 81])).margin.tolist() == pytest.approx([0.25, 0.5, 0.5, 0.5 / 3])
