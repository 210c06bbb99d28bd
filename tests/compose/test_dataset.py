"""From a table to two sides: masked cells, groups and queries, counts, and what is refused before training."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from classwise.compose.dataset import prepare
from classwise.compose.labels import encode
from classwise.compose.loaders import build_data
from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.settings import device_of
from classwise.compose.splits import DatasetSplits, Split, label_counts, masked_counts, value_summary
from classwise.compose.state import build_model
from classwise.config.load import absolute_paths, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.sampling import epoch_order
from classwise.data.sources import read_source
from classwise.errors import ConfigError, DataError
from classwise.model.heads import RegressionHead

Row = dict[str, Any]
TARGETS: dict[str, dict[str, Any]] = {
    "kind": {"column": "kind"},
    "size": {"column": "size", "type": "ordinal", "labels": ["low", "mid", "high"]},
    "tags": {"column": "tags", "type": "multilabel"},
    "flags": {"columns": ["red", "round"], "type": "multilabel"},
    "area": {"column": "area", "type": "regression"},
    "match": {"column": "relevance", "type": "ranking", "query": "query"},
}


def row_of(number: int) -> Row:
    """One row with an answer of every type; queries of four rows, persons of two."""
    return {
        **{"path": f"{number:02}.png", "person": f"p{number // 2}", "query": f"q{number // 4}"},
        **{"kind": "aaab"[number % 4], "size": ("low", "mid", "high")[number % 3], "relevance": number % 3},
        **{"tags": ("x|y", "y", "|", "x")[number % 4], "red": number % 2, "round": number // 2 % 2},
        "area": 2.5 * number,
    }


@pytest.fixture
def table(tmp_path: Path, make_table: Callable[..., Path]) -> Callable[..., Path]:
    """`table(rows, name)` writes a table and its images."""

    def write(rows: Sequence[Row], name: str = "samples.csv") -> Path:
        for row in rows:
            seed = int(Path(row["path"]).stem)
            image = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
            (tmp_path / row["path"]).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        return make_table(tmp_path / name, rows)

    return write


def config_of(
    table: Path, names: Sequence[str] = (), data: Row | None = None, targets: Any = None, **sections: Any
) -> Config:
    """A config over this table with some of TARGETS, or with `targets`."""
    chosen = targets or {name: TARGETS[name] for name in names or TARGETS}
    first = {"class": "macro_f1", "ordinal": "macro_f1", "multilabel": "macro_f1", "regression": "mae"}
    name, target = next(iter(chosen.items()))
    metric = first.get(target.get("type", "class"), "ndcg")
    tree = {
        "data": {"source": table.name, "valid": 0.25, "workers": 0} | (data or {}),
        "targets": chosen,
        "selection": {"metric": metric if len(chosen) == 1 else f"{name}.{metric}"},
        "model": {"image_size": [8, 8]},
    }
    return absolute_paths(make_config(tree | sections), table.parent)


def prepared_of(table: Path, names: Sequence[str] = (), **changes: Any) -> DatasetSplits:
    """What `prepare` makes of it."""
    return prepare(config_of(table, names, **changes), Console(quiet=True))


def ids(split: Split) -> list[int]:
    """The rows of one side by their number."""
    return [int(Path(name).stem) for name in split.samples.ids]


# Masked cells


EMPTY = {"kind": "kind", "size": "size", "tags": "tags", "area": "area", "match": "relevance"}


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_cell_masks_one_target(table: Callable[..., Path], name: str) -> None:
    """The row stays for the others; how many are masked is counted on each side, and said."""
    rows = [row_of(number) for number in range(24)]
    gaps = [3, 8, 9, 17]
    for number in gaps:
        rows[number][EMPTY[name]] = ""
    splits = prepared_of(table(rows))
    assert sorted(ids(splits.train) + ids(splits.valid)) == list(range(24))
    target = splits.target(name)
    for split in (splits.train, splits.valid):
        known = target.is_labeled(split.labels[name])
        assert [number for number, yes in zip(ids(split), known, strict=True) if not yes] == [
            number for number in ids(split) if number in gaps
        ]
        counts = masked_counts(splits, split)
        assert counts == {other: (len(known) - known.sum()) * (other == name) for other in TARGETS}
    warnings = [warning for warning in splits.warnings if "no label" in warning]
    assert warnings == [f"{name}: no label in 4 rows, which count for the other targets only"]


def test_cells_of_several_columns_are_masked_one_by_one(table: Callable[..., Path]) -> None:
    """A row with one flag left is no masked row; a cell that is empty is NaN in its column only."""
    rows = [row_of(number) for number in range(24)]
    rows[4]["red"] = rows[5]["red"] = rows[5]["round"] = ""
    splits = prepared_of(table(rows))
    pair = (splits.train, splits.valid)
    found = {
        number: labels.tolist()
        for split in pair
        for number, labels in zip(ids(split), split.labels["flags"], strict=True)
    }
    assert math.isnan(found[4][0])
    assert found[4][1] == 0.0
    assert all(map(math.isnan, found[5]))
    assert sum(masked_counts(splits, split)["flags"] for split in pair) == 1
    assert [label_counts(splits, split)["flags"][0] for split in pair] == [
        sum(row_of(number)["red"] for number in ids(split) if number not in (4, 5)) for split in pair
    ]


def test_a_row_without_any_answer_is_refused_by_its_number(table: Callable[..., Path]) -> None:
    """All such rows at once, the columns that are empty, and the way out, which leaves them out and says so."""
    rows = [row_of(number) for number in range(24)]
    for number in (6, 11):
        rows[number] |= {"kind": "", "area": ""}
    rows[12]["area"] = ""
    path = table(rows)
    with pytest.raises(DataError, match=r"no label in rows 7, 12: empty in columns 'kind', 'area'") as error:
        prepared_of(path, ["kind", "area"])
    assert 'data.unlabeled = "skip"' in str(error.value)
    splits = prepared_of(path, ["kind", "area"], data={"unlabeled": "skip"})
    assert sorted(ids(splits.train) + ids(splits.valid)) == [n for n in range(24) if n not in (6, 11)]
    assert "2 rows without any label left out (data.unlabeled = skip)" in splits.warnings
    assert "area: no label in 1 rows, which count for the other targets only" in splits.warnings


def test_rows_without_any_answer_in_the_validation_table(table: Callable[..., Path]) -> None:
    """They are refused or left out there as well, under that table's name."""
    rows = [row_of(number) for number in range(36)]
    rows[27]["kind"] = ""
    data = {"valid": str(table(rows[24:], "valid.csv"))}
    path = table(rows[:24])
    with pytest.raises(DataError, match=r"valid\.csv: no label in row 4: empty in column 'kind'"):
        prepared_of(path, ["kind"], data=data)
    splits = prepared_of(path, ["kind"], data=data | {"unlabeled": "skip"})
    assert ids(splits.train) == list(range(24))
    assert ids(splits.valid) == [n for n in range(24, 36) if n != 27]


