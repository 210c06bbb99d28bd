"""From loss sections to modules: every key arrives, and every count is of the training side."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.splits import DatasetSplits, Split
from classwise.compose.state import build_model, build_state, optimizer_of
from classwise.config.base import sections_by_name
from classwise.config.conflicts import check_conflicts
from classwise.config.load import make_config
from classwise.config.losses import Loss
from classwise.config.schema import Config
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData
from classwise.data.loader import Loader
from classwise.data.sampling import epoch_order
from classwise.data.sources import Samples
from classwise.data.target_from_table import make_target
from classwise.errors import ConfigError
from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.corn import Corn
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import AbsoluteError, Huber, SmoothL1, SquaredError, Standardized
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum
from classwise.model.classifier import CosineLinear

TARGETS: dict[str, dict[str, Any]] = {
    "class": {"column": "kind", "labels": ["a", "b", "c"]},
    "ordinal": {"column": "kind", "type": "ordinal", "labels": ["a", "b", "c"]},
    "multilabel": {"columns": ["x", "y"], "type": "multilabel"},
    "regression": {"column": "area", "type": "regression"},
    "ranking": {"column": "relevance", "type": "ranking", "query": "query"},
}
METRICS = {"class": "macro_f1", "ordinal": "macro_f1", "multilabel": "macro_f1", "regression": "mae"}
# What the training rows hold; validation is another world.
KINDS, COUNTS = ["a"] * 6 + ["b"] * 3 + ["c"] + [""] * 2, torch.tensor([6, 3, 1])
X, Y = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, "", ""], [1, "", "", "", "", "", 0, 0, 0, 0, 1, ""]
AREAS = [*(10.0 + 2.5 * row for row in range(11)), None]


def frame(training: bool) -> pl.DataFrame:
    """Twelve rows of one side."""
    columns = {
        "kind": KINDS if training else ["c"] * 10 + ["a", "b"],
        "x": X if training else [1] * 11 + [0],
        "y": Y if training else [1] * 11 + [0],
        "area": AREAS if training else [1000.0 * row for row in range(12)],
        "relevance": [row % 3 for row in range(12)],
        "query": [f"q{row // 4}" for row in range(12)],
    }
    return pl.DataFrame(
        {
            name: [None if cell in ("", None) else str(cell) for cell in cells]
            for name, cells in columns.items()
        }
    )


def config_of(targets: dict[str, Any], **sections: Any) -> Config:
    """A config of these targets."""
    name, target = next(iter(targets.items()))
    metric = METRICS.get(target.get("type", "class"), "ndcg")
    metric = metric if len(targets) == 1 else f"{name}.{metric}"
    tree = {
        "data": {"source": "samples.csv", "workers": 0},
        "targets": targets,
        "selection": {"metric": metric},
        "model": {"image_size": [8, 8]},
        "training": {"device": "cpu", "precision": "fp32"},
    }
    return make_config(tree | sections)


def prepared_of(config: Config) -> DatasetSplits:
    """Both sides as `prepare` would have them, without images."""
    frames = frame(True), frame(False)
    targets = tuple(
        make_target(
            *(name, t.type, t.column, t.columns, t.labels, t.edges, t.separator, t.query),
            *(frames[0], "samples.csv"),
        )
        for name, t in config.targets.items()
    )
    names = tuple(f"{row}.png" for row in range(12))
    pair = [
        Split(
            Samples("samples.csv", Path(), names, names, None, table),
            {target.name: target.encode(table, "samples.csv") for target in targets},
        )
        for table in frames
    ]
    return DatasetSplits(targets, (), pair[0], pair[1], (), ())


def built(type: str, section: dict[str, Any], **training: Any) -> Any:
    """The loss of a target of this type."""
    config = config_of({"it": TARGETS[type] | {"loss": section}}, training={"device": "cpu", **training})
    criterion = build_criterion(config, prepared_of(config))
    assert criterion.names == ("it",)
    return criterion.losses[0]


# Weights of three classes with 6, 3 and 1 training rows, divided by their mean over these ten rows.
INVERSE = torch.from_numpy(compute_class_weight("balanced", classes=np.arange(3), y=[0] * 6 + [1] * 3 + [2]))
_RAW = torch.tensor([0.1 / (1 - 0.9**n) for n in (6, 3, 1)], dtype=torch.float64)
EFFECTIVE = _RAW * 10 / (_RAW[0] * 6 + _RAW[1] * 3 + _RAW[2])
LISTED = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
GIVEN = LISTED / 1.6
BETA = {"class_weights": "effective", "beta": 0.9}
LATER = {"class_weights": "inverse", "weights_from_epoch": 2}
BY_WEIGHTS = {"class_weights": [1.0, 2.0, 4.0], "normalize_by": "weights"}
# Mean and deviation of the eleven known areas, in plain Python.
MEAN = sum(AREAS[:11]) / 11
STD = math.sqrt(sum((area - MEAN) ** 2 for area in AREAS[:11]) / 11)


def standardized(loss: nn.Module) -> nn.Module:
    """In deviations from the training rows' mean."""
    return Standardized(loss, MEAN, STD)


