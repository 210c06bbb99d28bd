"""What holds for every loss of a class target: unlabeled rows, half precision, exact gradients, refusals."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.base import Loss
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment
from classwise.losses.normalizer import Normalizer
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum

WEIGHT_K = torch.tensor([0.2, 3.0, 1.0, 0.7], dtype=torch.float64)
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "cross entropy": CrossEntropy,
    "weighted, smoothed cross entropy": lambda: CrossEntropy(WEIGHT_K, 0.1),
    "focal": lambda: Focal(2.0, WEIGHT_K),
    "focal, gamma 0.5": lambda: Focal(0.5),
    "soft F1": lambda: SoftMacroF1(4),
    "balanced softmax": lambda: BalancedSoftmax(torch.tensor([40, 3, 0, 9])),
    "logit adjustment": lambda: LogitAdjustment(torch.tensor([40, 3, 0, 9]), 1.5),
    "generalized cross entropy": lambda: GeneralizedCrossEntropy(0.7, WEIGHT_K),
    "LDAM": lambda: LDAM(torch.tensor([40, 3, 0, 9]), weight=WEIGHT_K),
    "sum": lambda: WeightedSum([Focal(), CrossEntropy(label_smoothing=0.2)], [1.0, 0.5]),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def batch(rows: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (rows, 4) in float64 and labels, every third of them unknown."""
    draw = torch.Generator().manual_seed(seed)
    logits_BK = 2 * torch.randn(rows, 4, generator=draw, dtype=torch.float64)
    labels_B = torch.randint(0, 4, (rows,), generator=draw)
    labels_B[::3] = -1
    return logits_BK, labels_B


@every_loss
def test_follows_the_protocol(make: Callable[[], nn.Module]) -> None:
    """Every loss follows `Loss` and has one float64 number per term in its normalizer."""
    loss = make()
    assert isinstance(loss, Loss)
    normalizer = loss.normalizer(batch()[1])
    assert len(normalizer.tolist()) == loss.terms
    assert all(isinstance(number, float) for number in normalizer.tolist())


@every_loss
def test_unlabeled_rows_have_no_influence(make: Callable[[], nn.Module]) -> None:
    """Value and normalizer are those of the labeled rows alone, and unlabeled rows get no gradient."""
    loss = make()
    logits_BK, labels_B = batch()
    labeled_B = labels_B != -1
    logits_BK.requires_grad_()
    value = loss(logits_BK, labels_B)
    value.backward()
    torch.testing.assert_close(value, loss(logits_BK[labeled_B], labels_B[labeled_B]), rtol=1e-13, atol=0)
    assert loss.normalizer(labels_B).tolist() == loss.normalizer(labels_B[labeled_B]).tolist()
    assert not logits_BK.grad[~labeled_B].any()
    assert logits_BK.grad[labeled_B].any()


@every_loss
@pytest.mark.parametrize("rows", [0, 5])
def test_loss_without_labeled_rows_is_zero(make: Callable[[], nn.Module], rows: int) -> None:
    """All rows unlabeled, or no row at all: 0 with a gradient of 0, never NaN."""
    loss = make()
    logits_BK = torch.randn(rows, 4, requires_grad=True)
    labels_B = torch.full((rows,), -1)
    value = loss(logits_BK, labels_B)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits_BK.grad, torch.zeros(rows, 4))
    assert not any(loss.normalizer(labels_B).tolist())


@every_loss
def test_gradient_is_exact(make: Callable[[], nn.Module]) -> None:
    """The gradient in float64 equals finite differences."""
    logits_BK, labels_B = batch()
    assert torch.autograd.gradcheck(make(), (logits_BK.requires_grad_(), labels_B))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(
    make: Callable[[], nn.Module], dtype: torch.dtype
) -> None:
    """Half-precision logits give exactly what the same numbers give in float32, and a finite gradient."""
    loss = make()
    logits_BK, labels_B = batch(rows=300)
    logits_BK = logits_BK.to(dtype).requires_grad_()
    value = loss(logits_BK, labels_B)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits_BK.float(), labels_B))
    assert logits_BK.grad.dtype == dtype
    assert logits_BK.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_has_the_dtype_of_its_logits(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    """The loss has the precision of its logits, although the normalizer is float64."""
    logits_BK, labels_B = batch()
    loss = make()
    assert loss(logits_BK.to(dtype), labels_B).dtype == dtype
    assert loss(logits_BK.to(dtype), labels_B, loss.normalizer(labels_B)).dtype == dtype


@every_loss
def test_extreme_logits_stay_finite(make: Callable[[], nn.Module]) -> None:
    """Certainty, right or wrong, gives finite values and gradients in float32."""
    logits_BK = torch.tensor([[1e4, -1e4, 0, 0], [1e4, -1e4, 0, 0], [0, 0, 0, 0]], requires_grad=True)
    value = make()(logits_BK, torch.tensor([0, 1, 2]))
    value.backward()
    assert value.isfinite()
    assert logits_BK.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize(
    ("logits_shape", "labels"),
    [((3, 4), [0, 1]), ((3,), [0, 1, 2]), ((3, 4), [[0, 1, 2]]), ((3, 4), [0.0, 1.0, 2.0])],
)
def test_wrong_shapes_are_refused(
    make: Callable[[], nn.Module], logits_shape: tuple[int, ...], labels: list[int]
) -> None:
    """Shapes that would broadcast to something else, and labels that are not integers, are refused."""
    with pytest.raises(ValueError, match=r"logits \(B, K\)"):
        make()(torch.zeros(logits_shape), torch.tensor(labels))


@every_loss
@pytest.mark.parametrize("label", [4, -2])
def test_labels_outside_the_classes_are_refused(make: Callable[[], nn.Module], label: int) -> None:
    """On the CPU a label that is neither a class nor -1 raises, as it does in torch."""
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        make()(torch.zeros(2, 4), torch.tensor([0, label]))


@every_loss
def test_normalizer_of_another_shape_is_refused(make: Callable[[], nn.Module]) -> None:
    """A normalizer with too many numbers, or with none, is refused instead of broadcast."""
    loss = make()
    logits_BK, labels_B = batch()
    for normalizer in (Normalizer([1.0] * (loss.terms + 1)), Normalizer([])):
        with pytest.raises(ValueError, match="found a normalizer of"):
            loss(logits_BK, labels_B, normalizer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy(WEIGHT_K),
        lambda: Focal(2.0, WEIGHT_K),
        lambda: GeneralizedCrossEntropy(0.7, WEIGHT_K),
        lambda: LDAM(WEIGHT_K),
        lambda: LogitAdjustment(WEIGHT_K),
    ],
)
def test_weights_for_another_number_of_classes_are_refused(make: Callable[[], nn.Module]) -> None:
    """Weights of 4 classes do not fit logits of 18: a loss never guesses the number of classes."""
    with pytest.raises(ValueError, match="18 classes; this loss was made for 4"):
        make()(torch.zeros(2, 18), torch.tensor([0, 1]))


def test_buffers_move_with_the_module() -> None:
    """Weights and priors are buffers, so `.to(device)` reaches them."""
    assert dict(CrossEntropy(WEIGHT_K).named_buffers()).keys() == {"weight"}
    assert dict(Focal(weight=WEIGHT_K).named_buffers()).keys() == {"weight"}
    assert dict(BalancedSoftmax(torch.ones(3)).named_buffers()).keys() == {"log_prior"}
    assert dict(LDAM(torch.ones(4), weight=WEIGHT_K).named_buffers()).keys() == {"weight", "margin"}
