"""One update's gradient is that of one big batch, however the rows are cut into micro-batches."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.weighted_sum import WeightedSum

FEATURES, MASKS, AGES = 6, 3, 4
Batch = tuple[Tensor, dict[str, Tensor]]


class TwoHeads(nn.Module):
    """A shared layer and two heads, in float64."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        shapes = {"shared": (FEATURES, FEATURES), "mask": (FEATURES, MASKS), "age": (FEATURES, AGES)}
        for name, shape in shapes.items():
            weights = torch.randn(shape, generator=draw, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(weights))

    def forward(self, images_BF: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) by head."""
        features_BF = (images_BF @ self.shared).tanh()
        return {"mask": features_BF @ self.mask, "age": features_BF @ self.age}


def random_weight(classes: int, seed: int) -> Tensor:
    """Class weights from 0.05 to about 20: as far apart as imbalanced data make them."""
    draw = torch.Generator().manual_seed(seed)
    return (6 * torch.rand(classes, generator=draw, dtype=torch.float64) - 3).exp()


LOSSES: dict[str, Callable[[Tensor], nn.Module]] = {
    "cross entropy": lambda _: CrossEntropy(),
    "weighted, smoothed": lambda weight_K: CrossEntropy(weight_K, 0.1),
    "focal": lambda weight_K: Focal(2.0, weight_K),
    "balanced softmax": lambda weight_K: BalancedSoftmax(100 * weight_K),
    "focal + smoothing": lambda weight_K: WeightedSum(
        [Focal(1.5, weight_K), CrossEntropy(label_smoothing=0.1)], [0.7, 0.3]
    ),
}


def rows_of(count: int, masked: float, seed: int) -> Batch:
    """`count` random rows; each label is unknown with probability `masked`."""
    draw = torch.Generator().manual_seed(seed)
    targets = {}
    for name, classes in (("mask", MASKS), ("age", AGES)):
        labels_B = torch.randint(0, classes, (count,), generator=draw)
        targets[name] = labels_B.masked_fill(torch.rand(count, generator=draw) < masked, -1)
    return torch.randn(count, FEATURES, generator=draw, dtype=torch.float64), targets


def cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    """The same rows as micro-batches of `sizes`."""
    images_BF, targets = batch
    parts = {name: labels_B.split(sizes) for name, labels_B in targets.items()}
    return [
        (part_BF, {name: parts[name][i] for name in parts})
        for i, part_BF in enumerate(images_BF.split(sizes))
    ]


def gradient(criterion: Criterion, window: list[Batch], seed: int) -> Tensor:
    """What backward() adds up over the window, flat: the mass first, then one backward a micro-batch."""
    model = TwoHeads(seed)
    mass = torch.stack([criterion.mass(targets) for _, targets in window]).sum(dim=0)
    for images_BF, targets in window:
        criterion(model(images_BF), targets, mass).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def mean_of_means(criterion: Criterion, window: list[Batch], seed: int) -> Tensor:
    """The usual mistake: each micro-batch's own mean, divided by the number of micro-batches."""
    model = TwoHeads(seed)
    for images_BF, targets in window:
        (criterion(model(images_BF), targets) / len(window)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def error(found: Tensor, expected: Tensor) -> float:
    """The relative error in norm; 0 where both are 0."""
    return ((found - expected).norm() / expected.norm().clamp(min=1e-300)).item()


windows = st.one_of(
    # Equal micro-batches with a shorter last one, as the end of an epoch makes them, and any sizes at all.
    st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 8)).map(
        lambda s: [s[0]] * s[1] + [min(s[0], s[2])]
    ),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    sizes=windows,
    names=st.tuples(st.sampled_from(sorted(LOSSES)), st.sampled_from(sorted(LOSSES))),
    weights=st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)),
    masked=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_window_equals_one_batch(
    sizes: list[int], names: tuple[str, str], weights: tuple[float, float], masked: float, seed: int
) -> None:
    """In float64 the window's gradient differs from the big batch's by at most 1e-12 of its norm."""
    heads = {
        "mask": LOSSES[names[0]](random_weight(MASKS, seed)),
        "age": LOSSES[names[1]](random_weight(AGES, seed)),
    }
    criterion = Criterion(heads, dict(zip(heads, weights, strict=True)))
    batch = rows_of(sum(sizes), masked, seed)
    assert criterion.additive
    assert error(gradient(criterion, cut(batch, sizes), seed), gradient(criterion, [batch], seed)) <= 1e-12


@pytest.mark.parametrize(
    ("sizes", "weighted"),
    [([8, 8, 8, 2], False), ([8, 8, 8, 8], True), ([8, 8, 8, 2], True)],
    ids=["short last micro-batch", "class weights", "both"],
)
def test_dividing_by_the_number_of_micro_batches_is_wrong(sizes: list[int], weighted: bool) -> None:
    """Sabotage: the mean of the micro-batches' means misses by more than 2 %, the mass by less than 1e-12."""
    heads = {
        name: CrossEntropy(random_weight(k, 3) if weighted else None)
        for name, k in (("mask", MASKS), ("age", AGES))
    }
    criterion = Criterion(heads, {"mask": 1.0, "age": 0.5})
    batch = rows_of(sum(sizes), 0.0, 11)
    expected = gradient(criterion, [batch], 1)
    assert error(gradient(criterion, cut(batch, sizes), 1), expected) <= 1e-12
    assert error(mean_of_means(criterion, cut(batch, sizes), 1), expected) > 0.02


def test_two_processes_add_their_masses() -> None:
    """Ranks of 20 and 12 rows with one mass for both: the sum of their gradients is the big batch's."""
    criterion = Criterion(
        {"mask": CrossEntropy(random_weight(MASKS, 5)), "age": Focal()}, {"mask": 1.0, "age": 2.0}
    )
    batch = rows_of(32, 0.2, 4)
    ranks = cut(batch, [20, 12])
    mass = criterion.mass(ranks[0][1]) + criterion.mass(ranks[1][1])
    found = torch.zeros(sum(p.numel() for p in TwoHeads(2).parameters()), dtype=torch.float64)
    for images_BF, targets in ranks:
        model = TwoHeads(2)
        criterion(model(images_BF), targets, mass).backward()
        found += torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert error(found, gradient(criterion, [batch], 2)) <= 1e-12
