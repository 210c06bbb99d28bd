"""Every loss against an independent reference: 200 random cases each, some targets unlabeled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from coral_pytorch.losses import corn_loss
from timm.loss import AsymmetricLossMultiLabel
from timm.loss import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.corn import Corn
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import AbsoluteError, Huber, SmoothL1, SquaredError, Standardized
from classwise.losses.soft_f1 import SoftMacroF1

CASES = 200
Rows = list[list[float]]


@dataclass(frozen=True)
class Case:
    """A random case; each loss uses the fields that it needs."""

    outputs: Tensor
    targets: Tensor
    counts: Tensor
    weight: Tensor
    number: float
    """A parameter, from 0.1 to 2."""


def numbers(seed: int) -> tuple[torch.Generator, int, int]:
    """A generator, a number of rows and a number of classes."""
    draw = torch.Generator().manual_seed(seed)
    rows, classes = torch.randint(2, 8, (2,), generator=draw).tolist()
    return draw, rows, classes


def case(draw: torch.Generator, outputs: Tensor, targets: Tensor, classes: int) -> Case:
    """A case with random counts, as different as in imbalanced data, class weights and a parameter."""
    counts_K = torch.randint(1, 500, (classes,), generator=draw)
    weight_K = torch.rand(classes, generator=draw, dtype=torch.float64) + 0.1
    number = 0.1 + 1.9 * torch.rand((), generator=draw, dtype=torch.float64).item()
    return Case(outputs.double(), targets, counts_K, weight_K, number)


def class_case(seed: int, spare: int = 0) -> Case:
    """Logits and labels, three in ten unknown; the first one is labeled."""
    draw, rows, classes = numbers(seed)
    labels_B = torch.randint(0, classes, (rows,), generator=draw)
    labels_B[1:][torch.rand(rows - 1, generator=draw) < 0.3] = -1
    # Made in float32, so that both precisions start from the same numbers.
    return case(draw, 2 * torch.randn(rows, classes - spare, generator=draw), labels_B, classes)


def ordinal_case(seed: int) -> Case:
    """Logits of the K - 1 tasks, and levels."""
    return class_case(seed, spare=1)


def multilabel_case(seed: int) -> Case:
    """Logits and cells of 1, 0 or unknown; the first one is labeled."""
    draw, rows, classes = numbers(seed)
    targets_BL = torch.randint(0, 2, (rows, classes), generator=draw).float()
    targets_BL.view(-1)[1:][torch.rand(rows * classes - 1, generator=draw) < 0.3] = math.nan
    return case(draw, 2 * torch.randn(rows, classes, generator=draw), targets_BL, classes)


def number_case(seed: int) -> Case:
    """Standardized outputs, and numbers of which three in ten are unknown."""
    draw, rows, classes = numbers(seed)
    targets_B = 2 * torch.randn(rows, generator=draw).double()
    targets_B[1:][torch.rand(rows - 1, generator=draw) < 0.3] = math.nan
    return case(draw, torch.randn(rows, 1, generator=draw), targets_B, classes)


def ranking_case(seed: int) -> Case:
    """Scores, and relevance 0 to 3 in about four queries; at least two rows can be compared."""
    draw, rows, classes = numbers(seed)
    rows += 4
    targets_B2 = torch.stack(
        [torch.randint(-1, 4, (rows,), generator=draw), torch.randint(0, 4, (rows,), generator=draw)], dim=1
    )
    targets_B2[:2] = torch.tensor([[2, 1], [0, 1]])
    return case(draw, 2 * torch.randn(rows, 1, generator=draw), targets_B2, classes)


def softmax(row: list[float]) -> list[float]:
    """exp(x) / sum exp(x)."""
    total = math.fsum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def mean_over_rows(c: Case, of_row: Callable[[list[float], int], float], weighted: bool = False) -> float:
    """The (weighted) mean of a function of logits and label over the labeled rows."""
    total = normalizer = 0.0
    for row, label in zip(c.outputs.tolist(), c.targets.tolist(), strict=True):
        if label != -1:
            weight = c.weight.tolist()[label] if weighted else 1.0
            total, normalizer = total + weight * of_row(row, label), normalizer + weight
    return total / normalizer


def mean_over_cells(c: Case, of_cell: Callable[[float, float], float]) -> float:
    """The mean of a function of logit and target over the labeled cells."""
    cells = zip(c.outputs.flatten().tolist(), c.targets.flatten().tolist(), strict=True)
    values = [of_cell(x, t) for x, t in cells if not math.isnan(t)]
    return math.fsum(values) / len(values)


def cross_entropy(c: Case) -> float:
    """Torch's own."""
    return F.cross_entropy(c.outputs, c.targets, c.weight, ignore_index=-1, label_smoothing=0.1).item()


