"""The config: what is refused and how, what overrides change, and that what is written is read again."""

import copy
import math
import pickle
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from classwise.config.base import section_name
from classwise.config.load import RENAMED, load_config, make_config
from classwise.config.losses import LOSSES, LOSSES_BY_TYPE
from classwise.config.schema import Config, Selection
from classwise.errors import ConfigError

LOSS_NAMES = ", ".join(map(section_name, LOSSES))
LEAST = {
    "data": {"source": "samples.csv"},
    "targets": {"mask": {"column": "mask"}, "age": {"column": "age"}},
}


def tree(**sections: object) -> dict:
    """The least config, with some tables laid over it."""
    values = copy.deepcopy(LEAST)
    for name, value in sections.items():
        merge = isinstance(value, dict) and isinstance(values.get(name), dict) and name != "targets"
        values[name] = {**values[name], **value} if merge else value
    return values


def refusal(values: dict, *overrides: tuple[str, str]) -> list[str]:
    """The lines of the message, without the file that they come from; those of options begin with --."""
    with pytest.raises(ConfigError) as caught:
        make_config(values, overrides, where="file")
    lines = str(caught.value).split("\n")
    assert all(line.startswith(("file: ", "--")) for line in lines)
    return [line.removeprefix("file: ") for line in lines]


def age(**keys: object) -> dict:
    """The targets with other keys for `age`."""
    return {"mask": {"column": "mask"}, "age": {"column": "age", **keys}}


def test_the_least_config_has_every_default():
    """A source and one target are enough; the notes' choices stand in the rest."""
    config = make_config(LEAST)
    assert (config.seed, config.data.valid, config.training.batch_size) == (42, 0.2, 32)
    assert (config.loss.name, config.schedule.name, config.selection.metric) == (
        "cross_entropy",
        "cosine",
        "mean",
    )
    assert config.joint is None


def test_the_default_metric():
    """Macro F1 of the only target or the joint class; of several targets the mean, which is written out. A metric that
    is given stays as it is."""
    one = {**LEAST, "targets": {"mask": {"column": "mask"}}}
    joint = {**LEAST, "joint": {"targets": ["mask", "age"]}}
    assert make_config(one).selection.metric == "macro_f1"
    assert make_config(joint).selection.metric == "macro_f1"
    assert make_config(LEAST).to_dict()["selection"]["metric"] == "mean"
    assert make_config({**LEAST, "selection": {"patience": 3}}).selection.metric == "mean"
    assert make_config({**LEAST, "selection": {"metric": "age.mcc"}}).selection.metric == "age.mcc"
    assert make_config(LEAST, [("selection.metric", "macro_f1")]).selection.metric == "macro_f1"
    section = make_config({**LEAST, "selection": Selection(patience=3)}).selection
    assert (section.metric, section.patience) == ("mean", 3)


def test_the_config_cannot_be_changed():
    """It is frozen, so what was checked is what is used."""
    with pytest.raises(ValidationError, match="frozen"):
        make_config(LEAST).training.epochs = 3


def test_the_values_given_are_not_changed():
    """Overrides are laid over a copy."""
    values = tree(data={"augment": "light"})
    before = copy.deepcopy(values)
    make_config(values, [("data.augment.flip", "0"), ("training.epochs", "3"), ("targets.age.weight", "2.0")])
    assert values == before


