"""What each epoch of a training predicts for thousands of rows that it has never seen.

A validation set is then a draw from these rows (with replacement), and an epoch's expected score on fresh rows is its
mean over other draws: any number of validation sets can be drawn for one training.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch

from make_fashion import SOURCE, read_idx

CLASSES = 10
POOL_ROWS = 600  # of each class
DECAY = 0.99

TAIL = [max(5, round(480 * 0.6**k)) for k in range(CLASSES)]
EVEN = [100] * CLASSES


@dataclass(frozen=True)
class Training:
    """A training's epochs on the pool: true classes (N,), the share of each class in natural data (K,), and predicted
    classes (E, N): of the weights as they are after each epoch, and of their average (the same where there is none)."""

    name: str
    true: np.ndarray  # (N,)
    shares: np.ndarray  # (K,)
    predicted: np.ndarray  # (E, N)
    averaged: np.ndarray  # (E, N)
    group_rows: int = 1  # the pool's rows come in groups of as many, each of one class

    @property
    def rows_of(self) -> list[np.ndarray]:
        """The pool's rows of each class."""
        return [np.flatnonzero(self.true == k) for k in range(CLASSES)]


def perceptron(
    name: str,
    counts: list[int],
    seed: int,
    epochs: int = 30,
    balanced: bool = True,
    constant: bool = False,
    lr: float = 2e-3,
) -> Training:
    """A perceptron with two hidden layers, trained with AdamW, flips, shifts and a cosine schedule on `counts[k]`
    clothes of each class of Fashion-MNIST. Some seconds on one core."""
    images_NHW, labels_N = (
        read_idx(SOURCE / f"train-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1")
    )
    rng = np.random.default_rng([seed, 1])
    rows = [rng.permutation(np.flatnonzero(labels_N == k)) for k in range(CLASSES)]
    train = np.concatenate([rows[k][: counts[k]] for k in range(CLASSES)])
    pool = np.concatenate([rows[k][-POOL_ROWS:] for k in range(CLASSES)])
    images, pool_images = (_normalized(images_NHW[chosen]) for chosen in (train, pool))
    labels, true_N = torch.from_numpy(labels_N[train].astype(np.int64)), labels_N[pool].astype(np.int64)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        hidden = [torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU()]
        model = torch.nn.Sequential(torch.nn.Flatten(), *hidden, torch.nn.Linear(128, CLASSES))
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    log_prior = torch.log(torch.tensor(counts, dtype=torch.float32)) if balanced else torch.zeros(CLASSES)
    updates = math.ceil(len(train) / 32) * epochs
    update = 0
    found: dict[str, list[np.ndarray]] = {"model": [], "averaged": []}
    for _ in range(epochs):
        for batch in torch.from_numpy(rng.permutation(len(train))).split(32):
            flips = torch.from_numpy(rng.random(len(batch)) < 0.5)
            moved = torch.where(flips[:, None, None], images[batch].flip(2), images[batch])
            moved = torch.roll(moved, tuple(int(step) for step in rng.integers(-2, 3, 2)), (1, 2))
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 if constant else (1 + math.cos(math.pi * update / updates)) / 2)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(moved) + log_prior, labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            update += 1
            decay = min(DECAY, (1 + update) / (10 + update))
            with torch.no_grad():
                for average, parameter in zip(averaged.parameters(), model.parameters(), strict=True):
                    average.lerp_(parameter, 1 - decay)
        with torch.no_grad():
            for key, network in (("model", model), ("averaged", averaged)):
                found[key].append(network(pool_images).argmax(dim=1).numpy())
    torch.set_num_threads(threads)
    shares_K = np.array(counts) / sum(counts)
    return Training(name, true_N, shares_K, np.stack(found["model"]), np.stack(found["averaged"]))


def generated(
    name: str,
    counts: list[int],
    seed: int,
    epochs: int = 30,
    flicker: float = 0.5,
    group_rows: int = 1,
    correlation: float = 0.5,
) -> Training:
    """Epochs from a model instead of a training: a row of difficulty d, standard normal, is right in epoch e where
    d + noise is below the skill of its class then. Skills rise along a learning curve and wander from epoch to epoch;
    the noise of a row is correlated over epochs (AR(1), 0.8). A wrong row is taken for the same other class each time.
    In groups of `group_rows` rows of a class, both the difficulty and the noise of two rows have this `correlation`.
    """
    rng = np.random.default_rng([seed, 2])
    true_N = np.repeat(np.arange(CLASSES), POOL_ROWS)
    curve_E = 1 - np.exp(-np.arange(1, epochs + 1) / (epochs / 6))
    final_K = rng.uniform(0.2, 1.4, CLASSES)
    skill_EK = curve_E[:, None] * final_K + rng.normal(0, 0.12, (epochs, CLASSES)) * (1.2 - curve_E)[:, None]
    within = correlation if group_rows > 1 else 0.0

    def normal() -> np.ndarray:
        """(N,): of each row."""
        own_N = rng.normal(size=len(true_N))
        if not within:
            return own_N
        shared_N = np.repeat(rng.normal(size=len(true_N) // group_rows), group_rows)
        return math.sqrt(within) * shared_N + math.sqrt(1 - within) * own_N

    noise_EN = np.empty((epochs, len(true_N)))
    noise_EN[0] = normal()
    for epoch in range(1, epochs):
        noise_EN[epoch] = 0.8 * noise_EN[epoch - 1] + 0.6 * normal()
    is_right_EN = normal() + flicker * noise_EN < skill_EK[:, true_N]
    mistaken_N = (true_N + rng.integers(1, CLASSES, len(true_N))) % CLASSES
    predicted_EN = np.where(is_right_EN, true_N, mistaken_N)
    shares_K = np.array(counts) / sum(counts)
    return Training(name, true_N, shares_K, predicted_EN, predicted_EN, group_rows)


def validation_counts(training: Training, rows: int) -> np.ndarray:
    """Rows, or groups of rows, of each class in a stratified validation set of natural shares: at least one, as the
    split guarantees."""
    units = rows // training.group_rows
    counts_K = np.maximum(1, np.rint(units * training.shares)).astype(int)
    counts_K[counts_K.argmax()] += units - counts_K.sum()
    return counts_K


def draw(training: Training, counts_K: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows of one validation set, which has `counts_K` rows of each class, or groups of `group_rows` rows."""
    size = training.group_rows
    firsts = [rng.choice(rows[::size], count) for rows, count in zip(training.rows_of, counts_K, strict=True)]
    return (np.concatenate(firsts)[:, None] + np.arange(size)).ravel()


def _normalized(images_NHW: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((images_NHW.astype(np.float32) / 255 - 0.286) / 0.353)