def test_classes_without_rows_are_warned_of(table: Callable[..., Path]) -> None:
    """By split and by name: those that no training row has cannot be learned, the others not be scored."""
    rows = [row_of(number) for number in range(24)]
    others = [row_of(number) | {"kind": "a", "size": "low"} for number in range(24, 36)]
    targets = {"kind": TARGETS["kind"] | {"labels": ["a", "b", "c"]}, "size": TARGETS["size"]}
    data = {"valid": str(table(others, "valid.csv"))}
    splits = prepared_of(table(rows), targets=targets, data=data)
    assert splits.warnings == (
        "kind: training has no rows of 1 class: c",
        "kind: validation has no rows of 2 classes: b, c",
        "size: validation has no rows of 2 classes: mid, high",
    )


def test_many_absent_classes_are_counted_and_some_named(table: Callable[..., Path]) -> None:
    """Of the joint class too; where every class has a row in both splits, nothing is said."""
    rows = [row_of(number) for number in range(24)]
    kinds = TARGETS["kind"] | {"labels": ["a", "b", "c", "d"]}
    joint = {"targets": ["kind", "size"]}
    targets = {"kind": kinds, "size": TARGETS["size"]}
    same = {"valid": str(table([row_of(number) for number in range(24, 48)], "valid.csv"))}
    assert prepared_of(table(rows), ["kind", "size"], data=same, joint=joint).warnings == ()

    one = [row_of(number) | {"kind": "a", "size": "low"} for number in range(24, 36)]
    data = {"valid": str(table(one, "valid.csv"))}
    splits = prepared_of(table(rows), targets=targets, data=data, joint=joint)
    (warning,) = [text for text in splits.warnings if text.startswith("joint: validation")]
    assert warning.startswith("joint: validation has no rows of 11 classes: ")
    assert warning.endswith(", ...")
    assert warning.count(", ") == 8


# Numbers of the training side only


