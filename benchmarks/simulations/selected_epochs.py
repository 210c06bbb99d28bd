"""Two learners of random labels, one with many epochs to choose from: is it ahead because it may choose?

Letters in names: D data sets, N rows, E epochs, K classes, F features.
"""

import numpy as np

from simulations.learners import CLASSES, Array, Flags, Numbers, drawn_splits, long_tailed, macro_f1

FEW, MANY = 2, 40  # epochs
FEATURES = 10
RATE = 4.0  # large, so that epochs differ as those of a network do
AT_ONCE = 50  # data sets
NEW = 4  # times the rows of a data set: the new rows


def mean_differences(sets: int) -> tuple[float, float]:
    """How much too far ahead MANY epochs are of FEW in macro F1, on average over data sets with random labels: with
    each learner scored on the rows that chose its epoch, and on the test rows. What the chosen models score on many new
    rows is the truth."""
    rng = np.random.default_rng(3)
    labels_N = long_tailed()
    new_M = np.repeat(labels_N, NEW)
    differences = []
    for start in range(0, sets, AT_ONCE):
        features_DNF = rng.normal(size=(AT_ONCE, len(labels_N), FEATURES))
        new_DMF = rng.normal(size=(AT_ONCE, len(new_M), FEATURES))
        splits = [drawn_splits(labels_N, 0.2, seed=start + i) for i in range(AT_ONCE)]
        train_DN = np.array([train_N for train_N, _ in splits])
        test_DN = np.array([test_N for _, test_N in splits])
        scores = []
        for epochs in (FEW, MANY):
            weights_EDFK = _epochs(features_DNF, labels_N, train_DN, epochs, rng)
            best_DFK = _best_epoch(weights_EDFK, features_DNF, labels_N, ~train_DN & ~test_DN)
            new_D = macro_f1((new_DMF @ best_DFK).argmax(axis=2), new_M, np.ones(len(new_M), dtype=np.bool_))
            predicted_DN = (features_DNF @ best_DFK).argmax(axis=2)
            scores.append(
                [macro_f1(predicted_DN, labels_N, rows) - new_D for rows in (~train_DN & ~test_DN, test_DN)]
            )
        differences.append(np.subtract(scores[1], scores[0]))
    own, other = np.concatenate(differences, axis=1).mean(axis=1).tolist()
    return own, other


def _epochs(
    features_DNF: Array, labels_N: Numbers, train_DN: Flags, epochs: int, rng: np.random.Generator
) -> Array:
    """The weights (E, D, F, K) after each epoch of softmax regression, all classes weighted equally, each step with
    another half of the training rows."""
    weights_DFK = np.zeros((len(features_DNF), FEATURES, CLASSES))
    one_hot_NK = np.eye(CLASSES)[labels_N]
    after = []
    for _ in range(epochs):
        used_DN = train_DN & (rng.random(train_DN.shape) < 0.5)
        used_DNK = used_DN[..., None] * one_hot_NK
        row_weight_DN = (used_DNK / np.maximum(used_DNK.sum(axis=1, keepdims=True), 1)).sum(axis=2) / CLASSES
        logits_DNK = features_DNF @ weights_DFK
        p_DNK = np.exp(logits_DNK - logits_DNK.max(axis=2, keepdims=True))
        p_DNK /= p_DNK.sum(axis=2, keepdims=True)
        gradient_DNK = (p_DNK - one_hot_NK) * row_weight_DN[..., None]
        weights_DFK = weights_DFK - RATE * np.swapaxes(features_DNF, 1, 2) @ gradient_DNK
        after.append(weights_DFK)
    return np.array(after)


def _best_epoch(weights_EDFK: Array, features_DNF: Array, labels_N: Numbers, valid_DN: Flags) -> Array:
    """The weights (D, F, K) of the epoch with the highest score on the validation rows."""
    score_ED = macro_f1((features_DNF @ weights_EDFK).argmax(axis=3), labels_N, valid_DN)
    best_DFK: Array = weights_EDFK[score_ED.argmax(axis=0), np.arange(len(valid_DN))]
    return best_DFK
