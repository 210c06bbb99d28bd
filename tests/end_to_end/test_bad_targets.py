"""Bad input for targets that are no plain class: exit code 1, a short message that says where, what and what is
allowed, and nothing half written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.refusals import refused, says
from tests.helpers.scenes import PLAIN, class_folder, command, draw, write_config, write_csv

TARGETS: dict[str, dict[str, Any]] = {
    "kind": {"column": "kind"},
    "size": {"column": "size", "type": "ordinal", "labels": ["low", "mid", "high"]},
    "tags": {"column": "tags", "type": "multilabel", "labels": ["red", "round", "new"]},
    "flags": {"columns": ["red", "round"], "type": "multilabel"},
    "area": {"column": "area", "type": "regression"},
    "match": {"column": "relevance", "type": "ranking", "query": "query"},
}
METRICS = {"kind": "macro_f1", "size": "macro_f1", "tags": "macro_f1", "flags": "macro_f1"}
METRICS |= {"area": "mae", "match": "ndcg"}


def row_of(number: int) -> dict[str, Any]:
    """One row of a table with an answer of every type."""
    return {
        **{"path": f"images/{number:02}.png", "kind": "ab"[number % 2], "area": 1.5 * (number % 7)},
        **{
            "size": ("low", "mid", "high")[number % 3],
            "tags": ("red|round", "new", "red|new", "|")[number % 4],
        },
        **{"red": number % 2, "round": number // 2 % 2, "relevance": number % 3, "query": f"q{number // 4}"},
    }


def write_table(path: Path, cells: Mapping[tuple[int, str], object] = {}, first: int = 0) -> Path:
    """Sixteen good rows, but for these (row, column) cells; rows count from 1 below the header."""
    rows = [row_of(number) for number in range(first, first + 16)]
    for (row, column), cell in cells.items():
        rows[row - 1][column] = cell
    return write_csv(path, list(rows[0]), [list(row.values()) for row in rows])


def values(*names: str, **sections: Any) -> dict[str, Any]:
    """A good config with these targets, selected by the first one."""
    metric = METRICS[names[0]] if len(names) == 1 else f"{names[0]}.{METRICS[names[0]]}"
    targets = {name: TARGETS[name] for name in names}
    return PLAIN | {"targets": targets, "selection": {"metric": metric}} | sections


def refused_training(folder: Path, config: Mapping[str, Any]) -> str:
    """The message of `classwise train`, which must make no run directory and change no file."""
    return refused(folder, "train", write_config(folder, config))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the images and a good table."""
    monkeypatch.chdir(tmp_path)
    for number in range(32):
        draw(tmp_path / f"images/{number:02}.png", number % 2, number)
    write_table(tmp_path / "samples.csv")
    return tmp_path


def test_the_good_table_is_good(here: Path) -> None:
    """Without the mistakes below all of it trains: it is they that are refused."""
    one_epoch = {"epochs": 1, "batch_size": 8, "precision": "fp32", "device": "cpu"}
    config = write_config(here, values(*TARGETS, training=one_epoch, report={"baselines": False}))
    assert command("train", config, "--run", here / "run", "--quiet").ok().path.is_dir()


# Cells

CELLS: list[tuple[str, int, str, object, tuple[str, ...]]] = [
    ("area", 5, "area", "tall", ("row 5", "column 'area'", "found 'tall'", "must hold finite numbers")),
    ("area", 9, "area", "inf", ("row 9", "column 'area'", "found 'inf'", "must hold finite numbers")),
    ("area", 2, "area", "1,5", ("row 2", "column 'area'", "found '1,5'")),
    ("match", 3, "relevance", -1, ("row 3", "column 'relevance'", "found '-1'", "whole number: 0, 1, 2")),
    ("match", 4, "relevance", 1.5, ("row 4", "column 'relevance'", "found '1.5'", "whole number: 0, 1, 2")),
    ("match", 6, "relevance", "much", ("row 6", "column 'relevance'", "found 'much'")),
    ("match", 7, "query", "", ("column 'query'", "targets.match.query", "empty in row 7")),
    ("match", 8, "query", "  ", ("column 'query'", "targets.match.query", "empty in row 8")),
    ("tags", 4, "tags", "red|rouns", ("'rouns'", "row 4", "column 'tags'", "did you mean", "'round'")),
    ("tags", 5, "tags", "red||new", ("row 5", "column 'tags'", "'red||new'", "a separator without a label")),
    ("tags", 6, "tags", "new|new", ("row 6", "column 'tags'", "label 'new' twice")),
    ("flags", 3, "round", 2, ("row 3", "column 'round'", "found '2'", "allowed", "0, 1, false, true")),
    ("flags", 10, "red", "yes", ("row 10", "column 'red'", "found 'yes'", "0, 1, false, true")),
    ("size", 6, "size", "middle", ("'middle'", "row 6", "column 'size'", "'mid'")),
]