UNKNOWN_KEYS = [
    (tree(dta={}), "dta: no such key; did you mean 'data'?"),
    (tree(sead=1), "sead: no such key; did you mean 'seed'?"),
    (tree(data={"sorce": "x"}), "data.sorce: no such key; did you mean 'source'?"),
    (tree(data={"augment": {"flipp": 1}}), "data.augment.flipp: no such key; did you mean 'flip'?"),
    (tree(targets=age(colour="x")), "targets.age.colour: no such key; did you mean 'column' or 'columns'?"),
    (tree(model={"image": 1}), "model.image: no such key; did you mean 'image_size'?"),
    (tree(optimizer={"betaz": 1}), "optimizer.betaz: no such key; did you mean 'betas'?"),
    (tree(epochs=1), "epochs: no such key; did you mean 'training.epochs'?"),
    (tree(training={"epoch": 1}), "training.epoch: no such key; did you mean 'epochs'?"),
    (tree(selection={"metrik": 1}), "selection.metrik: no such key; did you mean 'metric'?"),
    (
        tree(joint={"targets": ["mask", "age"], "zzz": 1}),
        "joint.zzz: no such key; allowed: targets",
    ),
    (tree(loss={"name": "focal", "gama": 1}), "loss.gama: no such key; did you mean 'gamma'?"),
    (
        tree(loss={"name": "focal", "label_smoothing": 0.1}),
        "loss.label_smoothing: no such key; allowed: name, class_weights, beta, weights_from_epoch,"
        " normalize_by, gamma",
    ),
    (
        tree(loss={"name": "sum", "terms": [{"name": "soft_f1"}, {"name": "focal", "gama": 1}]}),
        "loss.terms[1].gama: no such key; did you mean 'gamma'?",
    ),
    (
        tree(loss={"name": "sum", "terms": [{"name": "soft_f1", "wieght": 1}]}),
        "loss.terms[0].wieght: no such key; did you mean 'weight'?",
    ),
    (
        tree(targets=age(loss={"name": "focal", "gama": 1})),
        "targets.age.loss.gama: no such key; did you mean 'gamma'?",
    ),
    (
        tree(loss={"name": "focal"}, targets=age(loss={"gama": 1})),
        "targets.age.loss.gama: no such key; did you mean 'gamma'?",
    ),
    (
        tree(targets=age(type="regression", loss={"gamma": 1})),
        "targets.age.loss.gamma: no such key; allowed: name",
    ),
    (
        tree(schedule={"name": "step", "T_max": 3}),
        "schedule.T_max: no such key; allowed: name, warmup_epochs, restart_after, step_size, gamma",
    ),
]


@pytest.mark.parametrize(("values", "message"), UNKNOWN_KEYS, ids=[m.split(":")[0] for _, m in UNKNOWN_KEYS])
def test_an_unknown_key_is_refused_with_the_nearest(values, message):
    """A misspelt key never runs with a default in its place; in a union only the chosen member's keys count."""
    assert refusal(values) == [message]


