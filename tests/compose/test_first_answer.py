"""The first answer: each head is where its own loss is least, and the cross-validation has seen no group twice."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from classwise.compose import features as features_module
from classwise.compose import first_answer as module
from classwise.compose.first_answer import (
    DEFAULT_PENALTY,
    FOLDS,
    FirstAnswer,
    fit_first_answer,
    set_heads,
    wants_first_answer,
)
from classwise.compose.losses import build_criterion
from classwise.config.load import make_config
from classwise.console import Console
from classwise.errors import Interrupted, NonFiniteError
from classwise.training.loop import never
from classwise.training.probe import PENALTIES, Standardizer
from tests.helpers.noisy_images import AREA, CPU, KIND, LEVEL, SIDE, TAGS, Scene
from tests.helpers.tiny_runs import copy_of, same

Build = Callable[..., Scene]
RANKED = {"column": "area", "type": "ranking", "query": "tags"}
EVERY = {"kind": KIND, "level": LEVEL, "tags": TAGS, "area": AREA}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept from another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fitted(s: Scene, should_stop: Callable[[], bool] = never) -> FirstAnswer:
    return fit_first_answer(
        s.config,
        s.splits,
        s.model,
        heads=s.heads,
        device=CPU,
        console=Console(quiet=True),
        should_stop=should_stop,
    )


def views_of(s: Scene, monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The views of each split that will be asked for, as they are computed."""
    seen: list[list[Tensor]] = []
    real = features_module.split_features

    def noted(*arguments: Any) -> list[Tensor]:
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(features_module, "split_features", noted)
    return seen


@pytest.mark.parametrize(
    "target", [*EVERY.values(), RANKED], ids=["class", "ordinal", "multilabel", "regression", "ranking"]
)
def test_each_head_is_where_its_loss_is_least(
    scene: Build, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any]
) -> None:
    """Of the target's own loss over all training rows and both views, with the penalty: for a target of each type, no
    optimizer finds anything that is lower by a thousandth of what the fit has gained."""
    metric = {"regression": "r2", "ranking": "ndcg"}.get(target.get("type", ""), "macro_f1")
    data = {"augment": "light"} | ({"valid": 0.5} if target is RANKED else {})  # four queries, never in both
    s = scene({"one": target}, data=data, selection={"metric": metric})
    seen = views_of(s, monkeypatch)
    monkeypatch.setattr(module, "CLEAR_LOSS", np.inf)  # mirrored images are taken, however good they are
    answer = fitted(s)
    views, (valid,) = seen
    assert len(views) == 2
    assert answer.rows == len(views[0])

    # Mirrored images are not in the queries of a ranking.
    views = views[:1] if target is RANKED else views
    assert answer.views == len(views)

    # The same head on standardized features, of which the penalty is.
    head, features = answer.heads["one"], torch.cat(views).double()
    standardize = Standardizer.of(features)
    inputs = standardize(features)
    weight = (head.weight * standardize.scale).requires_grad_()
    bias = (head.bias + head.weight.double() @ standardize.mean).requires_grad_()
    labels = torch.cat([labels_of(s)["one"]] * len(views))
    criterion = build_criterion(s.config, s.splits)

    def objective() -> Tensor:
        loss: Tensor = criterion({"one": inputs @ weight.T + bias}, {"one": labels})
        return loss + answer.penalties["one"] / 2 * weight.square().sum()

    def closure() -> float:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return float(value.detach())

    found = float(objective().detach())
    optimizer = torch.optim.LBFGS(
        [weight, bias], lr=0.5, max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-12
    )
    optimizer.step(closure)
    least = float(objective().detach())
    with torch.no_grad():
        weight.zero_()
        bias.zero_()
    at_zero = float(objective().detach())
    assert least <= found <= least + 1e-3 * (at_zero - least)
    assert torch.allclose(answer.outputs["one"], head(valid))


def labels_of(s: Scene) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in s.splits.train.labels.items()}