@pytest.mark.parametrize(
    ("name", "row", "column", "cell", "parts"), CELLS, ids=[f"{c[2]}-{c[3]}" for c in CELLS]
)
def test_a_bad_cell(
    here: Path, name: str, row: int, column: str, cell: object, parts: tuple[str, ...]
) -> None:
    """Table, row, column, what was found and what may stand there."""
    write_table(here / "samples.csv", {(row, column): cell})
    says(refused_training(here, values(name)), here / "samples.csv", *parts)


@pytest.mark.parametrize(
    ("name", "row", "column", "cell"), [(c[0], c[1], c[2], c[3]) for c in CELLS[:1] + CELLS[3:4] + CELLS[8:9]]
)
def test_a_bad_cell_in_the_validation_table(
    here: Path, name: str, row: int, column: str, cell: object
) -> None:
    """It is that table which is named."""
    write_table(here / "other.csv", {(row, column): cell}, first=16)
    config = values(name, data=PLAIN["data"] | {"valid": "other.csv"})
    says(refused_training(here, config), here / "other.csv", f"row {row}", str(cell).rpartition("|")[2])


def test_levels_of_text_without_an_order(here: Path) -> None:
    """The key that is missing, and the levels that were found."""
    config = values("size", targets={"size": {"column": "size", "type": "ordinal"}})
    says(refused_training(here, config), "targets.size.labels: not given", "'high', 'low', 'mid'", "in order")


@pytest.mark.parametrize(
    ("name", "column", "parts"),
    [
        ("area", "area", ("'area'", "targets.area", "every cell is empty")),
        ("match", "relevance", ("'relevance'", "targets.match", "every cell is empty")),
        ("tags", "tags", ("'tags'", "targets.tags", "every cell is empty")),
        ("size", "size", ("'size'", "targets.size", "every cell is empty")),
    ],
)
def test_a_column_without_an_answer(here: Path, name: str, column: str, parts: tuple[str, ...]) -> None:
    """There is nothing to learn, which is said of the target."""
    write_table(here / "samples.csv", {(row, column): "" for row in range(1, 17)})
    says(refused_training(here, values(name)), *parts)


@pytest.mark.parametrize(
    ("name", "column", "cell", "parts"),
    [
        ("area", "area", 3, ("'area'", "one value only, 3")),
        ("match", "query", None, ("no query has two different relevances",)),
        ("tags", "tags", "red", ("'tags'", "nothing to tell apart")),
        ("size", "size", "mid", ("'size'", "one class only, 'mid'")),
    ],
)
def test_a_column_that_says_nothing(
    here: Path, name: str, column: str, cell: object, parts: tuple[str, ...]
) -> None:
    """One value, one label, one row a query: nothing could be learned from it."""
    cells = {(row, column): f"alone-{row}" if cell is None else cell for row in range(1, 17)}
    write_table(here / "samples.csv", cells)
    says(refused_training(here, values(name)), *parts)


# Keys


