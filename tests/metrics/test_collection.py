"""The metric collection: every target and the joint class over the whole set."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch import Tensor

from classwise.errors import ConfigError
from classwise.metrics.collection import (
    MetricCollection,
    flat_scores,
)
from classwise.metrics.joint import joint_labels
from classwise.metrics.names import resolve_metric
from classwise.metrics.scores import HIGHER_IS_BETTER, LABEL_SCORES, SCORES
from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)

LABELS = {"mask": ["wear", "incorrect", "normal"], "gender": ["male", "female"], "age": ["<30", "30", ">=60"]}
JOINT = ("mask", "gender", "age")
HEADS = {name: ClassHead(len(list_)) for name, list_ in LABELS.items()}
NAN = math.nan

# One target of every type; the three that can be read as a class make the joint one.
MIXED: dict[str, Head] = {
    "mask": ClassHead(3),
    "blur": OrdinalHead(4),
    "age": RegressionHead(mean=45.0, std=20.0, edges=(30.0, 60.0)),
    "things": MultilabelHead(3),
    "taste": RankingHead(),
}
MIXED_LABELS = {
    "mask": LABELS["mask"],
    "blur": ["none", "some", "much", "all"],
    "age": ["<30", "30 to <60", ">=60"],
    "things": ["hat", "scarf", "glasses"],
}
MIXED_JOINT = ("mask", "blur", "age")


def drawn(count: int, seed: int, masked: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits and labels for every target."""
    draw = torch.Generator().manual_seed(seed)
    outputs = {name: torch.randn(count, len(list_), generator=draw) for name, list_ in LABELS.items()}
    targets = {}
    for name, list_ in LABELS.items():
        labels_B = torch.randint(0, len(list_), (count,), generator=draw)
        targets[name] = labels_B.masked_fill(torch.rand(count, generator=draw) < masked, -1)
    return outputs, targets


def drawn_mixed(count: int, seed: int, masked: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw outputs and truth for a target of every type, each with its own unlabeled rows."""
    draw = torch.Generator().manual_seed(seed)
    outputs = {name: torch.randn(count, head.outputs, generator=draw) for name, head in MIXED.items()}
    known = {name: torch.rand(count, generator=draw) >= masked for name in MIXED}
    labels = {k: torch.randint(0, k, (count,), generator=draw) for k in (3, 4)}
    ages = torch.rand(count, generator=draw, dtype=torch.float64) * 80
    cells = torch.randint(0, 2, (count, 3), generator=draw).float()
    relevance = torch.randint(0, 3, (count,), generator=draw)
    targets = {
        "mask": labels[3].where(known["mask"], -1),
        "blur": labels[4].where(known["blur"], -1),
        "age": ages.where(known["age"], NAN),
        "things": cells.where(known["things"][:, None], NAN),
        "taste": torch.stack([relevance.where(known["taste"], -1), torch.arange(count) // 5], dim=1),
    }
    return outputs, targets


def counted_mixed(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], size: int = 1000
) -> MetricCollection:
    """A collection over every type of target that was updated with the rows in batches, and stored them."""
    collection = MetricCollection(MIXED, MIXED_LABELS, MIXED_JOINT, keep_rows=True)
    for start in range(0, len(targets["mask"]), size):
        rows = slice(start, start + size)
        collection.update(*({name: x[rows] for name, x in each.items()} for each in (outputs, targets)))
    return collection


def assert_same(found: object, wanted: object) -> None:
    """Equal counts and names, and floats equal up to rounding."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, list):
        assert isinstance(found, list)
        assert len(found) == len(wanted)
        for pair in zip(found, wanted, strict=True):
            assert_same(*pair)
    else:
        assert found == (pytest.approx(wanted, rel=1e-12, abs=1e-12) if isinstance(wanted, float) else wanted)


def counted(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], sizes: Sequence[int]
) -> MetricCollection:
    """A collection that was updated with the rows in batches of these sizes."""
    collection = MetricCollection(HEADS, LABELS, JOINT)
    parts = [{name: x.split(list(sizes)) for name, x in each.items()} for each in (outputs, targets)]
    for i in range(len(sizes)):
        collection.update(*({name: x[i] for name, x in part.items()} for part in parts))
    return collection