# Type, section, and the loss that it must be; together they set every key of every section away from its default.
CASES: list[tuple[str, dict[str, Any], Any]] = [
    (
        "class",
        {"name": "cross_entropy", "label_smoothing": 0.3, **BETA},
        CrossEntropy(EFFECTIVE, 0.3, normalize_by="rows"),
    ),
    ("class", {"name": "cross_entropy", **LATER}, CrossEntropy(INVERSE, 0.0, 2, "rows")),
    (
        "class",
        {"name": "cross_entropy", "class_weights": [1.0, 2.0, 4.0]},
        CrossEntropy(GIVEN, normalize_by="rows"),
    ),
    ("class", {"name": "cross_entropy", **BY_WEIGHTS}, CrossEntropy(LISTED)),
    ("class", {"name": "focal", "gamma": 0.7, **BETA}, Focal(0.7, EFFECTIVE, normalize_by="rows")),
    ("class", {"name": "focal", **LATER}, Focal(2.0, INVERSE, 2, "rows")),
    ("class", {"name": "focal", **BY_WEIGHTS}, Focal(2.0, LISTED)),
    ("class", {"name": "balanced_softmax"}, BalancedSoftmax(COUNTS)),
    ("class", {"name": "logit_adjustment", "tau": 1.6}, LogitAdjustment(COUNTS, 1.6)),
    (
        "class",
        {"name": "ldam", "max_margin": 0.3, "scale": 12.0, **BETA},
        LDAM(COUNTS, 0.3, 12.0, EFFECTIVE, normalize_by="rows"),
    ),
    ("class", {"name": "ldam", **LATER}, LDAM(COUNTS, 0.5, 30.0, INVERSE, 2, "rows")),
    ("class", {"name": "ldam", **BY_WEIGHTS}, LDAM(COUNTS, 0.5, 30.0, LISTED)),
    ("class", {"name": "gce", "q": 0.4}, GeneralizedCrossEntropy(0.4)),
    ("class", {"name": "soft_f1"}, SoftMacroF1(3)),
    ("ordinal", {"name": "corn"}, Corn(3)),
    # x: 3 with, 7 without; y: 2 with, 4 without, and 6 of which nothing is known.
    (
        "multilabel",
        {"name": "bce", "pos_weight": "balanced"},
        BinaryCrossEntropy(torch.tensor([7 / 3, 4 / 2], dtype=torch.float64)),
    ),
    ("multilabel", {"name": "multilabel_focal", "gamma": 0.5, "alpha": 0.2}, MultilabelFocal(0.5, 0.2)),
    (
        "multilabel",
        {"name": "asymmetric", "gamma_neg": 3.0, "gamma_pos": 0.5, "clip": 0.2, "focusing_gradient": False},
        Asymmetric(3, 0.5, 0.2, False),
    ),
    ("regression", {"name": "mse"}, standardized(SquaredError())),
    ("regression", {"name": "mae"}, standardized(AbsoluteError())),
    ("regression", {"name": "smooth_l1", "beta": 0.3}, standardized(SmoothL1(0.3))),
    ("regression", {"name": "huber", "delta": 0.3}, standardized(Huber(0.3))),
    ("ranking", {"name": "pairwise_logistic"}, PairwiseLogistic()),
    ("ranking", {"name": "listnet"}, ListNet()),
    (
        "class",
        {
            "name": "sum",
            "terms": [
                {"name": "focal", "gamma": 0.5, "weight": 0.7, **BETA},
                {"name": "gce", "q": 0.3, "weight": 2.0},
            ],
        },
        WeightedSum([Focal(0.5, EFFECTIVE, normalize_by="rows"), GeneralizedCrossEntropy(0.3)], [0.7, 2.0]),
    ),
]