def focal(c: Case) -> float:
    """Lin et al., equation 5, of the softmax."""

    def of_row(row: list[float], label: int) -> float:
        p = softmax(row)[label]
        rest = math.fsum(q for k, q in enumerate(softmax(row)) if k != label)
        return -(rest**c.number) * math.log(p)

    return mean_over_rows(c, of_row, weighted=True)


def logit_adjustment(c: Case, tau: float) -> float:
    """Menon et al., equation 10: log(1 + sum over k != y of (prior_k / prior_y)^tau e^(z_k - z_y))."""
    n = c.counts.tolist()

    def of_row(row: list[float], y: int) -> float:
        ratios = [(n[k] / n[y]) ** tau * math.exp(z - row[y]) for k, z in enumerate(row) if k != y]
        return math.log1p(math.fsum(ratios))

    return mean_over_rows(c, of_row)


def generalized(c: Case) -> float:
    """Zhang and Sabuncu, equation 6."""
    q = c.number / 2
    return mean_over_rows(c, lambda row, y: (1 - softmax(row)[y] ** q) / q, weighted=True)


def ldam(c: Case) -> float:
    """Cao et al., section 3.2, with the largest margin c.number and scale 3."""
    margins = [n**-0.25 for n in c.counts.tolist()]
    margins = [c.number * margin / max(margins) for margin in margins]

    def of_row(row: list[float], y: int) -> float:
        moved = [3 * (z - margins[y] if k == y else z) for k, z in enumerate(row)]
        return math.log(math.fsum(math.exp(z - moved[y]) for z in moved))

    return mean_over_rows(c, of_row, weighted=True)


def soft_f1(c: Case) -> float:
    """1 - the mean of 2 TP / (2 TP + FP + FN) over the classes that occur, counted row by row."""
    known = [
        (softmax(row), y) for row, y in zip(c.outputs.tolist(), c.targets.tolist(), strict=True) if y >= 0
    ]
    scores = []
    for k in {y for _, y in known}:
        tp = math.fsum(p[k] for p, y in known if y == k)
        fp = math.fsum(p[k] for p, y in known if y != k)
        fn = math.fsum(1 - p[k] for p, y in known if y == k)
        scores.append(2 * tp / (2 * tp + fp + fn))
    return 1 - math.fsum(scores) / len(scores)


def corn(c: Case) -> float:
    """The authors' own package, on the labeled rows."""
    labeled_B = c.targets != -1
    return corn_loss(c.outputs[labeled_B], c.targets[labeled_B], len(c.weight)).item()


def binary_cross_entropy(c: Case) -> float:
    """Torch's own, on the labeled cells with the weight of each cell's label."""
    labeled_BL = ~c.targets.isnan()
    weight_BL = c.weight.expand_as(c.outputs)[labeled_BL]
    loss = nn.BCEWithLogitsLoss(pos_weight=weight_BL)
    return loss(c.outputs[labeled_BL], c.targets[labeled_BL].double()).item()


def timm_binary_cross_entropy(c: Case) -> float:
    """timm's, on the labeled cells as one row."""
    labeled_BL = ~c.targets.isnan()
    loss = TimmBinaryCrossEntropy(smoothing=0.0)
    return loss(c.outputs[labeled_BL].unsqueeze(0), c.targets[labeled_BL].double().unsqueeze(0)).item()


def multilabel_focal(c: Case) -> float:
    """torchvision's, on the labeled cells."""
    labeled_BL = ~c.targets.isnan()
    outputs, targets = c.outputs[labeled_BL], c.targets[labeled_BL].double()
    return sigmoid_focal_loss(outputs, targets, c.number / 2, c.number, reduction="mean").item()