def test_mean_and_deviation_are_those_of_the_training_rows(table: Callable[..., Path]) -> None:
    """Not of the validation rows, whose numbers here are far away, and not of masked cells."""
    rows = [row_of(number) for number in range(24)]
    rows[5]["area"] = ""
    far = [row_of(number) | {"area": 1e6 + number} for number in range(24, 32)]
    data = {"valid": str(table(far, "valid.csv"))}
    config = config_of(table(rows), ["area", "kind"], data=data)
    splits = prepare(config, Console(quiet=True))
    values = np.array([2.5 * number for number in range(24) if number != 5])
    head = build_heads(config, splits)["area"]
    assert isinstance(head, RegressionHead)
    assert (head.mean, head.std) == pytest.approx((values.mean(), values.std()), rel=1e-12)
    loss = build_criterion(config, splits).losses[0]
    assert (loss.mean, loss.std) == (head.mean, head.std)
    metadata = value_summary(splits, splits.train)["area"]
    assert metadata == {"known": 23, "min": 0.0, "mean": pytest.approx(values.mean()), "max": 57.5}
    assert value_summary(splits, splits.valid)["area"]["min"] == 1e6 + 24


def test_one_number_on_the_training_side_is_refused(table: Callable[..., Path]) -> None:
    """The table holds two, but the split has put the other one into validation: there is nothing to scale by."""
    rows = [row_of(number) | {"area": 7} for number in range(24)]
    rows[3]["area"] = 8
    config = config_of(table(rows), ["area"], data={"valid": 0.75})
    splits = prepare(config, Console(quiet=True))
    assert 3 in ids(splits.valid)
    with pytest.raises(DataError, match=r"targets\.area: found 1 different values in the training rows"):
        build_heads(config, splits)


def test_labels_are_counted_on_each_side(table: Callable[..., Path]) -> None:
    """By a count over the rows of the table; several labels of a row count for each; masked rows for none."""
    rows = [row_of(number) for number in range(48)]
    for number in (1, 2, 30):
        rows[number] |= {"kind": "", "size": "", "tags": ""}
    config = config_of(table(rows), data={"group": "person"}, joint={"targets": ["kind", "size"]})
    splits = prepare(config, Console(quiet=True))
    labels = {"kind": ["a", "b"], "size": ["low", "mid", "high"], "tags": ["x", "y"]}
    for split in (splits.train, splits.valid):
        counts = label_counts(splits, split)
        here = [rows[number] for number in ids(split)]
        for name, names in labels.items():
            cells = [str(row[name]).split("|") for row in here]
            assert counts[name] == [sum(label in cell for cell in cells) for label in names]
        assert counts["flags"] == [sum(row[flag] for row in here) for flag in ("red", "round")]
        pairs = [(a, b) for a in labels["kind"] for b in labels["size"]]
        assert counts["joint"] == [sum((row["kind"], row["size"]) == pair for row in here) for pair in pairs]
        assert not {"area", "match"} & counts.keys()


# Groups and queries