CONFIGS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        values("match", training={"compile": True, "precision": "fp32"}),
        ("training.compile", "found true", "whole queries", "allowed: auto, false"),
    ),
    (
        values("kind", "tags", joint={"targets": ["kind", "tags"]}),
        ("joint.targets", "'tags'", "'multilabel'", "allowed: class, ordinal, or regression with edges"),
    ),
    (
        values("kind", "match", joint={"targets": ["kind", "match"]}),
        ("joint.targets", "'match'", "'ranking'", "allowed: class, ordinal, or regression with edges"),
    ),
    (
        values("kind", "area", joint={"targets": ["kind", "area"]}),
        ("joint.targets", "'area'", "'regression'", "regression with edges"),
    ),
    (
        values("match", targets={"match": {"column": "relevance", "type": "ranking"}}),
        ("targets.match.query: missing",),
    ),
    (
        values("kind", targets={"kind": TARGETS["kind"] | {"query": "query"}}),
        ("targets.kind.query", "type 'class'", "allowed for ranking"),
    ),
    (
        values("area", targets={"area": TARGETS["area"] | {"separator": ","}}),
        ("targets.area.separator", "type 'regression'", "allowed for multilabel"),
    ),
    (
        values("area", targets={"area": TARGETS["area"] | {"adjust": 1.0}}),
        ("targets.area.adjust", "type 'regression'", "allowed for class"),
    ),
    (
        values("area", targets={"area": TARGETS["area"] | {"labels": ["less", "more"]}}),
        ("targets.area.labels", "edges"),
    ),
    (
        values("flags", targets={"flags": TARGETS["flags"] | {"separator": "|"}}),
        ("targets.flags.separator", "found beside columns"),
    ),
    (
        values("flags", targets={"flags": {"type": "multilabel", "columns": ["red", "rund"]}}),
        ("no column 'rund'", "targets.flags.columns", "'round'"),
    ),
    (
        values("match", targets={"match": TARGETS["match"] | {"query": "qeury"}}),
        ("no column 'qeury'", "targets.match.query", "'query'"),
    ),
    (
        values("area", targets={"area": {"column": "area", "type": "regresion"}}),
        ("targets.area.type", "'regresion'", "'regression'"),
    ),
]


@pytest.mark.parametrize(("config", "parts"), CONFIGS, ids=[parts[0] for _, parts in CONFIGS])
def test_keys_that_do_not_fit_the_type(here: Path, config: dict[str, Any], parts: tuple[str, ...]) -> None:
    """The key, the type, and what is allowed."""
    says(refused_training(here, config), *parts)


@pytest.mark.parametrize(("key", "found"), [("group", "person"), ("id", "name"), ("path", "file")])
def test_a_column_of_a_folder(here: Path, key: str, found: str) -> None:
    """A folder has no columns: a group that it cannot keep together is refused, not forgotten."""
    class_folder(here / "classes", {"a": 6, "b": 6})
    data = PLAIN["data"] | {"source": "classes", key: found}
    config = PLAIN | {"data": data}
    says(refused_training(here, config), f"data.{key}: found {found!r}", "data.source is a folder")


@pytest.mark.parametrize(
    ("key", "found"), [("warmup_epochs", 1.0), ("T_max", 1.0), ("eta_min", 0.1)], ids=lambda x: str(x)
)
def test_a_schedule_for_a_backbone_that_stays_frozen(here: Path, key: str, found: float) -> None:
    """A key that no update would heed is refused."""
    schedule = {"name": "cosine", key: found}
    training = PLAIN["training"] | {"freeze_epochs": 2}
    message = refused_training(here, values("kind", schedule=schedule, training=training))
    says(message, f"schedule.{key}: found {found}", "frozen", "in all epochs")


def test_two_scales_for_one_head(here: Path) -> None:
    """LDAM twice in a sum: the head's cosines have one scale, and the other would be ignored."""
    loss = {"name": "sum", "terms": [{"name": "ldam", "scale": 10.0}, {"name": "ldam"}]}
    message = refused_training(here, values("kind", loss=loss))
    says(message, "loss.terms", "found ldam with the scales [10.0, 30.0]", "the same scale in all terms")


def test_mixing_of_no_update(here: Path) -> None:
    """A share of 0 would leave data.cutmix without an effect."""
    message = refused_training(here, values("kind", data=PLAIN["data"] | {"cutmix": 1.0, "mix_share": 0.0}))
    says(message, "data.mix_share: found 0.0", "data.cutmix is 1.0, which then has no effect")


