"""Linear probing: scikit-learn's solutions, and no row is predicted by a head that has seen its fold."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.training.probe import (
    PENALTIES,
    LinearHead,
    Standardizer,
    fitted_head,
    held_out_outputs,
)

ROWS, FEATURES, CLASSES = 90, 6, 3
FOLDS = np.arange(ROWS) % 3


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (ROWS, FEATURES) of very different scales and offsets, and classes that are nearly linear in them; class
    0 is frequent, class 2 rare."""
    rng = np.random.default_rng(seed)
    standard = rng.normal(size=(ROWS, FEATURES))
    scores = standard[:, :CLASSES] + [1.5, 0.0, -0.5] + 0.5 * rng.normal(size=(ROWS, CLASSES))
    features = standard * [1, 10, 0.1, 3, 1, 0.2] + [0, 5, -1, 2, 0, 1]
    return torch.tensor(features, dtype=torch.float32), torch.tensor(scores.argmax(axis=1))


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over the rows, as PyTorch has it."""
    return F.cross_entropy(outputs, targets)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of a single output, the mean over the rows."""
    return F.mse_loss(outputs[:, 0], targets)


def logistic(features: Tensor, classes: Tensor, penalty: float, weights: Tensor | None = None) -> np.ndarray:
    """scikit-learn's probabilities for the same rows, whose sum of losses is penalized by 1 / C."""
    scaler = StandardScaler().fit(features)
    rows = len(features) if weights is None else float(weights.sum())
    model = LogisticRegression(C=1 / (penalty * rows), tol=1e-8, max_iter=10_000)
    model.fit(scaler.transform(features), classes, None if weights is None else weights.numpy())
    return model.predict_proba(scaler.transform(features))


def probabilities(head: LinearHead, features: Tensor) -> np.ndarray:
    return F.softmax(head(features).double(), dim=1).numpy()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_cross_entropy_is_fitted_as_by_scikit_learn(penalty: float) -> None:
    """The same probabilities as logistic regression with C = 1 / (penalty * rows) on standardized features."""
    features, classes = drawn()
    head = fitted_head([features], classes, cross_entropy, CLASSES, penalty)
    assert probabilities(head, features) == pytest.approx(logistic(features, classes, penalty), abs=2e-3)


def test_another_penalty_is_another_solution() -> None:
    """The tolerance of the test above tells the penalties apart."""
    features, classes = drawn()
    head = fitted_head([features], classes, cross_entropy, CLASSES, 0.01)
    off = np.abs(probabilities(head, features) - logistic(features, classes, 0.012)).max()
    assert off > 5e-3


def test_a_squared_error_is_fitted_as_by_ridge_regression() -> None:
    """mean (y - f)^2 + penalty / 2 |w|^2 is ridge regression with alpha = penalty * rows / 2."""
    features, _ = drawn()
    values = (
        features[:, 0] * 2
        + features[:, 1] / 5
        + torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    )
    head = fitted_head([features], values, squared_error, 1, 0.01)
    scaler = StandardScaler().fit(features)
    expected = Ridge(alpha=0.01 * ROWS / 2).fit(scaler.transform(features), values)
    assert head(features)[:, 0].numpy() == pytest.approx(
        expected.predict(scaler.transform(features)), abs=2e-3
    )


def test_views_count_as_further_rows() -> None:
    """Two views of each image are fitted as twice the rows would be."""
    features, classes = drawn()
    mirrored = features + 0.3 * drawn(seed=1)[0]
    head = fitted_head([features, mirrored], classes, cross_entropy, CLASSES, 0.01)
    together, repeated = torch.cat([features, mirrored]), torch.cat([classes, classes])
    assert probabilities(head, together) == pytest.approx(logistic(together, repeated, 0.01), abs=2e-3)
    assert not torch.allclose(
        head.weight, fitted_head([features], classes, cross_entropy, CLASSES, 0.01).weight
    )


def test_the_loss_of_the_target_decides() -> None:
    """Class weights of the loss are those of logistic regression; unlabeled rows count for nothing."""
    features, classes = drawn()
    weights = torch.tensor([0.2, 1.0, 5.0])
    criterion = Criterion({"kind": CrossEntropy(weights, normalize_by="weights")}, {"kind": 1.0})
    labels = classes.clone()
    labels[::5] = -1

    def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = criterion({"kind": outputs}, {"kind": targets})
        return loss

    head = fitted_head([features], labels, loss_of, CLASSES, 0.01)
    # The scaling is that of all rows, so scikit-learn gets them all: those without a label with a weight of 0.
    row_weights = weights[classes] * (labels >= 0)
    assert probabilities(head, features) == pytest.approx(
        logistic(features, classes, 0.01, row_weights), abs=2e-3
    )


