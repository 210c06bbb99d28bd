"""The scoreboard: every target and the joint class over the whole set, and which number chooses."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch import Tensor

from classwise.errors import ConfigError
from classwise.metrics.scoreboard import Scoreboard, flat_scores, joint_labels, resolve_metric

LABELS = {"mask": ["wear", "incorrect", "normal"], "gender": ["male", "female"], "age": ["<30", "30", ">=60"]}
JOINT = ("mask", "gender", "age")


def drawn(count: int, seed: int, masked: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits and labels for every target."""
    draw = torch.Generator().manual_seed(seed)
    outputs = {name: torch.randn(count, len(list_), generator=draw) for name, list_ in LABELS.items()}
    targets = {}
    for name, list_ in LABELS.items():
        labels_B = torch.randint(0, len(list_), (count,), generator=draw)
        targets[name] = labels_B.masked_fill(torch.rand(count, generator=draw) < masked, -1)
    return outputs, targets


def counted(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], sizes: Sequence[int]) -> Scoreboard:
    """A scoreboard that has seen the rows in batches of these sizes."""
    board = Scoreboard(LABELS, JOINT)
    parts = [{name: x.split(list(sizes)) for name, x in each.items()} for each in (outputs, targets)]
    for i in range(len(sizes)):
        board.update(*({name: x[i] for name, x in part.items()} for part in parts))
    return board


@pytest.mark.parametrize("masked", [0.0, 0.3])
def test_the_joint_class_by_plain_loops(masked: float) -> None:
    """Class = mask * 6 + gender * 3 + age, counted row by row; a row with an unknown part is in no joint cell but
    in the cells of its known parts."""
    outputs, targets = drawn(200, 3, masked)
    results = counted(outputs, targets, [64, 64, 64, 8]).results()
    confusion, parts = np.zeros((18, 18), dtype=int), dict.fromkeys(LABELS, 0)
    for row in range(200):
        true = {name: int(targets[name][row]) for name in LABELS}
        found = {name: int(outputs[name][row].argmax()) for name in LABELS}
        for name in LABELS:
            parts[name] += true[name] >= 0
        if min(true.values()) >= 0:
            numbers = [each["mask"] * 6 + each["gender"] * 3 + each["age"] for each in (true, found)]
            confusion[numbers[0], numbers[1]] += 1
    assert results["joint"]["confusion"] == confusion.tolist()
    assert {name: int(np.sum(results["targets"][name]["confusion"])) for name in LABELS} == parts


def test_the_scores_are_scikit_learns() -> None:
    """Macro F1 over the whole label list, accuracy and confusion of the joint class and of each target, 1e-12."""
    outputs, targets = drawn(40, 5)  # fewer rows than would fill 18 classes
    results = counted(outputs, targets, [40]).results()
    truths = {name: x.numpy() for name, x in targets.items()}
    found = {name: x.argmax(dim=1).numpy() for name, x in outputs.items()}
    for each in (truths, found):
        each["joint"] = each["mask"] * 6 + each["gender"] * 3 + each["age"]
    assert len(set(truths["joint"])) < 18
    for name, size in (("mask", 3), ("gender", 2), ("age", 3), ("joint", 18)):
        scores = results["joint"] if name == "joint" else results["targets"][name]
        classes = range(size)
        f1 = f1_score(truths[name], found[name], labels=classes, average="macro", zero_division=0)
        assert scores["macro_f1"] == pytest.approx(f1, abs=1e-12)
        assert scores["accuracy"] == pytest.approx(accuracy_score(truths[name], found[name]), abs=1e-12)
        wanted = confusion_matrix(truths[name], found[name], labels=list(classes))
        assert scores["confusion"] == wanted.tolist()