METRIC_OFFERS = {
    "kind": ("mae", ("macro_f1", "accuracy", "log_loss")),
    "size": ("mrr", ("mae_levels", "quadratic_kappa", "macro_f1")),
    "tags": ("accuracy", ("macro_f1", "sample_f1", "exact_match", "map")),
    "area": ("macro_f1", ("mae", "mse", "rmse", "r2")),
    "match": ("accuracy", ("mrr", "ndcg", "map", "ndcg_at_5")),
}


@pytest.mark.parametrize("name", METRIC_OFFERS)
def test_selection_by_a_metric_of_another_type(here: Path, name: str) -> None:
    """Those of the only target are offered."""
    metric, offered = METRIC_OFFERS[name]
    message = refused_training(here, values(name, selection={"metric": metric}))
    says(message, "selection.metric", repr(metric), *offered)


@pytest.mark.parametrize("name", ["tags", "area", "match"])
def test_selection_by_a_metric_that_another_target_has(here: Path, name: str) -> None:
    """The target that has it is offered, and what the named one has."""
    metric, offered = METRIC_OFFERS[name]
    message = refused_training(here, values(name, "kind", selection={"metric": f"{name}.{metric}"}))
    says(message, "selection.metric", repr(metric), f"the {TARGETS[name]['type']} target {name!r}")
    says(message, f"kind.{metric}", *offered)


@pytest.mark.parametrize("name", ["tags", "area", "match"])
def test_selection_by_a_metric_of_no_target_in_particular(here: Path, name: str) -> None:
    """With several targets and no [joint] the name has to say whose metric it is."""
    metric = METRICS[name]
    message = refused_training(here, values(name, "kind", selection={"metric": metric}))
    says(message, "selection.metric", repr(metric), "of which target", f"{name}.{metric}")


LOSS_OFFERS = {
    "kind": ("mse", ("cross_entropy", "focal", "ldam")),
    "size": ("cross_entropy", ("corn",)),
    "tags": ("focal", ("bce", "multilabel_focal", "asymmetric")),
    "area": ("listnet", ("mse", "mae", "smooth_l1", "huber")),
    "match": ("bce", ("listnet", "pairwise_logistic")),
}


@pytest.mark.parametrize("name", LOSS_OFFERS)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a sum"])
def test_a_loss_of_another_type(here: Path, name: str, inside: bool) -> None:
    """Those for the target's type are offered."""
    loss, offered = LOSS_OFFERS[name]
    good = {"name": offered[0]}
    section = {"name": "sum", "terms": [good, {"name": loss}]} if inside else {"name": loss}
    config = values(name, targets={name: TARGETS[name] | {"loss": section}})
    type_ = TARGETS[name].get("type", "class")
    says(refused_training(here, config), f"targets.{name}.loss.name", f"type {type_!r}", *offered)


@pytest.mark.parametrize("name", LOSS_OFFERS)
def test_a_shared_loss_that_no_target_can_have(here: Path, name: str) -> None:
    """[loss] for none of the targets would be read and never used."""
    loss, _ = LOSS_OFFERS[name]
    message = refused_training(here, values(name, loss={"name": loss}))
    says(message, "loss.name", repr(loss), "none of the targets", TARGETS[name].get("type", "class"))


# After training


@pytest.mark.parametrize(("name", "row", "column", "cell"), [(c[0], c[1], c[2], c[3]) for c in CELLS[::3]])
def test_evaluating_a_bad_table(here: Path, name: str, row: int, column: str, cell: object) -> None:
    """`evaluate` refuses the same cells, and writes nothing."""
    config = values(name, training=PLAIN["training"] | {"epochs": 1}, report={"baselines": False})
    command("train", write_config(here, config), "--run", here / "run", "--quiet").ok()
    write_table(here / "other.csv", {(row, column): cell}, first=16)
    says(refused(here, "evaluate", here / "run", here / "other.csv"), here / "other.csv", f"row {row}")