OUT_OF_RANGE = [
    (tree(seed=-1), "seed: found -1, must be greater than or equal to 0"),
    (tree(seed="1"), "seed: found '1', must be an integer"),
    (tree(seed=2**63), "seed: found 9223372036854775808, must be less than 9223372036854775808"),
    (tree(name="a/b"), "name: found 'a/b', which contains a character that is not allowed in a name"),
    (tree(name=".."), "name: found '..', which contains a character that is not allowed in a name"),
    (tree(name=3), "name: found 3, must be a string"),
    (tree(data=3), "data: found 3, must be a table [data]"),
    (tree(data={"valid": 1.5}), "data.valid: found 1.5, must be less than 1 or a string"),
    (tree(data={"valid": -0.1}), "data.valid: found -0.1, must be greater than or equal to 0 or a string"),
    (
        tree(data={"augment": "lite"}),
        "data.augment: found 'lite', allowed: 'none', 'light', 'standard' or 'strong'",
    ),
    (tree(data={"augment": {"flip": 2}}), "data.augment.flip: found 2, must be less than or equal to 1"),
    (tree(data={"augment": 3}), "data.augment: found 3, must be a table [data.augment]"),
    (tree(data={"sampling": "x"}), "data.sampling: found 'x', allowed: 'shuffle', 'balanced' or 'sqrt'"),
    (tree(data={"max_pixels": 0}), "data.max_pixels: found 0, must be greater than or equal to 1"),
    (tree(targets={}), "targets: found {}, must have at least 1 item"),
    (tree(targets={"mask": 3}), "targets.mask: found 3, must be a table [targets.mask]"),
    (tree(targets={"mask": {}}), "targets.mask.column: missing"),
    (
        tree(targets={"ma.sk": {"column": "m"}}),
        "targets.ma.sk: found 'ma.sk', which contains a character that is not allowed in a name",
    ),
    (
        tree(targets={"joint": {"column": "m"}}),
        "targets.joint: this name is reserved for the joint class; choose another",
    ),
    (
        tree(targets=age(type="clas")),
        "targets.age.type: found 'clas', allowed: 'class', 'ordinal', 'multilabel', 'regression' or 'ranking'",
    ),
    (tree(targets=age(labels="wear")), "targets.age.labels: found 'wear', must be a list"),
    (tree(targets=age(labels=["a"])), "targets.age.labels: found ['a'], must have at least 2 items"),
    (
        tree(targets=age(labels=["a", "b", "a"])),
        "targets.age.labels: found 'a' twice; duplicates are not allowed",
    ),
    (tree(targets=age(labels=["a", 3])), "targets.age.labels[1]: found 3, must be a string"),
    (tree(targets=age(edges=[])), "targets.age.edges: found [], must have at least 1 item"),
    (tree(targets=age(edges=[60, 30])), "targets.age.edges: found [60.0, 30.0], must be in increasing order"),
    (tree(targets=age(edges=[30, 30])), "targets.age.edges: found [30.0, 30.0], must be in increasing order"),
    (tree(targets=age(edges=["a"])), "targets.age.edges[0]: found 'a', must be a number"),
    (tree(targets=age(edges=[math.inf])), "targets.age.edges[0]: found inf, must be a finite number"),
    (
        tree(targets=age(edges=[30], labels=["a", "b", "c"])),
        "targets.age.labels: found 3 labels, must be 2, one more than edges",
    ),
    (tree(targets=age(weight=0)), "targets.age.weight: found 0, must be greater than 0"),
    (tree(targets=age(loss="focal")), "targets.age.loss: found 'focal', must be a table [targets.age.loss]"),
    (tree(targets=age(loss={"name": "foca"})), "targets.age.loss.name: found 'foca'; did you mean 'focal'?"),
    (
        tree(targets=age(loss={"label_smoothing": 2})),
        "targets.age.loss.label_smoothing: found 2, must be less than 1",
    ),
    (tree(joint={"targets": ["mask", "agee"]}), "joint.targets: no target 'agee'; did you mean 'age'?"),
    (
        tree(joint={"targets": ["mask", "mask"]}),
        "joint.targets: found 'mask' twice; duplicates are not allowed",
    ),
    (tree(joint={"targets": ["mask"]}), "joint.targets: found ['mask'], must have at least 2 items"),
    (tree(model={"image_size": 64}), "model.image_size: found 64, must be a list"),
    (tree(model={"image_size": [64]}), "model.image_size: found [64], must have 2 items"),
    (tree(model={"image_size": [64] * 3}), "model.image_size: found [64, 64, 64], must have at most 2 items"),
    (
        tree(model={"image_size": [4, 64]}),
        "model.image_size: found [4, 64], each side must be from 8 to 4096",
    ),
    (tree(model={"image_size": ["a", 64]}), "model.image_size[0]: found 'a', must be an integer"),
    (tree(model={"dropout": 1}), "model.dropout: found 1, must be less than 1"),
    (tree(loss="focal"), "loss: found 'focal', must be a table [loss]"),
    (tree(loss={"name": "focl"}), "loss.name: found 'focl'; did you mean 'focal'?"),
    (
        tree(loss={"gamma": 1}),
        "loss.name: missing; allowed: " + LOSS_NAMES + ", sum, FILE.py:NAME",
    ),
    (
        tree(loss={"name": 3}),
        "loss.name: found '3'; allowed: " + LOSS_NAMES + ", sum, FILE.py:NAME",
    ),
    (
        tree(loss={"name": "focal", "gamma": -1}),
        "loss.gamma: found -1, must be greater than or equal to 0",
    ),
    (tree(loss={"name": "sum"}), "loss.terms: missing"),
    (tree(loss={"name": "sum", "terms": []}), "loss.terms: found [], must have at least 1 item"),
    (
        tree(loss={"name": "sum", "terms": [{"gamma": 1}]}),
        "loss.terms[0].name: missing; allowed: " + LOSS_NAMES + ", FILE.py:NAME",
    ),
    (
        tree(loss={"name": "sum", "terms": [{"name": "sum", "terms": []}]}),
        "loss.terms[0].name: found 'sum'; allowed: " + LOSS_NAMES + ", FILE.py:NAME",
    ),
    (
        tree(loss={"name": "sum", "terms": [{"name": "focal", "weight": 0}]}),
        "loss.terms[0].weight: found 0, must be greater than 0",
    ),
    (tree(optimizer={"lr": 0}), "optimizer.lr: found 0, must be greater than 0"),
    (tree(optimizer={"lr": "1e-3"}), "optimizer.lr: found '1e-3', must be a number"),
    (tree(optimizer={"lr": math.nan}), "optimizer.lr: found nan, must be a finite number"),
    (tree(optimizer={"betas": [0.9]}), "optimizer.betas: found [0.9], must have 2 items"),
    (tree(schedule={"name": "cosin"}), "schedule.name: found 'cosin'; did you mean 'cosine'?"),
    (
        tree(schedule={"warmup_epochs": 1}),
        "schedule.name: missing; allowed: constant, step, cosine, restarts, polynomial, plateau, onecycle",
    ),
    (
        tree(schedule={"name": "step", "step_size": 0}),
        "schedule.step_size: found 0, must be greater than or equal to 1",
    ),
    (tree(training={"epochs": 0}), "training.epochs: found 0, must be greater than or equal to 1"),
    (tree(training={"epochs": True}), "training.epochs: found True, must be an integer"),
    (tree(training={"epochs": 3.0}), "training.epochs: found 3.0, must be an integer"),
    (tree(training={"clip_norm": 0}), "training.clip_norm: found 0, must be greater than 0"),
    (
        tree(training={"precision": "fp64"}),
        "training.precision: found 'fp64', allowed: 'auto', 'fp32', 'bf16' or 'fp16'",
    ),
    (
        tree(selection={"first_epoch": 3}, training={"epochs": 2}),
        "selection.first_epoch: found 3, but training.epochs is 2",
    ),
    (tree(selection={"patience": 0}), "selection.patience: found 0, must be greater than or equal to 1"),
]


