"""No key of the config is read and ignored: each has a case here, in which nothing but its value differs, and what
a run leaves behind differs as well. The keys are found by walking the config, so a new one without a case fails."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import cv2
import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.torch import save_file

from classwise.config.base import section_name
from classwise.config.load import make_config
from classwise.config.losses import OwnLoss, WeightedSum
from classwise.config.schema import Config
from classwise.errors import ClasswiseError
from classwise.model.classifier import build_classifier
from classwise.own_parts.run_code import read_code
from classwise.run.api import Run, train
from tests.end_to_end.key_cases import BASE, CASES, LEFT_OUT, TWO, Case, Outcome, merged
from tests.helpers.scenes import write_csv

# Which keys there are


def keys() -> list[str]:
    """Every key of the config: `data.valid`, `targets.NAME.column`, `loss[focal].gamma`, and of the terms of a sum
    `loss[sum].terms[focal].gamma`. A kind of section that stands in two places is unfolded at the upper one."""
    found: list[str] = []
    unfolded: set[type[BaseModel]] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("", Config)]
    while waiting:
        where, section = waiting.pop(0)
        held = get_type_hints(section, include_extras=True)
        for name in section.model_fields:
            key = f"{where}{name}" + (".NAME" if name == "targets" and section is Config else "")
            inner = list(dict.fromkeys(sections(held[name])))
            new = [one for one in inner if one not in unfolded]
            unfolded |= set(new)
            waiting += [(f"{key}[{kind(one)}]." if len(inner) > 1 else f"{key}.", one) for one in new]
            found += [] if new else [key]
    return found


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables that a key may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections(argument)


def kind(section: type[BaseModel]) -> str:
    """`focal` for the section whose name can only be that, `own` for that of the user's own losses."""
    return "own" if issubclass(section, OwnLoss) else section_name(section)


def config_of(here: Path, key: str, case: Case, value: Any) -> dict[str, Any]:
    """The tree of a case with the key at one of its values."""
    tree = merged(BASE, case.base)
    table: dict[str, Any] = tree
    *parts, last = key.replace("NAME", "it").split(".")
    for part in parts:
        name, _, member = part.rstrip("]").partition("[")
        if name == "terms":
            table[name] = [{}]
            table = table[name][0]
        else:
            if member and table.get(name, {}).get("name") != member:
                table[name] = {}
            table = table.setdefault(name, {})
        table |= {"name": member} if member else {}
    for beside, its_value in {**case.section, last: value}.items():
        table.pop(beside, None)
        table |= {} if its_value == LEFT_OUT else {beside: its_value}
    return dict(placed(tree, here))


def placed(value: Any, here: Path) -> Any:
    """`@` replaced by the folder with the data."""
    if isinstance(value, dict):
        return {key: placed(item, here) for key, item in value.items()}
    if isinstance(value, list):
        return [placed(item, here) for item in value]
    is_path = isinstance(value, str) and value.startswith("@")
    return str(here / value[1:]) if is_path else value


# The data

OWN_CODE = """
def quadratic(outputs, targets):
    return (outputs.gather(1, targets[:, None])[:, 0] - 1) ** 2

def linear(outputs, targets):
    return -outputs.gather(1, targets[:, None])[:, 0]

def confidence(predictions, targets):
    return predictions.max(1).values.mean()
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 12 x 20 pixels and tables with an answer of every type; a folder of the same names with other
    images; weights of the built-in backbone."""
    path = tmp_path_factory.mktemp("data")
    rows = [row_of(number) for number in range(36)]
    for number, row in enumerate(rows):
        draw(path / row["path"], number)
        draw(path / "mirror" / row["path"], number + 100)
    tables = {"samples": rows[:24], "more": rows[24:], "bad": rows[:24], "gaps": rows[:24], "linked": []}
    tables["bad"] = [*rows[:24], {**rows[24], "path": "images/bad.png"}]
    tables["gaps"] = [*rows[:24], {**rows[24], "kind": ""}]
    tables["linked"] = [*rows[:24], {**rows[24], "path": "images/linked.png"}]
    tables["spelled"] = [
        {**row, "kind": row["kind"].upper() if i % 2 else row["kind"]} for i, row in enumerate(rows)
    ]
    tables["deep"] = [{**row, "path": row["path"].replace(".png", ".tif")} for row in rows[:24]]
    for number, row in enumerate(tables["deep"]):
        image = cv2.imread(str(path / rows[number]["path"])).astype(np.uint16) * 16
        assert cv2.imwrite(str(path / row["path"]), image)
    for name, found in tables.items():
        write_csv(path / f"{name}.csv", list(rows[0]), [list(row.values()) for row in found])
    (path / "images/bad.png").write_text("no image")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.png"
    draw(elsewhere, 24)
    (path / "images/linked.png").symlink_to(elsewhere)
    model = build_classifier("small_cnn", "none", (8, 8), "squash", 0.0, {"it": 3}, seed=7)
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, path / "weights.safetensors")
    (path / "own.py").write_text(OWN_CODE)
    return path