def test_the_cases_set_every_key() -> None:
    """A loss, or a key of one, that is added later is missed here."""
    given: dict[str, set[str]] = {}
    for _, section, _ in CASES:
        given.setdefault(section["name"], set()).update(section)
    sections = sections_by_name(Loss)
    assert given == {name: set(section.model_fields) for name, section in sections.items()}


@pytest.mark.parametrize(
    ("type", "section", "wanted"), CASES, ids=[section["name"] for _, section, _ in CASES]
)
def test_a_section_is_the_loss_that_it_names(type: str, section: dict[str, Any], wanted: Any) -> None:
    """In value and normalizer, before and after the epoch from which class weights apply, on 50 drawn batches of the
    training rows. LDAM's own scale stands in the head already, so its reference gets the cosines."""
    loss = built(type, section)
    assert isinstance(loss, wanted.__class__)
    splits = prepared_of(config_of({"it": TARGETS[type]}))
    labels = torch.from_numpy(splits.train.labels["it"])
    size = {"class": 3, "ordinal": 2, "multilabel": 2}.get(type, 1)
    scale = section.get("scale", 30.0) if section["name"] == "ldam" else 1.0
    rng = torch.Generator().manual_seed(0)
    for case in range(50):
        for one in (loss, wanted):
            if hasattr(one, "set_epoch"):
                one.set_epoch(case % 3)
        rows = torch.arange(12) if type == "ranking" else torch.randperm(12, generator=rng)[:9]
        logits = 3 * torch.randn(len(rows), size, generator=rng, dtype=torch.float64)
        found, reference = loss(logits, labels[rows]), wanted(logits / scale, labels[rows])
        normalizers = [one.normalizer(labels[rows]).tolist() for one in (loss, wanted)]
        assert normalizers[0] == pytest.approx(normalizers[1], rel=1e-12)
        torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-15)


def test_a_section_says_what_its_loss_says() -> None:
    """Whether a loss takes mixed labels stands in its section as well, since the config is checked without torch."""
    sections = sections_by_name(Loss)
    for _, section, loss in CASES:
        if section["name"] != "sum":
            assert sections[section["name"]].soft_targets == loss.soft_targets, section["name"]


def test_class_weights_that_do_not_fit_name_their_key() -> None:
    """Alone, and as a term of a sum."""
    section = {"name": "focal", "class_weights": [1.0, 2.0]}
    with pytest.raises(
        ConfigError, match=r"^targets\.it\.loss\.class_weights: .*found 2 numbers, allowed: .*3"
    ):
        built("class", section)
    with pytest.raises(
        ConfigError, match=r"^targets\.it\.loss\.terms\[1\]\.class_weights: .*found 2 numbers"
    ):
        built("class", {"name": "sum", "terms": [{"name": "gce"}, section]})