@pytest.mark.parametrize(("values", "message"), OUT_OF_RANGE, ids=[m[:40] for _, m in OUT_OF_RANGE])
def test_a_wrong_value_is_refused(values, message):
    """One line: the key as the file has it, what was found, what is allowed."""
    assert refusal(values) == [message]


@pytest.mark.parametrize(
    ("values", "found", "allowed"),
    [
        (tree(data={"workers": -1}), "data.workers: found -1", ["0", "'auto'"]),
        (tree(data={"workers": "many"}), "data.workers: found 'many'", ["integer", "'auto'"]),
        (
            tree(loss={"name": "focal", "class_weights": "invers"}),
            "loss.class_weights: found 'invers'",
            ["'inverse'", "list"],
        ),
    ],
)
def test_a_value_of_several_kinds_says_them_all(values, found, allowed):
    """Where a word or a number may stand, the message has both."""
    lines = refusal(values)
    assert all(line.startswith(found) for line in lines)
    assert all(word in "\n".join(lines) for word in allowed)


def test_every_mistake_is_listed_at_once():
    """One run of the command shows all of them, in lines of their own."""
    values = tree(sead=1, training={"epochs": 0}, targets={"나이": {"colum": "age"}, "mask": {"column": 1}})
    assert sorted(refusal(values)) == [
        "sead: no such key; did you mean 'seed'?",
        "targets.mask.column: found 1, must be a string",
        "targets.나이.colum: no such key; did you mean 'column' or 'columns'?",
        "training.epochs: found 0, must be greater than or equal to 1",
    ]


def test_missing_tables_are_named():
    """An empty file says what has to be in it."""
    assert refusal({}) == ["data: missing", "targets: missing"]


UNSHARED = {"beta", "weights_from_epoch", "normalize_by"}


def test_a_targets_loss_without_a_name_changes_the_shared_one():
    """Its keys lie over [loss]; the other targets and [loss] itself stay as they are."""
    shared = {"name": "focal", "gamma": 1.0, "class_weights": "inverse"}
    config = make_config(tree(loss=shared, targets=age(loss={"gamma": 3.0})))
    assert config.targets["age"].loss.model_dump(exclude=UNSHARED) == {
        **shared,
        "gamma": 3.0,
    }
    assert config.targets["mask"].loss is None
    assert config.loss.model_dump(exclude=UNSHARED) == shared


def test_without_a_shared_loss_it_changes_the_default():
    """[loss] may be left out: cross entropy is what is changed."""
    own = make_config(tree(targets=age(loss={"label_smoothing": 0.1}))).targets["age"].loss
    assert (own.name, own.label_smoothing) == ("cross_entropy", 0.1)


