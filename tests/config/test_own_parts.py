"""Parts of the user's own in the config: where they stand, and how their paths change."""

from pathlib import Path
from typing import Any

import pytest

from classwise.config.describe import commented_toml, key_table
from classwise.config.load import absolute_paths, load_config, make_config
from classwise.config.own_parts import own_references, with_references
from classwise.config.schema import Config
from classwise.errors import ConfigError

EVERYWHERE: dict[str, Any] = {
    "data": {"source": "samples.csv", "augment": "a.py:augment"},
    "targets": {
        "label": {"column": "label", "metrics": ["m.py:one", "m.py:two"]},
        "age": {"column": "age", "type": "regression", "loss": {"name": "l.py:Age", "scale": 2}},
        "kind": {
            "column": "kind",
            "loss": {
                "name": "sum",
                "terms": [{"name": "focal"}, {"name": "l.py:Term", "weight": 2.0, "q": 1}],
            },
        },
    },
    "model": {"backbone": "b.py:Net"},
    "loss": {"name": "parts/l.py:Loss", "gamma": 2},
    "optimizer": {"name": "o.py:Opt"},
}
REFERENCES = {
    "model.backbone": "b.py:Net",
    "data.augment": "a.py:augment",
    "optimizer.name": "o.py:Opt",
    "loss.name": "parts/l.py:Loss",
    "targets.label.metrics[0]": "m.py:one",
    "targets.label.metrics[1]": "m.py:two",
    "targets.age.loss.name": "l.py:Age",
    "targets.kind.loss.terms[1].name": "l.py:Term",
}


def config(**changes: Any) -> Config:
    """One class target, with changes."""
    base = {"data": {"source": "samples.csv"}, "targets": {"label": {"column": "label"}}}
    return make_config({**base, **changes})


def test_every_place_is_known() -> None:
    """By the keys that messages name."""
    assert own_references(make_config(EVERYWHERE)) == REFERENCES
    assert own_references(config()) == {}


def test_a_config_without_any_stays_the_same_object() -> None:
    """So that it also knows which keys the file gave."""
    plain = config()
    assert with_references(plain, lambda key, reference: "x.py:X") is plain


def test_paths_are_relative_to_the_config(tmp_path: Path) -> None:
    """Those on the command line, too; and a config with absolute paths is the same when it is read again."""
    path = tmp_path / "classwise.toml"
    path.write_text(make_config(EVERYWHERE).to_toml())
    found = load_config(path, [("optimizer.name", "other/o.py:Opt")])
    wanted = {**REFERENCES, "optimizer.name": "other/o.py:Opt"}
    assert own_references(found) == {key: f"{tmp_path}/{text}" for key, text in wanted.items()}
    assert make_config(found.to_dict()) == found
    assert absolute_paths(found, Path("/elsewhere")) == found


def test_further_keys_are_arguments_of_a_loss() -> None:
    """All but the weight of a term."""
    found = make_config(EVERYWHERE)
    assert found.loss.arguments == {"gamma": 2}
    assert found.targets["age"].loss.arguments == {"scale": 2}
    term = found.targets["kind"].loss.terms[1]
    assert (term.weight, term.arguments) == (2.0, {"q": 1})


def test_another_loss_on_the_command_line_has_other_keys() -> None:
    """Those of the loss before are gone, both ways; those given beside it count."""
    focal = {"name": "focal", "gamma": 1.0, "class_weights": "inverse"}
    own = make_config(config(loss=focal).to_dict(), [("loss.scale", "3"), ("loss.name", "l.py:Loss")])
    assert own.loss.arguments == {"scale": 3}
    back = make_config(own.to_dict(), [("loss.name", "focal")])
    assert back.loss == config(loss={"name": "focal"}).loss
    assert make_config(own.to_dict(), [("loss.name", "l.py:Loss")]).loss == own.loss


def test_a_loss_of_all_targets_needs_targets_of_one_type() -> None:
    """Nobody can say which of them it is for."""
    targets = {"label": {"column": "label"}, "age": {"column": "age", "type": "regression"}}
    with pytest.raises(
        ConfigError,
        match=r"loss\.name: found 'l\.py:Loss' for targets of several types \(class, regression\)",
    ):
        config(targets=targets, loss={"name": "l.py:Loss"})
    targets["age"]["loss"] = {"name": "mse"}
    assert config(targets=targets, loss={"name": "l.py:Loss"}).loss_of("label").name == "l.py:Loss"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": {"name": "my_losses.py"}},
            r"loss\.name: found 'my_losses\.py'; a part of your own is named FILE\.py:NAME",
        ),
        (
            {"targets": {"label": {"column": "x", "metrics": ["cost"]}}},
            r"metrics: found 'cost'; allowed: FILE\.py:NAME",
        ),
        (
            {"targets": {"label": {"column": "x", "metrics": ["m.py"]}}},
            r"metrics: found 'm\.py'; a part of your own",
        ),
        (
            {"targets": {"label": {"column": "x", "metrics": ["a.py:f", "b.py:f"]}}},
            "metrics: found two named 'f'",
        ),
        ({"targets": {"label": {"column": "x", "metrics": []}}}, r"metrics: found \[\], must"),
        (
            {"data": {"source": "x", "augment": "my_augment.py"}},
            r"augment: found 'my_augment\.py'; a part of your own",
        ),
    ],
)
def test_names_that_do_not_do_are_explained(changes: dict[str, Any], message: str) -> None:
    """Most often the NAME was forgotten."""
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_keys_and_comments_mention_it() -> None:
    """`classwise keys`, and the comments that `init` writes."""
    table = key_table()
    assert '[loss] name = "FILE.py:NAME"' in table
    assert table.count("FILE.py:NAME") >= 6
    assert "FILE.py:NAME" in commented_toml(config())
    assert 'name = "l.py:Loss"' in commented_toml(config(loss={"name": "l.py:Loss", "gamma": 2}))