def asymmetric(c: Case, gamma_neg: float, gamma_pos: float, clip: float) -> float:
    """Ridnik et al., equations 4 to 7."""

    def of_cell(x: float, t: float) -> float:
        p = 1 / (1 + math.exp(-x))
        if t:
            return -((1 - p) ** gamma_pos) * math.log(p)
        m = max(p - clip, 0)
        return -(m**gamma_neg) * math.log1p(-m)

    return mean_over_cells(c, of_cell)


def on_labeled(c: Case, loss: nn.Module, mean: float = 0.0, std: float = 1.0) -> float:
    """A loss of torch on the labeled rows, with standardized targets."""
    labeled_B = ~c.targets.isnan()
    return loss(c.outputs[labeled_B, 0], (c.targets[labeled_B] - mean) / std).item()


def rank_net(c: Case) -> float:
    """The mean of -log sigmoid(s_i - s_j) over the pairs of a query with i more relevant."""
    rows = list(zip(c.outputs[:, 0].tolist(), c.targets.tolist(), strict=True))
    losses = [
        -math.log(1 / (1 + math.exp(-(s_i - s_j))))
        for s_i, (rel_i, query_i) in rows
        for s_j, (rel_j, query_j) in rows
        if query_i == query_j and rel_i > rel_j >= 0
    ]
    return math.fsum(losses) / len(losses)


def list_net(c: Case) -> float:
    """The mean, over queries with at least two labeled rows, of the cross entropy of their two softmaxes."""
    losses = []
    for query in range(4):
        rows = zip(c.outputs[:, 0].tolist(), c.targets.tolist(), strict=True)
        known = [(score, rel) for score, (rel, of) in rows if of == query and rel >= 0]
        if len(known) > 1:
            scores, relevance = (softmax([float(x) for x in column]) for column in zip(*known, strict=True))
            losses.append(-math.fsum(w * math.log(p) for w, p in zip(relevance, scores, strict=True)))
    return math.fsum(losses) / len(losses)


Row = tuple[Callable[[int], Case], Callable[[Case], nn.Module], Callable[[Case], float]]
TABLE: dict[str, Row] = {
    "cross entropy": (class_case, lambda c: CrossEntropy(c.weight, 0.1), cross_entropy),
    "focal": (class_case, lambda c: Focal(c.number, c.weight), focal),
    "balanced softmax": (class_case, lambda c: BalancedSoftmax(c.counts), lambda c: logit_adjustment(c, 1)),
    "logit adjustment": (
        class_case,
        lambda c: LogitAdjustment(c.counts, c.number),
        lambda c: logit_adjustment(c, c.number),
    ),
    "gce": (class_case, lambda c: GeneralizedCrossEntropy(c.number / 2, c.weight), generalized),
    "ldam": (class_case, lambda c: LDAM(c.counts, c.number, 3.0, c.weight), ldam),
    "soft F1": (class_case, lambda c: SoftMacroF1(len(c.weight)), soft_f1),
    "corn": (ordinal_case, lambda c: Corn(len(c.weight)), corn),
    "bce, weighted": (multilabel_case, lambda c: BinaryCrossEntropy(c.weight), binary_cross_entropy),
    "bce": (multilabel_case, lambda c: BinaryCrossEntropy(), timm_binary_cross_entropy),
    "multilabel focal": (
        multilabel_case,
        lambda c: MultilabelFocal(c.number, c.number / 2),
        multilabel_focal,
    ),
    "asymmetric": (multilabel_case, lambda c: Asymmetric(), lambda c: asymmetric(c, 4, 1, 0.05)),
    "asymmetric, low powers": (
        multilabel_case,
        lambda c: Asymmetric(c.number, c.number / 2, 0.2),
        lambda c: asymmetric(c, c.number, c.number / 2, 0.2),
    ),
    "asymmetric, no clip": (
        multilabel_case,
        lambda c: Asymmetric(c.number, 0, 0),
        lambda c: asymmetric(c, c.number, 0, 0),
    ),
    "squared error": (number_case, lambda c: SquaredError(), lambda c: on_labeled(c, nn.MSELoss())),
    "absolute error": (number_case, lambda c: AbsoluteError(), lambda c: on_labeled(c, nn.L1Loss())),
    "smooth L1": (
        number_case,
        lambda c: SmoothL1(c.number),
        lambda c: on_labeled(c, nn.SmoothL1Loss(beta=c.number)),
    ),
    "huber": (number_case, lambda c: Huber(c.number), lambda c: on_labeled(c, nn.HuberLoss(delta=c.number))),
    "standardized": (
        number_case,
        lambda c: Standardized(Huber(), 0.3, 1 + c.number),
        lambda c: on_labeled(c, nn.HuberLoss(), 0.3, 1 + c.number),
    ),
    "pairwise logistic": (ranking_case, lambda c: PairwiseLogistic(), rank_net),
    "listnet": (ranking_case, lambda c: ListNet(), list_net),
}
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