def test_a_targets_loss_with_a_name_stands_alone():
    """Nothing of [loss] is taken over, not even keys that both have."""
    shared = {"name": "focal", "gamma": 1.0, "class_weights": "inverse"}
    own = make_config(tree(loss=shared, targets=age(loss={"name": "focal"}))).targets["age"].loss
    assert (own.gamma, own.class_weights) == (2.0, "none")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.epochs", "3", 3),
        ("optimizer.lr", "1e-3", 1e-3),
        ("optimizer.nesterov", "true", True),
        ("model.image_size", "[64, 48]", (64, 48)),
        ("targets.mask.labels", '["wear", "한 글"]', ("wear", "한 글")),
        ("targets.age.edges", "[30, 60]", (30, 60)),
        ("targets.age.loss.name", "focal", "focal"),
        ("loss.name", '"soft_f1"', "soft_f1"),
        ("data.source", "my images/표.csv", "my images/표.csv"),
        ("data.augment.preset", "strong", "strong"),
        ("data.workers", "auto", "auto"),
        ("data.workers", "2", 2),
        ("data.valid", "valid.csv", "valid.csv"),
        ("data.valid", "0.3", 0.3),
        # Text, though TOML reads a number, a truth value or a date there.
        ("name", "2024", "2024"),
        ("name", "1e5", "1e5"),
        ("name", "true", "true"),
        ("name", "2024-05-01", "2024-05-01"),
        ("data.group", "007", "007"),
        ("targets.age.column", "3", "3"),
    ],
)
def test_overrides_reach_every_key(key, text, value):
    """The text on the command line is read as TOML where it is TOML, and as the text itself otherwise."""
    here: object = make_config(LEAST, [(key, text)])
    for part in key.split("."):
        here = here[part] if isinstance(here, dict) else getattr(here, part)
    assert here == value
    assert type(here) is type(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([("trainig.epochs", "3")], "--trainig.epochs: no such key; did you mean --training.epochs?"),
        ([("epochs", "5")], "--epochs: no such key; did you mean --training.epochs?"),
        ([("training.epoch", "5")], "--training.epoch: no such key; did you mean --training.epochs?"),
        ([("training.lr", "1")], "--training.lr: no such key; did you mean --optimizer.lr?"),
        ([("training.epochs", "three")], "--training.epochs: found 'three', must be an integer"),
        ([("training.epochs", "0")], "--training.epochs: found 0, must be greater than or equal to 1"),
        ([("targets.mask.labels", '"wear"')], "--targets.mask.labels: found 'wear', must be a list"),
        ([("model", "resnet18")], "--model: found 'resnet18', must be a table [model]"),
        ([("data.valid", "1.5")], "--data.valid: found 1.5, must be less than 1 or a string"),
        (
            [("loss.name", "[1]")],
            "--loss.name: found '[1]'; allowed: " + LOSS_NAMES + ", sum, FILE.py:NAME",
        ),
        (
            [("name", "7"), ("training.epochs", "0")],
            "--training.epochs: found 0, must be greater than or equal to 1",
        ),
    ],
)
def test_a_wrong_override_is_refused(overrides, message):
    """As in a file: the key, what was found, what is allowed."""
    assert refusal(LEAST, *overrides) == [message]


@pytest.mark.parametrize(
    ("given", "epochs", "first"),
    [(1, 5, 1), (5, 5, 5), (0.67, 30, 21), (0.67, 12, 9), (0.67, 5, 4), (0.67, 1, 1), (0.999, 10, 10)],
)
def test_the_first_epoch_may_be_a_share(given, epochs, first):
    """Below 1 it is the epoch after that share of all, so it fits whatever the number of epochs is."""
    config = make_config(tree(selection={"first_epoch": given}, training={"epochs": epochs}))
    assert config.first_epoch == first


def test_lists_are_not_split_into_characters():
    """`--targets.mask.labels wear` is no list of four letters."""
    assert refusal(LEAST, ("targets.mask.labels", "wear")) == [
        "--targets.mask.labels: found 'wear', must be a list"
    ]


def test_another_loss_drops_the_keys_of_the_one_before():
    """`--loss.name focal` over a file with label smoothing is no contradiction; keys that both have stay."""
    values = tree(loss={"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": "inverse"})
    assert make_config(values, [("loss.name", "focal")]).loss.model_dump() == {
        "name": "focal",
        "gamma": 2.0,
        "class_weights": "inverse",
        "beta": 0.999,
        "weights_from_epoch": 1,
        "normalize_by": "rows",
    }
    values = tree(schedule={"name": "step", "step_size": 5, "warmup_epochs": 2})
    assert make_config(values, [("schedule.name", "cosine")]).schedule.model_dump() == {
        "name": "cosine",
        "warmup_epochs": 2.0,
        "restart_after": None,
        "T_max": None,
        "eta_min": 0.0,
    }


@pytest.mark.parametrize("turn", [1, -1])
def test_the_order_of_overrides_does_not_matter(turn):
    """What the user asks for on the command line is never dropped: it counts, or it is refused."""
    overrides = [
        ("loss.name", "focal"),
        ("loss.gamma", "1.5"),
        ("data.augment", "strong"),
        ("data.augment.flip", "0"),
    ]
    config = make_config(tree(loss={"name": "soft_f1"}), overrides[::turn])
    assert config.loss.gamma == 1.5
    assert (config.data.augment.preset, config.data.augment.flip) == ("strong", 0)
    contradiction = [("loss.name", "focal"), ("loss.label_smoothing", "0.1")]
    assert refusal(LEAST, *contradiction[::turn]) == [
        "--loss.label_smoothing: no such key; allowed: name, class_weights, beta, weights_from_epoch, normalize_by,"
        " gamma"
    ]