@pytest.mark.parametrize("masked", [0.0, 0.3])
def test_the_joint_class_by_plain_loops(masked: float) -> None:
    """Class = mask * 6 + gender * 3 + age, counted row by row; a row with an unlabeled target is in no joint cell but
    in the cells of its labeled targets."""
    outputs, targets = drawn(200, 3, masked)
    results = counted(outputs, targets, [64, 64, 64, 8]).compute()
    confusion, parts = np.zeros((18, 18), dtype=int), dict.fromkeys(LABELS, 0)
    for row in range(200):
        true = {name: int(targets[name][row]) for name in LABELS}
        actual = {name: int(outputs[name][row].argmax()) for name in LABELS}
        for name in LABELS:
            parts[name] += true[name] >= 0
        if min(true.values()) >= 0:
            numbers = [each["mask"] * 6 + each["gender"] * 3 + each["age"] for each in (true, actual)]
            confusion[numbers[0], numbers[1]] += 1
    assert results["joint"]["confusion"] == confusion.tolist()
    assert {name: int(np.sum(results["targets"][name]["confusion"])) for name in LABELS} == parts


def test_the_scores_equal_scikit_learn() -> None:
    """Macro F1 over the whole label list, accuracy and confusion of the joint class and of each target, 1e-12."""
    outputs, targets = drawn(40, 5)  # fewer rows than would fill 18 classes
    results = counted(outputs, targets, [40]).compute()
    truths = {name: x.numpy() for name, x in targets.items()}
    actual = {name: x.argmax(dim=1).numpy() for name, x in outputs.items()}
    for each in (truths, actual):
        each["joint"] = each["mask"] * 6 + each["gender"] * 3 + each["age"]
    assert len(set(truths["joint"])) < 18
    for name, size in (("mask", 3), ("gender", 2), ("age", 3), ("joint", 18)):
        scores = results["joint"] if name == "joint" else results["targets"][name]
        classes = range(size)
        f1 = f1_score(truths[name], actual[name], labels=classes, average="macro", zero_division=0)
        assert scores["macro_f1"] == pytest.approx(f1, abs=1e-12)
        assert scores["accuracy"] == pytest.approx(accuracy_score(truths[name], actual[name]), abs=1e-12)
        expected = confusion_matrix(truths[name], actual[name], labels=list(classes))
        assert scores["confusion"] == expected.tolist()