def test_several_targets_are_fitted_one_by_one(scene: Build) -> None:
    """What a target's head is does not depend on the others, nor on how they are weighed."""
    alone = fitted(scene({"kind": KIND}))
    both = {"kind": KIND | {"weight": 3.0}, "tags": TAGS}
    together = fitted(scene(both, selection={"metric": "kind.macro_f1"}))
    learned = fitted(
        scene(
            both,
            training={"target_weights": "uncertainty"},
            selection={"metric": "kind.macro_f1"},
        )
    )
    assert list(together.heads) == ["kind", "tags"]
    for name in together.heads:
        assert torch.equal(together.heads[name].weight, learned.heads[name].weight)
    assert alone.heads["kind"].weight.shape == together.heads["kind"].weight.shape


def test_class_weights_that_are_deferred_count(scene: Build) -> None:
    """The heads are those of the last epochs, not of the first."""
    weighted = {"name": "cross_entropy", "class_weights": "inverse"}
    plain = fitted(scene({"kind": KIND}))
    at_once = fitted(scene({"kind": KIND}, loss=weighted))
    deferred = fitted(scene({"kind": KIND}, loss=weighted | {"weights_from_epoch": 3}))
    assert torch.equal(at_once.heads["kind"].weight, deferred.heads["kind"].weight)
    assert not torch.allclose(at_once.heads["kind"].weight, plain.heads["kind"].weight, atol=1e-3)