@pytest.mark.parametrize("sampling", ["shuffle", "sqrt", "balanced"])
def test_class_weights_have_mean_one_over_the_rows_that_are_drawn(sampling: str) -> None:
    """Averaged over 200 epochs as they are sampled: so the weighted loss keeps the scale of the unweighted one."""
    target = TARGETS["class"] | {"loss": {"name": "cross_entropy", "class_weights": [1.0, 2.0, 40.0]}}
    config = config_of({"it": target}, data={"source": "samples.csv", "workers": 0, "sampling": sampling})
    splits = prepared_of(config)
    weight_K = build_criterion(config, splits).losses[0].weight
    torch.testing.assert_close(weight_K / weight_K[0], torch.tensor([1.0, 2.0, 40.0], dtype=torch.float64))
    classes = splits.classes(splits.train)
    labels = splits.train.labels["it"]
    drawn = np.concatenate([labels[epoch_order(sampling, classes, 7, epoch)] for epoch in range(200)])
    assert weight_K[drawn[drawn >= 0]].mean().item() == pytest.approx(1, abs=0.02)


def test_weights_of_zero_for_every_class_with_rows_are_refused() -> None:
    """Nothing would be learned; 'c' is the only class that no training row has here."""
    config = config_of(
        {"it": TARGETS["class"] | {"loss": {"name": "focal", "class_weights": [0.0, 0.0, 1.0]}}}
    )
    splits = prepared_of(config)
    splits.train.labels["it"][splits.train.labels["it"] == 2] = -1
    with pytest.raises(
        ConfigError, match=r"^targets\.it\.loss\.class_weights: .*every class with training rows"
    ):
        build_criterion(config, splits)


def test_a_label_that_no_row_has_is_not_weighted() -> None:
    """Rows without it over rows with it is no number there, and 0, for one that all have, would end its learning: 1."""
    config = config_of({"it": TARGETS["multilabel"] | {"loss": {"name": "bce", "pos_weight": "balanced"}}})
    splits = prepared_of(config)
    splits.train.labels["it"][:, 1] = 0
    weight = build_criterion(config, splits).losses[0].pos_weight
    torch.testing.assert_close(weight, torch.tensor([7 / 3, 1.0], dtype=torch.float64))
    splits.train.labels["it"][:, 1] = 1
    weight = build_criterion(config, splits).losses[0].pos_weight
    torch.testing.assert_close(weight, torch.tensor([7 / 3, 1.0], dtype=torch.float64))


# Numbers in the user's unit


def test_a_regression_is_standardised_and_comes_back() -> None:
    """The loss of a model that says y is 0, and its head gives y, to the last digits; half a deviation off is
    0.25 of squared error whatever the unit."""
    config = config_of({"it": TARGETS["regression"]})
    splits = prepared_of(config)
    head = build_heads(config, splits)["it"]
    values = torch.from_numpy(splits.train.labels["it"][:11])
    outputs = ((values - MEAN) / STD).unsqueeze(1)
    torch.testing.assert_close(head.decode(outputs), values, rtol=1e-12, atol=1e-12)
    loss = build_criterion(config, splits).losses[0]
    assert float(loss(outputs, values)) == pytest.approx(0, abs=1e-24)
    assert float(loss(outputs + 0.5, values)) == pytest.approx(0.25, rel=1e-12)


# Cosine heads


