"""Class weights against scikit-learn and the paper's formula written out."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from classwise.errors import ConfigError, DataError
from classwise.losses.class_weights import class_weights
from classwise.losses.cross_entropy import CrossEntropy

COUNTS = [600, 216, 47, 6, 1]


def test_none_gives_no_weights() -> None:
    """'none' gives None, which every loss reads as no weights."""
    assert class_weights("none", COUNTS) is None


def test_inverse_equals_balanced_of_scikit_learn() -> None:
    """'inverse' equals compute_class_weight('balanced') on the rows themselves."""
    rows = np.repeat(np.arange(5), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(5), y=rows)
    np.testing.assert_allclose(class_weights("inverse", np.array(COUNTS)).numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.99999])
def test_effective_equals_the_paper(beta: float) -> None:
    """'effective' equals equation 2 as its sum 1 + beta + ... + beta^(n-1), inverted and scaled to mean 1."""
    raw = [1 / sum(beta**i for i in range(n)) for n in COUNTS]
    expected = [w * len(raw) / sum(raw) for w in raw]
    actual = class_weights("effective", COUNTS, beta)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9)
    assert actual.mean().item() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_a_class_without_rows_gets_one(kind: str) -> None:
    """An absent class has the neutral weight 1, and the other classes have those of the formula."""
    weight_K = class_weights(kind, [30, 0, 10])
    assert weight_K[1].item() == 1
    assert weight_K.isfinite().all()
    ratio = 3 if kind == "inverse" else (1 - 0.999**30) / (1 - 0.999**10)
    assert (weight_K[2] / weight_K[0]).item() == pytest.approx(ratio)


def test_effective_weights_have_mean_one_with_absent_classes() -> None:
    """The scale does not depend on how many classes are absent."""
    assert class_weights("effective", [30, 0, 10, 0]).mean().item() == pytest.approx(1, rel=1e-14)


def test_a_list_is_used_unchanged() -> None:
    """A list of the right length comes back as the weights."""
    assert class_weights([1, 2.5, 0], [3, 4, 5]).tolist() == [1.0, 2.5, 0.0]


def test_the_weights_fit_the_losses() -> None:
    """The result can be passed to a loss, whatever the logits' precision."""
    loss = CrossEntropy(class_weights("effective", [5, 1]))
    assert loss(torch.zeros(2, 2), torch.tensor([0, 1])).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("invers", "did you mean 'inverse'"),
        ([1.0, 2.0], "found 2 numbers, allowed: one for each of 3 classes"),
        ([1.0, -2.0, 1.0], "finite numbers >= 0"),
        ([1.0, float("nan"), 1.0], "finite numbers >= 0"),
        ([0.0, 0.0, 0.0], "not all 0"),
    ],
)
def test_invalid_kinds_are_refused(kind: str | list[float], message: str) -> None:
    """The error says what was found and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        class_weights(kind, [3, 4, 5])


@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_invalid_beta_is_refused(beta: float) -> None:
    """A beta of 1 would divide 0 by 0."""
    with pytest.raises(ConfigError, match="beta of the effective number"):
        class_weights("effective", [3, 4], beta)


@pytest.mark.parametrize("counts", [[0, 0], [], [3, -1]])
def test_counts_without_rows_are_refused(counts: list[int]) -> None:
    """No labeled row, no class or a negative count raises DataError."""
    with pytest.raises(DataError, match="at least one row needs a label"):
        class_weights("inverse", counts)