def test_queries_stand_whole_on_one_side(table: Callable[..., Path]) -> None:
    """No query is cut by the split, and both sides have some."""
    for seed in range(20):
        splits = prepared_of(table([row_of(n) for n in range(32)]), ["match", "kind"], seed=seed)
        train, valid = ({number // 4 for number in ids(split)} for split in (splits.train, splits.valid))
        assert train
        assert valid
        assert not train & valid
        assert splits.queries(splits.train) is not None


def test_people_and_queries_are_kept_together(table: Callable[..., Path]) -> None:
    """A person who stands in two queries binds them: all three are on one side."""
    rows = [row_of(number) for number in range(32)]
    rows[3]["person"] = rows[4]["person"] = "bridge"  # queries 0 and 1
    rows[11]["person"] = rows[28]["person"] = "far"  # queries 2 and 7
    for seed in range(20):
        splits = prepared_of(
            table(rows), ["match", "kind"], data={"group": "person", "valid": 0.4}, seed=seed
        )
        pair = [{number // 4 for number in ids(split)} for split in (splits.train, splits.valid)]
        people = [set(split.samples.groups or ()) for split in (splits.train, splits.valid)]
        assert all(pair)
        assert not pair[0] & pair[1]
        assert not people[0] & people[1]
        assert all(({0, 1} <= split or not {0, 1} & split) for split in pair)
        assert all(({2, 7} <= split or not {2, 7} & split) for split in pair)


@pytest.mark.parametrize("shared", ["query", "group"])
def test_what_stands_in_both_tables_is_refused(table: Callable[..., Path], shared: str) -> None:
    """A query or a person in data.source and in data.valid; without that they are two good tables."""
    rows, others = [row_of(n) for n in range(24)], [row_of(n) for n in range(24, 36)]
    data = {"group": "person", "valid": str(table(others, "valid.csv"))}
    path = table(rows)
    assert len(prepared_of(path, ["match"], data=data).valid.samples) == 12
    others[2] |= {"query": "q1"} if shared == "query" else {"person": "p1"}
    table(others, "valid.csv")
    found = "'q1'" if shared == "query" else "'p1'"
    with pytest.raises(DataError, match=rf"valid\.csv \(data\.valid\): {shared} {found} is in .*samples"):
        prepared_of(path, ["match"], data=data)


def test_query_names_in_two_tables_may_be_alike_for_other_targets(table: Callable[..., Path]) -> None:
    """Without a ranking target a column called query is a column like others."""
    rows, others = [row_of(n) for n in range(24)], [row_of(n) | {"query": "q1"} for n in range(24, 36)]
    data = {"valid": str(table(others, "valid.csv"))}
    assert len(prepared_of(table(rows), ["kind"], data=data).valid.samples) == 12


# The joint class, and what sampling balances


JOINT = {
    "kind": TARGETS["kind"],
    "size": TARGETS["size"],
    "area": {"column": "area", "type": "regression", "edges": [30.0]},
}


def test_a_joint_class_of_three_types(table: Callable[..., Path]) -> None:
    """Class, ordinal and a number with edges: kind * 6 + size * 2 + (area >= 30), -1 where one is unknown. It is
    counted by that number, and balanced by its place among the numbers that occur."""
    rows = [row_of(number) for number in range(24)]
    rows[2]["area"] = rows[9]["size"] = rows[14]["kind"] = ""
    config = config_of(
        table(rows),
        targets=JOINT,
        joint={"targets": ["kind", "size", "area"]},
        selection={"metric": "macro_f1"},
    )
    splits = prepare(config, Console(quiet=True))
    for split in (splits.train, splits.valid):
        wanted = []
        for number in ids(split):
            row = rows[number]
            known = "" not in (row["kind"], row["size"], row["area"])
            place = ("low", "mid", "high").index(row["size"]) if known else 0
            wanted.append("ab".index(row["kind"]) * 6 + place * 2 + (row["area"] >= 30) if known else -1)
        counts = label_counts(splits, split)["joint"]
        assert counts == [wanted.count(number) for number in range(12)]
        classes = splits.classes(split)
        assert classes is not None
        occurring = sorted(set(wanted) - {-1})
        assert classes.tolist() == [-1 if number < 0 else occurring.index(number) for number in wanted]
    assert [len(splits.label_lists[name]) for name in splits.joint] == [2, 3, 2]


def test_balanced_sampling_leaves_unknown_classes_alone(table: Callable[..., Path]) -> None:
    """A row whose class is not known (-1) comes once an epoch; the classes share the other draws evenly."""
    rows = [row_of(number) for number in range(48)]
    gaps = [0, 7, 13, 22, 35]
    for number in gaps:
        rows[number]["kind"] = ""
    config = config_of(table(rows), ["kind", "area"], data={"sampling": "balanced"})
    splits = prepare(config, Console(quiet=True))
    classes = splits.classes(splits.train)
    assert classes is not None
    unknown = [place for place, number in enumerate(ids(splits.train)) if number in gaps]
    assert unknown
    assert np.flatnonzero(classes < 0).tolist() == unknown
    model = build_model(config, build_heads(config, splits))
    data, _ = build_data(config, splits, model, device_of("cpu"))
    for epoch in range(5):
        drawn = np.concatenate([batch.rows for window in data.updates(epoch) for batch in window])
        assert len(drawn) == len(classes)
        assert sorted(drawn[classes[drawn] < 0].tolist()) == unknown
        a, b = ((classes[drawn] == k).sum() for k in (0, 1))
        assert abs(a - b) <= 1


@pytest.mark.parametrize(("count", "labels"), [(40, 2), (21, 10)], ids=["40 of two classes", "21 of ten"])
def test_balanced_sampling_of_many_targets(table: Callable[..., Path], count: int, labels: int) -> None:
    """It balances the four combinations that occur, of 2 ** 40 or 10 ** 21 that there could be: the rarest has an
    eighth of the rows and comes as often as the others."""
    names = [f"t{place:02}" for place in range(count)]
    rows = []
    for number in range(64):
        combination = (0, 0, 0, 1, 1, 2, 2, 3)[number % 8]
        # The lowest or the highest class of each target.
        bits = {name: combination >> place % 2 & 1 for place, name in enumerate(names)}
        cells = {name: f"c{bit * (labels - 1)}" for name, bit in bits.items()}
        rows.append({"path": f"{number:02}.png", **cells})
    listed = [f"c{k}" for k in range(labels)]
    targets = {name: {"column": name, "labels": listed} for name in names}
    config = config_of(table(rows), targets=targets, data={"sampling": "balanced"})
    splits = prepare(config, Console(quiet=True))
    classes = splits.classes(splits.train)
    assert classes is not None
    assert np.bincount(classes).tolist() == [len(classes) * share // 8 for share in (3, 2, 2, 1)]
    drawn = np.bincount(classes[epoch_order("balanced", classes, seed=0, epoch=0)])
    assert drawn.max() - drawn.min() <= 1


def test_a_joint_class_that_is_too_large_is_refused(table: Callable[..., Path]) -> None:
    """It would be scored class by class: 13 targets of two classes are 8,192. Twelve are 4,096, which is allowed."""
    names = [f"t{place:02}" for place in range(13)]
    rows = [{"path": f"{number:02}.png", **dict.fromkeys(names, "ab"[number % 2])} for number in range(24)]
    targets = {name: {"column": name} for name in names}
    path = table(rows)

    def splits_of(joint: Sequence[str]) -> DatasetSplits:
        selection = {"metric": "macro_f1"}
        return prepared_of(path, targets=targets, joint={"targets": joint}, selection=selection)

    assert len(splits_of(names[:12]).joint) == 12
    with pytest.raises(
        ConfigError, match=r"^joint\.targets: found 13 targets with 2 x 2 .* = 8192 joint classes"
    ):
        splits_of(names)


def test_what_cannot_be_read_as_a_class_has_none(table: Callable[..., Path]) -> None:
    """Several labels, numbers without edges and rankings give sampling nothing to balance."""
    splits = prepared_of(table([row_of(number) for number in range(24)]), ["tags", "area", "match"])
    assert splits.classes(splits.train) is None
    assert splits.class_numbers(splits.train) == {}


# Names


@pytest.mark.parametrize(
    ("targets", "column"),
    [
        ({"kind": TARGETS["kind"], "kind_true": TARGETS["area"]}, "kind_true"),
        ({"kind": TARGETS["kind"], "kind_p_a": TARGETS["area"]}, "kind_p_a"),
        ({"tags": TARGETS["tags"], "tags_p_x": TARGETS["match"]}, "tags_p_x"),
        ({"joint_true": TARGETS["kind"], "size": TARGETS["size"]}, "joint_true"),
    ],
)
def test_predictions_whose_columns_would_clash(table: Callable[..., Path], targets: Any, column: str) -> None:
    """Two targets, or a target and the joint class, that would write the same column."""
    joint = {"joint": {"targets": list(targets)}} if "joint_true" in targets else {}
    with pytest.raises(
        ConfigError, match=rf"would have a column '{column}', as would .*; choose another name"
    ):
        prepared_of(table([row_of(number) for number in range(24)]), targets=targets, **joint)


def test_another_table_is_read_by_the_same_targets(table: Callable[..., Path], tmp_path: Path) -> None:
    """Its labels have the numbers of the first table, whatever it holds itself; one that is not known is refused."""
    splits = prepared_of(table([row_of(number) for number in range(24)]), ["kind", "size"])
    rows = [row_of(number) | {"kind": "b", "size": "high"} for number in range(24, 28)]
    other = read_source(table(rows, "other.csv"), tmp_path, "path", None, None)
    labels = encode(splits.targets, other)
    assert labels["kind"].tolist() == [1] * 4
    assert labels["size"].tolist() == [2] * 4
    rows[2]["kind"] = "c"
    other = read_source(table(rows, "other.csv"), tmp_path, "path", None, None)
    with pytest.raises(DataError, match=r"other\.csv: column 'kind': label 'c' in row 3"):
        encode(splits.targets, other)


def test_a_missing_column_is_named_before_any_image_is_read(
    table: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the source and of the tables beside it: reading the images may take minutes."""
    monkeypatch.setattr("classwise.compose.dataset.usable_rows", None)
    source, valid = table([row_of(number) for number in range(8)]), tmp_path / "valid.csv"
    valid.write_text("path\n00.png\n", encoding="utf-8")
    for data, column, message in (
        ({}, "kinds", r"samples\.csv: no column 'kinds' \(targets\.kind\.column\); did you mean 'kind'"),
        ({"valid": str(valid)}, "kind", r"valid\.csv: no column 'kind' \(targets\.kind\.column\)"),
    ):
        values = {"data": {"source": str(source), "images": str(tmp_path), **data}}
        config = absolute_paths(make_config(values | {"targets": {"kind": {"column": column}}}), tmp_path)
        with pytest.raises(DataError, match=message):
            prepare(config, Console(quiet=True), use_cache=False)