@pytest.mark.parametrize("sizes", [[50], [7] * 7 + [1], [1] * 50, [49, 1]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    """Counts over the whole set, never a mean of batch scores."""
    outputs, targets = drawn(50, 8)
    assert_same(counted(outputs, targets, sizes).compute(), counted(outputs, targets, [50]).compute())


def test_reset_starts_from_zero() -> None:
    """After a reset the earlier rows are not counted, nor in the joint class."""
    outputs, targets = drawn(30, 1)
    collection = counted(outputs, targets, [30])
    collection.reset()
    assert np.sum(collection.compute()["joint"]["confusion"]) == 0
    collection.update(outputs, targets)
    assert_same(collection.compute(), counted(outputs, targets, [30]).compute())


def test_rows_without_a_prediction_are_counted_as_invalid() -> None:
    """NaN in one target's logits: the row is in none of that target's cells, and counts in `invalid`."""
    outputs, targets = drawn(10, 2)
    assert counted(outputs, targets, [10]).invalid == 0
    outputs["gender"][3] = math.nan
    outputs["gender"][7, 0] = math.inf
    collection = counted(outputs, targets, [10])
    assert collection.invalid == 2
    assert np.sum(collection.compute()["targets"]["gender"]["confusion"]) == 8
    assert np.sum(collection.compute()["targets"]["age"]["confusion"]) == 10


def test_joint_labels_are_in_the_order_of_their_numbers() -> None:
    """18 names, the first target most significant."""
    names = joint_labels(LABELS, JOINT)
    assert len(names) == 18
    assert names[0] == "wear / male / <30"
    assert names[2 * 6 + 1 * 3 + 1] == "normal / female / 30"
    assert joint_labels(LABELS, ("age", "mask"))[1] == "<30 / incorrect"


def test_results_without_a_joint_class() -> None:
    """Neither the results nor the selectable scores have a `joint`."""
    collection = MetricCollection({"a": ClassHead(2)}, {"a": ["x", "y"]})
    collection.update({"a": torch.eye(2)}, {"a": torch.tensor([0, 1])})
    assert set(collection.compute()) == {"targets"}
    flat = flat_scores(collection.compute())
    assert flat["macro_f1"] == 1.0
    assert not any("." in name for name in flat)


def test_flat_names_are_those_that_resolve_metric_gives() -> None:
    """Every metric that a config may select exists under the name that it is resolved to."""
    outputs, targets = drawn(20, 4)
    flat = flat_scores(counted(outputs, targets, [20]).compute())
    for metric in ("macro_f1", "accuracy", "joint.macro_f1", "age.macro_f1", "mask.weighted_f1"):
        assert resolve_metric(metric, dict.fromkeys(LABELS, "class"), joint=True) in flat
    single = MetricCollection({"a": ClassHead(2)}, {"a": ["x", "y"]})
    single.update({"a": torch.eye(2)}, {"a": torch.tensor([0, 1])})
    for metric in ("macro_f1", "a.macro_f1", "a.balanced_accuracy"):
        assert resolve_metric(metric, {"a": "class"}, joint=False) in flat_scores(single.compute())


@pytest.mark.parametrize("masked", [0.0, 0.3])
def test_every_type_in_one_joint_by_plain_loops(masked: float) -> None:
    """A class, a level by CORN's rule and a number by its edges make one class, row by row; a row with an unlabeled
    target is in no joint cell, but in the scores of its labeled targets."""
    outputs, targets = drawn_mixed(150, 2, masked)
    results = counted_mixed(outputs, targets, 64).compute()
    confusion = np.zeros((36, 36), dtype=int)
    known = dict.fromkeys(MIXED_JOINT, 0)
    for row in range(150):
        age, p, level = float(targets["age"][row]), 1.0, 0
        for logit in outputs["blur"][row].tolist():
            p *= 1 / (1 + math.exp(-logit))
            level += p > 0.5
        value = 45 + 20 * float(outputs["age"][row, 0])
        true = [
            int(targets["mask"][row]),
            int(targets["blur"][row]),
            -1 if math.isnan(age) else sum(age >= edge for edge in (30, 60)),
        ]
        actual = [int(outputs["mask"][row].argmax()), level, sum(value >= edge for edge in (30, 60))]
        for name, part in zip(MIXED_JOINT, true, strict=True):
            known[name] += part >= 0
        if min(true) >= 0:
            confusion[true[0] * 12 + true[1] * 3 + true[2], actual[0] * 12 + actual[1] * 3 + actual[2]] += 1
    assert results["joint"]["confusion"] == confusion.tolist()
    assert results["joint"]["samples"] == confusion.sum()
    assert results["joint"]["labels"][13] == "incorrect / none / 30 to <60"
    assert {name: results["targets"][name]["samples"] for name in MIXED_JOINT} == known


def test_numbers_at_an_edge_belong_to_the_class_above() -> None:
    """Edges [30, 60]: <30, 30 to <60, >=60, for true and predicted values."""
    collection = MetricCollection(
        {name: MIXED[name] for name in ("age", "mask")}, MIXED_LABELS, ("age", "mask")
    )
    ages = torch.tensor([29.99, 30.0, 59.99, 60.0], dtype=torch.float64)
    outputs = {"age": ((ages - 45) / 20)[:, None], "mask": torch.eye(3)[[0, 0, 0, 0]]}
    collection.update(outputs, {"age": ages, "mask": torch.zeros(4, dtype=torch.int64)})
    assert np.diag(collection.compute()["joint"]["confusion"]).tolist() == [1, 0, 0, 2, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("size", [1, 7, 150])
def test_batches_of_every_type(size: int) -> None:
    """Every score and interval of every type is that of the whole set, whatever the batches."""
    outputs, targets = drawn_mixed(60, 4, 0.2)
    whole, parts = counted_mixed(outputs, targets, 60), counted_mixed(outputs, targets, size)
    assert_same(parts.compute(resamples=200), whole.compute(resamples=200))


def test_the_raw_outputs_are_decoded() -> None:
    """Outputs are decoded by their head before they are counted: adjusted logits, numbers in the user's unit."""
    heads: dict[str, Head] = {
        "a": ClassHead(2, adjustment=(0.0, 5.0)),
        "b": RegressionHead(mean=100.0, std=10.0),
    }
    collection = MetricCollection(heads, {"a": ["x", "y"]})
    outputs = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[0.5]])}
    collection.update(outputs, {"a": torch.tensor([1]), "b": torch.tensor([103.0], dtype=torch.float64)})
    results = collection.compute()["targets"]
    assert results["a"]["accuracy"] == 1.0
    assert results["b"]["mae"] == 2.0