@every_row
def test_value_equals_the_reference(row: Row) -> None:
    """200 random cases: 1e-12 in float64 and 1e-6 in float32, relative to values above 1."""
    draw_case, make, reference = row
    for seed in range(CASES):
        c = draw_case(seed)
        expected = reference(c)
        loss = make(c)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            actual = loss(c.outputs.to(dtype), c.targets)
            assert actual.dtype == dtype
            assert abs(actual.item() - expected) <= tolerance * max(1.0, abs(expected)), (seed, dtype)


@every_row
def test_gradient_equals_finite_differences(row: Row) -> None:
    """gradcheck: in 200 random cases along a random direction, in every tenth of them entry by entry."""
    draw_case, make, _ = row
    torch.manual_seed(0)  # gradcheck draws its direction from the global generator
    for seed in range(CASES):
        c = draw_case(seed)
        outputs = c.outputs.requires_grad_()
        checked: dict[str, Any] = {"fast_mode": True} if seed % 10 else {}
        assert torch.autograd.gradcheck(make(c), (outputs, c.targets), **checked), seed


@pytest.mark.parametrize("focusing_gradient", [True, False])
def test_asymmetric_equals_timm(focusing_gradient: bool) -> None:
    """200 random cases of whole tables: value and gradient of timm's asymmetric loss, which computes in float32, with
    and without the gradient of the focusing factors. The authors' code is the same formula."""
    for seed in range(CASES):
        c = multilabel_case(seed)
        targets_BL = c.targets.nan_to_num(0)
        reference = AsymmetricLossMultiLabel(
            gamma_neg=4,
            gamma_pos=1,
            clip=0.05,
            disable_torch_grad_focal_loss=not focusing_gradient,
            reduction="mean",
        )
        values, gradients = [], []
        for loss in (Asymmetric(focusing_gradient=focusing_gradient), reference):
            outputs = c.outputs.clone().requires_grad_()
            value = loss(outputs, targets_BL)
            values.append(value.item())
            gradients += torch.autograd.grad(value, outputs)
        assert abs(values[0] - values[1]) <= 1e-6
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_asymmetric_without_the_gradient_of_its_factors() -> None:
    """The value stays; the gradient is the factor times that of the logarithm, in the formula of each cell."""
    logits_BL = torch.linspace(-3, 3, 7, dtype=torch.float64).unsqueeze(1).requires_grad_()
    p_BL = logits_BL.detach().sigmoid()
    expected = {
        1.0: -(1 - p_BL) * (1 - p_BL),  # (1 - p)^1 times d -log p / dz
        0.0: (p_BL - 0.05).clamp(min=0) ** 4 * p_BL * (1 - p_BL) / (1 - p_BL + 0.05),
    }
    for target, gradient_BL in expected.items():
        targets_BL = torch.full_like(p_BL, target)
        whole, constant = Asymmetric(), Asymmetric(focusing_gradient=False)
        assert whole(logits_BL, targets_BL).item() == constant(logits_BL, targets_BL).item()
        (found_BL,) = torch.autograd.grad(constant(logits_BL, targets_BL) * 7, logits_BL)
        torch.testing.assert_close(found_BL, gradient_BL, rtol=1e-12, atol=1e-14)