def test_a_part_of_the_augmentation_lies_over_the_preset():
    """`--data.augment.flip 0` keeps the preset that the file names."""
    config = make_config(tree(data={"augment": "standard"}), [("data.augment.flip", "0")])
    assert config.data.augment.model_dump(exclude_none=True) == {"preset": "standard", "flip": 0.0}
    assert make_config(LEAST, [("data.augment.flip", "0")]).data.augment.preset == "light"


@pytest.mark.parametrize("type", ["class", "multilabel", "regression"])
def test_a_config_can_be_sent_to_another_process(type):
    """`compare` does so: every loss, also as the term of a sum, comes back from its pickle as it was."""
    terms = [{"name": name, "weight": 0.5} for name in LOSSES_BY_TYPE[type]]
    config = make_config(tree(targets=age(type=type, loss={"name": "sum", "terms": terms})))
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert [term.name for term in again.targets["age"].loss.terms] == list(LOSSES_BY_TYPE[type])


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_key_is_still_read(old, new):
    """From the values of a file and from the command line, where it overrides the file under either name."""
    (section, old_key), (_, new_key) = old.split("."), new.split(".")
    for values in (tree(**{section: {old_key: "skip"}}), tree(**{section: {new_key: "skip"}})):
        assert getattr(getattr(make_config(values), section), new_key) == "skip"
        for key in (old, new):
            assert getattr(getattr(make_config(values, [(key, "error")]), section), new_key) == "error"
    assert old_key not in make_config(tree(**{section: {old_key: "skip"}})).to_toml()


@pytest.mark.parametrize("key", ["data.unanswered", "data.unlabeled"])
def test_a_table_with_an_old_name_may_be_overridden(key):
    """Both on the command line: the key beside the table, under either name."""
    table = '{ source = "t.csv", unanswered = "skip" }'
    assert make_config(LEAST, [("data", table), (key, "error")]).data.unlabeled == "error"


def test_both_names_of_a_key_are_refused():
    """In one file, or in one table on the command line: it could not be said which of them counts."""
    message = ["data.unanswered: found beside data.unlabeled, its new name; allowed: data.unlabeled alone"]
    assert refusal(tree(data={"unanswered": "skip", "unlabeled": "error"})) == message
    table = '{ source = "t.csv", unanswered = "skip", unlabeled = "skip" }'
    assert refusal(LEAST, ("data", table)) == message


def test_a_wrong_value_is_refused_by_the_new_name():
    """The message says the key that the guide has."""
    assert refusal(tree(data={"unanswered": "drop"})) == [
        "data.unlabeled: found 'drop', allowed: 'error' or 'skip'"
    ]


# --- files ---------------------------------------------------------------------------------------------


def write(path: Path, text: str, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, **{"encoding": "utf-8", **options})
    return path


FILE = '[data]\nsource = "표 1.csv"\n[targets."성별 구분"]\ncolumn = "성별"\nlabels = ["남 \\"m\\"", "여"]\n'


def test_a_file_with_overrides(tmp_path):
    """The overrides win over the file."""
    path = write(tmp_path / "c.toml", FILE + "[training]\nepochs = 30\n")
    assert load_config(path, [("training.epochs", "3")]).training.epochs == 3
    assert load_config(path).training.epochs == 30


def test_a_byte_order_mark_is_skipped(tmp_path):
    """Windows editors write one."""
    assert (
        load_config(write(tmp_path / "c.toml", FILE, encoding="utf-8-sig")).targets["성별 구분"].column
        == "성별"
    )


def test_paths_count_from_the_files_folder(tmp_path, monkeypatch):
    """Wherever the command runs, and through `..` as well; home folders are found."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = FILE.replace("표 1.csv", "../표 1.csv") + '[model]\nweights = "w.safetensors"\n'
    path = write(tmp_path / "설정 a" / "c.toml", text)
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("설정 a/c.toml"), [("data.images", "~/images"), ("data.valid", "v.csv")])
    assert config.data.source == str(tmp_path / "표 1.csv")
    assert config.data.images == str(tmp_path / "home" / "images")
    assert config.data.valid == str(tmp_path / "설정 a" / "v.csv")
    assert config.model.weights == str(tmp_path / "설정 a" / "w.safetensors")
    assert load_config(path).data.images == str(tmp_path / "설정 a")


@pytest.mark.parametrize("weights", ["none", "pretrained", "package:some-name"])
def test_weights_that_are_no_path_stay(tmp_path, weights):
    """Only a .safetensors file is looked for beside the config."""
    assert (
        load_config(write(tmp_path / "c.toml", FILE), [("model.weights", weights)]).model.weights == weights
    )


def test_a_folder_with_a_tilde_is_no_home(tmp_path):
    """`~old` is a folder's name where there is no user `old`."""
    config = load_config(write(tmp_path / "c.toml", FILE), [("data.images", "~no_such_user_here/x")])
    assert config.data.images == str(tmp_path / "~no_such_user_here" / "x")


