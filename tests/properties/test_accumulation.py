"""One update's gradient is that of one big batch, however the rows are cut into micro-batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from classwise.losses import labels
from classwise.losses import normalizer as normalizers
from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.corn import Corn
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import AbsoluteError, Huber, SmoothL1, SquaredError, Standardized
from classwise.losses.weighted_sum import WeightedSum
from tests.helpers.waiting import Waiting

FEATURES, CLASSES = 6, 4
OUTPUTS = {"class": CLASSES, "ordinal": CLASSES - 1, "multilabel": CLASSES, "regression": 1, "ranking": 1}
Make = Callable[[Tensor], nn.Module]
Batch = tuple[Tensor, dict[str, Tensor]]

# Every loss that is additive, by the type of its target, made from class weights (K,).
LOSSES: dict[str, dict[str, Make]] = {
    "class": {
        "cross entropy": lambda _: CrossEntropy(),
        "weighted, smoothed": lambda weight_K: CrossEntropy(weight_K, 0.1),
        "weighted, by rows": lambda weight_K: CrossEntropy(weight_K, 0.1, normalize_by="rows"),
        "deferred": lambda weight_K: CrossEntropy(weight_K, weights_from_epoch=2),
        "focal": lambda weight_K: Focal(2.0, weight_K),
        "focal, by rows": lambda weight_K: Focal(2.0, weight_K, normalize_by="rows"),
        "balanced softmax": lambda weight_K: BalancedSoftmax(100 * weight_K),
        "logit adjustment": lambda weight_K: LogitAdjustment(100 * weight_K, 1.5),
        "gce": lambda weight_K: GeneralizedCrossEntropy(0.7, weight_K),
        "ldam": lambda weight_K: LDAM(100 * weight_K, 0.5, 5.0, weight_K, 2),
        "focal + smoothing": lambda weight_K: WeightedSum(
            [Focal(1.5, weight_K), CrossEntropy(label_smoothing=0.1)], [0.7, 0.3]
        ),
    },
    "ordinal": {
        "corn": lambda _: Corn(CLASSES),
        "corn twice": lambda _: WeightedSum([Corn(CLASSES), Corn(CLASSES)], [0.7, 0.3]),
    },
    "multilabel": {
        "bce": lambda weight_K: BinaryCrossEntropy(weight_K),
        "multilabel focal": lambda _: MultilabelFocal(1.5, 0.3),
        "asymmetric": lambda _: Asymmetric(),
    },
    "regression": {
        "squared error": lambda _: SquaredError(),
        "absolute error": lambda _: AbsoluteError(),
        "smooth L1": lambda _: SmoothL1(0.5),
        "huber": lambda _: Huber(0.5),
        "standardized": lambda _: Standardized(Huber(), 0.5, 3.0),
    },
    "ranking": {
        "pairwise logistic": lambda _: PairwiseLogistic(),
        "listnet": lambda _: ListNet(),
        "both": lambda _: WeightedSum([PairwiseLogistic(), ListNet()], [0.7, 0.3]),
    },
}


@dataclass(frozen=True)
class Head:
    """A drawn head: the type of its target, its loss, its weight, and how its targets are."""

    type: str
    loss: str
    weight: float
    masked: float
    mixed: bool


class Heads(nn.Module):
    """A shared layer and a layer for each head, in float64; `outputs` is the number of outputs by head."""

    def __init__(self, outputs: dict[str, int], seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        shapes = {"shared": FEATURES} | outputs
        self.layers = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(FEATURES, size, generator=draw, dtype=torch.float64))
                for name, size in shapes.items()
            }
        )

    def forward(self, images_BF: Tensor) -> dict[str, Tensor]:
        """Outputs (B, .) by head."""
        features_BF = (images_BF @ self.layers["shared"]).tanh()
        return {name: features_BF @ layer for name, layer in self.layers.items() if name != "shared"}


def random_weight(classes: int, seed: int) -> Tensor:
    """Class weights from 0.05 to about 20: as far apart as imbalanced data make them."""
    draw = torch.Generator().manual_seed(seed)
    return (6 * torch.rand(classes, generator=draw, dtype=torch.float64) - 3).exp()


def class_targets(draw: torch.Generator, unknown_B: Tensor, mixed: bool) -> Tensor:
    """Labels (B,), or two of them mixed (B, K), of which either may be unknown."""
    first_B, second_B = torch.randint(0, CLASSES, (2, len(unknown_B)), generator=draw)
    first_B = first_B.masked_fill(unknown_B, -1)
    if not mixed:
        return first_B
    lam_B1 = torch.rand(len(unknown_B), 1, generator=draw, dtype=torch.float64)
    second_B = second_B.masked_fill(unknown_B.roll(1), -1)
    first_BK, second_BK = (
        (labels_B.unsqueeze(1) == torch.arange(CLASSES)).double() for labels_B in (first_B, second_B)
    )
    return lam_B1 * first_BK + (1 - lam_B1) * second_BK


def targets_of(head: Head, query_B: Tensor, draw: torch.Generator) -> Tensor:
    """Random targets; each row, or cell, is unknown with probability `head.masked`."""
    rows = len(query_B)
    unknown_B = torch.rand(rows, generator=draw) < head.masked
    if head.type in ("class", "ordinal"):
        return class_targets(draw, unknown_B, head.mixed)
    if head.type == "multilabel":
        cells_BL = torch.rand(rows, CLASSES, generator=draw)
        cells_BL = cells_BL if head.mixed else cells_BL.round()
        return cells_BL.masked_fill(torch.rand(rows, CLASSES, generator=draw) < head.masked, math.nan)
    if head.type == "regression":
        return (3 * torch.randn(rows, generator=draw, dtype=torch.float64)).masked_fill(unknown_B, math.nan)
    relevance_B = torch.randint(0, 3, (rows,), generator=draw).masked_fill(unknown_B, -1)
    return torch.stack([relevance_B, query_B], dim=1)


def rows_of(heads: dict[str, Head], query_B: Tensor, seed: int) -> Batch:
    """Random rows, one for each entry of `query_B`."""
    draw = torch.Generator().manual_seed(seed)
    targets = {name: targets_of(head, query_B, draw) for name, head in heads.items()}
    return torch.randn(len(query_B), FEATURES, generator=draw, dtype=torch.float64), targets


def cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    """The same rows as micro-batches of `sizes`."""
    images_BF, targets = batch
    parts = {name: targets_B.split(sizes) for name, targets_B in targets.items()}
    return [
        (part_BF, {name: parts[name][i] for name in parts})
        for i, part_BF in enumerate(images_BF.split(sizes))
    ]


def outputs_of(heads: dict[str, Head]) -> dict[str, int]:
    """The number of outputs of each head."""
    return {name: OUTPUTS[head.type] for name, head in heads.items()}


def gradient(criterion: Criterion, window: list[Batch], model: Heads) -> Tensor:
    """What backward() adds up over the window, flat: the normalizer first, then one backward a micro-batch."""
    normalizer = sum(criterion.normalizer(targets) for _, targets in window)
    for images_BF, targets in window:
        criterion(model(images_BF), targets, normalizer).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def mean_of_means(criterion: Criterion, window: list[Batch], model: Heads) -> Tensor:
    """The usual mistake: each micro-batch's own mean, divided by the number of micro-batches."""
    for images_BF, targets in window:
        (criterion(model(images_BF), targets) / len(window)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def error(found: Tensor, expected: Tensor) -> float:
    """The relative error in norm; 0 where both are 0."""
    return ((found - expected).norm() / expected.norm().clamp(min=1e-300)).item()


def drawn_criterion(heads: dict[str, Head], uncertainty: bool, epoch: int, seed: int) -> Criterion:
    """The heads' losses joined, with log variances that are not 0 where they are learned."""
    losses = {
        name: LOSSES[head.type][head.loss](random_weight(CLASSES, seed + i))
        for i, (name, head) in enumerate(heads.items())
    }
    criterion = Criterion(losses, {name: head.weight for name, head in heads.items()}, uncertainty).double()
    criterion.set_epoch(epoch)
    if criterion.log_variance is not None:
        draw = torch.Generator().manual_seed(seed)
        criterion.log_variance.data = torch.randn(len(heads), generator=draw, dtype=torch.float64)
    return criterion


def drawn_queries(window: list[list[int]], seed: int) -> Tensor:
    """The query of every row: each micro-batch holds queries of the drawn sizes, whole and shuffled."""
    draw = torch.Generator().manual_seed(seed)
    numbers, parts = iter(torch.randperm(1000, generator=draw).tolist()), []
    for sizes in window:
        query_B = torch.tensor([number for size in sizes for number in [next(numbers)] * size])
        parts.append(query_B[torch.randperm(len(query_B), generator=draw)])
    return torch.cat(parts)


heads_of_a_type = {
    type: st.builds(
        Head,
        type=st.just(type),
        loss=st.sampled_from(sorted(LOSSES[type])),
        weight=st.floats(0.01, 10),
        masked=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
        mixed=st.booleans(),
    )
    for type in LOSSES
}
# A query of 1 row up to 5; a micro-batch of 1 query up to 4, so of 1 row up to 20.
micro_batches = st.lists(st.integers(1, 5), min_size=1, max_size=4)
windows = st.one_of(
    # Equal micro-batches with a shorter last one, as the end of an epoch makes them, and any sizes at all.
    st.tuples(micro_batches, st.integers(1, 4), st.integers(1, 5)).map(
        lambda drawn: [drawn[0]] * drawn[1] + [[drawn[2]]]
    ),
    st.lists(micro_batches, min_size=1, max_size=5),
)


def check_window(
    window: list[list[int]], drawn: list[Head], uncertainty: bool, epoch: int, seed: int
) -> None:
    """Compare the window's gradients, the model's and the log variances', with those of one batch."""
    heads = {
        # Hard labels where the loss takes no others.
        f"head {i}": Head(head.type, head.loss, head.weight, head.masked, head.mixed and head.loss != "ldam")
        for i, head in enumerate(drawn)
    }
    batch = rows_of(heads, drawn_queries(window, seed), seed)
    found, expected, steps = [], [], []
    for gradients, parts in (
        (found, cut(batch, [sum(sizes) for sizes in window])),
        (expected, [batch]),
    ):
        criterion = drawn_criterion(heads, uncertainty, epoch, seed)
        assert criterion.additive
        gradients.append(gradient(criterion, parts, Heads(outputs_of(heads), seed)))
        steps.append(criterion.log_variance.grad if uncertainty else torch.zeros(1))
    assert error(found[0], expected[0]) <= 1e-12
    # A slope is a difference of two numbers near 1 and may come near 0 by itself.
    assert (steps[0] - steps[1]).norm() <= 1e-12 * max(1.0, steps[1].norm().item())


@settings(max_examples=120, deadline=None, database=None, derandomize=True)
@given(
    window=windows,
    drawn=st.lists(st.one_of(list(heads_of_a_type.values())), min_size=1, max_size=4),
    uncertainty=st.booleans(),
    epoch=st.integers(0, 2),
    seed=st.integers(0, 2**31),
)
def test_window_equals_one_batch(
    window: list[list[int]], drawn: list[Head], uncertainty: bool, epoch: int, seed: int
) -> None:
    """Any mix of targets: in float64 the window's gradient is the big batch's to 1e-12 of its norm."""
    check_window(window, drawn, uncertainty, epoch, seed)


@pytest.mark.parametrize(
    ("type", "loss"), [(type, loss) for type, losses in LOSSES.items() for loss in losses]
)
def test_window_equals_one_batch_for_every_loss(type: str, loss: str) -> None:
    """The same for each loss by itself: drawn windows, masks and mixtures."""

    @settings(max_examples=15, deadline=None, database=None, derandomize=True)
    @given(
        window=windows,
        masked=st.sampled_from([0.0, 0.3, 0.9]),
        mixed=st.booleans(),
        uncertainty=st.booleans(),
        epoch=st.integers(0, 2),
        seed=st.integers(0, 2**31),
    )
    def check(
        window: list[list[int]], masked: float, mixed: bool, uncertainty: bool, epoch: int, seed: int
    ) -> None:
        check_window(window, [Head(type, loss, 1.0, masked, mixed)], uncertainty, epoch, seed)

    check()


def two_heads(weighted: bool) -> tuple[dict[str, Head], Criterion]:
    """Two class heads with cross entropy."""
    heads = {name: Head("class", "cross entropy", 1.0, 0.0, False) for name in ("mask", "age")}
    losses = {name: CrossEntropy(random_weight(CLASSES, 3) if weighted else None) for name in heads}
    return heads, Criterion(losses, {"mask": 1.0, "age": 0.5})


@pytest.mark.parametrize(
    ("sizes", "weighted"),
    [([8, 8, 8, 2], False), ([8, 8, 8, 8], True), ([8, 8, 8, 2], True)],
    ids=["short last micro-batch", "class weights", "both"],
)
def test_dividing_by_the_number_of_micro_batches_is_wrong(sizes: list[int], weighted: bool) -> None:
    """Sabotage: the mean of the micro-batches' means misses by more than 2 %, the normalizer by less than 1e-12."""
    heads, criterion = two_heads(weighted)
    batch = rows_of(heads, torch.zeros(sum(sizes), dtype=torch.long), 11)
    models = [Heads(outputs_of(heads), 1) for _ in range(3)]
    expected = gradient(criterion, [batch], models[0])
    assert error(gradient(criterion, cut(batch, sizes), models[1]), expected) <= 1e-12
    assert error(mean_of_means(criterion, cut(batch, sizes), models[2]), expected) > 0.02


def test_cutting_a_query_is_wrong() -> None:
    """Sabotage: with the rows of a query in two micro-batches the gradient misses by more than 2 %."""
    heads = {"rank": Head("ranking", "pairwise logistic", 1.0, 0.0, False)}
    batch = rows_of(heads, torch.tensor([1] * 6 + [2] * 6), 3)
    criterion = drawn_criterion(heads, False, 0, 0)
    models = [Heads(outputs_of(heads), 1) for _ in range(3)]
    expected = gradient(criterion, [batch], models[0])
    assert error(gradient(criterion, cut(batch, [6, 6]), models[1]), expected) <= 1e-12
    assert error(gradient(criterion, cut(batch, [4, 8]), models[2]), expected) > 0.02


def test_two_processes_add_their_normalizers() -> None:
    """Ranks of 20 and 12 rows with one normalizer for both: the sum of their gradients is the big batch's."""
    heads, _ = two_heads(weighted=False)
    losses = {"mask": CrossEntropy(random_weight(CLASSES, 5)), "age": Focal()}
    criterion = Criterion(losses, {"mask": 1.0, "age": 2.0})
    heads = {name: Head("class", "", 1.0, 0.2, False) for name in heads}
    batch = rows_of(heads, torch.zeros(32, dtype=torch.long), 4)
    ranks = cut(batch, [20, 12])
    normalizer = criterion.normalizer(ranks[0][1]) + criterion.normalizer(ranks[1][1])
    gradients = []
    for images_BF, targets in ranks:
        model = Heads(outputs_of(heads), 2)
        criterion(model(images_BF), targets, normalizer).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    expected = gradient(criterion, [batch], Heads(outputs_of(heads), 2))
    assert error(gradients[0] + gradients[1], expected) <= 1e-12


@pytest.mark.parametrize(
    ("kind", "loss"), [(kind, loss) for kind, losses in LOSSES.items() for loss in losses]
)
@pytest.mark.parametrize("learned", [False, True])
def test_no_loss_waits_for_the_device(
    kind: str, loss: str, learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Normalizers that are tensors, values and gradients: no operation whose result the host has to know."""
    for module in (labels, normalizers):  # as if the tensors lay on a GPU
        monkeypatch.setattr(module, "is_on_host", lambda tensor: False)
    heads = {"0": Head(kind, loss, 1.0, 0.3, False)}
    window = cut(rows_of(heads, drawn_queries([[3], [4]], 0), 0), [3, 4])
    criterion, model = drawn_criterion(heads, learned, 0, 1), Heads({"0": OUTPUTS[kind]}, 0)
    with Waiting() as waiting:
        normalizer = sum(criterion.normalizer(targets) for _, targets in window)
        for images, targets in window:
            criterion(model(images), targets, normalizer).backward()
    assert waiting.found == []