@pytest.mark.parametrize("name", list(MIXED))
def test_an_output_that_is_not_finite_is_invalid_for_every_type(name: str) -> None:
    """One NaN counts in `invalid`, whatever its target, and JSON can still hold the scores; it does not count in an
    unlabeled row."""
    outputs, targets = drawn_mixed(20, 3)
    outputs[name][4] = NAN
    collection = counted_mixed(outputs, targets)
    assert collection.invalid == 1
    assert json.dumps(collection.compute(resamples=200), allow_nan=False)
    unknown = {"age": NAN, "things": NAN}.get(name, -1)
    if name == "taste":
        targets[name][4, 0] = unknown
    else:
        targets[name][4] = unknown
    assert counted_mixed(outputs, targets).invalid == 0


def test_every_score_has_an_interval_or_a_reason() -> None:
    """Each target and the joint has [low, high] or a reason for every selectable number, the groups change the
    intervals, and nothing else differs; without stored rows intervals are refused."""
    outputs, targets = drawn_mixed(100, 1, 0.1)
    collection, groups = counted_mixed(outputs, targets), np.arange(100) // 4
    plain, actual = collection.compute(), collection.compute(resamples=200)
    grouped = collection.compute(groups, resamples=200)
    parts = {**{name: actual["targets"][name] for name in MIXED}, "joint": actual["joint"]}
    of_groups = grouped["targets"] | {"joint": grouped["joint"]}
    for name, scores in parts.items():
        assert scores["type"] == ("class" if name == "joint" else MIXED[name].type)
        for row in scores.get("per_class", []):
            assert {*row.pop("intervals"), *row.pop("no_interval", {})} == {"precision", "recall", "f1"}
        intervals = scores.pop("intervals")
        assert {*intervals, *scores.pop("no_interval", {})} == set(scores) & set(HIGHER_IS_BETTER)
        assert len(intervals) >= 3
        assert all(low <= scores[key] <= high for key, (low, high) in intervals.items())
        assert of_groups[name]["intervals"] != intervals
    assert actual == plain
    with pytest.raises(ValueError, match="keep_rows=True"):
        MetricCollection(MIXED, MIXED_LABELS, MIXED_JOINT).compute(resamples=200)


def test_the_seed_of_the_intervals() -> None:
    """The same seed gives the same bytes, another one others."""
    collection = counted_mixed(*drawn_mixed(60, 1))
    first, again, other = (json.dumps(collection.compute(seed=seed, resamples=200)) for seed in (0, 0, 1))
    assert first == again != other


def test_every_score_of_every_type_can_be_selected() -> None:
    """What `resolve_metric` accepts stands in `flat_scores`, and the other way round."""
    types, classes = {name: head.type for name, head in MIXED.items()}, {"mask": 3, "blur": 4}
    flat = flat_scores(counted_mixed(*drawn_mixed(60, 1)).compute())
    accepted = {resolve_metric("mean", types, True, classes)}
    for name in (*MIXED, "joint"):
        for score in HIGHER_IS_BETTER:
            try:
                accepted.add(resolve_metric(f"{name}.{score}", types, True, classes))
            except ConfigError:
                continue
    assert accepted == set(flat)
    assert {name.partition(".")[2] for name in flat if name.startswith("joint.")} == set(LABEL_SCORES)
    assert {name.partition(".")[2] for name in flat if name.startswith("age.")} == set(SCORES["regression"])
    assert flat_scores(MetricCollection({"age": MIXED["age"]}, {}).compute()) == {}  # before the first row


def test_a_target_without_a_labeled_row_has_no_score() -> None:
    """None in metrics.json and nothing to select by: an error of 0 over no rows would look perfect."""
    collection = MetricCollection(
        {"a": RegressionHead(0.0, 1.0), "b": ClassHead(2)}, {"b": ["x", "y"]}, keep_rows=True
    )
    unknown = {"a": torch.full((3,), float("nan"), dtype=torch.float64), "b": torch.tensor([0, 1, 1])}
    collection.update({"a": torch.zeros(3, 1), "b": torch.eye(3)[:, :2]}, unknown)
    results = collection.compute(resamples=20)
    assert results["targets"]["a"]["mae"] is None
    assert results["targets"]["a"]["samples"] == 0
    assert "intervals" not in results["targets"]["a"]
    flat = flat_scores(results)
    assert not [name for name in flat if name.startswith("a.")]
    assert "b.accuracy" in flat
