"""Scores and predictions at other class shares: Gaussian classes, for which the best rule at any shares is known.

Five normal distributions in three dimensions with the same covariance, so that a linear softmax model is the right one.
Training and validation rows have long-tailed shares, 40 to 1; the shares of selection.prior are others. The truth is
counted on rows that are drawn with these.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.data.sampling import epoch_order
from classwise.data.sources import Samples
from classwise.data.targets import ClassTarget
from classwise.metrics.classification import LabelMetric
from classwise.metrics.prior import intervals_at_prior, scores_at_prior
from classwise.model.heads import ClassHead, Head
from simulations.claim import Claim, at_most, within

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLASSES, DIMENSIONS = 5, 3
SPREAD = 1.3  # standard deviation of the means; that of the classes is 1
LABELS = tuple("abcde")
TAIL = 40.0 ** -(np.arange(CLASSES) / (CLASSES - 1))
TRAINING = TAIL / TAIL.sum()
PRIORS: dict[str, Floats] = {
    "equal shares": np.full(CLASSES, 1 / CLASSES),
    "the tail reversed": TRAINING[::-1].copy(),
    "the square roots": np.sqrt(TRAINING) / np.sqrt(TRAINING).sum(),
}
RECIPES: dict[str, dict[str, Any]] = {
    "cross entropy": {"loss": {"name": "cross_entropy"}},
    "cross entropy, effective class weights": {
        "loss": {"name": "cross_entropy", "class_weights": "effective", "beta": 0.9999}
    },
    "balanced softmax": {"loss": {"name": "balanced_softmax"}},
    "logit adjustment, tau 0.5": {"loss": {"name": "logit_adjustment", "tau": 0.5}},
    "cross entropy, sqrt sampling": {"loss": {"name": "cross_entropy"}, "data": {"sampling": "sqrt"}},
}
ROWS = 3000  # validation rows; some 30 of the rarest class
TEST_ROWS = 40_000
EPOCHS = 3  # as many orders of the sampling are one training set


def simulate(quick: bool) -> list[Claim]:
    """The claims on scores and their intervals, and on predictions."""
    return [
        *score_claims(12 if quick else 1000),
        *rule_claims(1 if quick else 20, 6000 if quick else 30_000),
    ]


def score_claims(sets: int) -> list[Claim]:
    """The scores of a classifier at other shares than those of the validation rows."""
    errors: dict[str, list[float]] = {name: [] for name in PRIORS}
    unweighted, covered = [], []
    for number in range(sets):
        rng = np.random.default_rng([1, number])
        means_KD = rng.normal(0, SPREAD, (CLASSES, DIMENSIONS))
        inputs_ND, labels_N = draw(means_KD, TRAINING, ROWS, rng)
        metric = counted(bayes_rule(inputs_ND, means_KD, TRAINING), labels_N)
        for name, share_K in PRIORS.items():
            test_ND, truth_N = draw(means_KD, share_K, TEST_ROWS, rng)
            truth = macro_f1(bayes_rule(test_ND, means_KD, TRAINING), truth_N)
            errors[name].append(scores_at_prior(metric, share_K.tolist())["macro_f1"] - truth)
            if name == "equal shares":
                unweighted.append(metric.compute()["macro_f1"] - truth)
                low, high = intervals_at_prior(metric, share_K.tolist(), seed=number, resamples=400).scores[
                    "macro_f1"
                ]
                covered.append(low <= truth <= high)

    claims = [
        within(f"macro F1 at {name}, mean error", float(np.mean(found)), -0.01, 0.01, sets)
        for name, found in errors.items()
    ]
    off = float(np.mean(np.abs(unweighted)))
    low, high = (93, 97) if sets >= 1000 else (75, 100)
    held = 100 * float(np.mean(covered))
    return [
        *claims,
        within(
            "the plain macro F1 in place of that at equal shares, mean size of the error", off, 0.02, 1, sets
        ),
        within("95 % intervals of macro F1 at equal shares that hold", held, low, high, sets, " %"),
    ]


def rule_claims(sets: int, rows: int) -> list[Claim]:
    """The macro F1 of the best rule at the wanted shares, minus that of a model with what is added to its logits."""
    lost: dict[str, list[float]] = {}
    for number in range(sets):
        rng = np.random.default_rng([2, number])
        means_KD = rng.normal(0, SPREAD, (CLASSES, DIMENSIONS))
        inputs_ND, labels_N = draw(means_KD, TRAINING, rows, rng)
        splits = splits_of(labels_N)
        tests = {name: draw(means_KD, share_K, TEST_ROWS, rng) for name, share_K in PRIORS.items()}
        best = {
            name: macro_f1(bayes_rule(tests[name][0], means_KD, share_K), tests[name][1])
            for name, share_K in PRIORS.items()
        }
        for recipe, sections in RECIPES.items():
            model = fitted(config_of(sections, None), splits, inputs_ND, labels_N)
            for name, share_K in PRIORS.items():
                head = build_heads(config_of(sections, share_K), splits)["label"]
                own = macro_f1(predicted(model, head, tests[name][0]), tests[name][1])
                lost.setdefault(f"{recipe}, predictions for {name}", []).append(best[name] - own)
            if recipe == "cross entropy":
                own = macro_f1(
                    predicted(model, ClassHead(CLASSES), tests["equal shares"][0]), tests["equal shares"][1]
                )
                lost.setdefault(UNADJUSTED, []).append(best["equal shares"] - own)

    at_least = lost.pop(UNADJUSTED)
    return [
        *(
            at_most(f"{name}: macro F1 below the best rule", float(np.mean(found)), 0.01, sets)
            for name, found in lost.items()
        ),
        within(f"{UNADJUSTED}: macro F1 below the best rule", float(np.mean(at_least)), 0.02, 1, sets),
    ]


UNADJUSTED = "cross entropy as trained, for equal shares"


def draw(means_KD: Floats, share_K: Floats, rows: int, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Inputs (N, D) and labels (N,), every class with its share of the rows to within one."""
    labels_N = np.searchsorted(np.cumsum(share_K), (np.arange(rows) + rng.random()) / rows).clip(
        max=CLASSES - 1
    )
    return means_KD[labels_N] + rng.normal(size=(rows, DIMENSIONS)), labels_N


