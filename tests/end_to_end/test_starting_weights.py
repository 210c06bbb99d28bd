"""A run that starts from an earlier one, and weights of other programs: what is taken, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from classwise.model.classifier import build_classifier
from classwise.run.api import Run
from classwise.run.checkpoint import read_checkpoint
from tests.helpers.refusals import refused, says
from tests.helpers.scenes import (
    MANY,
    PLAIN,
    Result,
    class_folder,
    command,
    draw,
    many_table,
    plain_table,
    write_config,
    write_csv,
)

STILL: dict[str, Any] = {
    "optimizer": {"name": "sgd", "lr": 1e-30, "weight_decay": 0.0},
    "training__epochs": 1,
    "training__ema": 0.999999,
    "report__resamples": 0,
    "report__baselines": False,
}
"""Training that moves nothing: the average of the weights is evaluated, and stays where it began."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of a and b, and a run `first` on them."""
    folder = tmp_path_factory.mktemp("starting")
    plain_table(folder)
    config = write_config(folder, training__epochs=2, report__resamples=0, report__baselines=False)
    command("train", config, "--run", folder / "first").ok()
    return folder


def train(folder: Path, run: str, weights: str, values: dict[str, Any] = PLAIN, **changes: Any) -> Result:
    config = write_config(folder, values, model__weights=weights, **{**STILL, **changes})
    return command("train", config, "--run", folder / run)


def tensors(run: Path, checkpoint: str = "best") -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / checkpoint).model


def test_the_same_labels_go_on_where_the_run_ended(folder: Path) -> None:
    """Backbone and head are the run's best, named by its folder relative to the config, and this is said."""
    result = train(folder, "same", "first").ok()
    says(
        result.err,
        f"the backbone goes on from the best weights of {folder / 'first'}",
        "label: the head goes on from the run's for 2 of 2 labels",
    )
    before, after = tensors(folder / "first"), tensors(folder / "same")
    for key in ("heads.0.weight", "heads.0.bias", "backbone.stem.conv.weight"):
        torch.testing.assert_close(after[key], before[key], rtol=1e-5, atol=1e-6)


def test_labels_are_matched_by_name(folder: Path, tmp_path: Path) -> None:
    """Known labels keep their rows of the head wherever they stand, a new one starts at random."""
    rows = [[f"images/{row:02}.png", ("z", "b", "a")[row % 3]] for row in range(24)]
    for number, (path, label) in enumerate(rows):
        draw(tmp_path / path, "zba".index(label), number)
    write_csv(tmp_path / "samples.csv", ("path", "label"), rows)
    # The validation rows may move the statistics of batch norm, but not a head.
    targets = {"label": {"column": "label", "labels": ["z", "b", "a"]}}
    result = train(tmp_path, "run", str(folder / "first"), targets=targets)
    says(
        result.ok().err, "label: the head goes on from the run's for 2 of 3 labels; it starts at random for z"
    )
    before, after = tensors(folder / "first")["heads.0.weight"], tensors(tmp_path / "run")["heads.0.weight"]
    torch.testing.assert_close(after[[2, 1]], before, rtol=1e-5, atol=1e-6)
    assert not torch.isclose(after[0], before, atol=1e-3).all()


def test_other_targets_start_at_random(folder: Path, tmp_path: Path) -> None:
    """Other labels, another name and another type of target: each with its reason."""
    many_table(tmp_path)
    values = {
        **MANY,
        "targets": {"label": {"column": "label"}, "level": {"column": "level", "type": "ordinal"}},
    }
    targets = {"label": {"column": "relevance"}, "level": {"column": "level"}}
    options = {"selection__metric": "label.macro_f1", "data__unlabeled": "skip", "training__freeze_epochs": 0}
    options["loss"] = {"name": "cross_entropy"}
    result = train(tmp_path, "run", str(folder / "first"), values, targets=targets, **options)
    says(
        result.ok().err,
        "label: the head starts at random, since the run has other labels (a, b)",
        f"level: the head starts at random, since {folder / 'first'} has no target of that name",
    )


def test_every_type_of_head_goes_on(tmp_path: Path) -> None:
    """Class, ordinal, multilabel and regression: the new run begins with the predictions of the old one, a number in
    its unit whatever the mean of the training rows is now."""
    many_table(tmp_path)
    options = {
        "training__freeze_epochs": 0,
        "selection__metric": "size.mae",
        "loss": {"name": "cross_entropy"},
    }
    command("train", write_config(tmp_path, MANY, **options), "--run", tmp_path / "first").ok()
    frozen = {**options, "training__batch_norm": "frozen", "seed": 7}
    result = train(tmp_path, "second", "first", MANY, **frozen).ok()
    assert result.err.count("the head goes on from the run's") == 4
    old, new = (Run.open(tmp_path / run).predict(tmp_path / "samples.csv") for run in ("first", "second"))
    assert old["size"].to_list() == pytest.approx(new["size"].to_list(), rel=1e-3, abs=1e-3)
    for name in ("label_p_a", "level_p_2", "tags_p_x"):
        assert old[name].to_list() == pytest.approx(new[name].to_list(), abs=1e-4)


