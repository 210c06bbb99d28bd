"""The config explained: no key without its comment, in the file and in the list of keys."""

import tomllib
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from classwise.config import losses
from classwise.config import schema as c
from classwise.config.base import sections_by_name
from classwise.config.describe import commented_toml, key_table
from classwise.config.keys import keys_like, keys_named
from classwise.config.load import make_config

SECTIONS = [
    value
    for value in {**vars(losses), **vars(c)}.values()
    if isinstance(value, type) and issubclass(value, c.Section)
]
LOSSES = [
    {"name": "cross_entropy"},
    {"name": "focal", "class_weights": [1.0, 2.0]},
    {"name": "balanced_softmax"},
    {"name": "soft_f1"},
    {"name": "sum", "terms": [{"name": "focal"}, {"name": "soft_f1", "weight": 0.5}]},
]
SCHEDULES = [{"name": name} for name in sections_by_name(c.Schedule)]


def config(loss: dict[str, Any] = LOSSES[0], schedule: dict[str, Any] = SCHEDULES[0]) -> c.Config:
    """A config with a quoted target name, a target with a loss of its own, a joint class, and folds."""
    targets = {
        "성별 구분": {"column": "성별", "labels": ["남 #1", '여 "f"']},
        "age": {"column": "age", "edges": [30, 60], "loss": {**loss}},
    }
    return make_config(
        {
            "data": {"source": "표.csv"},
            "targets": targets,
            "joint": {"targets": ["age", "성별 구분"]},
            "folds": {"count": 3},
            "decision": {"abstain": 0.3},
            "loss": loss,
            "schedule": schedule,
        }
    )


def keys(section: BaseModel, where: str = "") -> Iterator[str]:
    """The dotted name of every key that is no table and of use, those without a value among them."""
    for name in type(section).model_fields:
        if isinstance(section, c.Target) and not section.applies(name):
            continue
        value = getattr(section, name)
        tables = value if isinstance(value, dict) else {}
        if isinstance(value, BaseModel):
            yield from keys(value, f"{where}{name}.")
        elif not tables:
            yield f"{where}{name}"
        for key, item in tables.items():
            yield from keys(item, f"{where}{name}.{key}.")


def commented_lines(text: str) -> Iterator[tuple[str, str]]:
    """(dotted key, comment) of every line that gives a key, or shows one without a value."""
    table = ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]").replace('"', "") + "."
        elif line:
            code, _, comment = line.removeprefix("# ").rpartition("  # ")
            yield table + code.split(" =")[0], comment


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_is_described(section):
    """Each field that is no table of its own has a description: it is the comment, the help and the guide. The name of
    a loss or a schedule has one line for all of them, which `commented_toml` adds."""
    tables = {
        "data",
        "targets",
        "joint",
        "folds",
        "decision",
        "model",
        "loss",
        "optimizer",
        "schedule",
        "training",
        "selection",
        "report",
        "inference",
    }
    fields = section.model_fields.items()
    bare = {name for name, info in fields if not info.description}
    one_of_several = section in (
        *losses.LOSSES,
        *losses.TERMS,
        losses.WeightedSum,
        *get_args(get_args(c.Schedule)[0]),
    )
    assert bare == (tables if section is c.Config else {"name"} if one_of_several else set())


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["name"])
@pytest.mark.parametrize("schedule", SCHEDULES[1:3], ids=lambda schedule: schedule["name"])
def test_every_key_stands_in_the_file_with_its_comment(loss, schedule):
    """Those without a value too, as comments; and the file is the same config as the plain one."""
    made = config(loss, schedule)
    text = commented_toml(made)
    assert tomllib.loads(text) == tomllib.loads(made.to_toml())
    assert make_config(tomllib.loads(text)) == made
    found = dict(commented_lines(text))
    assert sorted(found) == sorted(keys(made))
    assert [key for key, comment in found.items() if not comment.strip()] == []


def test_keys_of_other_types_do_not_stand_in_the_file():
    """A class target has no query and no separator to explain; a ranking has no edges."""
    text = commented_toml(config())
    assert "query" not in text
    assert "separator" not in text
    ranking = {"rank": {"column": "r", "type": "ranking", "query": "q"}}
    text = commented_toml(make_config({"data": {"source": "t.csv"}, "targets": ranking}))
    assert 'query = "q"' in text
    assert "edges" not in text


def test_notes_replace_the_general_comments():
    """A note by dotted key, whatever characters it quotes: it cannot end its line."""
    notes = {"seed": 'a "note"', "targets.성별 구분.column": "left out: x\nseed = 7\r\x00, y"}
    text = commented_toml(config(), notes)
    found = dict(commented_lines(text))
    assert found["seed"] == 'a "note"'
    assert found["targets.성별 구분.column"] == "left out: x seed = 7  , y"
    assert tomllib.loads(text)["seed"] == 42
    assert "seed of all random numbers" not in text


def test_the_list_of_keys_has_them_all():
    """`classwise train --help` shows every key of every table with its default."""
    text = key_table()
    for section in SECTIONS:
        if section.__name__.endswith("Term") or section.__name__ in (
            "Section",
            "LossSection",
            "_Weighted",
            "_Schedule",
            "Config",
        ):
            continue
        for name, info in section.model_fields.items():
            kinds = getattr(info.annotation, "__args__", ())
            in_title = name == "name" and len(kinds) == 1 and f'name = "{kinds[0]}"' in text
            assert in_title or any(
                line.startswith(f"  {name} ") and str(info.description) in line for line in text.splitlines()
            ), name
    assert "(default: 42)" in text
    assert '[schedule] name = "onecycle"' in text
    assert "[targets.NAME]" in text


def test_the_table_can_be_of_some_keys() -> None:
    """By their dotted names, below the titles of their tables; a name of several kinds of losses is in each of them."""
    assert key_table(keys=["optimizer.lr", "seed"]).splitlines() == [
        "(top of the file)",
        "  seed  seed of all random numbers (default: 42)",
        "",
        "[optimizer]",
        "  lr  learning rate (default: 0.001)",
    ]
    assert key_table(keys=["loss.gamma"]).count("gamma") > 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lr", ["optimizer.lr"]),
        ("optimizer.lr", ["optimizer.lr"]),
        ("--optimizer.lr", ["optimizer.lr"]),
        ("joint", ["joint", "joint.targets"]),
        ("[joint]", ["joint", "joint.targets"]),
        ("patien", ["schedule.patience", "selection.patience"]),
        ("epochz", []),
    ],
)
def test_keys_are_found_by_a_name_or_a_part_of_it(text: str, found: list[str]) -> None:
    assert keys_named(text) == found


def test_names_that_no_key_has_are_answered_with_the_nearest() -> None:
    assert keys_like("epochz")[0] == "training.epochs"
    assert keys_like("zzzzqq") == []
    assert set(keys_named("training")) == {"training"} | {
        f"training.{name}" for name in c.Config.model_fields["training"].annotation.model_fields
    }