def bayes_rule(inputs_ND: Floats, means_KD: Floats, share_K: Floats) -> Ints:
    """The most probable class (N,) at these shares."""
    return (inputs_ND @ means_KD.T - (means_KD**2).sum(axis=1) / 2 + np.log(share_K)).argmax(axis=1)


def counted(predicted_N: Ints, labels_N: Ints) -> LabelMetric:
    """The metric of these rows."""
    metric = LabelMetric(CLASSES, keep_rows=True, labels=LABELS)
    metric.update(torch.from_numpy(predicted_N), torch.from_numpy(labels_N))
    return metric


def macro_f1(predicted_N: Ints, labels_N: Ints) -> float:
    """Of rows that have the shares in question."""
    return float(counted(predicted_N, labels_N).compute()["macro_f1"])


def config_of(sections: dict[str, Any], share_K: Floats | None) -> Config:
    """A config with selection.prior = these shares."""
    prior = {} if share_K is None else {"prior": dict(zip(LABELS, share_K.tolist(), strict=True))}
    data = {"source": "train.csv"} | sections.get("data", {})
    targets = {"label": {"column": "label"}}
    return make_config({"data": data, "targets": targets, "loss": sections["loss"], "selection": prior})


def splits_of(labels_N: Ints) -> DatasetSplits:
    """The training rows as the package's functions take them."""
    target = ClassTarget("label", "class", "label", LABELS)
    ids = tuple(map(str, range(len(labels_N))))
    samples = Samples("train.csv", Path(), ids, ids, groups=None, frame=pl.DataFrame({"id": ids}))
    split = Split(samples, {"label": labels_N})
    return DatasetSplits((target,), (), train=split, valid=split, bad=(), warnings=())


def fitted(config: Config, splits: DatasetSplits, inputs_ND: Floats, labels_N: Ints) -> torch.nn.Linear:
    """A linear model, trained with the config's loss on the rows that its sampling draws."""
    orders = [epoch_order(config.data.sampling, labels_N, seed=0, epoch=epoch) for epoch in range(EPOCHS)]
    rows = np.concatenate(orders if config.data.sampling != "shuffle" else orders[:1])
    inputs, labels = torch.from_numpy(inputs_ND[rows]), torch.from_numpy(labels_N[rows])
    criterion = build_criterion(config, splits)
    model = torch.nn.Linear(DIMENSIONS, CLASSES, dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = criterion({"label": model(inputs)}, {"label": labels})
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@torch.no_grad()
def predicted(model: torch.nn.Linear, head: Head, inputs_ND: Floats) -> Ints:
    """The classes (N,) that the head reads from the model's outputs."""
    predicted_N: Ints = head.predicted(head.decode(model(torch.from_numpy(inputs_ND)))).numpy()
    return predicted_N