def row_of(number: int) -> dict[str, Any]:
    """One row; the kinds are as 3 to 2 to 1."""
    return {
        **{"path": f"images/{number:02}.png", "twin": f"images/{(number + 5) % 24:02}.png"},
        **{"name": f"n{number}", "person": f"p{number // 2}", "query": f"q{number // 3}"},
        **{"kind": "aaabbc"[number % 6], "other": "xy"[number // 3 % 2], "level": number // 2 % 3},
        "part": ("train", "val", "train", "test")[number // 6 % 4],
        "tags": ("x|y", "y", "x", "x,z")[number % 4],
        **{"has_x": number % 2, "has_y": number // 2 % 2, "has_z": number % 3 // 2},
        **{"amount": (number % 6) * 17_000, "relevance": number % 3},
    }


def draw(path: Path, number: int) -> None:
    """A coloured ground, brighter where `kind` is rarer, with a bright corner."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 120, (12, 20, 3)) + 20 * (number % 6)
    image[:5, :9] += 30
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image.clip(0, 255).astype(np.uint8))[1].tobytes())


@pytest.fixture(scope="module")
def play(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Config], Outcome]]:
    """Trains in a folder of its own; what has been played already is not played again. Nothing has to survive a
    power cut, so nothing waits for the disk."""
    known: dict[str, Outcome] = {}

    def once(config: Config) -> Outcome:
        text = config.model_dump_json()
        if text not in known:
            known[text] = trained(config, tmp_path_factory.mktemp("run"))
        return known[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield once


def trained(config: Config, folder: Path) -> Outcome:
    """The run in folder/runs, or the reason against it."""
    with contextlib.chdir(folder):
        try:
            path = train(config, quiet=True).path.absolute()
            return Run.open(path, trust=[source.digest for source in read_code(path)])
        except ClasswiseError as error:
            return str(error)


def outcome(tree: dict[str, Any], case: Case, play: Callable[[Config], Outcome]) -> Any:
    """A config that is refused at once has an outcome as well."""
    try:
        config = make_config(tree)
    except ClasswiseError as error:
        return str(error)
    return (case.play or play)(config)


# The tests


def test_every_key_has_a_case() -> None:
    """No case for a key, or a case for a key that is no more, fails by its name."""
    found = keys()
    assert len(found) == len(set(found)) > 150
    assert WeightedSum.model_fields.keys() == {"name", "terms"}  # `terms` is unfolded
    for key in found:
        assert key in CASES, f"no case for key {key}"
    for key in CASES:
        assert key in found, f"no such key: {key}"


def test_what_is_looked_at_does_not_change_by_itself(here: Path, tmp_path: Path) -> None:
    """Two runs of the same config differ in nothing that the cases look at, whichever folder they lie in."""
    tree = merged(BASE, {**TWO, "report": {"baselines": True, "resamples": 20}})
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = (trained(make_config(placed(tree, here)), tmp_path / name) for name in ("one", "two"))
    for see in {case.see for case in CASES.values() if case.play is None}:
        assert see(one) == see(two)


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_something(key: str, here: Path, play: Callable[[Config], Outcome]) -> None:
    """All of its values give something else."""
    case = CASES[key]
    seen = [case.see(outcome(config_of(here, key, case, value), case, play)) for value in case.values]
    for (one, a), (two, b) in itertools.combinations(zip(case.values, seen, strict=True), 2):
        assert a != b, f"{key}: {one} and {two} give the same"