def test_a_plan_fits_what_is_not_kept(folder: Path) -> None:
    """With a plan of two stages the first answer is the run itself where all labels are the run's; else its head is
    fitted."""
    result = train(folder, "planned", "first", training__plan="probe_then_finetune", training__ema=None).ok()
    says(result.err, "label: the head goes on from the run's for 2 of 2 labels", "first answer after")
    before = tensors(folder / "first")
    torch.testing.assert_close(
        tensors(folder / "planned", "first")["heads.0.weight"], before["heads.0.weight"]
    )
    assert json.loads((folder / "planned/status.json").read_text())["kept_heads"] == ["label"]

    class_folder(folder / "three", {"a": 8, "b": 8, "c": 8})
    options = {"data__source": "three", "training__plan": "probe_then_finetune", "training__ema": None}
    result = train(folder, "fitted", "first", **options).ok()
    says(result.err, "label: the head is fitted anew, since the run does not have c")


def test_what_no_run_can_start_from(folder: Path) -> None:
    """No run, a damaged one, another backbone, a file of torch's; each with what is allowed."""

    def message(weights: str, **changes: Any) -> str:
        config = write_config(folder, model__weights=weights, **{**STILL, **changes})
        return refused(folder, "train", config, "--run", folder / "never", "--quiet")

    says(
        message("runs/none"),
        "model.weights: ",
        "is not a run whose weights can be used",
        "allowed: a run's folder",
    )
    says(message("pretrainde"), "model.weights: pretrainde is not a run")
    says(
        message("first", model__backbone="small_cnn_gn"),
        "backbone 'small_cnn', but model.backbone is 'small_cnn_gn'",
    )
    says(message("some.pth"), "convert it once: classwise convert", "some.pth --backbone NAME")


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda tensors: tensors, ""),
        (lambda tensors: {"state_dict": tensors, "epoch": 3, "optimizer": {"lr": torch.ones(1)}}, "module."),
        (lambda tensors: {"model": {"net": tensors}}, "module.backbone."),
        (lambda tensors: {"model": tensors, "mean": torch.zeros(3)}, "_orig_mod.model."),
    ],
    ids=["plain", "data parallel", "nested", "compiled"],
)
def test_weights_of_other_programs(wrap: Any, prefix: str, tmp_path: Path) -> None:
    """Wherever the state dict stands and whatever stands before its names: converted once, then used as any file."""
    plain_table(tmp_path)
    model = build_classifier("small_cnn", "none", (16, 16), "squash", 0.0, {"it": 3}, seed=5)
    found = {prefix + key: tensor for key, tensor in model.backbone.state_dict().items()}
    torch.save(wrap({**found, "fc.weight": torch.ones(2, 3)}), tmp_path / "theirs.pth")
    converted = command(
        "convert", tmp_path / "theirs.pth", "--backbone", "small_cnn", "--image-size", 16, 16
    ).ok()
    assert converted.path == tmp_path / "theirs.safetensors"
    says(converted.err, "tensors of small_cnn", "1 others are left out, such as 'fc.weight'")
    train(tmp_path, "run", "theirs.safetensors", training__plan="finetune").ok()
    expected = model.backbone.state_dict()["stem.conv.weight"]
    torch.testing.assert_close(
        tensors(tmp_path / "run")["backbone.stem.conv.weight"], expected, rtol=1e-5, atol=1e-6
    )


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    """A whole module, whose code would have to be run; no state dict; another backbone; a file that is there."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    says(
        refused(tmp_path, "convert", tmp_path / "module.pth"),
        "holds more than tensors",
        "save model.state_dict()",
    )
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    says(refused(tmp_path, "convert", tmp_path / "empty.pt"), "found no tensors by name, but epoch")
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "other.pth")
    message = refused(tmp_path, "convert", tmp_path / "other.pth", "--backbone", "small_cnn")
    says(message, "0 of the", "tensors of small_cnn", "'a.weight'")
    (tmp_path / "text.pth").write_text("no weights")
    says(refused(tmp_path, "convert", tmp_path / "text.pth"), "text.pth")
    (tmp_path / "other.safetensors").write_text("kept")
    says(refused(tmp_path, "convert", tmp_path / "other.pth"), "exists already")
    alone = command("convert", tmp_path / "other.pth", "--force").ok()
    says(alone.err, "not compared with a backbone")