def test_the_penalty_with_the_best_score_of_held_out_rows(
    scene: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its macro F1 is scikit-learn's, and the score of the cross-validation is that of all held-out rows at once."""
    s = scene({"kind": KIND})
    labels = s.splits.train.labels["kind"]
    real = module.held_out_outputs
    best: list[int] = []

    def better_at(*arguments: Any) -> Tensor:
        outputs = real(*arguments)
        for position in best:
            outputs[position, : len(labels) // 2] = 9 * torch.eye(3)[labels[: len(labels) // 2]]
        scores.append([f1_score(labels, raw.argmax(dim=1), average="macro") for raw in outputs])
        return outputs

    scores: list[list[float]] = []
    monkeypatch.setattr(module, "held_out_outputs", better_at)
    for best in ([], [2], [3], [1, 2]):
        answer = fitted(s)
        position = int(np.argmax(scores[-1]))
        assert position == (best or [position])[0]  # of equal ones the strongest penalty
        assert answer.penalties["kind"] == PENALTIES[position]
        assert answer.cross_validated == pytest.approx(scores[-1][position])


@pytest.mark.parametrize("is_mirrored", [True, False])
def test_mirrored_images_where_they_do_no_harm(
    scene: Build,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_mirrored: bool,
) -> None:
    """Images that get brighter to the right, and others that get brighter to the left, are told apart, which heads
    fitted to mirrored ones as well could not. With classes that are brighter above or below nothing is left out."""
    noise = np.random.default_rng(1)
    rows = []
    for number in range(80):
        slope = np.linspace(-60, 60, SIDE)[None, :, None] * (1 if number % 2 else -1)
        image = 128 + (slope if is_mirrored else slope.swapaxes(0, 1)) + noise.normal(0, 8, (SIDE, SIDE, 3))
        cv2.imwrite(str(tmp_path / f"slope{number}.png"), image.clip(0, 255).astype(np.uint8))
        rows.append({"path": f"slope{number}.png", "kind": "ab"[number % 2]})
    pl.DataFrame(rows[:60]).write_csv(tmp_path / "train.csv")
    pl.DataFrame(rows[60:]).write_csv(tmp_path / "valid.csv")
    s = scene(
        {"kind": KIND},
        data={"augment": "light"},
        model={"backbone": "small_cnn_gn", "image_size": [SIDE, SIDE]},
        training={"plan": "probe_then_finetune"},
    )
    held_out: list[tuple[int, Tensor]] = []
    real = module.held_out_outputs

    def noted(views: list[Tensor], *arguments: Any) -> Tensor:
        held_out.append((len(views), real(views, *arguments)))
        return held_out[-1][1]

    monkeypatch.setattr(module, "held_out_outputs", noted)
    answer = fit_first_answer(
        s.config, s.splits, s.model, heads=s.heads, device=CPU, console=Console(), should_stop=never
    )
    said = capsys.readouterr()
    said = " ".join((said.out + said.err).split())
    assert answer.views == (1 if is_mirrored else 2)
    assert ("mirrored images make the first answer worse (0." in said) == is_mirrored
    assert ("data.augment.flip = 0" in said) == is_mirrored
    assert answer.cross_validated is not None
    assert answer.cross_validated > 0.9

    # The score is that of the views that are fitted.
    (which,) = [outputs for outputs in held_out if outputs[0] == answer.views]
    position = PENALTIES.index(answer.penalties["kind"])
    truth = s.splits.train.labels["kind"]
    expected = f1_score(truth, which[1][position].argmax(dim=1), average="macro")
    assert answer.cross_validated == pytest.approx(expected)
    labels = torch.from_numpy(s.splits.valid.labels["kind"])
    assert f1_score(labels, answer.outputs["kind"].argmax(dim=1), average="macro") > 0.9


def test_no_group_is_in_two_folds(scene: Build) -> None:
    """Nor rows of one query; every row is in a fold, and all folds have rows of the frequent classes."""
    s = scene({"kind": KIND})
    rows = len(s.splits.train.samples)
    grouped = with_groups(s, [f"g{row // 3}" for row in range(rows)])
    folds = module._folds(grouped.splits, grouped.splits.train)
    assert folds is not None
    assert set(folds) == set(range(FOLDS))
    for group in range(-(-rows // 3)):
        assert len(set(folds[3 * group : 3 * group + 3])) == 1
    for fold in range(FOLDS):
        assert {0, 1} <= set(s.splits.train.labels["kind"][folds == fold])
    assert np.array_equal(folds, module._folds(grouped.splits, grouped.splits.train))


def with_groups(s: Scene, groups: list[str]) -> Scene:
    """The same scene with a group for each training row."""
    samples = dataclasses.replace(s.splits.train.samples, groups=tuple(groups))
    train = dataclasses.replace(s.splits.train, samples=samples)
    return s._replace(splits=dataclasses.replace(s.splits, train=train))


def test_too_few_groups_for_a_cross_validation(scene: Build) -> None:
    """Then there is no score of it, and the penalty is the one that is usually right."""
    s = scene({"kind": KIND})
    rows = len(s.splits.train.samples)
    answer = fitted(with_groups(s, [f"g{row % 5}" for row in range(rows)]))
    assert answer.cross_validated is None
    assert answer.penalties == {"kind": DEFAULT_PENALTY}
    assert answer.as_dict()["cross_validated"] is None
    assert fitted(with_groups(s, [f"g{row % 6}" for row in range(rows)])).cross_validated is not None


def test_combinations_of_labels_that_are_all_rare(scene: Build) -> None:
    """Of several targets every combination may have fewer rows than there are folds: the rows are then shared out as
    if there were one class."""
    s = scene({"kind": KIND})
    train = s.splits.train
    unique = np.arange(len(train.samples))
    target = dataclasses.replace(s.splits.targets[0], labels=tuple(map(str, unique)))
    splits = dataclasses.replace(
        s.splits, targets=(target,), train=dataclasses.replace(train, labels={"kind": unique})
    )
    folds = module._folds(splits, splits.train)
    assert folds is not None
    assert set(folds) == set(range(FOLDS))


def test_rows_without_a_label_count_for_the_other_targets_only(
    scene: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row without a kind has an area. The head of `kind` is where the cross entropy of its labeled rows is least."""
    s = scene({"kind": KIND, "area": AREA}, selection={"metric": "kind.macro_f1"})
    seen = views_of(s, monkeypatch)
    answer = fitted(s)
    labels = labels_of(s)["kind"]
    assert 0 < int((labels < 0).sum()) < len(labels) == answer.rows
    standardize = Standardizer.of(seen[0][0])
    head = answer.heads["kind"]
    weight = (head.weight * standardize.scale).requires_grad_()
    inputs = standardize(seen[0][0])[labels >= 0]
    outputs = inputs @ weight.T + head.bias + head.weight @ standardize.mean
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(outputs, labels[labels >= 0]), [weight])
    assert torch.allclose(slope, -answer.penalties["kind"] * weight.detach(), atol=2e-4)

    # With a single target they are not among the rows at all.
    alone = scene({"kind": KIND})
    assert fitted(alone).rows == len(alone.splits.train.samples) < len(labels)


def test_some_rows_only_where_time_is_short(scene: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows of rare classes are among them, where the loss balances the classes; what is kept of their features is
    told apart by all images."""
    monkeypatch.setattr(module, "WORK", 1.0)
    monkeypatch.setattr("classwise.compose.linear_probe._MIN_ROWS", 8)
    s = scene({"kind": KIND}, loss={"name": "balanced_softmax"})
    seen: list[Any] = []
    real = features_module.split_features

    def noted(split: Any, *arguments: Any) -> list[Tensor]:
        seen.append(split)
        return real(split, *arguments)

    monkeypatch.setattr(features_module, "split_features", noted)
    answer = fitted(s)
    counts = np.bincount(s.splits.train.labels["kind"])
    kept = np.bincount(seen[0].labels["kind"])
    assert answer.rows == kept.sum() < counts.sum()
    assert kept[2] == counts[2]
    assert seen[0].images_digest == s.splits.train.images_digest != ""
    assert len(seen[0].samples) == answer.rows


def test_left_out_rows_change_no_class_shares(scene: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that learns the shares gets rows of every class in proportion; one that balances them knows the counts of
    the rows that it gets."""
    monkeypatch.setattr(module, "WORK", 1.0)
    monkeypatch.setattr("classwise.compose.linear_probe._MIN_ROWS", 8)
    for loss in ("cross_entropy", "balanced_softmax"):
        s = scene({"kind": KIND}, loss={"name": loss})
        counted: list[Any] = []
        real = module.build_criterion

        def noted(config: Any, splits: Any, counted: list[Any] = counted, real: Any = real) -> Any:
            counted.append(np.bincount(splits.train.labels["kind"], minlength=3))
            return real(config, splits)

        monkeypatch.setattr(module, "build_criterion", noted)
        answer = fitted(s)
        monkeypatch.setattr(module, "build_criterion", real)
        whole = np.bincount(s.splits.train.labels["kind"], minlength=3)
        assert counted[0].sum() == answer.rows < whole.sum()
        difference = np.abs(counted[0] / counted[0].sum() - whole / whole.sum()).max()
        assert (difference < 0.06) == (loss == "cross_entropy")


def test_the_model_keeps_its_weights(scene: Build) -> None:
    """Only `set_heads` changes heads, and nothing else; then the model gives the outputs of the answer."""
    s = scene(EVERY, selection={"metric": "kind.macro_f1"})
    before = copy_of(s.model)
    answer = fitted(s)
    assert same(copy_of(s.model), before)
    set_heads(s.model, answer.heads)
    after = copy_of(s.model)
    assert {key for key in after if not torch.equal(after[key], before[key])} == {
        f"heads.{number}.{part}" for number in range(4) for part in ("weight", "bias")
    }
    images = np.stack([image.reshape(12, 12, 3) for image in (s.pixels[1] * 255).round().astype(np.uint8)])
    with torch.no_grad():
        outputs = s.model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    for name, raw in outputs.items():
        assert torch.allclose(raw, answer.outputs[name].float(), atol=1e-3), name


def test_the_same_bytes_twice(scene: Build) -> None:
    """Heads and scores, from features that were computed or kept."""
    s = scene({"kind": KIND, "area": AREA}, selection={"metric": "kind.macro_f1"})
    state = torch.get_rng_state()
    first, second = fitted(s), fitted(s)
    assert first.as_dict() == second.as_dict()
    for name in first.heads:
        assert torch.equal(first.heads[name].weight, second.heads[name].weight)
        assert torch.equal(first.heads[name].bias, second.heads[name].bias)
    assert torch.equal(torch.get_rng_state(), state)


def test_features_that_are_not_finite(scene: Build) -> None:
    """Say which backbone gives them."""
    s = scene({"kind": KIND})
    with torch.no_grad():
        next(iter(s.model.backbone.parameters())).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"features of some training rows are not finite: small_cnn"):
        fitted(s)


def test_a_stop_while_features_are_computed(scene: Build) -> None:
    """Nothing of the model has changed then."""
    s = scene({"kind": KIND})
    before = copy_of(s.model)
    with pytest.raises(Interrupted):
        fitted(s, should_stop=lambda: True)
    assert same(copy_of(s.model), before)


@pytest.mark.parametrize("plan", ["probe", "probe_then_finetune", "finetune"])
def test_which_plans_begin_with_it(plan: str) -> None:
    """The two with `probe` in their name."""
    values = {"data": {"source": "t.csv"}, "targets": {"label": {"column": "label"}}}
    config = make_config(values | {"training": {"plan": plan}})
    assert wants_first_answer(config) == ("probe" in plan)