def test_heads_of_ldam_give_scaled_cosines() -> None:
    """Only of the targets with this loss, alone or in a sum, each at its own scale; the others stay linear."""
    ldam = {"name": "ldam", "scale": 7.0}
    in_a_sum = {"name": "sum", "terms": [{"name": "focal"}, {"name": "ldam", "scale": 3.0}]}
    targets = {
        "one": TARGETS["class"] | {"loss": ldam},
        "other": TARGETS["class"] | {"loss": {"name": "focal"}},
        "two": TARGETS["class"] | {"loss": in_a_sum},
        "area": TARGETS["regression"],
    }
    config = config_of(targets)
    model = build_model(config, build_heads(config, prepared_of(config)))
    kinds = [type(head) for head in model.heads]
    assert kinds == [CosineLinear, nn.Linear, CosineLinear, nn.Linear]
    features = torch.randn(5, model.feature_count, generator=torch.Generator().manual_seed(1))
    outputs = model.eval()(features)
    for name, scale, head in (("one", 7.0, model.heads[0]), ("two", 3.0, model.heads[2])):
        assert isinstance(head, CosineLinear)
        cosines = F.cosine_similarity(features.unsqueeze(1), head.weight.unsqueeze(0), dim=2)
        torch.testing.assert_close(outputs[name], scale * cosines)
    torch.testing.assert_close(outputs["other"], model.heads[1](features))


def test_one_head_has_one_scale() -> None:
    """Two terms with scales of their own would each be given the other's cosines: refused; alike they are fine."""
    for other, refused in ((3.0, True), (7.0, False)):
        terms = [{"name": "ldam", "scale": 7.0}, {"name": "ldam", "scale": other, "max_margin": 0.2}]
        config = config_of({"it": TARGETS["class"]}, loss={"name": "sum", "terms": terms})
        if refused:
            with pytest.raises(ConfigError, match=r"^loss\.terms: found ldam with the scales \[3\.0, 7\.0\]"):
                check_conflicts(config)
        else:
            assert check_conflicts(config) == []


# Several targets


def test_soft_f1_is_refused_with_accumulation() -> None:
    """Alone, in a sum, from [loss] or from the target: by the key of the loss and that of the accumulation."""
    term = {"name": "sum", "terms": [{"name": "focal"}, {"name": "soft_f1"}]}
    for section in ({"name": "soft_f1"}, term):
        message = r"^targets\.it\.loss: soft F1 .* training\.accumulate: found 2, allowed: 1$"
        with pytest.raises(ConfigError, match=message):
            built("class", section, accumulate=2)
        assert not built("class", section).additive
        config = config_of({"it": TARGETS["class"]}, loss=section, training={"accumulate": 3})
        with pytest.raises(ConfigError, match=r"^loss: soft F1"):
            build_criterion(config, prepared_of(config))


def test_weights_between_targets() -> None:
    """targets.NAME.weight by target, in order; learned ones are a parameter beside them."""
    targets = {
        "a": TARGETS["class"] | {"weight": 0.5},
        "b": TARGETS["regression"],
        "c": TARGETS["multilabel"] | {"weight": 3.0},
    }
    config = config_of(targets)
    criterion = build_criterion(config, prepared_of(config))
    assert (criterion.names, criterion.weights) == (("a", "b", "c"), (0.5, 1.0, 3.0))
    assert criterion.log_variance is None
    config = config_of(targets, training={"target_weights": "uncertainty", "device": "cpu"})
    criterion = build_criterion(config, prepared_of(config))
    assert criterion.log_variance is not None
    assert criterion.weights == (0.5, 1.0, 3.0)


def test_learned_weights_are_trained_and_not_decayed() -> None:
    """They stand in the optimizer, at lr, in a group without weight decay: that of the heads' biases."""
    targets = {"a": TARGETS["class"], "b": TARGETS["regression"]}
    training = {"target_weights": "uncertainty", "device": "cpu", "precision": "fp32"}
    config = config_of(targets, training=training, optimizer={"weight_decay": 0.5, "backbone_lr_factor": 0.1})
    splits = prepared_of(config)
    criterion = build_criterion(config, splits)
    model = build_model(config, build_heads(config, splits))
    dataset = ImageDataset((), (8, 8), "squash", 100)
    data = TrainingData(Loader(dataset, {}, 4, 0), splits.train.samples.ids, None, "shuffle", 0, 1)
    state = build_state(config, model, criterion, data, torch.device("cpu"))
    groups = [
        g for g in state.optimizer.param_groups if any(p is criterion.log_variance for p in g["params"])
    ]
    assert [(g["weight_decay"], g["lr"]) for g in groups] == [(0.0, 1e-3)]
    biases = {id(head.bias) for head in model.heads}
    assert {id(p) for p in groups[0]["params"]} == {id(criterion.log_variance), *biases}