def test_the_resolved_file_stands_anywhere(tmp_path):
    """What a run keeps gives the same config in another folder, to the last key."""
    text = FILE + '[loss]\nname = "focal"\n[targets.b]\ncolumn = "b"\n[targets.b.loss]\ngamma = 0.1\n'
    config = load_config(write(tmp_path / "a" / "c.toml", text), [("optimizer.betas", "[0.9, 0.98]")])
    again = load_config(write(tmp_path / "b" / "deep" / "config.toml", config.to_toml()))
    assert again.to_dict() == config.to_dict()
    assert again.to_toml() == config.to_toml()
    assert list(again.targets) == ["성별 구분", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data\n", r"c\.toml is not TOML: .*line 1"),
        ("seed = 1\nseed = 2\n", r"c\.toml is not TOML: Cannot overwrite a value.*line 2"),
        ("seed = 1\n", r"c\.toml: data: missing\n.*c\.toml: targets: missing"),
        (FILE.replace("표 1", "a\\u0000b"), r"data\.source: found 'a\\x00b\.csv'; a path cannot contain"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    """With the line where TOML has one."""
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path / "c.toml", text))


def test_no_file_a_folder_and_no_text(tmp_path):
    """Each says what it is and what to do."""
    with pytest.raises(
        ConfigError, match=r"there is no config file .*none\.toml; `classwise init` writes one"
    ):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"there is no file or folder .*my_image$"):
        load_config(tmp_path / "my_image")  # `train my_image` for `train my_images`
    with pytest.raises(ConfigError, match=r"is a folder; name its config file, such as .*classwise\.toml"):
        load_config(tmp_path)
    (tmp_path / "c.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match=r"c\.toml cannot be read as a text file"):
        load_config(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "c.toml" / "below.toml")


# --- property ------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FINITE = st.floats(1e-12, 1e12)
WEIGHTS = st.sampled_from(["none", "inverse", "effective"]) | st.lists(FINITE, min_size=1, max_size=4)
LOSS_TABLES = [
    st.fixed_dictionaries(
        {"name": st.just("cross_entropy")},
        optional={"label_smoothing": st.floats(0, 1, exclude_max=True), "class_weights": WEIGHTS},
    ),
    st.fixed_dictionaries({"name": st.just("focal")}, optional={"gamma": FINITE, "class_weights": WEIGHTS}),
    st.just({"name": "balanced_softmax"}),
    st.just({"name": "soft_f1"}),
]
TERMS = st.lists(
    st.builds(lambda loss, weight: {**loss, "weight": weight}, st.one_of(LOSS_TABLES), FINITE),
    min_size=1,
    max_size=3,
)
LOSS = st.one_of(*LOSS_TABLES, st.builds(lambda terms: {"name": "sum", "terms": terms}, TERMS))
TARGET = st.fixed_dictionaries(
    {"column": TEXT},
    optional={
        "labels": st.lists(TEXT, min_size=2, max_size=4, unique=True),
        "weight": FINITE,
        "loss": LOSS,
    },
)
TARGETS = st.dictionaries(
    st.sampled_from(["mask", "성별 구분", "age-2", "0", "데이터", "loss", "a b"]), TARGET, min_size=1
)
SCHEDULE = st.sampled_from(
    [
        {"name": "constant"},
        {"name": "step", "gamma": 0.5},
        {"name": "cosine", "T_max": 7.5},
        {"name": "plateau", "cooldown": 2, "warmup_epochs": 0.5},
        {"name": "onecycle", "max_lr": 1e-7, "anneal_strategy": "linear"},
    ]
)
CONFIGS = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"source": TEXT},
            optional={
                "group": TEXT,
                "valid": TEXT | st.floats(0.01, 0.99),
                "workers": st.just("auto") | st.integers(0, 256),
                "start_method": st.sampled_from(["auto", "fork", "spawn", "forkserver"]),
                "worker_timeout": st.floats(0, 1e6),
                "augment": st.sampled_from(["none", {"preset": "strong", "rotate": 12.5, "erase": 0}]),
            },
        ),
        "targets": TARGETS,
    },
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "name": TEXT.filter(lambda text: not re.search(r"[/\\\0]", text) and text.strip(".")),
        "loss": LOSS,
        "schedule": SCHEDULE,
        "optimizer": st.fixed_dictionaries({"lr": FINITE}, optional={"betas": st.just([0.9, 1 / 3])}),
        "training": st.fixed_dictionaries({"epochs": st.integers(1, 10**9)}, optional={"clip_norm": FINITE}),
    },
)