def test_the_scaling_is_folded_in() -> None:
    """A head for standardized features and the folded one for features as they are give the same outputs."""
    features, _ = drawn()
    draw = torch.Generator().manual_seed(2)
    head = LinearHead(torch.randn(CLASSES, FEATURES, generator=draw), torch.randn(CLASSES, generator=draw))
    standardize = Standardizer.of(features)
    standardized = standardize(features)
    assert standardized.mean(dim=0) == pytest.approx(np.zeros(FEATURES), abs=1e-4)
    assert standardized.std(dim=0, correction=0) == pytest.approx(np.ones(FEATURES), abs=1e-3)
    assert torch.allclose(standardize.folded_into(head)(features), head(standardized), atol=1e-5, rtol=1e-5)


def test_a_constant_feature_has_no_say() -> None:
    """It is not divided by its deviation, which would make numbers that are not finite, or features of noise."""
    features, classes = drawn()
    constant = torch.cat([features, torch.full((ROWS, 1), 7.3)], dim=1)
    head = fitted_head([constant], classes, cross_entropy, CLASSES, 0.01)
    assert bool(head.weight.isfinite().all())
    assert head.weight[:, -1].abs().max() < 1e-4
    without = fitted_head([features], classes, cross_entropy, CLASSES, 0.01)
    assert torch.allclose(head(constant), without(features), atol=1e-2)


def test_each_row_is_predicted_by_a_head_without_its_fold() -> None:
    """For every penalty the outputs are those of a head that is fitted to the other folds alone."""
    features, classes = drawn()
    found = held_out_outputs([features], classes, cross_entropy, CLASSES, FOLDS)
    assert found.shape == (len(PENALTIES), ROWS, CLASSES)
    for position, penalty in enumerate(PENALTIES):
        for fold in range(3):
            rest, held_out = torch.from_numpy(fold != FOLDS), torch.from_numpy(fold == FOLDS)
            head = fitted_head([features[rest]], classes[rest], cross_entropy, CLASSES, penalty)
            expected = probabilities(head, features[held_out])
            outputs = F.softmax(found[position, held_out].double(), dim=1).numpy()
            assert outputs == pytest.approx(expected, abs=5e-3)


def test_a_poisoned_fold_does_not_change_its_own_outputs() -> None:
    """Labels of the fold are read by nobody who predicts it; nor is what its second views show, nor how its features
    are scaled."""
    features, classes = drawn()
    mirrored = features + 0.1
    held_out = torch.from_numpy(FOLDS == 1)
    clean = held_out_outputs([features, mirrored], classes, cross_entropy, CLASSES, FOLDS)

    labels, views = classes.clone(), [features.clone(), mirrored.clone()]
    labels[held_out] = (labels[held_out] + 1) % CLASSES
    views[1][held_out] *= 1000
    poisoned = held_out_outputs(views, labels, cross_entropy, CLASSES, FOLDS)
    assert torch.equal(poisoned[:, held_out], clean[:, held_out])
    assert not torch.allclose(poisoned[:, ~held_out], clean[:, ~held_out], atol=0.1)

    # Other rows of the fold do not matter either: one that is far out moves no scaling.
    first = int(held_out.nonzero()[0])
    far = features.clone()
    far[first] *= 1e4
    others = held_out.clone()
    others[first] = False
    moved = held_out_outputs([far, mirrored], classes, cross_entropy, CLASSES, FOLDS)
    assert torch.equal(moved[:, others], clean[:, others])


def test_where_a_fit_begins_makes_no_difference() -> None:
    """The penalties before are a start for the next; the solution is that of a fit from zero."""
    features, classes = drawn()
    alone = held_out_outputs([features], classes, cross_entropy, CLASSES, FOLDS, penalties=(0.01,))[0]
    after = held_out_outputs([features], classes, cross_entropy, CLASSES, FOLDS, penalties=(1.0, 0.1, 0.01))[
        2
    ]
    before = held_out_outputs([features], classes, cross_entropy, CLASSES, FOLDS, penalties=(0.001, 0.01))[1]
    assert F.softmax(after, dim=1) == pytest.approx(F.softmax(alone, dim=1), abs=5e-3)
    assert F.softmax(before, dim=1) == pytest.approx(F.softmax(alone, dim=1), abs=5e-3)


def test_fits_draw_nothing_and_leave_no_gradient() -> None:
    """The same bytes each time, also without gradients around; the caller's generator does not move."""
    features, classes = drawn()
    state = torch.get_rng_state()
    first = fitted_head([features], classes, cross_entropy, CLASSES, 0.003)
    with torch.no_grad():
        second = fitted_head([features], classes, cross_entropy, CLASSES, 0.003)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.weight.requires_grad
    assert not first(features).requires_grad