@pytest.mark.parametrize("name", ["madgrad", "rmsproptf", "adamw"])
def test_a_backbone_with_a_factor_of_0_stays_as_it_is(name: str) -> None:
    """Some optimizers move weights at a rate of 0; the heads still learn."""
    config = config_of(
        {"it": TARGETS["class"]},
        training={"device": "cpu", "precision": "fp32"},
        optimizer={"name": name, "lr": 0.1, "backbone_lr_factor": 0.0, "weight_decay": 0.1},
    )
    splits = prepared_of(config)
    criterion, model = build_criterion(config, splits), build_model(config, build_heads(config, splits))
    optimizer = optimizer_of(config, model, criterion)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    images = torch.randint(0, 256, (4, 3, *model.metadata.image_size), dtype=torch.uint8)
    for _ in range(3):
        optimizer.zero_grad()
        model(images)["it"].square().sum().backward()
        optimizer.step()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("heads.") for key in moved)


# Adjustment after training


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.5])
def test_adjustment_is_minus_tau_log_prior(tau: float) -> None:
    """Of the training rows' shares: 0.6, 0.3, 0.1, whatever validation holds."""
    config = config_of({"it": TARGETS["class"] | {"adjust": tau}})
    head = build_heads(config, prepared_of(config))["it"]
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = logits - tau * torch.tensor([math.log(share) for share in (0.6, 0.3, 0.1)], dtype=torch.float64)
    torch.testing.assert_close(head.decode(logits), wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(head.predicted(head.decode(logits)), wanted.argmax(dim=1))


def test_adjustment_moves_answers_towards_rare_classes() -> None:
    """The more, the more of them; an answer only ever moves to a rarer class, never to a more frequent one."""
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before, rare = None, -1
    for tau in (0.0, 0.5, 1.0, 2.0):
        config = config_of({"it": TARGETS["class"] | {"adjust": tau}})
        head = build_heads(config, prepared_of(config))["it"]
        labels = head.predicted(head.decode(logits))
        assert int((labels == 2).sum()) > rare  # c, the rarest
        rare = int((labels == 2).sum())
        assert before is None or bool((labels >= before).all())  # a, b, c are from frequent to rare
        before = labels


def test_adjustment_touches_nothing_else() -> None:
    """Other targets' heads, and the loss of the raw outputs, are what they are without it."""
    targets = {"it": TARGETS["class"], "other": TARGETS["class"], "size": TARGETS["ordinal"]}
    plain = config_of(targets)
    adjusted = config_of(targets | {"it": TARGETS["class"] | {"adjust": 1.0}})
    splits = prepared_of(plain)
    heads, others = build_heads(adjusted, splits), build_heads(plain, splits)
    assert heads["it"] != others["it"]
    assert {name: heads[name] for name in ("other", "size")} == {
        name: others[name] for name in ("other", "size")
    }
    rng = torch.Generator().manual_seed(0)
    outputs = {name: torch.randn(12, head.outputs, generator=rng) for name, head in heads.items()}
    labels = {name: torch.from_numpy(values) for name, values in splits.train.labels.items()}
    losses = [build_criterion(config, splits)(outputs, labels) for config in (plain, adjusted)]
    assert torch.equal(*losses)


def test_no_adjustment_is_none() -> None:
    """Left out or 0: the logits themselves."""
    for adjust in ({}, {"adjust": 0.0}):
        config = config_of({"it": TARGETS["class"] | adjust})
        logits = torch.randn(4, 3)
        assert build_heads(config, prepared_of(config))["it"].decode(logits) is logits