@settings(max_examples=100, deadline=None)
@given(CONFIGS)
def test_any_config_comes_back_from_its_text(values):
    """Floats to the last bit, texts of any script, every union member: equal, and in the same order."""
    config = make_config(values)
    again = make_config(tomllib.loads(config.to_toml()))
    assert again.to_dict() == config.to_dict()
    assert again.to_toml() == config.to_toml()
    assert list(again.targets) == list(config.targets)
    assert isinstance(again, Config)


@pytest.mark.parametrize(
    ("sections", "plan"),
    [
        ({}, "finetune"),
        ({"model": {"weights": "pretrained"}}, "probe_then_finetune"),
        ({"model": {"weights": "backbone.safetensors"}}, "probe_then_finetune"),
        ({"model": {"weights": "pretrained"}, "training": {"freeze_epochs": 1, "epochs": 2}}, "finetune"),
        ({"model": {"weights": "pretrained"}, "loss": {"name": "ldam"}}, "finetune"),
        (
            {
                "model": {"weights": "pretrained"},
                "loss": {"name": "sum", "terms": [{"name": "ldam"}, {"name": "cross_entropy"}]},
            },
            "finetune",
        ),
        ({"training": {"plan": "probe"}}, "probe"),
        ({"training": {"plan": "probe_then_finetune"}}, "probe_then_finetune"),
        ({"model": {"weights": "pretrained"}, "training": {"plan": "finetune"}}, "finetune"),
    ],
)
def test_the_plan_that_auto_means(sections: dict, plan: str) -> None:
    """Heads are fitted first where the features mean something, and heads can be fitted; what is given stays."""
    assert make_config(tree(**sections)).plan == plan


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"plan": "probing"}},
            "training.plan: found 'probing', allowed: 'auto', 'probe_then_finetune', 'probe' or 'finetune'",
        ),
        ({"training": {"minutes": 0}}, "training.minutes: found 0, must be greater than 0"),
        ({"model": {"pooling": "max"}}, "model.pooling: found 'max', allowed: 'last' or 'layers'"),
    ],
)
def test_unknown_plans_and_poolings(sections: dict, message: str) -> None:
    """Refused with what is allowed."""
    (found,) = refusal(tree(**sections))
    assert message in found


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"columns": ["a", "b"], "edges": [1.0]}, "edges: found beside columns"),
        ({"columns": ["a", "b"], "type": "ordinal"}, "columns: found with type 'ordinal'"),
        ({"column": "a", "flags": ["0", "1"]}, "flags: found without columns"),
        ({"columns": ["a", "b"], "flags": ["1", "1"]}, "flags: found '1' for no and for yes"),
        ({"columns": ["a", "b"], "flags": ["-1", "1"], "missing": ["-1"]}, "missing: found '-1'"),
        ({"columns": ["a", "b"], "type": "multilabel", "none": [""]}, "none: found beside columns"),
        ({"column": "a", "none": [""]}, "none: found with type 'class'"),
    ],
)
def test_keys_of_cells_that_contradict_each_other(target, says):
    """What means a label, no label and an unknown one are different cells."""
    with pytest.raises(ConfigError) as caught:
        make_config({"data": {"source": "x.csv"}, "targets": {"t": target}})
    assert f"targets.t.{says}" in str(caught.value)


@pytest.mark.parametrize(
    ("restarts", "message"),
    [
        ([4], "before training.epochs = 4"),
        ([2, 2], "in ascending order"),
        ([1], "after training.freeze_epochs = 1"),
    ],
)
def test_where_a_schedule_may_begin_again(restarts: list[int], message: str) -> None:
    """Within the epochs that are not frozen, each later than the one before."""
    tree = {
        "data": {"source": "a.csv"},
        "targets": {"it": {"column": "it"}},
        "training": {"epochs": 4, "freeze_epochs": 1},
        "schedule": {"name": "cosine", "restart_after": restarts},
    }
    with pytest.raises(ConfigError, match=rf"schedule\.restart_after: found .*{message}"):
        make_config(tree)