@pytest.mark.parametrize("sizes", [[50], [7] * 7 + [1], [1] * 50, [49, 1]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    """Counts over the whole set, never a mean of batch scores."""
    outputs, targets = drawn(50, 8)
    assert counted(outputs, targets, sizes).results() == counted(outputs, targets, [50]).results()


def test_reset_starts_from_zero() -> None:
    """After a reset the rows before count nowhere, in the joint class neither."""
    outputs, targets = drawn(30, 1)
    board = counted(outputs, targets, [30])
    board.reset()
    assert np.sum(board.results()["joint"]["confusion"]) == 0
    board.update(outputs, targets)
    assert board.results() == counted(outputs, targets, [30]).results()


def test_rows_without_a_prediction_are_counted_apart() -> None:
    """NaN in one target's logits: the row is in none of that target's cells, and `invalid` tells."""
    outputs, targets = drawn(10, 2)
    assert counted(outputs, targets, [10]).invalid == 0
    outputs["gender"][3] = math.nan
    outputs["gender"][7, 0] = math.inf
    board = counted(outputs, targets, [10])
    assert board.invalid == 2
    assert np.sum(board.results()["targets"]["gender"]["confusion"]) == 8
    assert np.sum(board.results()["targets"]["age"]["confusion"]) == 10


def test_joint_labels_stand_in_the_order_of_their_numbers() -> None:
    """18 names, the first target most significant."""
    names = joint_labels(LABELS, JOINT)
    assert len(names) == 18
    assert names[0] == "wear / male / <30"
    assert names[2 * 6 + 1 * 3 + 1] == "normal / female / 30"
    assert joint_labels(LABELS, ("age", "mask"))[1] == "<30 / incorrect"


def test_without_a_joint_there_is_none() -> None:
    """No `joint` in the results and none among the selectable numbers."""
    board = Scoreboard({"a": ["x", "y"]})
    board.update({"a": torch.eye(2)}, {"a": torch.tensor([0, 1])})
    assert set(board.results()) == {"targets"}
    flat = flat_scores(board.results())
    assert flat["macro_f1"] == 1.0
    assert not any("." in name for name in flat)


def test_flat_names_are_those_that_resolve_metric_gives() -> None:
    """Whatever a config may select exists under the name that it is resolved to."""
    outputs, targets = drawn(20, 4)
    flat = flat_scores(counted(outputs, targets, [20]).results())
    for metric in ("macro_f1", "accuracy", "joint.macro_f1", "age.macro_f1", "mask.weighted_f1"):
        assert resolve_metric(metric, list(LABELS), joint=True) in flat
    single = Scoreboard({"a": ["x", "y"]})
    single.update({"a": torch.eye(2)}, {"a": torch.tensor([0, 1])})
    for metric in ("macro_f1", "a.macro_f1", "a.balanced_accuracy"):
        assert resolve_metric(metric, ["a"], joint=False) in flat_scores(single.results())


@pytest.mark.parametrize(
    ("metric", "targets", "joint", "wanted"),
    [
        ("macro_f1", ["a"], False, "macro_f1"),
        ("a.macro_f1", ["a"], False, "macro_f1"),
        ("macro_f1", ["a", "b"], True, "joint.macro_f1"),
        ("joint.macro_f1", ["a", "b"], True, "joint.macro_f1"),
        ("b.accuracy", ["a", "b"], True, "b.accuracy"),
        ("b.accuracy", ["a", "b"], False, "b.accuracy"),
        ("나이 대.macro_f1", ["나이 대", "b"], False, "나이 대.macro_f1"),
    ],
)
def test_what_the_selection_means(metric: str, targets: list[str], joint: bool, wanted: str) -> None:
    """Of [joint] if there is one, else of the only target; or of the target that is named."""
    assert resolve_metric(metric, targets, joint) == wanted


@pytest.mark.parametrize(
    ("metric", "targets", "joint", "message"),
    [
        ("macro_f2", ["a"], False, r"found 'macro_f2'; did you mean 'macro_f1'"),
        ("a.macro_f2", ["a"], False, r"found 'a\.macro_f2'; did you mean 'macro_f1'"),
        ("confusion", ["a"], False, r"found 'confusion'; allowed: accuracy,"),
        ("macro_f1", ["a", "b"], False, r"'macro_f1' of which target\?.*allowed: a\.macro_f1, b\.macro_f1"),
        ("ages.macro_f1", ["age", "b"], False, r"no target 'ages'; did you mean 'age\.macro_f1'"),
        ("joint.macro_f1", ["a", "b"], False, r"no target 'joint'"),
        ("", ["a"], False, r"found ''"),
    ],
)
def test_what_cannot_be_selected(metric: str, targets: list[str], joint: bool, message: str) -> None:
    """The message names the key, what was found and what is allowed."""
    with pytest.raises(ConfigError, match=r"^selection\.metric: " + message):
        resolve_metric(metric, targets, joint)
